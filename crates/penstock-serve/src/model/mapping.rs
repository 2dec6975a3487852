//! Raw columns through the feature plan: a row at a time while there are few, by column when there are many.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Float32Type, Schema, UInt64Type};
use penstock_features::{
    ApplyError, Attachments, Dictionary, Form, OnError, Options, Plan, Scratch, Value,
};
use serde::Deserialize;

use super::cells::{Cells, Values};
use super::inputs::{Given, MappedTensors};
use super::manifest::{broken, hex, text};
use super::matrix::Keys;
use crate::error::{Fault, Result};
use crate::tensor::{Data, Tensor};

const FILE: &str = "features.plan";
/// Up to so many rows, one at a time is quicker than by column (`--example score_speed`).
const FEW: usize = 16;
/// A key of none, in mapped tensors.
const NO_KEY: u64 = u64::MAX;

/// The plan's outputs over a call's rows, in file order.
#[derive(Default)]
pub(super) struct Mapped {
    pub slots: Vec<Keys>,
    /// A column each.
    pub dense: Vec<Vec<f32>>,
}

impl Mapped {
    pub fn clear(&mut self, slots: usize, dense: usize) {
        self.slots.resize_with(slots, Keys::default);
        self.dense.resize_with(dense, Vec::new);
        self.slots.iter_mut().for_each(Keys::clear);
        self.dense.iter_mut().for_each(Vec::clear);
    }
}

pub(super) struct Mapper {
    pub plan: Plan,
    pub slots: Vec<String>,
    pub dense: Vec<String>,
    pub weighted: Vec<bool>,
    /// Of each column of the plan: its place among the model's raw columns.
    pub columns: Vec<usize>,
}

/// What is read of the plan's document besides what the kernel reads.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    dicts: HashMap<String, serde_json::Value>,
    #[serde(default)]
    functions: HashMap<String, serde_json::Value>,
}

impl Mapper {
    pub fn open(
        folder: &Path,
        fingerprint: &str,
        functions: &HashMap<String, usize>,
        raw: &[String],
    ) -> Result<Mapper> {
        let document = text(folder, FILE)?;
        let document = document.trim_end();
        if hex(document.as_bytes()) != fingerprint {
            let said = "its feature plan is not the one it was trained with: take both from one training run";
            return Err(broken(folder, said));
        }
        let named: Named = serde_json::from_str(document)
            .map_err(|error| broken(folder, format!("{FILE}: {error}")))?;
        if let Some(function) = named
            .functions
            .keys()
            .find(|name| !functions.contains_key(*name))
        {
            let said = format!(
                "its feature plan calls the user function {function}; set allow_code = true for this model to load it"
            );
            return Err(broken(folder, said));
        }
        let mut attachments = Attachments::default();
        for name in named.dicts.keys() {
            let path = folder.join("dictionaries").join(format!("{name}.dict"));
            let dictionary = Dictionary::open(&path)
                .map_err(|error| broken(folder, format!("dictionary {name}: {error}")))?;
            attachments
                .dictionaries
                .insert(name.clone(), Arc::new(dictionary));
        }
        attachments.functions = functions.clone();
        let plan = Plan::compile(document, &attachments)
            .map_err(|error| broken(folder, format!("{FILE}: {error}")))?;
        let place = |column: &String| {
            let found = raw.iter().position(|name| name == column);
            found.ok_or_else(|| broken(folder, format!("its signature lacks the column {column}")))
        };
        Ok(Mapper {
            slots: plan.slots().map(str::to_string).collect(),
            dense: plan.dense().map(str::to_string).collect(),
            weighted: plan.slots().map(|slot| plan.is_weighted(slot)).collect(),
            columns: plan.columns().iter().map(place).collect::<Result<_>>()?,
            plan,
        })
    }

    /// Fills `out` from raw columns or mapped tensors.
    pub fn map(&self, given: &Given, scratch: &mut Scratch, out: &mut Mapped) -> Result<()> {
        out.clear(self.slots.len(), self.dense.len());
        if let Some(tensors) = &given.mapped {
            tensors.check(self.slots.len(), self.dense.len())?;
            read_mapped(tensors, given.rows, out);
            return Ok(());
        }
        let lists =
            (self.columns.iter()).any(|&at| matches!(given.cells[at].values, Values::List(_)));
        if given.rows <= FEW && !lists {
            self.by_row(given, scratch, out)
        } else {
            self.by_column(given, out)
        }
    }

    fn by_row(&self, given: &Given, scratch: &mut Scratch, out: &mut Mapped) -> Result<()> {
        let mut values: Vec<Value> = Vec::with_capacity(self.columns.len());
        for row in 0..given.rows {
            values.clear();
            values.extend(self.columns.iter().map(|&at| {
                let row = if given.broadcast[at] { 0 } else { row };
                given.cells[at].value(row)
            }));
            let mapped = self
                .plan
                .apply_row(&values, scratch)
                .map_err(|error| said(error, Some(row)))?;
            for ((keys, slot), weighted) in
                out.slots.iter_mut().zip(&mapped.slots).zip(&self.weighted)
            {
                keys.push(&slot.keys, weighted.then_some(&slot.weights[..]));
            }
            for (column, number) in out.dense.iter_mut().zip(&mapped.dense) {
                column.push(*number);
            }
        }
        Ok(())
    }

    fn by_column(&self, given: &Given, out: &mut Mapped) -> Result<()> {
        let cells = |at: &usize| -> &Cells { &given.cells[*at] };
        let arrays: Vec<_> = self
            .columns
            .iter()
            .map(|at| cells(at).array(given.rows, given.broadcast[*at]))
            .collect();
        let fields: Vec<Field> = self
            .plan
            .columns()
            .iter()
            .zip(&arrays)
            .map(|(name, array)| Field::new(name, array.data_type().clone(), true))
            .collect();
        let counted = RecordBatchOptions::new().with_row_count(Some(given.rows));
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &counted)
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
            columns
                .next()
                .ok_or_else(|| Fault::internal("the plan gave fewer columns than it has features"))
        };
        for (keys, weighted) in out.slots.iter_mut().zip(&self.weighted) {
            let list = next()?.as_list::<i64>();
            let first = list.value_offsets()[0];
            keys.offsets = list.value_offsets().iter().map(|at| at - first).collect();
            let range = first as usize..list.value_offsets()[given.rows] as usize;
            let all = list.values().as_primitive::<UInt64Type>().values();
            keys.keys.extend_from_slice(&all[range]);
            if *weighted {
                let weights = next()?.as_list::<i64>();
                let range = weights.value_offsets()[0] as usize
                    ..weights.value_offsets()[given.rows] as usize;
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

fn read_mapped(tensors: &MappedTensors, rows: usize, out: &mut Mapped) {
    let slots = out.slots.len();
    if let Some(keys) = tensors.keys {
        let wide = keys.shape[2];
        let weights = match tensors.weights.map(|weights| &weights.data) {
            Some(Data::F32(weights)) => Some(&weights[..]),
            _ => None,
        };
        let key = |at: usize| match &keys.data {
            Data::U64(keys) => keys[at],
            Data::I64(keys) => keys[at].cast_unsigned(),
            _ => NO_KEY,
        };
        for (slot, out) in out.slots.iter_mut().enumerate() {
            if weights.is_some() {
                out.values = Some(vec![]);
            }
            for row in 0..rows {
                let first = (row * slots + slot) * wide;
                for at in first..first + wide {
                    let (key, weight) = (key(at), weights.map(|weights| weights[at]));
                    if key == NO_KEY || weight.is_some_and(f32::is_nan) {
                        continue;
                    }
                    out.keys.push(key);
                    if let (Some(values), Some(weight)) = (&mut out.values, weight) {
                        values.push(weight);
                    }
                }
                out.offsets.push(out.keys.len() as i64);
            }
        }
    }
    if let Some(Tensor {
        data: Data::F32(numbers),
        ..
    }) = tensors.dense
    {
        let width = out.dense.len();
        for (at, column) in out.dense.iter_mut().enumerate() {
            column.extend((0..rows).map(|row| numbers[row * width + at]));
        }
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
