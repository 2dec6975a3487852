//! A model that takes tensors as they are: an ONNX graph, its inputs and outputs by name.

use std::collections::HashSet;
use std::path::Path;

use ort::value::DynValue;
use serde::Deserialize;

use super::Call;
use super::graph::{Graph, Run, tensor, value};
use super::inputs::{rows, twice, unknown};
use super::manifest::broken;
use crate::error::{Fault, Result};
use crate::tensor::{Data, Datatype, Tensor, TensorSpec};

const DENSE: &str = "dense.onnx";

#[derive(Deserialize)]
pub(super) struct TensorsForm {
    inputs: Vec<SpecForm>,
    outputs: Vec<SpecForm>,
}

#[derive(Deserialize)]
struct SpecForm {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

pub(super) struct TensorsModel {
    pub graph: Graph,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// Whether rows of several calls may be put below one another.
    pub batches: bool,
}

impl TensorsModel {
    pub fn open(folder: &Path, form: TensorsForm, threads: usize) -> Result<TensorsModel> {
        let graph = Graph::open(folder, DENSE, threads)?;
        let inputs = declared(folder, &form.inputs, &graph.inputs)?;
        let outputs = declared(folder, &form.outputs, &graph.outputs)?;
        let known: HashSet<&str> = inputs.iter().map(|spec| spec.name.as_str()).collect();
        if let Some(more) = graph.inputs.iter().find(|s| !known.contains(&*s.name)) {
            let said = format!("its graph reads '{}', which the manifest lacks", more.name);
            return Err(broken(folder, said));
        }
        let by_row = |specs: &[TensorSpec]| specs.iter().all(|s| s.shape.first() == Some(&-1));
        Ok(TensorsModel {
            batches: by_row(&inputs) && by_row(&outputs),
            graph,
            inputs,
            outputs,
        })
    }

    /// A call's tensors in the model's order, checked; a tensor [rows] stands for [rows, 1].
    pub fn read<'a>(&self, call: &Call<'a>) -> Result<Vec<(Vec<usize>, &'a Tensor)>> {
        rows(call)?;
        let mut found: Vec<Option<&Tensor>> = vec![None; self.inputs.len()];
        for tensor in call.tensors {
            let Some(at) = self.inputs.iter().position(|s| s.name == tensor.name) else {
                let known: Vec<&str> = self.inputs.iter().map(|s| s.name.as_str()).collect();
                return Err(unknown(tensor, &known));
            };
            if found[at].replace(tensor).is_some() {
                return Err(twice(tensor));
            }
        }
        if let Some(name) = call.broadcast.first() {
            return Err(Fault::invalid(format!(
                "input '{name}' cannot be broadcast: this model takes tensors, not columns"
            )));
        }
        let each = self.inputs.iter().zip(found).map(|(spec, tensor)| {
            let tensor = tensor.ok_or_else(|| {
                Fault::invalid(format!("the request lacks the input '{}'", spec.name))
            })?;
            Ok((shape_of(spec, tensor)?, tensor))
        });
        each.collect()
    }

    /// One run for calls whose tensors are below one another, or for one call.
    pub fn run(&self, calls: &[Vec<(Vec<usize>, &Tensor)>], run: &mut Run) -> Result<Vec<Tensor>> {
        let mut inputs: Vec<(&str, DynValue)> = Vec::with_capacity(self.inputs.len());
        for (at, spec) in self.inputs.iter().enumerate() {
            let mut shape = calls[0][at].0.clone();
            let mut data = calls[0][at].1.data.clone();
            for call in &calls[1..] {
                if let Some(rows) = shape.first_mut() {
                    *rows += call[at].0[0];
                }
                extend(&mut data, &call[at].1.data);
            }
            inputs.push((&spec.name, value(&shape, data)?));
        }
        run.run(inputs, |outputs| {
            let each = self.outputs.iter().map(|spec| {
                let found = outputs.get(&spec.name).ok_or_else(|| {
                    Fault::internal(format!("the graph gave no output '{}'", spec.name))
                })?;
                tensor(&spec.name, &found.view())
            });
            each.collect()
        })
    }
}

/// What the manifest declares, where the graph has it too.
fn declared(folder: &Path, given: &[SpecForm], graph: &[TensorSpec]) -> Result<Vec<TensorSpec>> {
    let each = given.iter().map(|spec| {
        let datatype = Datatype::named(&spec.datatype);
        let own = graph.iter().find(|own| own.name == spec.name);
        match (datatype, own) {
            (Some(datatype), Some(own)) if own.datatype == datatype => Ok(TensorSpec {
                name: spec.name.clone(),
                datatype,
                shape: spec.shape.clone(),
            }),
            _ => Err(broken(
                folder,
                format!("its graph has no {} of {}", spec.name, spec.datatype),
            )),
        }
    });
    each.collect()
}

fn shape_of(spec: &TensorSpec, tensor: &Tensor) -> Result<Vec<usize>> {
    let wrong = |what: String| Fault::invalid(format!("input '{}' {what}", tensor.name));
    if tensor.data.datatype() != spec.datatype {
        return Err(wrong(format!(
            "is {}, not {}",
            tensor.data.datatype(),
            spec.datatype
        )));
    }
    if let Data::Bytes(texts) = &tensor.data
        && let Some(at) = texts.first_not_utf8()
    {
        return Err(wrong(format!(
            "holds bytes that are not UTF-8 at element {at}"
        )));
    }
    let floats = matches!(tensor.data, Data::F32(_) | Data::F64(_));
    if !floats && tensor.nulls.is_some() {
        return Err(wrong(format!("holds null, which {} cannot", spec.datatype)));
    }
    let mut shape = tensor.shape.clone();
    if spec.shape.len() == 2 && spec.shape[1] == 1 && shape.len() == 1 {
        shape.push(1);
    }
    let fits = |(&own, &wanted): (&usize, &i64)| wanted < 0 || own as i64 == wanted;
    if shape.len() != spec.shape.len() || !shape.iter().zip(&spec.shape).all(fits) {
        return Err(wrong(format!(
            "has the shape {:?}, not {:?}",
            tensor.shape, spec.shape
        )));
    }
    Ok(shape)
}

fn extend(data: &mut Data, more: &Data) {
    match (data, more) {
        (Data::Bool(a), Data::Bool(b)) => a.extend_from_slice(b),
        (Data::U8(a), Data::U8(b)) => a.extend_from_slice(b),
        (Data::U16(a), Data::U16(b)) => a.extend_from_slice(b),
        (Data::U32(a), Data::U32(b)) => a.extend_from_slice(b),
        (Data::U64(a), Data::U64(b)) => a.extend_from_slice(b),
        (Data::I8(a), Data::I8(b)) => a.extend_from_slice(b),
        (Data::I16(a), Data::I16(b)) => a.extend_from_slice(b),
        (Data::I32(a), Data::I32(b)) => a.extend_from_slice(b),
        (Data::I64(a), Data::I64(b)) => a.extend_from_slice(b),
        (Data::F32(a), Data::F32(b)) => a.extend_from_slice(b),
        (Data::F64(a), Data::F64(b)) => a.extend_from_slice(b),
        (Data::Bytes(a), Data::Bytes(b)) => b.iter().for_each(|text| a.push(text)),
        // Both were checked to be of the model's type.
        _ => unreachable!("tensors of one input have one type"),
    }
}

/// The rows `from..to` of a tensor.
pub(super) fn rows_of(tensor: &Tensor, from: usize, to: usize) -> Tensor {
    let each = tensor.shape[1..].iter().product::<usize>();
    let range = from * each..to * each;
    let data = match &tensor.data {
        Data::Bool(v) => Data::Bool(v[range].to_vec()),
        Data::U8(v) => Data::U8(v[range].to_vec()),
        Data::U16(v) => Data::U16(v[range].to_vec()),
        Data::U32(v) => Data::U32(v[range].to_vec()),
        Data::U64(v) => Data::U64(v[range].to_vec()),
        Data::I8(v) => Data::I8(v[range].to_vec()),
        Data::I16(v) => Data::I16(v[range].to_vec()),
        Data::I32(v) => Data::I32(v[range].to_vec()),
        Data::I64(v) => Data::I64(v[range].to_vec()),
        Data::F32(v) => Data::F32(v[range].to_vec()),
        Data::F64(v) => Data::F64(v[range].to_vec()),
        Data::Bytes(v) => {
            let mut texts = crate::tensor::Texts::default();
            range.for_each(|at| texts.push(v.get(at)));
            Data::Bytes(texts)
        }
    };
    let mut shape = tensor.shape.clone();
    shape[0] = to - from;
    Tensor::new(tensor.name.clone(), shape, data)
}
