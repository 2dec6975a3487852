//! Columns of scalars: the Arrow type of each kind, and the builder that parsed values are appended to.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, StringViewBuilder,
    TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow_schema::{DataType, TimeUnit};

use crate::scalar::Kind;

pub(crate) fn arrow_type(kind: Kind) -> DataType {
    match kind {
        Kind::Int => DataType::Int64,
        Kind::UInt => DataType::UInt64,
        Kind::Float => DataType::Float64,
        Kind::Bool => DataType::Boolean,
        Kind::Date => DataType::Date32,
        Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Kind::Str => DataType::Utf8View,
    }
}

/// A parsed value. Dates are days and timestamps microseconds, both in `Int`.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    UInt(u64),
    Float(f64),
    Bool(bool),
    Str(&'a str),
}

/// Builds one column; it is given only values of its kind, and nulls.
pub(crate) enum Column {
    Int(Int64Builder),
    UInt(UInt64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Str(StringViewBuilder),
}

impl Column {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Int => Column::Int(Int64Builder::new()),
            Kind::UInt => Column::UInt(UInt64Builder::new()),
            Kind::Float => Column::Float(Float64Builder::new()),
            Kind::Bool => Column::Bool(BooleanBuilder::new()),
            Kind::Date => Column::Date(Date32Builder::new()),
            Kind::Timestamp => Column::Timestamp(TimestampMicrosecondBuilder::new()),
            Kind::Str => Column::Str(StringViewBuilder::new()),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, value: Value<'_>) {
        match (self, value) {
            (Column::Int(b), Value::Int(v)) => b.append_value(v),
            (Column::UInt(b), Value::UInt(v)) => b.append_value(v),
            (Column::Float(b), Value::Float(v)) => b.append_value(v),
            (Column::Bool(b), Value::Bool(v)) => b.append_value(v),
            (Column::Date(b), Value::Int(v)) => b.append_option(i32::try_from(v).ok()),
            (Column::Timestamp(b), Value::Int(v)) => b.append_value(v),
            (Column::Str(b), Value::Str(v)) => b.append_value(v),
            (Column::Int(b), _) => b.append_null(),
            (Column::UInt(b), _) => b.append_null(),
            (Column::Float(b), _) => b.append_null(),
            (Column::Bool(b), _) => b.append_null(),
            (Column::Date(b), _) => b.append_null(),
            (Column::Timestamp(b), _) => b.append_null(),
            (Column::Str(b), _) => b.append_null(),
        }
    }

    pub(crate) fn finish(self) -> ArrayRef {
        match self {
            Column::Int(mut b) => Arc::new(b.finish()),
            Column::UInt(mut b) => Arc::new(b.finish()),
            Column::Float(mut b) => Arc::new(b.finish()),
            Column::Bool(mut b) => Arc::new(b.finish()),
            Column::Date(mut b) => Arc::new(b.finish()),
            Column::Timestamp(mut b) => Arc::new(b.finish()),
            Column::Str(mut b) => Arc::new(b.finish()),
        }
    }
}
