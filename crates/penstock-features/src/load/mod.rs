//! Arrow columns into blocks: strings by reference, everything else widened.
//!
//! Here a column's type is told and its lists are cut; `elements` appends the values, `categories` those behind codes.

mod categories;
mod elements;

use arrow_array::cast::AsArray;
use arrow_array::{Array, GenericListArray, OffsetSizeTrait};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;

use self::elements::elements;
use crate::block::{Block, Kind};

/// Fill `out` with `rows` rows of `array` from `start`. The error says why this type cannot be used.
pub(crate) fn column<'a>(
    array: &'a dyn Array,
    start: usize,
    rows: usize,
    out: &mut Block<'a>,
) -> Result<(), String> {
    match array.data_type() {
        DataType::List(_) => list(array.as_list::<i32>(), start, rows, out),
        DataType::LargeList(_) => list(array.as_list::<i64>(), start, rows, out),
        DataType::FixedSizeList(_, _) => {
            let lists = array.as_fixed_size_list();
            let size = lists.value_length() as usize;
            rows_of(
                out,
                lists.nulls(),
                start,
                rows,
                lists.values().as_ref(),
                |row| row * size..(row + 1) * size,
            )
        }
        other => {
            out.reset(kind(other)?, false);
            elements(array, start, rows, out)
        }
    }
}

fn list<'a, O: OffsetSizeTrait>(
    lists: &'a GenericListArray<O>,
    start: usize,
    rows: usize,
    out: &mut Block<'a>,
) -> Result<(), String> {
    let offsets = lists.value_offsets();
    rows_of(
        out,
        lists.nulls(),
        start,
        rows,
        lists.values().as_ref(),
        |row| offsets[row].as_usize()..offsets[row + 1].as_usize(),
    )
}

/// A null list may still span elements in Arrow; they are left out here.
fn rows_of<'a>(
    out: &mut Block<'a>,
    nulls: Option<&NullBuffer>,
    start: usize,
    rows: usize,
    values: &'a dyn Array,
    span: impl Fn(usize) -> std::ops::Range<usize>,
) -> Result<(), String> {
    out.reset(kind(values.data_type())?, true);
    let mut end = 0;
    let mut run = 0..0;
    for row in start..start + rows {
        let held = nulls.is_none_or(|nulls| nulls.is_valid(row));
        out.rows.push(held);
        if held {
            let here = span(row);
            end += here.len();
            if here.start == run.end {
                run.end = here.end;
            } else {
                elements(values, run.start, run.len(), out)?;
                run = here;
            }
        }
        out.ends.push(end);
    }
    elements(values, run.start, run.len(), out)
}

/// The kind that elements of this type become.
fn kind(data_type: &DataType) -> Result<Kind, String> {
    Ok(match data_type {
        DataType::Null => Kind::Null,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => Kind::Binary,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Kind::Int,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Kind::UInt,
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(_, _) => Kind::Float,
        DataType::Boolean => Kind::Bool,
        DataType::Date32 | DataType::Date64 => Kind::Date,
        DataType::Timestamp(_, _) => Kind::Time,
        DataType::Dictionary(_, values) if !matches!(**values, DataType::Dictionary(_, _)) => {
            kind(values)?
        }
        other => return Err(format!("a column of type {other} cannot be mapped")),
    })
}
