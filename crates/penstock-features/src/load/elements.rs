//! A run of an array's elements appended to a block, with the flags that say which are there.

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use arrow_buffer::{ArrowNativeType, NullBuffer};
use arrow_schema::{DataType, TimeUnit};

use super::categories::categories;
use crate::block::{Block, Mask};

/// Append `n` elements; the block's kind is already that of the array.
pub(super) fn elements<'a>(
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
        DataType::Int8 => integers::<Int8Type, _>(array, start, n, out, i64::from),
        DataType::Int16 => integers::<Int16Type, _>(array, start, n, out, i64::from),
        DataType::Int32 => integers::<Int32Type, _>(array, start, n, out, i64::from),
        DataType::Int64 => integers::<Int64Type, _>(array, start, n, out, |v| v),
        DataType::Date32 => integers::<Date32Type, _>(array, start, n, out, i64::from),
        DataType::Date64 => {
            integers::<Date64Type, _>(array, start, n, out, |ms| ms.div_euclid(86_400_000))
        }
        DataType::UInt8 => integers::<UInt8Type, _>(array, start, n, out, u64::from),
        DataType::UInt16 => integers::<UInt16Type, _>(array, start, n, out, u64::from),
        DataType::UInt32 => integers::<UInt32Type, _>(array, start, n, out, u64::from),
        DataType::UInt64 => integers::<UInt64Type, _>(array, start, n, out, |v| v),
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

/// The two integers that a block holds, each in a vector of its own.
trait Integer: Sized {
    fn of<'b>(block: &'b mut Block<'_>) -> &'b mut Vec<Self>;
}

impl Integer for i64 {
    fn of<'b>(block: &'b mut Block<'_>) -> &'b mut Vec<i64> {
        &mut block.ints
    }
}

impl Integer for u64 {
    fn of<'b>(block: &'b mut Block<'_>) -> &'b mut Vec<u64> {
        &mut block.words
    }
}

/// Integers, days and moments, each widened to what the block holds.
fn integers<T: ArrowPrimitiveType, I: Integer>(
    array: &dyn Array,
    start: usize,
    n: usize,
    out: &mut Block<'_>,
    widen: impl Fn(T::Native) -> I,
) {
    validity(array.nulls(), start, n, &mut out.valid);
    let values = &array.as_primitive::<T>().values()[start..start + n];
    I::of(out).extend(values.iter().map(|v| widen(*v)));
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
        TimeUnit::Second => integers::<TimestampSecondType, _>(array, start, n, out, |v| {
            v.saturating_mul(1_000_000)
        }),
        TimeUnit::Millisecond => {
            integers::<TimestampMillisecondType, _>(array, start, n, out, |v| {
                v.saturating_mul(1_000)
            })
        }
        TimeUnit::Microsecond => {
            integers::<TimestampMicrosecondType, _>(array, start, n, out, |v| v)
        }
        TimeUnit::Nanosecond => {
            integers::<TimestampNanosecondType, _>(array, start, n, out, |v| v.div_euclid(1_000))
        }
    }
}
