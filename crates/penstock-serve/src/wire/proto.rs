//! Inference requests and replies as protobuf messages.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;

use super::limits::{Limits, Room};
use super::parameters::{self, Parameter};
use super::{Call, binary, input_fault, json};
use crate::error::{Fault, Result};
use crate::service::Reply;
use crate::tensor::{Data, Datatype, Tensor, Texts};

/// The messages and the service of schemas/inference.proto.
#[allow(clippy::all, clippy::pedantic)]
pub mod message {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

use message::infer_parameter::ParameterChoice;
use message::model_infer_request::InferInputTensor;
use message::model_infer_response::InferOutputTensor;
use message::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};

/// Reads a request's tensors and parameters. Raw contents are used up; names stay in the message.
///
/// Fails with `Invalid` (naming the input), `TooLarge` or `Unsupported`.
pub fn request(message: &mut ModelInferRequest, limits: &Limits) -> Result<Call> {
    let mut room = Room::new(*limits);
    let mut call = Call {
        id: (!message.id.is_empty()).then(|| std::mem::take(&mut message.id)),
        binary: true,
        ..Call::default()
    };
    for (name, value) in &message.parameters {
        parameters::of_request(&mut call, name, &parameter(value))?;
    }
    for output in &mut message.outputs {
        for (name, value) in &output.parameters {
            parameters::of_output(&mut None, name, &parameter(value))?;
        }
        call.wanted.push(std::mem::take(&mut output.name));
        call.forms.push(None);
    }
    let raw = std::mem::take(&mut message.raw_input_contents);
    let inputs = std::mem::take(&mut message.inputs);
    if !raw.is_empty() && raw.len() != inputs.len() {
        return Err(Fault::invalid(format!(
            "raw_input_contents has {} entries where the request has {} inputs; give one for each",
            raw.len(),
            inputs.len()
        )));
    }
    for (place, input) in inputs.into_iter().enumerate() {
        room.tensor()?;
        let name = input.name.clone();
        let named = (!name.is_empty()).then_some(name.as_str());
        let tensor = tensor(input, raw.get(place), &mut room);
        call.tensors
            .push(tensor.map_err(|fault| input_fault(named, place, fault))?);
    }
    call.check()?;
    Ok(call)
}

fn parameter(value: &InferParameter) -> Parameter<'_> {
    match &value.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(*value),
        Some(ParameterChoice::Int64Param(value)) => Parameter::Int(*value),
        Some(ParameterChoice::Uint64Param(value)) => {
            i64::try_from(*value).map_or(Parameter::Other, Parameter::Int)
        }
        Some(ParameterChoice::StringParam(value)) => Parameter::Text(Cow::Borrowed(value)),
        Some(ParameterChoice::DoubleParam(_)) | None => Parameter::Other,
    }
}

fn tensor(input: InferInputTensor, raw: Option<&Bytes>, room: &mut Room) -> Result<Tensor> {
    for (name, value) in &input.parameters {
        parameters::of_input(&mut None, name, &parameter(value))?;
    }
    if input.name.is_empty() {
        return Err(Fault::invalid("has no name"));
    }
    let datatype = json::datatype(&input.datatype)?;
    let shape: std::result::Result<Vec<usize>, _> = input
        .shape
        .iter()
        .map(|dim| usize::try_from(*dim))
        .collect();
    let shape = shape
        .map_err(|_| Fault::invalid(format!("shape {:?} has a negative dimension", input.shape)))?;
    let count = room.elements(&shape)?;
    let data = match (raw, input.contents) {
        (Some(raw), None) => binary::read(raw, datatype, &shape, count).map_err(Fault::invalid)?,
        (Some(_), Some(_)) => {
            return Err(Fault::invalid(
                "has contents where the request has raw_input_contents; use one of the two for all inputs",
            ));
        }
        (None, contents) => {
            let data = contents_data(contents.unwrap_or_default(), datatype)?;
            if data.len() != count {
                let found = data.len();
                return Err(Fault::invalid(format!(
                    "has {found} elements where shape {shape:?} needs {count}"
                )));
            }
            data
        }
    };
    Ok(Tensor {
        name: input.name,
        shape,
        data,
        nulls: None,
    })
}

fn contents_data(contents: InferTensorContents, datatype: Datatype) -> Result<Data> {
    let filled = [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ];
    let own = match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::I8 | Datatype::I16 | Datatype::I32 => "int_contents",
        Datatype::I64 => "int64_contents",
        Datatype::U8 | Datatype::U16 | Datatype::U32 => "uint_contents",
        Datatype::U64 => "uint64_contents",
        Datatype::F32 => "fp32_contents",
        Datatype::F64 => "fp64_contents",
        Datatype::Bytes => "bytes_contents",
    };
    if let Some((other, _)) = filled
        .iter()
        .find(|(name, length)| *length > 0 && *name != own)
    {
        return Err(Fault::invalid(format!(
            "has {other} where its datatype {datatype} takes {own}"
        )));
    }
    fn narrow<From: Copy + std::fmt::Display, To: TryFrom<From>>(
        values: &[From],
        to: Datatype,
    ) -> Result<Vec<To>> {
        let narrowed = values.iter().map(|value| {
            To::try_from(*value)
                .map_err(|_| Fault::invalid(format!("{value} is not an integer of {to}")))
        });
        narrowed.collect()
    }
    Ok(match datatype {
        Datatype::Bool => Data::Bool(contents.bool_contents),
        Datatype::I8 => Data::I8(narrow(&contents.int_contents, datatype)?),
        Datatype::I16 => Data::I16(narrow(&contents.int_contents, datatype)?),
        Datatype::I32 => Data::I32(contents.int_contents),
        Datatype::I64 => Data::I64(contents.int64_contents),
        Datatype::U8 => Data::U8(narrow(&contents.uint_contents, datatype)?),
        Datatype::U16 => Data::U16(narrow(&contents.uint_contents, datatype)?),
        Datatype::U32 => Data::U32(contents.uint_contents),
        Datatype::U64 => Data::U64(contents.uint64_contents),
        Datatype::F32 => Data::F32(contents.fp32_contents),
        Datatype::F64 => Data::F64(contents.fp64_contents),
        Datatype::Bytes => {
            let mut texts = Texts::default();
            contents
                .bytes_contents
                .iter()
                .for_each(|text| texts.push(text));
            Data::Bytes(texts)
        }
    })
}

/// The reply's message; outputs are raw.
pub fn reply(reply: &Reply, id: Option<String>) -> ModelInferResponse {
    let bundle = InferParameter {
        parameter_choice: Some(ParameterChoice::StringParam(
            reply.bundle.as_ref().to_owned(),
        )),
    };
    let mut parameters = HashMap::from([("bundle".to_owned(), bundle)]);
    if let Some(at) = &reply.position {
        for (name, number) in [("generation", at.generation), ("sequence", at.sequence)] {
            let number = InferParameter {
                parameter_choice: Some(ParameterChoice::Int64Param(number as i64)),
            };
            parameters.insert(name.to_owned(), number);
        }
    }
    let raw = |tensor: &Tensor| {
        let mut bytes = Vec::new();
        binary::write(&tensor.data, &mut bytes);
        Bytes::from(bytes)
    };
    ModelInferResponse {
        model_name: reply.model.clone(),
        model_version: reply.version.as_ref().to_owned(),
        id: id.unwrap_or_default(),
        parameters,
        raw_output_contents: reply.outputs.iter().map(raw).collect(),
        outputs: reply
            .outputs
            .iter()
            .map(|output| InferOutputTensor {
                name: output.name.clone(),
                datatype: output.data.datatype().name().to_owned(),
                // A dimension is a length in memory.
                shape: output.shape.iter().map(|dim| *dim as i64).collect(),
                ..InferOutputTensor::default()
            })
            .collect(),
    }
}
