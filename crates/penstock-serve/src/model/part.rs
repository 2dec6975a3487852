//! A compiled plan, or a part of one, over a call's columns: a row at a time while there are few, else by column.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt64Type};
use arrow_array::{Array, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, Schema};
use penstock_features::{ApplyError, Attachments, Form, OnError, Options, Plan, Scratch, Value};

use super::cells::Values;
use super::inputs::Given;
use super::mapping::Mapped;
use crate::error::{Fault, Result};

/// Up to so many rows, one at a time is quicker than by column (`--example score_speed`).
const FEW: usize = 16;

pub(super) struct Part {
    plan: Plan,
    /// Of each column of the plan: its place among the model's raw columns.
    columns: Vec<usize>,
    weighted: Vec<bool>,
}

impl Part {
    /// `raw`: the model's columns. Fails with what is wrong with the document.
    pub fn compile(
        document: &str,
        attachments: &Attachments,
        raw: &[String],
    ) -> std::result::Result<Part, String> {
        let plan = Plan::compile(document, attachments).map_err(|error| error.to_string())?;
        let place = |column: &String| {
            let found = raw.iter().position(|name| name == column);
            found.ok_or_else(|| format!("the signature lacks the column {column}"))
        };
        let columns = plan.columns().iter().map(place);
        Ok(Part {
            columns: columns.collect::<std::result::Result<_, _>>()?,
            weighted: plan.slots().map(|slot| plan.is_weighted(slot)).collect(),
            plan,
        })
    }

    pub fn slots(&self) -> impl Iterator<Item = &str> {
        self.plan.slots()
    }

    pub fn dense(&self) -> impl Iterator<Item = &str> {
        self.plan.dense()
    }

    pub fn is_weighted(&self) -> bool {
        self.weighted.contains(&true)
    }

    /// Appends the first `rows` rows to `out`, which has a place for each slot and dense.
    pub fn map(
        &self,
        given: &Given,
        rows: usize,
        scratch: &mut Scratch,
        out: &mut Mapped,
    ) -> Result<()> {
        let is_list = |&at: &usize| matches!(given.cells[at].values, Values::List(_));
        if rows <= FEW && !self.columns.iter().any(is_list) {
            self.by_row(given, rows, scratch, out)
        } else {
            self.by_column(given, rows, out)
        }
    }

    fn by_row(
        &self,
        given: &Given,
        rows: usize,
        scratch: &mut Scratch,
        out: &mut Mapped,
    ) -> Result<()> {
        let mut values: Vec<Value> = Vec::with_capacity(self.columns.len());
        for row in 0..rows {
            values.clear();
            let value = |&at: &usize| given.cells[at].value(given.row(at, row));
            values.extend(self.columns.iter().map(value));
            let mapped = self
                .plan
                .apply_row(&values, scratch)
                .map_err(|error| said(error, Some(row)))?;
            let slots = mapped.slots.iter().zip(&self.weighted);
            for (keys, (slot, weighted)) in out.slots.iter_mut().zip(slots) {
                keys.push(&slot.keys, weighted.then_some(&slot.weights[..]));
            }
            for (column, number) in out.dense.iter_mut().zip(&mapped.dense) {
                column.push(*number);
            }
        }
        Ok(())
    }

    fn by_column(&self, given: &Given, rows: usize, out: &mut Mapped) -> Result<()> {
        let array = |&at: &usize| given.cells[at].array(rows, given.broadcast[at]);
        let arrays: Vec<_> = self.columns.iter().map(array).collect();
        let named = self.plan.columns().iter().zip(&arrays);
        let fields: Vec<Field> = named
            .map(|(name, array)| Field::new(name, array.data_type().clone(), true))
            .collect();
        let counted = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new_with_options(schema, arrays, &counted)
            .map_err(|error| Fault::internal(error.to_string()))?;
        let options = Options {
            keep: vec![],
            form: Form::Slots,
            threads: 1,
            on_error: OnError::Fail,
        };
        let (mapped, _) = self
            .plan
            .apply(&batch, &options)
            .map_err(|error| said(error, None))?;
        let mut columns = mapped.columns().iter();
        let mut next = || {
            let said = "the plan gave fewer columns than it has features";
            columns.next().ok_or_else(|| Fault::internal(said))
        };
        for (keys, weighted) in out.slots.iter_mut().zip(&self.weighted) {
            let list = next()?.as_list::<i64>();
            let first = list.value_offsets()[0];
            keys.offsets = list.value_offsets().iter().map(|at| at - first).collect();
            let range = first as usize..list.value_offsets()[rows] as usize;
            let all = list.values().as_primitive::<UInt64Type>().values();
            keys.keys.extend_from_slice(&all[range]);
            if *weighted {
                let weights = next()?.as_list::<i64>();
                let offsets = weights.value_offsets();
                let range = offsets[0] as usize..offsets[rows] as usize;
                let all = weights.values().as_primitive::<Float32Type>().values();
                keys.values = Some(all[range].to_vec());
            }
        }
        for column in &mut out.dense {
            column.extend_from_slice(next()?.as_primitive::<Float32Type>().values());
        }
        Ok(())
    }
}

/// A row or a column without a meaning is the client's fault. `row`: the row, where the kernel saw one at a time.
fn said(error: ApplyError, row: Option<usize>) -> Fault {
    match error {
        ApplyError::Row(error) => Fault::invalid(format!(
            "row {}: '{}': {}",
            row.unwrap_or(error.row),
            error.item,
            error.reason
        )),
        other => Fault::invalid(other.to_string()),
    }
}
