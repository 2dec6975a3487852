//! A call's tensors as the model's raw columns, or as mapped tensors: which is which, and that they fit together.

use super::Call;
use super::cells::{ABSENT, Cells};
use super::kinds::Kind;
use crate::error::{Fault, Result};
use crate::tensor::{Data, Datatype, Tensor, TensorSpec};

/// The second input form: [rows, slots, keys a slot], -1 where there is none.
pub(super) const MAPPED_KEYS: &str = "mapped.keys";
/// [rows, slots, keys a slot]; without it every weight is 1.
pub(super) const MAPPED_WEIGHTS: &str = "mapped.weights";
/// [rows, dense features].
pub(super) const MAPPED_DENSE: &str = "mapped.dense";
const NULL: &str = ".null";

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub name: String,
    pub kind: Kind,
}

/// A call as it was understood. `cells`: a raw column each; with `broadcast`, one row that stands for all.
pub(super) struct Given<'a> {
    pub rows: usize,
    pub cells: Vec<Cells<'a>>,
    pub broadcast: Vec<bool>,
    /// Whether the call names columns that are broadcast.
    pub shared: bool,
    pub mapped: Option<MappedTensors<'a>>,
}

#[derive(Default)]
pub(super) struct MappedTensors<'a> {
    pub keys: Option<&'a Tensor>,
    pub weights: Option<&'a Tensor>,
    pub dense: Option<&'a Tensor>,
}

/// The leading dimension that a call's inputs agree on.
pub(super) fn rows(call: &Call) -> Result<usize> {
    let mut first: Option<&Tensor> = None;
    for tensor in call.tensors {
        if is_broadcast(call, tensor) {
            if tensor.rows() != 1 {
                return Err(Fault::invalid(format!(
                    "input '{}' is broadcast and must have leading dimension 1, not {}",
                    tensor.name,
                    tensor.rows()
                )));
            }
            continue;
        }
        match first {
            Some(other) if other.rows() != tensor.rows() => {
                return Err(Fault::invalid(format!(
                    "input '{}' has leading dimension {}, and '{}' has {}",
                    tensor.name,
                    tensor.rows(),
                    other.name,
                    other.rows()
                )));
            }
            Some(_) => {}
            None => first = Some(tensor),
        }
    }
    if call.tensors.is_empty() {
        return Err(Fault::invalid("the request has no inputs"));
    }
    if let Some(unknown) = (call.broadcast.iter())
        .find(|name| !call.tensors.iter().any(|tensor| &tensor.name == *name))
    {
        return Err(Fault::invalid(format!(
            "broadcast names '{unknown}', which is not among the inputs"
        )));
    }
    Ok(first.map_or(1, Tensor::rows))
}

pub(super) fn is_broadcast(call: &Call, tensor: &Tensor) -> bool {
    let of = tensor.name.strip_suffix(NULL).unwrap_or(&tensor.name);
    call.broadcast
        .iter()
        .any(|name| *name == tensor.name || name == of)
}

pub(super) fn unknown(tensor: &Tensor, known: &[&str]) -> Fault {
    let listed: Vec<&str> = known.iter().copied().take(20).collect();
    let more = if known.len() > 20 { ", ..." } else { "" };
    Fault::invalid(format!(
        "input '{}' is not one of the model's; they are {}{more}",
        tensor.name,
        listed.join(", ")
    ))
}

impl<'a> Given<'a> {
    pub fn read(call: &Call<'a>, columns: &[Column], slots: usize, dense: usize) -> Result<Self> {
        let rows = rows(call)?;
        let mut given = Given {
            rows,
            cells: vec![ABSENT; columns.len()],
            broadcast: vec![true; columns.len()],
            shared: !call.broadcast.is_empty(),
            mapped: None,
        };
        let mut marks: Vec<Option<&Tensor>> = vec![None; columns.len()];
        let mut data: Vec<Option<&Tensor>> = vec![None; columns.len()];
        // Clients send the columns in the model's own order more often than not.
        let place = |name: &str, hint: usize| match columns.get(hint) {
            Some(column) if column.name == name => Some(hint),
            _ => columns.iter().position(|column| column.name == name),
        };
        for (number, tensor) in call.tensors.iter().enumerate() {
            let taken = if let Some(at) = place(&tensor.name, number) {
                data[at].replace(tensor).is_some()
            } else if let Some(at) =
                (tensor.name.strip_suffix(NULL)).and_then(|name| place(name, number))
            {
                marks[at].replace(tensor).is_some()
            } else {
                given.mapped_tensor(tensor, slots, dense, columns)?
            };
            if taken {
                return Err(twice(tensor));
            }
        }
        for (at, (column, tensor)) in columns.iter().zip(data).enumerate() {
            match (tensor, marks[at]) {
                (Some(tensor), marks) => {
                    given.cells[at] = Cells::read(tensor, &column.kind, marks)?;
                    given.broadcast[at] = rows == 1 || is_broadcast(call, tensor);
                }
                (None, Some(marks)) => {
                    return Err(Fault::invalid(format!(
                        "input '{}' marks nulls of '{}', which is not among the inputs",
                        marks.name, column.name
                    )));
                }
                (None, None) => {}
            }
        }
        Ok(given)
    }

    /// Takes one of the mapped tensors; true if there was one of the name.
    fn mapped_tensor(
        &mut self,
        tensor: &'a Tensor,
        slots: usize,
        dense: usize,
        columns: &[Column],
    ) -> Result<bool> {
        if slots + dense == 0 {
            let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            return Err(unknown(tensor, &known));
        }
        let wrong = |wanted: String| {
            Err(Fault::invalid(format!(
                "input '{}' is {} of shape {:?}, not {wanted}",
                tensor.name,
                tensor.data.datatype(),
                tensor.shape
            )))
        };
        let mapped = self.mapped.get_or_insert_default();
        let (rows, shape) = (self.rows, tensor.shape.as_slice());
        let keyed = shape.len() == 3 && shape[0] == rows && shape[1] == slots;
        let place = match (tensor.name.as_str(), &tensor.data) {
            (MAPPED_KEYS, Data::U64(_) | Data::I64(_)) if keyed => &mut mapped.keys,
            (MAPPED_WEIGHTS, Data::F32(_)) if keyed => &mut mapped.weights,
            (MAPPED_DENSE, Data::F32(_)) if shape == [rows, dense] => &mut mapped.dense,
            (MAPPED_KEYS, _) => return wrong(format!("UINT64 of [{rows}, {slots}, keys a slot]")),
            (MAPPED_WEIGHTS, _) => return wrong(format!("FP32 of [{rows}, {slots}, keys a slot]")),
            (MAPPED_DENSE, _) => return wrong(format!("FP32 of [{rows}, {dense}]")),
            _ => {
                let mut known: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
                known.extend([MAPPED_KEYS, MAPPED_DENSE]);
                return Err(unknown(tensor, &known));
            }
        };
        Ok(place.replace(tensor).is_some())
    }
}

impl MappedTensors<'_> {
    /// Whether a slot's keys and weights have one shape, and what is needed is there.
    pub fn check(&self, slots: usize, dense: usize) -> Result<()> {
        let missing = |name| {
            Err(Fault::invalid(format!(
                "mapped inputs lack the tensor '{name}'"
            )))
        };
        match (self.keys, self.weights) {
            (None, _) if slots > 0 => return missing(MAPPED_KEYS),
            (None, Some(_)) => return missing(MAPPED_KEYS),
            (Some(keys), Some(weights)) if keys.shape != weights.shape => {
                return Err(Fault::invalid(format!(
                    "input '{MAPPED_WEIGHTS}' has the shape {:?}, and '{MAPPED_KEYS}' has {:?}",
                    weights.shape, keys.shape
                )));
            }
            _ => {}
        }
        if dense > 0 && self.dense.is_none() {
            return missing(MAPPED_DENSE);
        }
        Ok(())
    }
}

pub(super) fn twice(tensor: &Tensor) -> Fault {
    Fault::invalid(format!("input '{}' stands there twice", tensor.name))
}

/// The mapped tensors as the metadata declares them.
pub(super) fn mapped_specs(slots: usize, dense: usize, weighted: bool) -> Vec<TensorSpec> {
    let spec = |name: &str, datatype, shape: Vec<i64>| TensorSpec {
        name: name.into(),
        datatype,
        shape,
    };
    let mut specs = vec![];
    if slots > 0 {
        specs.push(spec(MAPPED_KEYS, Datatype::U64, vec![-1, slots as i64, -1]));
    }
    if weighted {
        let shape = vec![-1, slots as i64, -1];
        specs.push(spec(MAPPED_WEIGHTS, Datatype::F32, shape));
    }
    if dense > 0 {
        specs.push(spec(MAPPED_DENSE, Datatype::F32, vec![-1, dense as i64]));
    }
    specs
}
