//! The values of defines as Arrow columns: what fitted functions learn from.

use std::sync::Arc;

use arrow_array::*;
use arrow_buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{Field, Schema};
use arrow_select::concat::concat;

use crate::apply::CHUNK_ROWS;
use crate::block::{Block, Kind};
use crate::error::ApplyError;
use crate::eval::State;
use crate::plan::Plan;
use crate::row::first_error;

impl Plan {
    /// The values of the named items over a batch, a column each, before keys or f32 are made of them.
    pub fn values(&self, batch: &RecordBatch, names: &[String]) -> Result<RecordBatch, ApplyError> {
        let sources: Vec<usize> = names
            .iter()
            .map(|name| self.source_of(name))
            .collect::<Result<_, _>>()?;
        let columns = self.batch_columns(batch)?;
        let mut parts: Vec<Vec<ArrayRef>> = names.iter().map(|_| Vec::new()).collect();
        let mut state = State::default();
        let mut start = 0;
        loop {
            let rows = (batch.num_rows() - start).min(CHUNK_ROWS);
            self.load(&columns, start, rows, &mut state)?;
            state.run(self, rows)?;
            if let Some(error) = first_error(&state.errors) {
                let mut error = error.clone();
                error.row += start;
                return Err(error.into());
            }
            for (source, part) in sources.iter().zip(&mut parts) {
                part.push(array(&state.blocks[*source]));
            }
            start += rows;
            if start == batch.num_rows() {
                break;
            }
        }
        let whole =
            |part: &Vec<ArrayRef>| concat(&part.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        let arrays = parts.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
        let field =
            |(name, array): (&String, &ArrayRef)| Field::new(name, array.data_type().clone(), true);
        let schema = Schema::new(names.iter().zip(&arrays).map(field).collect::<Vec<_>>());
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(
            Arc::new(schema),
            arrays,
            &options,
        )?)
    }

    fn source_of(&self, name: &str) -> Result<usize, ApplyError> {
        let found = self.items.iter().position(|item| item.name == name);
        found
            .map(|index| self.columns.len() + index)
            .ok_or_else(|| ApplyError::MissingColumn(name.into()))
    }
}

fn array(block: &Block<'_>) -> ArrayRef {
    let values = elements(block);
    if !block.lists {
        return values;
    }
    let ends = std::iter::once(0).chain(block.ends.iter().map(|end| *end as i64));
    let offsets = OffsetBuffer::new(ScalarBuffer::from_iter(ends));
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Arc::new(LargeListArray::new(
        field,
        offsets,
        values,
        Some(nulls(&block.rows.bits)),
    ))
}

fn nulls(present: &[bool]) -> NullBuffer {
    NullBuffer::new(BooleanBuffer::from(present))
}

fn elements(block: &Block<'_>) -> ArrayRef {
    let valid = || Some(nulls(&block.valid.bits));
    let bytes = || {
        block
            .bytes
            .iter()
            .zip(&block.valid.bits)
            .map(|(bytes, valid)| valid.then_some(*bytes))
    };
    match block.kind {
        Kind::Null => Arc::new(NullArray::new(block.len())),
        Kind::Text => Arc::new(LargeStringArray::from_iter(
            bytes().map(|b| b.map(String::from_utf8_lossy)),
        )),
        Kind::Binary => Arc::new(LargeBinaryArray::from_iter(bytes())),
        Kind::Int => Arc::new(Int64Array::new(block.ints.clone().into(), valid())),
        Kind::Time => Arc::new(TimestampMicrosecondArray::new(
            block.ints.clone().into(),
            valid(),
        )),
        // Dates come from 32-bit day numbers and are never computed with.
        Kind::Date => Arc::new(Date32Array::new(
            block.ints.iter().map(|days| *days as i32).collect(),
            valid(),
        )),
        Kind::UInt => Arc::new(UInt64Array::new(block.words.clone().into(), valid())),
        Kind::Bool => Arc::new(BooleanArray::new(
            block
                .words
                .iter()
                .map(|word| *word != 0)
                .collect::<BooleanBuffer>(),
            valid(),
        )),
        Kind::Float => Arc::new(Float64Array::new(block.floats.clone().into(), valid())),
    }
}
