//! Elements of dictionary arrays.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_schema::DataType;

use super::column;
use crate::block::{Block, Kind};

/// A categorical's elements are its values: strings almost always, read through their codes without a copy.
pub(super) fn categories<'a>(
    array: &'a dyn Array,
    start: usize,
    n: usize,
    out: &mut Block<'a>,
) -> Result<(), String> {
    let dictionary = array.as_any_dictionary();
    let values = dictionary.values().as_ref();
    let mut codes = Block::default();
    column(dictionary.keys(), start, n, &mut codes)?;
    let code = |i: usize| {
        if codes.kind == Kind::Int {
            codes.ints[i] as usize
        } else {
            codes.words[i] as usize
        }
    };
    for i in 0..n {
        let present = codes.valid.bits[i] && code(i) < values.len() && values.is_valid(code(i));
        out.valid.push(present);
    }
    let before = out.valid.bits.len() - n;
    let present = &out.valid.bits[before..];
    let text = |value: &dyn Fn(usize) -> &'a [u8], bytes: &mut Vec<&'a [u8]>| {
        bytes.extend((0..n).map(|i| if present[i] { value(code(i)) } else { &[] }));
    };
    match values.data_type() {
        DataType::Utf8 => text(
            &|v| values.as_string::<i32>().value(v).as_bytes(),
            &mut out.bytes,
        ),
        DataType::LargeUtf8 => text(
            &|v| values.as_string::<i64>().value(v).as_bytes(),
            &mut out.bytes,
        ),
        DataType::Utf8View => text(
            &|v| values.as_string_view().value(v).as_bytes(),
            &mut out.bytes,
        ),
        _ => {
            let mut all = Block::default();
            column(values, 0, values.len(), &mut all)?;
            for (i, present) in present.iter().enumerate() {
                let v = if *present { code(i) } else { usize::MAX };
                match out.kind {
                    Kind::Text | Kind::Binary => out
                        .bytes
                        .push(all.bytes.get(v).copied().unwrap_or_default()),
                    Kind::Int | Kind::Date | Kind::Time => {
                        out.ints.push(all.ints.get(v).copied().unwrap_or_default())
                    }
                    Kind::UInt | Kind::Bool => out
                        .words
                        .push(all.words.get(v).copied().unwrap_or_default()),
                    Kind::Float => out
                        .floats
                        .push(all.floats.get(v).copied().unwrap_or(f64::NAN)),
                    Kind::Null => {}
                }
            }
        }
    }
    if out.kind == Kind::Float {
        // A float may be NaN behind a valid code.
        for i in 0..n {
            if out.floats[out.floats.len() - n + i].is_nan() {
                out.valid.set(before + i, false);
            }
        }
    }
    Ok(())
}
