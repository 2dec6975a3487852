//! Columns of JSON: the scalar ones of every format, and lists and structs of them.

use std::sync::Arc;

use arrow_array::{ArrayRef, ListArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{Field, Fields};

use super::shape::{Shape, arrow_fields, item};
use super::value::Json;
use crate::column::{self, Value};
use crate::scalar::Kind;

/// Builds one column; it is given only values that fit.
pub(super) enum Column {
    Scalar(column::Column),
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
    pub(super) fn new(shape: &Shape) -> Self {
        match shape {
            Shape::Empty => Column::Scalar(column::Column::new(Kind::Str)),
            Shape::Scalar(kind) => Column::Scalar(column::Column::new(*kind)),
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

    pub(super) fn push(&mut self, value: Json<'_>) {
        match (self, value) {
            (Column::Scalar(column), value) => column.push(value.scalar()),
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
            Column::Scalar(column) => column.push(Value::Null),
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

    pub(super) fn finish(self) -> ArrayRef {
        match self {
            Column::Scalar(column) => column.finish(),
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
