//! The types of JSON columns: inferred from the first objects, or taken from an Arrow schema.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields};

use super::value::{Json, lines, object};
use crate::chunk::Chunker;
use crate::column;
use crate::error::ReadError;
use crate::scalar::Kind;

/// The type of a JSON value. `Empty`: only nulls (or empty lists) were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Empty,
    Scalar(Kind),
    List(Box<Shape>),
    Struct(Vec<(String, Shape)>),
}

impl Shape {
    pub fn arrow(&self) -> DataType {
        match self {
            Shape::Empty => DataType::Utf8View,
            Shape::Scalar(kind) => column::arrow_type(*kind),
            Shape::List(inner) => DataType::List(item(inner)),
            Shape::Struct(fields) => DataType::Struct(arrow_fields(fields)),
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Shape::Empty => "str".to_owned(),
            Shape::Scalar(kind) => kind.name().to_owned(),
            Shape::List(inner) => format!("list of {}", inner.name()),
            Shape::Struct(_) => "object".to_owned(),
        }
    }

    /// Widen to hold `value` too. Of kinds that do not go together the first one seen stays: the other is a reject.
    fn widen(&mut self, value: &Json<'_>) {
        match (&mut *self, value) {
            (_, Json::Null) => {}
            (Shape::Empty, Json::Array(_)) => {
                *self = Shape::List(Box::new(Shape::Empty));
                self.widen(value);
            }
            (Shape::Empty, Json::Object(_)) => {
                *self = Shape::Struct(Vec::new());
                self.widen(value);
            }
            (Shape::Empty, scalar) => *self = Shape::Scalar(scalar.kind()),
            (Shape::List(inner), Json::Array(items)) => {
                items.iter().for_each(|item| inner.widen(item))
            }
            (Shape::Struct(fields), Json::Object(items)) => {
                for (key, value) in items {
                    match fields.iter_mut().find(|(name, _)| name == key) {
                        Some((_, shape)) => shape.widen(value),
                        None => {
                            let mut shape = Shape::Empty;
                            shape.widen(value);
                            fields.push((key.to_string(), shape));
                        }
                    }
                }
            }
            (Shape::Scalar(kind), Json::Float(_)) if matches!(kind, Kind::Int | Kind::UInt) => {
                *kind = Kind::Float
            }
            (Shape::Scalar(kind @ Kind::Int), Json::UInt(_)) => *kind = Kind::UInt,
            (Shape::Scalar(kind @ Kind::UInt), Json::Int(v)) if *v < 0 => *kind = Kind::Float,
            _ => {}
        }
    }
}

pub(super) fn item(inner: &Shape) -> Arc<Field> {
    Arc::new(Field::new("item", inner.arrow(), true))
}

pub(super) fn arrow_fields(fields: &[(String, Shape)]) -> Fields {
    fields
        .iter()
        .map(|(name, shape)| Field::new(name, shape.arrow(), true))
        .collect()
}

/// Columns and shapes of the first `rows` objects; what is no object is passed over.
pub fn sample(chunker: &mut Chunker, rows: usize) -> Result<Vec<(String, Shape)>, ReadError> {
    let mut whole = Shape::Struct(Vec::new());
    let mut left = rows;
    while left > 0 {
        let Some(chunk) = chunker.next_chunk()? else {
            break;
        };
        for (raw, _) in lines(&chunk).take(left) {
            if let Ok(items) = object(raw) {
                whole.widen(&Json::Object(items));
            }
            left -= 1;
        }
    }
    let Shape::Struct(fields) = whole else {
        return Ok(Vec::new());
    };
    Ok(fields)
}

/// The shape that an Arrow type stands for; the error names a type that JSON is not read into.
pub fn shape_of(type_: &DataType) -> Result<Shape, String> {
    let scalar = |kind| Ok(Shape::Scalar(kind));
    match type_ {
        DataType::Int64 => scalar(Kind::Int),
        DataType::UInt64 => scalar(Kind::UInt),
        DataType::Float64 => scalar(Kind::Float),
        DataType::Boolean => scalar(Kind::Bool),
        DataType::Date32 => scalar(Kind::Date),
        DataType::Timestamp(..) => scalar(Kind::Timestamp),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => scalar(Kind::Str),
        DataType::List(inner) | DataType::LargeList(inner) => {
            Ok(Shape::List(Box::new(shape_of(inner.data_type())?)))
        }
        DataType::Struct(fields) => {
            let parts = fields
                .iter()
                .map(|f| Ok((f.name().clone(), shape_of(f.data_type())?)));
            Ok(Shape::Struct(parts.collect::<Result<_, String>>()?))
        }
        other => Err(format!("JSON is not read into columns of type {other}")),
    }
}
