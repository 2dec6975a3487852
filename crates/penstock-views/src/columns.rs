//! Arrow on both sides: events come as columns, and what is read leaves as columns.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, LargeStringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};

use crate::Fault;
use crate::cell::{Cell, Seen};
use crate::keys::Keys;
use crate::view::{Column, Kind, View};

/// Some events, in the order of their source.
pub struct Events {
    pub keys: Keys,
    /// Microseconds; an event without time has no place.
    pub times: ArrayRef,
    /// The view's inputs.
    pub cells: Vec<ArrayRef>,
}

impl Events {
    /// `batch`: key columns, then the time (int64), then the view's inputs, of their kinds.
    pub fn of(view: &View, batch: &RecordBatch) -> Result<Events, Fault> {
        let keys = (batch.num_columns()).checked_sub(1 + view.inputs.len());
        let keys = keys.ok_or_else(|| Fault::Rows("columns are missing".into()))?;
        let columns = batch.columns();
        let cells = columns[keys + 1..].to_vec();
        let wrong = view
            .inputs
            .iter()
            .zip(&cells)
            .find(|(input, cell)| arrow_type(input.kind) != *cell.data_type());
        if let Some((input, cell)) = wrong {
            return Err(Fault::Rows(format!(
                "input '{}' is {}",
                input.name,
                cell.data_type()
            )));
        }
        if *columns[keys].data_type() != DataType::Int64 {
            return Err(Fault::Rows(format!(
                "the time is {}",
                columns[keys].data_type()
            )));
        }
        Ok(Events {
            keys: Keys::new(columns[..keys].to_vec())?,
            times: columns[keys].clone(),
            cells,
        })
    }

    pub fn time_us(&self, row: usize) -> Option<i64> {
        time_us(&self.times, row)
    }

    pub fn row(&self, row: usize, to: &mut Vec<Cell>) {
        to.clear();
        to.extend(self.cells.iter().map(|column| cell(column, row)));
    }
}

pub fn time_us(times: &ArrayRef, row: usize) -> Option<i64> {
    let times = times.as_primitive::<Int64Type>();
    times.is_valid(row).then(|| times.value(row))
}

fn cell(column: &ArrayRef, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Null;
    }
    match column.data_type() {
        DataType::Int64 => Cell::Int(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => Cell::Bool(column.as_boolean().value(row)),
        _ => Cell::Text(column.as_string::<i64>().value(row).into()),
    }
}

fn arrow_type(kind: Kind) -> DataType {
    match kind {
        Kind::Int => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Bool => DataType::Boolean,
        Kind::Str => DataType::LargeUtf8,
    }
}

/// A view's outputs, a row at a time.
pub struct Building {
    columns: Vec<Column>,
    built: Vec<Builder>,
}

enum Builder {
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Text(LargeStringBuilder),
}

impl Building {
    pub fn new(columns: Vec<Column>) -> Building {
        let builder = |column: &Column| match column.kind {
            Kind::Int => Builder::Int(Int64Builder::new()),
            Kind::Float => Builder::Float(Float64Builder::new()),
            Kind::Bool => Builder::Bool(BooleanBuilder::new()),
            Kind::Str => Builder::Text(LargeStringBuilder::new()),
        };
        let built = columns.iter().map(builder).collect();
        Building { columns, built }
    }

    /// `cells`: a column each.
    pub fn push(&mut self, cells: &[Cell]) {
        for (column, cell) in cells.iter().enumerate() {
            self.put(column, cell.seen());
        }
    }

    /// The next cell of a column; a row has one of each.
    #[inline]
    pub fn put(&mut self, column: usize, cell: Seen<'_>) {
        match (&mut self.built[column], cell) {
            (Builder::Int(built), Seen::Int(value)) => built.append_value(value),
            (Builder::Int(built), _) => built.append_null(),
            (Builder::Float(built), Seen::Float(value)) => built.append_value(value),
            (Builder::Float(built), _) => built.append_null(),
            (Builder::Bool(built), Seen::Bool(value)) => built.append_value(value),
            (Builder::Bool(built), _) => built.append_null(),
            (Builder::Text(built), Seen::Text(value)) => built.append_value(value),
            (Builder::Text(built), _) => built.append_null(),
        }
    }

    pub fn finish(&mut self) -> Result<RecordBatch, Fault> {
        let arrays = self.built.iter_mut().map(|builder| -> ArrayRef {
            match builder {
                Builder::Int(built) => Arc::new(built.finish()),
                Builder::Float(built) => Arc::new(built.finish()),
                Builder::Bool(built) => Arc::new(built.finish()),
                Builder::Text(built) => Arc::new(built.finish()),
            }
        });
        batch_of(&self.columns, arrays.collect())
    }
}

fn schema_of(columns: &[Column]) -> Schema {
    let field = |column: &Column| Field::new(&column.name, arrow_type(column.kind), true);
    Schema::new(columns.iter().map(field).collect::<Vec<_>>())
}

impl View {
    /// Of the batches that reading gives.
    pub fn schema(&self) -> Schema {
        schema_of(&self.outputs())
    }
}

pub fn batch_of(columns: &[Column], arrays: Vec<ArrayRef>) -> Result<RecordBatch, Fault> {
    RecordBatch::try_new(Arc::new(schema_of(columns)), arrays)
        .map_err(|error| Fault::Rows(error.to_string()))
}
