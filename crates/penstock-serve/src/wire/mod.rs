//! Requests and replies as bytes: JSON with binary tails, protobuf, content codings.
//!
//! In: a body. Out: a `Call` (tensors whose data fit their shapes), or a fault that names the input. Nothing here knows
//! a socket. Read `json/request.rs` first.

pub mod binary;
pub mod coding;
pub mod guard;
pub mod json;
pub mod limits;
pub mod parameters;
pub mod proto;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::time::Duration;

use crate::error::{Fault, Result};
use crate::tensor::{Data, Tensor};

pub use limits::Limits;

/// An inference request's body, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call {
    /// The protocol's `id`.
    pub id: Option<String>,
    pub tensors: Vec<Tensor>,
    /// Inputs of leading dimension 1 that stand for every row.
    pub broadcast: Vec<String>,
    /// Outputs asked for, in order; empty: all.
    pub wanted: Vec<String>,
    /// Of each wanted output: whether it goes out as binary; None: as `binary` says.
    pub forms: Vec<Option<bool>>,
    /// Whether outputs go out as binary where nothing else is said.
    pub binary: bool,
    /// How long the client waits.
    pub timeout: Option<Duration>,
}

impl Call {
    /// Whether this output goes out as binary.
    pub fn is_binary(&self, output: &str) -> bool {
        let place = self.wanted.iter().position(|name| name == output);
        place.and_then(|at| self.forms[at]).unwrap_or(self.binary)
    }

    /// What can only be seen once every tensor is there: names twice, null masks of another shape, broadcasts.
    pub fn check(&self) -> Result<()> {
        if self.tensors.is_empty() {
            return Err(Fault::invalid("'inputs' is empty; give at least one input"));
        }
        self.check_names()?;
        for mask in &self.tensors {
            let Some(column) = mask.name.strip_suffix(".null") else {
                continue;
            };
            let of = self.tensors.iter().find(|tensor| tensor.name == column);
            if let Some(of) =
                of.filter(|of| matches!(mask.data, Data::Bool(_)) && of.shape != mask.shape)
            {
                return Err(Fault::invalid(format!(
                    "input '{}' has shape {:?} where '{column}', whose nulls it marks, has {:?}",
                    mask.name, mask.shape, of.shape
                )));
            }
        }
        for name in &self.broadcast {
            match self.tensors.iter().find(|tensor| tensor.name == *name) {
                None => {
                    return Err(Fault::invalid(format!(
                        "parameter 'broadcast' names '{name}', which is not an input of this request"
                    )));
                }
                Some(tensor) if tensor.shape.first() != Some(&1) => {
                    return Err(Fault::invalid(format!(
                        "input '{name}' is broadcast, so its leading dimension must be 1; its shape is {:?}",
                        tensor.shape
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<()> {
        let mut seen = HashSet::new();
        // Names whose few bits nobody had before are new; of the rest, the first so many are compared with each before.
        const FEW: usize = 64;
        let mut bits = [0_u64; 4];
        for (at, tensor) in self.tensors.iter().enumerate() {
            let name = tensor.name.as_str();
            let fold = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
            let (word, bit) = (hash as usize >> 6 & 3, 1 << (hash & 63));
            let new = bits[word] & bit == 0;
            bits[word] |= bit;
            let before = &self.tensors[..at];
            let twice = match at.cmp(&FEW) {
                Ordering::Less => !new && before.iter().any(|before| before.name == name),
                Ordering::Equal => {
                    seen.extend(before.iter().map(|before| before.name.as_str()));
                    !seen.insert(name)
                }
                Ordering::Greater => !seen.insert(name),
            };
            if twice {
                return Err(Fault::invalid(format!("input '{name}' is given twice")));
            }
        }
        Ok(())
    }
}

/// The fault of an input that has a name, or a place where it has none yet.
pub(crate) fn input_fault(name: Option<&str>, place: usize, fault: Fault) -> Fault {
    let subject = match name {
        Some(name) => format!("input '{name}'"),
        None => format!("input {} of the request", place + 1),
    };
    let message = format!("{subject}: {}", fault.message);
    Fault { message, ..fault }
}
