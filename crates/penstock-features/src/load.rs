//! Arrow columns into blocks: strings by reference, everything else widened.

use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;

use crate::block::{Block, Kind, Mask};

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
            out.reset(kind(lists.values().data_type())?, true);
            rows_of(
                out,
                lists.nulls(),
                start,
                rows,
                lists.values().as_ref(),
                |row| row * size..(row + 1) * size,
            )
        }
        DataType::Dictionary(_, _) => {
            out.reset(kind(array.data_type())?, false);
            elements(array, start, rows, out)
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
    out.reset(kind(lists.values().data_type())?, true);
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

/// Append `n` elements; the block's kind is already that of the array.
fn elements<'a>(
    array: &'a dyn Array,
    start: usize,
    n: usize,
    out: &mut Block<'a>,
) -> Result<(), String> {
    if n == 0 {
        return Ok(());
    }
    match array.data_type() {
        DataType::Null => out.valid.fill(n, false),
        DataType::Utf8 => strings(array.as_string::<i32>(), start, n, out),
        DataType::LargeUtf8 => strings(array.as_string::<i64>(), start, n, out),
        DataType::Binary => strings(array.as_binary::<i32>(), start, n, out),
        DataType::LargeBinary => strings(array.as_binary::<i64>(), start, n, out),
        DataType::Utf8View => views(array.as_string_view(), start, n, out),
        DataType::BinaryView => views(array.as_binary_view(), start, n, out),
        DataType::FixedSizeBinary(_) => {
            let values = array.as_fixed_size_binary();
            validity(array.nulls(), start, n, &mut out.valid);
            out.bytes
                .extend((start..start + n).map(|i| values.value(i)));
        }
        DataType::Int8 => ints(array.as_primitive::<Int8Type>(), start, n, out, i64::from),
        DataType::Int16 => ints(array.as_primitive::<Int16Type>(), start, n, out, i64::from),
        DataType::Int32 => ints(array.as_primitive::<Int32Type>(), start, n, out, i64::from),
        DataType::Int64 => ints(array.as_primitive::<Int64Type>(), start, n, out, |v| v),
        DataType::Date32 => ints(array.as_primitive::<Date32Type>(), start, n, out, i64::from),
        DataType::Date64 => ints(array.as_primitive::<Date64Type>(), start, n, out, |ms| {
            ms.div_euclid(86_400_000)
        }),
        DataType::UInt8 => words(array.as_primitive::<UInt8Type>(), start, n, out, u64::from),
        DataType::UInt16 => words(array.as_primitive::<UInt16Type>(), start, n, out, u64::from),
        DataType::UInt32 => words(array.as_primitive::<UInt32Type>(), start, n, out, u64::from),
        DataType::UInt64 => words(array.as_primitive::<UInt64Type>(), start, n, out, |v| v),
        DataType::Float32 => floats(
            array.as_primitive::<Float32Type>(),
            start,
            n,
            out,
            f64::from,
        ),
        DataType::Float64 => floats(array.as_primitive::<Float64Type>(), start, n, out, |v| v),
        DataType::Decimal128(_, scale) => {
            let unit = libm::pow(10.0, f64::from(*scale));
            floats(array.as_primitive::<Decimal128Type>(), start, n, out, |v| {
                v as f64 / unit
            });
        }
        DataType::Boolean => {
            let values = array.as_boolean().values();
            validity(array.nulls(), start, n, &mut out.valid);
            out.words
                .extend((start..start + n).map(|i| u64::from(values.value(i))));
        }
        DataType::Timestamp(unit, _) => timestamps(array, *unit, start, n, out),
        DataType::Dictionary(_, _) => return categories(array, start, n, out),
        other => return Err(format!("a column of type {other} cannot be mapped")),
    }
    Ok(())
}

/// The eight flags of each byte of a bitmap.
static FLAGS: [[bool; 8]; 256] = {
    let mut flags = [[false; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            flags[byte][bit] = byte >> bit & 1 == 1;
            bit += 1;
        }
        byte += 1;
    }
    flags
};

fn validity(nulls: Option<&NullBuffer>, start: usize, n: usize, mask: &mut Mask) {
    match nulls {
        Some(nulls) if nulls.null_count() > 0 => {
            let present = nulls.inner().slice(start, n);
            mask.missing += n - present.count_set_bits();
            let end = mask.bits.len() + n;
            for word in present.bit_chunks().iter_padded() {
                for byte in word.to_le_bytes() {
                    mask.bits.extend_from_slice(&FLAGS[usize::from(byte)]);
                }
            }
            mask.bits.truncate(end);
        }
        _ => mask.fill(n, true),
    }
}

fn strings<'a, T: ByteArrayType>(
    array: &'a GenericByteArray<T>,
    start: usize,
    n: usize,
    out: &mut Block<'a>,
) {
    validity(array.nulls(), start, n, &mut out.valid);
    let offsets = &array.value_offsets()[start..=start + n];
    let data = array.value_data();
    out.bytes.extend(
        offsets
            .windows(2)
            .map(|pair| &data[pair[0].as_usize()..pair[1].as_usize()]),
    );
}

/// Up to here the bytes of a view stand in the view itself.
const INLINE: u32 = 12;

fn views<'a, T: ByteViewType>(
    array: &'a GenericByteViewArray<T>,
    start: usize,
    n: usize,
    out: &mut Block<'a>,
) {
    let before = out.valid.bits.len();
    validity(array.nulls(), start, n, &mut out.valid);
    let present = &out.valid.bits[before..];
    let views = &array.views()[start..start + n];
    let buffers = array.data_buffers();
    let value = |(view, present): (&'a u128, &bool)| -> &'a [u8] {
        let length = *view as u32;
        if length <= INLINE {
            // SAFETY: the view holds that many bytes itself, whether it is a null's or not.
            unsafe { GenericByteViewArray::<T>::inline_value(view, length as usize) }
        } else if *present {
            let (buffer, offset) = ((*view >> 64) as u32, (*view >> 96) as u32);
            &buffers[buffer as usize][offset as usize..][..length as usize]
        } else {
            // A null's view may be anything, so it is not followed.
            &[]
        }
    };
    out.bytes.extend(views.iter().zip(present).map(value));
}

fn ints<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    start: usize,
    n: usize,
    out: &mut Block<'_>,
    widen: impl Fn(T::Native) -> i64,
) {
    validity(array.nulls(), start, n, &mut out.valid);
    out.ints
        .extend(array.values()[start..start + n].iter().map(|v| widen(*v)));
}

fn words<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    start: usize,
    n: usize,
    out: &mut Block<'_>,
    widen: impl Fn(T::Native) -> u64,
) {
    validity(array.nulls(), start, n, &mut out.valid);
    out.words
        .extend(array.values()[start..start + n].iter().map(|v| widen(*v)));
}

/// NaN is null, and a null is NaN.
fn floats<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    start: usize,
    n: usize,
    out: &mut Block<'_>,
    widen: impl Fn(T::Native) -> f64,
) {
    let values = &array.values()[start..start + n];
    let before = out.floats.len();
    if array.null_count() == 0 {
        out.floats.extend(values.iter().map(|v| widen(*v)));
    } else {
        let flags = out.valid.bits.len();
        validity(array.nulls(), start, n, &mut out.valid);
        let present = &out.valid.bits[flags..];
        let value = |(v, present): (&T::Native, &bool)| if *present { widen(*v) } else { f64::NAN };
        out.floats.extend(values.iter().zip(present).map(value));
        out.valid.missing -= present.iter().filter(|present| !**present).count();
        out.valid.bits.truncate(flags);
    }
    let numbers = &out.floats[before..];
    out.valid.bits.extend(numbers.iter().map(|v| !v.is_nan()));
    out.valid.missing += numbers.iter().filter(|v| v.is_nan()).count();
}

fn timestamps(array: &dyn Array, unit: TimeUnit, start: usize, n: usize, out: &mut Block<'_>) {
    // Seconds and milliseconds beyond the range of microseconds saturate; `bucketize_time` then refuses the row.
    match unit {
        TimeUnit::Second => {
            ints(
                array.as_primitive::<TimestampSecondType>(),
                start,
                n,
                out,
                |v| v.saturating_mul(1_000_000),
            );
        }
        TimeUnit::Millisecond => {
            ints(
                array.as_primitive::<TimestampMillisecondType>(),
                start,
                n,
                out,
                |v| v.saturating_mul(1_000),
            );
        }
        TimeUnit::Microsecond => ints(
            array.as_primitive::<TimestampMicrosecondType>(),
            start,
            n,
            out,
            |v| v,
        ),
        TimeUnit::Nanosecond => {
            ints(
                array.as_primitive::<TimestampNanosecondType>(),
                start,
                n,
                out,
                |v| v.div_euclid(1_000),
            );
        }
    }
}

/// A categorical's elements are its values: strings almost always, read through their codes without a copy.
fn categories<'a>(
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
