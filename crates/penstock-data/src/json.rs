//! JSON lines to Arrow: one object a line, nested lists and structs, a missing key is null.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, ListArray,
    StringViewBuilder, StructArray, TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::chunk::{Chunk, Chunker};
use crate::csv::arrow_type;
use crate::error::{OnError, ReadError, Reject};
use crate::reader::{Format, Parsed};
use crate::scalar::{self, Kind};

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
            Shape::Scalar(kind) => arrow_type(*kind),
            Shape::List(inner) => DataType::List(item(inner)),
            Shape::Struct(fields) => DataType::Struct(arrow_fields(fields)),
        }
    }

    fn name(&self) -> String {
        match self {
            Shape::Empty => "str".to_owned(),
            Shape::Scalar(kind) => kind.name().to_owned(),
            Shape::List(inner) => format!("list of {}", inner.name()),
            Shape::Struct(_) => "object".to_owned(),
        }
    }

    /// Widen to hold `value` too. Of kinds that do not go together the first one seen stays: the other is a reject.
    pub fn widen(&mut self, value: &Json<'_>) {
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

fn item(inner: &Shape) -> Arc<Field> {
    Arc::new(Field::new("item", inner.arrow(), true))
}

fn arrow_fields(fields: &[(String, Shape)]) -> Fields {
    fields
        .iter()
        .map(|(name, shape)| Field::new(name, shape.arrow(), true))
        .collect()
}

/// A parsed value that borrows its strings where they have no escapes.
#[derive(Clone, Debug)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Beyond i64.
    UInt(u64),
    Float(f64),
    Str(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl Json<'_> {
    fn kind(&self) -> Kind {
        match self {
            Json::Bool(_) => Kind::Bool,
            Json::Int(_) => Kind::Int,
            Json::UInt(_) => Kind::UInt,
            Json::Float(_) => Kind::Float,
            _ => Kind::Str,
        }
    }

    fn describe(&self) -> String {
        match self {
            Json::Null => "null".to_owned(),
            Json::Bool(v) => v.to_string(),
            Json::Int(v) => v.to_string(),
            Json::UInt(v) => v.to_string(),
            Json::Float(v) => v.to_string(),
            Json::Str(v) => format!("\"{}\"", v.chars().take(60).collect::<String>()),
            Json::Array(_) => "a list".to_owned(),
            Json::Object(_) => "an object".to_owned(),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Json<'de>, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Json<'de>, E> {
                Ok(Json::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Json<'de>, E> {
                Ok(Json::Int(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Json<'de>, E> {
                Ok(i64::try_from(v).map_or(Json::UInt(v), Json::Int))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Json<'de>, E> {
                Ok(Json::Float(v))
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Json<'de>, E> {
                Ok(Json::Str(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Json<'de>, E> {
                Ok(Json::Str(Cow::Owned(v.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Json::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(Json::Str(key)) = map.next_key()? {
                    items.push((key, map.next_value()?));
                }
                Ok(Json::Object(items))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Columns of JSON lines, and what is wanted of them.
#[derive(Clone, Debug)]
pub struct JsonFormat {
    pub columns: Vec<(String, Shape)>,
    pub wanted: Vec<bool>,
    pub on_error: OnError,
}

impl JsonFormat {
    fn schema(&self) -> Arc<Schema> {
        let wanted: Vec<_> = self
            .columns
            .iter()
            .zip(&self.wanted)
            .filter(|(_, w)| **w)
            .map(|(column, _)| column.clone())
            .collect();
        Arc::new(Schema::new(arrow_fields(&wanted)))
    }
}

impl Format for JsonFormat {
    type Context = ();

    fn begin(&self, _first: &mut Chunk) -> Result<(), ReadError> {
        Ok(())
    }

    fn parse(&self, chunk: &Chunk, (): &()) -> Result<Parsed, ReadError> {
        let mut columns: Vec<Option<Column>> = self
            .columns
            .iter()
            .zip(&self.wanted)
            .map(|((_, shape), w)| w.then(|| Column::new(shape)))
            .collect();
        let (mut rejects, mut rows) = (Vec::new(), 0);
        for (raw, line) in lines(chunk) {
            let mut row = vec![Json::Null; self.columns.len()];
            let mut bad: Option<(String, String)> = None;
            let kept = match object(raw) {
                Err(reason) => {
                    bad = Some((String::new(), reason));
                    false
                }
                Ok(items) => {
                    for (key, value) in items {
                        let Some(at) = self.columns.iter().position(|(name, _)| *name == key)
                        else {
                            continue;
                        };
                        let mut path = key.into_owned();
                        match fit(value, &self.columns[at].1, &mut path) {
                            Ok(value) => row[at] = value,
                            Err(reason) => {
                                row[at] = Json::Null;
                                bad.get_or_insert((path, reason));
                            }
                        }
                    }
                    true
                }
            };
            if let Some((column, reason)) = bad {
                let reject = Reject::new(line, &column, reason, raw);
                if self.on_error == OnError::Fail {
                    return Err(ReadError::Bad {
                        file: chunk.file,
                        reject,
                    });
                }
                rejects.push(reject);
                if !kept || self.on_error == OnError::Drop {
                    continue;
                }
            }
            rows += 1;
            for (column, value) in columns.iter_mut().zip(row) {
                if let Some(column) = column {
                    column.push(value);
                }
            }
        }
        let arrays = columns.into_iter().flatten().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema(), arrays, &options).map_err(
            |error| ReadError::Damaged {
                file: chunk.file,
                reason: error.to_string(),
            },
        )?;
        Ok(Parsed {
            file: chunk.file,
            batch,
            rejects,
        })
    }
}

/// The non-blank lines of a chunk with their numbers.
pub fn lines(chunk: &Chunk) -> impl Iterator<Item = (&[u8], u64)> {
    chunk
        .data
        .split(|&b| b == b'\n')
        .zip(chunk.line..)
        .map(|(raw, line)| (raw.strip_suffix(b"\r").unwrap_or(raw), line))
        .filter(|(raw, _)| !raw.iter().all(u8::is_ascii_whitespace))
}

type Items<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

fn object(raw: &[u8]) -> Result<Items<'_>, String> {
    let text = std::str::from_utf8(raw)
        .map_err(|_| "the line is not valid in the file's encoding".to_owned())?;
    match serde_json::from_str(text) {
        Ok(Json::Object(items)) => Ok(items),
        Ok(Json::Array(_)) => {
            Err("a JSON list, not an object: each line must hold one object".to_owned())
        }
        Ok(other) => Err(format!("{}, not an object", other.describe())),
        Err(_) if matches!(text.trim(), "[" | "{" | "]" | "}" | "},") => {
            Err("half a JSON value: each line must hold one whole object".to_owned())
        }
        Err(error) => Err(format!(
            "not JSON: {}",
            error.to_string().replace("line 1 column", "character")
        )),
    }
}

/// Make `value` fit `shape`, or say why it cannot; `path` then names the part at fault.
fn fit<'a>(value: Json<'a>, shape: &Shape, path: &mut String) -> Result<Json<'a>, String> {
    let kind = match (shape, value) {
        (_, Json::Null) => return Ok(Json::Null),
        (Shape::Struct(fields), Json::Object(items)) => {
            let mut row = vec![(Cow::Borrowed(""), Json::Null); fields.len()];
            for (key, value) in items {
                if let Some(at) = fields.iter().position(|(name, _)| *name == key) {
                    let length = path.len();
                    path.push('.');
                    path.push_str(&key);
                    row[at].1 = fit(value, &fields[at].1, path)?;
                    path.truncate(length);
                }
            }
            return Ok(Json::Object(row));
        }
        (Shape::List(inner), Json::Array(items)) => {
            return items
                .into_iter()
                .map(|item| fit(item, inner, path))
                .collect::<Result<_, _>>()
                .map(Json::Array);
        }
        (Shape::Scalar(kind), value) if !matches!(value, Json::Array(_) | Json::Object(_)) => {
            (*kind, value)
        }
        (Shape::Empty, value @ Json::Str(_)) => return Ok(value),
        (shape, value) => {
            return Err(format!(
                "{} is not of type {}",
                value.describe(),
                shape.name()
            ));
        }
    };
    let (kind, value) = kind;
    let said = value.describe();
    let fitted = match (kind, value) {
        (Kind::Int | Kind::Timestamp, Json::Int(v)) => Some(Json::Int(v)),
        (Kind::UInt, Json::Int(v)) => u64::try_from(v).ok().map(Json::UInt),
        (Kind::UInt, Json::UInt(v)) => Some(Json::UInt(v)),
        (Kind::Int, Json::Float(v)) if v.fract() == 0.0 && v.abs() < 9e15 => {
            Some(Json::Int(v as i64))
        }
        (Kind::Float, Json::Int(v)) => Some(Json::Float(v as f64)),
        (Kind::Float, Json::UInt(v)) => Some(Json::Float(v as f64)),
        (Kind::Float, Json::Float(v)) => Some(Json::Float(v)),
        (Kind::Float, Json::Str(v)) => named_float(&v).map(Json::Float),
        (Kind::Bool, Json::Bool(v)) => Some(Json::Bool(v)),
        (Kind::Bool, Json::Int(v @ (0 | 1))) => Some(Json::Bool(v == 1)),
        (Kind::Date, Json::Str(v)) => scalar::date(v.as_bytes()).map(|days| Json::Int(days.into())),
        (Kind::Timestamp, Json::Str(v)) => scalar::timestamp(v.as_bytes()).map(Json::Int),
        (Kind::Str, Json::Str(v)) => Some(Json::Str(v)),
        (Kind::Str, Json::Bool(_) | Json::Int(_) | Json::UInt(_) | Json::Float(_)) => {
            Some(Json::Str(said.clone().into()))
        }
        _ => None,
    };
    fitted.ok_or_else(|| format!("{said} is not of type {}", kind.name()))
}

/// What JSON has no number for, as other programs spell it.
fn named_float(text: &str) -> Option<f64> {
    match text {
        "NaN" | "nan" => Some(f64::NAN),
        "Infinity" | "inf" => Some(f64::INFINITY),
        "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Builds one column; it is given only values that fit.
enum Column {
    Int(Int64Builder),
    UInt(UInt64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Str(StringViewBuilder),
    List {
        field: Arc<Field>,
        lengths: Vec<usize>,
        valid: Vec<bool>,
        items: Box<Column>,
    },
    Struct {
        fields: Fields,
        valid: Vec<bool>,
        parts: Vec<Column>,
    },
}

impl Column {
    fn new(shape: &Shape) -> Self {
        match shape {
            Shape::Empty | Shape::Scalar(Kind::Str) => Column::Str(StringViewBuilder::new()),
            Shape::Scalar(Kind::Int) => Column::Int(Int64Builder::new()),
            Shape::Scalar(Kind::UInt) => Column::UInt(UInt64Builder::new()),
            Shape::Scalar(Kind::Float) => Column::Float(Float64Builder::new()),
            Shape::Scalar(Kind::Bool) => Column::Bool(BooleanBuilder::new()),
            Shape::Scalar(Kind::Date) => Column::Date(Date32Builder::new()),
            Shape::Scalar(Kind::Timestamp) => Column::Timestamp(TimestampMicrosecondBuilder::new()),
            Shape::List(inner) => Column::List {
                field: item(inner),
                lengths: Vec::new(),
                valid: Vec::new(),
                items: Box::new(Column::new(inner)),
            },
            Shape::Struct(fields) => Column::Struct {
                fields: arrow_fields(fields),
                valid: Vec::new(),
                parts: fields.iter().map(|(_, shape)| Column::new(shape)).collect(),
            },
        }
    }

    fn push(&mut self, value: Json<'_>) {
        match (self, value) {
            (Column::Int(b), Json::Int(v)) => b.append_value(v),
            (Column::UInt(b), Json::UInt(v)) => b.append_value(v),
            (Column::Float(b), Json::Float(v)) => b.append_value(v),
            (Column::Bool(b), Json::Bool(v)) => b.append_value(v),
            (Column::Date(b), Json::Int(v)) => b.append_option(i32::try_from(v).ok()),
            (Column::Timestamp(b), Json::Int(v)) => b.append_value(v),
            (Column::Str(b), Json::Str(v)) => b.append_value(v),
            (
                Column::List {
                    lengths,
                    valid,
                    items,
                    ..
                },
                Json::Array(values),
            ) => {
                lengths.push(values.len());
                valid.push(true);
                values.into_iter().for_each(|value| items.push(value));
            }
            (Column::Struct { valid, parts, .. }, Json::Object(values)) => {
                valid.push(true);
                parts
                    .iter_mut()
                    .zip(values)
                    .for_each(|(part, (_, value))| part.push(value));
            }
            (column, _) => column.push_null(),
        }
    }

    fn push_null(&mut self) {
        match self {
            Column::Int(b) => b.append_null(),
            Column::UInt(b) => b.append_null(),
            Column::Float(b) => b.append_null(),
            Column::Bool(b) => b.append_null(),
            Column::Date(b) => b.append_null(),
            Column::Timestamp(b) => b.append_null(),
            Column::Str(b) => b.append_null(),
            Column::List { lengths, valid, .. } => {
                lengths.push(0);
                valid.push(false);
            }
            Column::Struct { valid, parts, .. } => {
                valid.push(false);
                parts.iter_mut().for_each(Column::push_null);
            }
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Column::Int(mut b) => Arc::new(b.finish()),
            Column::UInt(mut b) => Arc::new(b.finish()),
            Column::Float(mut b) => Arc::new(b.finish()),
            Column::Bool(mut b) => Arc::new(b.finish()),
            Column::Date(mut b) => Arc::new(b.finish()),
            Column::Timestamp(mut b) => Arc::new(b.finish()),
            Column::Str(mut b) => Arc::new(b.finish()),
            Column::List {
                field,
                lengths,
                valid,
                items,
            } => {
                let offsets = OffsetBuffer::from_lengths(lengths);
                Arc::new(ListArray::new(
                    field,
                    offsets,
                    items.finish(),
                    Some(NullBuffer::from(valid)),
                ))
            }
            Column::Struct {
                fields,
                valid,
                parts,
            } => {
                let arrays: Vec<ArrayRef> = parts.into_iter().map(Column::finish).collect();
                let nulls = Some(NullBuffer::from(valid));
                if arrays.is_empty() {
                    let rows = nulls.as_ref().map_or(0, NullBuffer::len);
                    return Arc::new(StructArray::new_empty_fields(rows, nulls));
                }
                Arc::new(StructArray::new(fields, arrays, nulls))
            }
        }
    }
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
