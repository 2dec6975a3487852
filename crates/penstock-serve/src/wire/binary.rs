//! Tensors as raw little-endian bytes: the binary tail of a REST body, and gRPC's raw contents.

use crate::tensor::{Data, Datatype, Texts};

/// Elements from their bytes; `count` is what the shape holds. A message without a subject says what does not fit.
///
/// BYTES elements each follow their length, 4 bytes.
pub fn read(
    bytes: &[u8],
    datatype: Datatype,
    shape: &[usize],
    count: usize,
) -> std::result::Result<Data, String> {
    if datatype == Datatype::Bytes {
        return texts(bytes, shape, count).map(Data::Bytes);
    }
    let expected = count.saturating_mul(datatype.size_bytes());
    if bytes.len() != expected {
        return Err(format!(
            "has {} bytes of binary data where shape {shape:?} of {datatype} needs {expected}",
            bytes.len()
        ));
    }
    macro_rules! numbers {
        ($type:ty) => {{
            const SIZE: usize = size_of::<$type>();
            let (chunks, _) = bytes.as_chunks::<SIZE>();
            chunks
                .iter()
                .map(|chunk| <$type>::from_le_bytes(*chunk))
                .collect()
        }};
    }
    Ok(match datatype {
        Datatype::Bool => Data::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
        Datatype::U8 => Data::U8(bytes.to_vec()),
        Datatype::U16 => Data::U16(numbers!(u16)),
        Datatype::U32 => Data::U32(numbers!(u32)),
        Datatype::U64 => Data::U64(numbers!(u64)),
        Datatype::I8 => Data::I8(numbers!(i8)),
        Datatype::I16 => Data::I16(numbers!(i16)),
        Datatype::I32 => Data::I32(numbers!(i32)),
        Datatype::I64 => Data::I64(numbers!(i64)),
        Datatype::F32 => Data::F32(numbers!(f32)),
        Datatype::F64 => Data::F64(numbers!(f64)),
        Datatype::Bytes => unreachable!("read above"),
    })
}

fn texts(bytes: &[u8], shape: &[usize], count: usize) -> std::result::Result<Texts, String> {
    let mut texts = Texts::default();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        if texts.len() == count {
            break;
        }
        let length = u32::from_le_bytes(*length) as usize;
        let Some((text, after)) = after.split_at_checked(length) else {
            return Err(format!(
                "element {} of its BYTES says it is {length} bytes long, {} are left",
                texts.len(),
                after.len()
            ));
        };
        texts.push(text);
        rest = after;
    }
    if texts.len() != count {
        return Err(format!(
            "has {} BYTES elements where shape {shape:?} needs {count}, and {} bytes that are no element",
            texts.len(),
            rest.len()
        ));
    }
    if !rest.is_empty() {
        let left = rest.len();
        return Err(format!(
            "has {left} bytes after the {count} BYTES elements of shape {shape:?}"
        ));
    }
    Ok(texts)
}

/// How many bytes `write` adds.
pub fn size_bytes(data: &Data) -> usize {
    match data {
        Data::Bytes(texts) => texts.size_bytes() + 4 * texts.len(),
        data => data.len() * data.datatype().size_bytes(),
    }
}

/// The elements' bytes, as `read` takes them.
pub fn write(data: &Data, into: &mut Vec<u8>) {
    into.reserve(size_bytes(data));
    macro_rules! numbers {
        ($values:expr) => {
            $values
                .iter()
                .for_each(|value| into.extend_from_slice(&value.to_le_bytes()))
        };
    }
    match data {
        Data::Bool(v) => into.extend(v.iter().map(|value| u8::from(*value))),
        Data::U8(v) => into.extend_from_slice(v),
        Data::U16(v) => numbers!(v),
        Data::U32(v) => numbers!(v),
        Data::U64(v) => numbers!(v),
        Data::I8(v) => numbers!(v),
        Data::I16(v) => numbers!(v),
        Data::I32(v) => numbers!(v),
        Data::I64(v) => numbers!(v),
        Data::F32(v) => numbers!(v),
        Data::F64(v) => numbers!(v),
        Data::Bytes(texts) => {
            for text in texts.iter() {
                // A body is far below 4 GiB; a longer text could not be told in this form.
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                into.extend_from_slice(&length.to_le_bytes());
                into.extend_from_slice(&text[..length as usize]);
            }
        }
    }
}
