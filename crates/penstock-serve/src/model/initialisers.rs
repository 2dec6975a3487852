//! The weights of an ONNX graph by name: where they stand in its bytes, so that others of the same shape are put there.
//!
//! In: a ModelProto as bytes. Its protobuf is walked, not decoded: weights keep their length, so nothing else moves.

use std::collections::HashMap;
use std::ops::Range;

const GRAPH: u64 = 7;
const INITIALIZER: u64 = 5;
const DIMS: u64 = 1;
const DATA_TYPE: u64 = 2;
const FLOAT_DATA: u64 = 4;
const NAME: u64 = 8;
const RAW_DATA: u64 = 9;
/// TensorProto.FLOAT.
const FLOAT: u64 = 1;

/// A weight of floats: its shape, and where its values are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Initialiser {
    pub shape: Vec<u64>,
    pub bytes: Range<usize>,
}

/// The weights that hold floats in the file itself. None: it is no ModelProto.
pub(super) fn initialisers(model: &[u8]) -> Option<HashMap<String, Initialiser>> {
    let mut found = HashMap::new();
    for (field, graph) in fields(model, 0..model.len())? {
        if field != GRAPH {
            continue;
        }
        for (field, tensor) in fields(model, graph.range()?)? {
            if field == INITIALIZER
                && let Some((name, weight)) = initialiser(model, tensor.range()?)?
            {
                found.insert(name, weight);
            }
        }
    }
    Some(found)
}

fn initialiser(model: &[u8], tensor: Range<usize>) -> Option<Option<(String, Initialiser)>> {
    let (mut name, mut shape, mut kind, mut bytes) = (String::new(), vec![], 0, None);
    for (field, value) in fields(model, tensor)? {
        match (field, value) {
            (DIMS, Value::Number(dim)) => shape.push(dim),
            (DIMS, Value::Bytes(packed)) => {
                let mut at = packed.start;
                while at < packed.end {
                    shape.push(varint(model, &mut at, packed.end)?);
                }
            }
            (DATA_TYPE, Value::Number(number)) => kind = number,
            (NAME, Value::Bytes(text)) => name = std::str::from_utf8(&model[text]).ok()?.to_owned(),
            (RAW_DATA | FLOAT_DATA, Value::Bytes(range)) if !range.is_empty() => {
                bytes = Some(range)
            }
            _ => {}
        }
    }
    let count = shape.iter().try_fold(4_u64, |n, &dim| n.checked_mul(dim))?;
    let whole = bytes.filter(|range| kind == FLOAT && range.len() as u64 == count);
    Some(whole.map(|bytes| (name, Initialiser { shape, bytes })))
}

#[derive(Clone)]
enum Value {
    Number(u64),
    Bytes(Range<usize>),
}

impl Value {
    fn range(&self) -> Option<Range<usize>> {
        match self {
            Value::Bytes(range) => Some(range.clone()),
            Value::Number(_) => None,
        }
    }
}

/// The fields of a message, in order.
fn fields(model: &[u8], message: Range<usize>) -> Option<Vec<(u64, Value)>> {
    let (mut at, end) = (message.start, message.end);
    let mut found = vec![];
    while at < end {
        let tag = varint(model, &mut at, end)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(model, &mut at, end)?),
            1 => fixed(&mut at, 8, end)?,
            2 => {
                let length = usize::try_from(varint(model, &mut at, end)?).ok()?;
                fixed(&mut at, length, end)?
            }
            5 => fixed(&mut at, 4, end)?,
            _ => return None,
        };
        found.push((tag >> 3, value));
    }
    Some(found)
}

fn fixed(at: &mut usize, length: usize, end: usize) -> Option<Value> {
    let stop = at.checked_add(length).filter(|&stop| stop <= end)?;
    let range = *at..stop;
    *at = stop;
    Some(Value::Bytes(range))
}

fn varint(model: &[u8], at: &mut usize, end: usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *model[..end].get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    fn tensor(name: &str, data_type: u8, floats: &[f32]) -> Vec<u8> {
        let raw: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
        let dims = [(DIMS as u8) << 3, floats.len() as u8];
        [
            &dims[..],
            &[(DATA_TYPE as u8) << 3, data_type],
            &field(8, name.as_bytes()),
            &field(9, &raw),
        ]
        .concat()
    }

    #[test]
    fn weights_are_found_where_they_stand() {
        let graph = [
            field(5, &tensor("a", 1, &[1.0, 2.0])),
            field(5, &tensor("n", 7, &[3.0])),
        ]
        .concat();
        let model = [&[8, 9][..], &field(7, &graph)].concat();
        let found = initialisers(&model).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a"]);
        let weight = &found["a"];
        assert_eq!(weight.shape, [2]);
        assert_eq!(
            model[weight.bytes.clone()],
            [1.0_f32, 2.0].map(f32::to_le_bytes).concat()
        );
        for cut in 0..model.len() {
            let _ = initialisers(&model[..cut]); // no panic
        }
    }
}
