//! Raw columns through the feature plan, or mapped tensors as they come: the plan's outputs over a call's rows.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use penstock_features::{Attachments, Dictionary, Scratch};
use serde::Deserialize;

use super::inputs::{Given, MappedTensors};
use super::manifest::{broken, hex, text};
use super::matrix::Keys;
use super::part::Part;
use super::parting::Parting;
use crate::error::Result;
use crate::tensor::{Data, Tensor};

const FILE: &str = "features.plan";
/// A key of none, in mapped tensors.
const NO_KEY: u64 = u64::MAX;

/// A plan's outputs over rows, in file order.
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

/// What a lane keeps between calls.
#[derive(Default)]
pub(super) struct Workspace {
    scratch: Scratch,
    part: Mapped,
}

pub(super) struct Mapper {
    whole: Part,
    pub slots: Vec<String>,
    pub dense: Vec<String>,
    parting: Parting,
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
        let foreign = |name: &&String| !functions.contains_key(*name);
        if let Some(function) = named.functions.keys().find(foreign) {
            let said = format!(
                "its feature plan calls the user function {function}; set allow_code = true for this model to load it"
            );
            return Err(broken(folder, said));
        }
        let mut attachments = Attachments {
            functions: functions.clone(),
            ..Attachments::default()
        };
        for name in named.dicts.keys() {
            let path = folder.join("dictionaries").join(format!("{name}.dict"));
            let dictionary = Dictionary::open(&path)
                .map_err(|error| broken(folder, format!("dictionary {name}: {error}")))?;
            let held = &mut attachments.dictionaries;
            held.insert(name.clone(), Arc::new(dictionary));
        }
        let fault = |what: String| broken(folder, format!("{FILE}: {what}"));
        let whole = Part::compile(document, &attachments, raw).map_err(fault)?;
        Ok(Mapper {
            slots: whole.slots().map(str::to_string).collect(),
            dense: whole.dense().map(str::to_string).collect(),
            parting: Parting::new(document, attachments, raw).map_err(fault)?,
            whole,
        })
    }

    pub fn is_weighted(&self) -> bool {
        self.whole.is_weighted()
    }

    /// Fills `out` from raw columns or mapped tensors. What broadcast columns alone decide is mapped once.
    pub fn map(&self, given: &Given, work: &mut Workspace, out: &mut Mapped) -> Result<()> {
        out.clear(self.slots.len(), self.dense.len());
        if let Some(tensors) = &given.mapped {
            tensors.check(self.slots.len(), self.dense.len())?;
            read_mapped(tensors, given.rows, out);
            return Ok(());
        }
        let parts = match given.shared && given.rows > 1 {
            true => self.parting.of(&given.broadcast),
            false => None,
        };
        let Some(parts) = parts else {
            return self.whole.map(given, given.rows, &mut work.scratch, out);
        };
        for (part, rows) in [(&parts.fixed, 1), (&parts.varying, given.rows)] {
            let own = &mut work.part;
            own.clear(part.slots().count(), part.dense().count());
            part.map(given, rows, &mut work.scratch, own)?;
            for (name, keys) in part.slots().zip(&own.slots) {
                if parts.gives(part, name)
                    && let Some(place) = self.slots.iter().position(|slot| slot == name)
                {
                    match rows == given.rows {
                        true => out.slots[place].append(keys),
                        false => out.slots[place].repeat(keys, given.rows),
                    }
                }
            }
            for (name, numbers) in part.dense().zip(&own.dense) {
                if parts.gives(part, name)
                    && let Some(place) = self.dense.iter().position(|dense| dense == name)
                {
                    out.dense[place] = numbers.repeat(given.rows / rows);
                }
            }
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
