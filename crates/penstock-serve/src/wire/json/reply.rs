//! Replies and errors in JSON, written into one buffer.

use std::io::Write;

use crate::service::Reply;
use crate::tensor::{Data, Tensor};
use crate::wire::{Call, binary};

/// A reply's body.
pub struct Encoded {
    pub bytes: Vec<u8>,
    /// Where its JSON ends and binary tensors begin; None: it is all JSON.
    pub header_bytes: Option<usize>,
}

/// The body of a reply; outputs that the call asked for as binary come after the JSON.
///
/// NaN and the infinities are written as `null`: JSON has neither.
pub fn reply(reply: &Reply, call: &Call) -> Encoded {
    let elements: usize = reply.outputs.iter().map(|output| output.data.len()).sum();
    let mut json = Vec::with_capacity(384 + 16 * elements);
    json.extend_from_slice(b"{\"model_name\":");
    string(&mut json, reply.model.as_bytes());
    json.extend_from_slice(b",\"model_version\":");
    string(&mut json, reply.version.as_bytes());
    if let Some(id) = &call.id {
        json.extend_from_slice(b",\"id\":");
        string(&mut json, id.as_bytes());
    }
    json.extend_from_slice(b",\"parameters\":{\"bundle\":");
    string(&mut json, reply.bundle.as_bytes());
    if let Some(at) = &reply.position {
        let (generation, sequence) = (at.generation, at.sequence);
        let said = format!(",\"generation\":{generation},\"sequence\":{sequence}");
        json.extend_from_slice(said.as_bytes());
    }
    json.extend_from_slice(b"},\"outputs\":[");
    let mut any_binary = false;
    for (at, output) in reply.outputs.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        let as_binary = call.is_binary(&output.name);
        any_binary |= as_binary;
        tensor(&mut json, output, as_binary);
    }
    json.extend_from_slice(b"]}");
    let header_bytes = any_binary.then_some(json.len());
    for output in reply
        .outputs
        .iter()
        .filter(|output| call.is_binary(&output.name))
    {
        binary::write(&output.data, &mut json);
    }
    Encoded {
        bytes: json,
        header_bytes,
    }
}

/// `{"error": "..."}`
pub fn error(message: &str) -> Vec<u8> {
    let mut json = Vec::with_capacity(message.len() + 16);
    json.extend_from_slice(b"{\"error\":");
    string(&mut json, message.as_bytes());
    json.push(b'}');
    json
}

fn tensor(json: &mut Vec<u8>, tensor: &Tensor, as_binary: bool) {
    json.extend_from_slice(b"{\"name\":");
    string(json, tensor.name.as_bytes());
    json.extend_from_slice(b",\"datatype\":\"");
    json.extend_from_slice(tensor.data.datatype().name().as_bytes());
    json.extend_from_slice(b"\",\"shape\":[");
    list(json, &tensor.shape, |json, dim| integer(json, *dim));
    if as_binary {
        json.extend_from_slice(b"],\"parameters\":{\"binary_data_size\":");
        integer(json, binary::size_bytes(&tensor.data));
        json.extend_from_slice(b"}}");
    } else {
        json.extend_from_slice(b"],\"data\":[");
        elements(json, &tensor.data);
        json.extend_from_slice(b"]}");
    }
}

fn elements(json: &mut Vec<u8>, data: &Data) {
    match data {
        Data::Bool(v) => list(json, v, |json, value| {
            json.extend_from_slice(if *value { b"true" } else { b"false" });
        }),
        Data::U8(v) => list(json, v, |json, value| integer(json, *value)),
        Data::U16(v) => list(json, v, |json, value| integer(json, *value)),
        Data::U32(v) => list(json, v, |json, value| integer(json, *value)),
        Data::U64(v) => list(json, v, |json, value| integer(json, *value)),
        Data::I8(v) => list(json, v, |json, value| integer(json, *value)),
        Data::I16(v) => list(json, v, |json, value| integer(json, *value)),
        Data::I32(v) => list(json, v, |json, value| integer(json, *value)),
        Data::I64(v) => list(json, v, |json, value| integer(json, *value)),
        Data::F32(v) => list(json, v, |json, value| {
            float(json, *value, value.is_finite())
        }),
        Data::F64(v) => list(json, v, |json, value| {
            float(json, *value, value.is_finite())
        }),
        Data::Bytes(texts) => {
            for (at, text) in texts.iter().enumerate() {
                if at > 0 {
                    json.push(b',');
                }
                string(json, text);
            }
        }
    }
}

fn list<T>(json: &mut Vec<u8>, values: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        write(json, value);
    }
}

fn integer(json: &mut Vec<u8>, value: impl itoa::Integer) {
    json.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn float(json: &mut Vec<u8>, value: impl ryu::Float, finite: bool) {
    if finite {
        json.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else {
        json.extend_from_slice(b"null");
    }
}

/// A string with its quotes. Bytes that are not UTF-8 become U+FFFD: JSON cannot hold them, the binary form can.
fn string(json: &mut Vec<u8>, bytes: &[u8]) {
    json.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for byte in chunk.valid().bytes() {
            match byte {
                b'"' => json.extend_from_slice(b"\\\""),
                b'\\' => json.extend_from_slice(b"\\\\"),
                b'\n' => json.extend_from_slice(b"\\n"),
                b'\r' => json.extend_from_slice(b"\\r"),
                b'\t' => json.extend_from_slice(b"\\t"),
                // Writing into a Vec cannot fail.
                0..0x20 => drop(write!(json, "\\u{byte:04x}")),
                _ => json.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            json.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    json.push(b'"');
}
