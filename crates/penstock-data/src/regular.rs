//! Chunks of CSV without a quote and with the same number of fields in every line, which is what logs are: columns are
//! built one after another from the places of the separators, and strings stay where they are.
//!
//! Anything else (a quote, a line too short, a field of another type) makes `columns` None: the careful way of `csv.rs`
//! then reads the whole chunk, and knows what to say of it.

use std::sync::Arc;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::builder::make_view;
use arrow_array::{ArrayRef, StringViewArray};
use arrow_buffer::{Buffer, NullBuffer, ScalarBuffer};

use crate::column::Column;
use crate::csv::{CsvFormat, Held};
use crate::scalar::Kind;

/// The wanted columns of the chunk and its rows. `mapping`: the column of each field of a line.
pub(crate) fn columns(
    format: &CsvFormat,
    data: &[u8],
    mapping: &[usize],
) -> Option<(Vec<ArrayRef>, usize)> {
    let whole = mapping.len() == format.columns.len() && mapping.len() > 1;
    if !whole || data.len() >= u32::MAX as usize {
        return None;
    }
    if format
        .dialect
        .quote
        .is_some_and(|quote| memchr::memchr(quote, data).is_some())
    {
        return None;
    }
    // Strings are views into the data, which must be text as a whole.
    std::str::from_utf8(data).ok()?;
    let ends = ends(data, format.dialect.sep, mapping.len())?;
    let rows = ends.len() / mapping.len();
    let text = Buffer::from(data);
    let mut found: Vec<Option<ArrayRef>> = vec![None; format.columns.len()];
    for (place, &column) in mapping.iter().enumerate() {
        let fields = Fields {
            data,
            ends: &ends,
            place,
            width: mapping.len(),
        };
        let (kind, wanted) = (format.columns[column].kind, format.wanted[column]);
        found[column] = match kind {
            Kind::Str if !wanted => None,
            Kind::Str => Some(strings(format, fields, &text)),
            _ => {
                let values = scalars(format, kind, fields)?;
                wanted.then(|| values.finish())
            }
        };
    }
    Some((found.into_iter().flatten().collect(), rows))
}

/// One field of every line.
#[derive(Clone, Copy)]
struct Fields<'a> {
    data: &'a [u8],
    ends: &'a [u32],
    place: usize,
    width: usize,
}

impl<'a> Fields<'a> {
    /// Where each begins, and its bytes.
    #[inline(always)]
    fn each(self) -> impl Iterator<Item = (u32, &'a [u8])> {
        let last = self.place + 1 == self.width;
        (self.place..self.ends.len())
            .step_by(self.width)
            .map(move |at| {
                let start = if at == 0 { 0 } else { self.ends[at - 1] + 1 };
                let raw = &self.data[start as usize..self.ends[at] as usize];
                let raw = if last {
                    raw.strip_suffix(b"\r").unwrap_or(raw)
                } else {
                    raw
                };
                (start, raw)
            })
    }
}

fn strings(format: &CsvFormat, fields: Fields, text: &Buffer) -> ArrayRef {
    let rows = fields.ends.len() / fields.width;
    let mut views = Vec::with_capacity(rows);
    let mut missing = Vec::new();
    for (row, (start, raw)) in fields.each().enumerate() {
        if raw.is_empty() || format.is_null(raw) {
            missing.push(row);
        }
        views.push(view(fields.data, start, raw));
    }
    let nulls = (!missing.is_empty()).then(|| {
        let mut there = BooleanBufferBuilder::new(rows);
        there.append_n(rows, true);
        missing.iter().for_each(|&row| there.set_bit(row, false));
        NullBuffer::new(there.finish())
    });
    // SAFETY: the text is UTF-8 and every view is a part of it between separators of one byte below 128, hence UTF-8 too;
    // offsets and lengths are those of the slices.
    Arc::new(unsafe {
        StringViewArray::new_unchecked(ScalarBuffer::from(views), [text.clone()].into(), nulls)
    })
}

/// A string's view: `make_view`'s, without its jump by length for strings that stand in the view itself.
#[inline(always)]
fn view(data: &[u8], start: u32, raw: &[u8]) -> u128 {
    match data[start as usize..].first_chunk::<12>() {
        Some(&[a, b, c, d, e, f, g, h, i, j, k, l]) if raw.len() <= 12 => {
            let twelve = u128::from_le_bytes([a, b, c, d, e, f, g, h, i, j, k, l, 0, 0, 0, 0]);
            let own = twelve & ((1 << (8 * raw.len())) - 1);
            own << 32 | raw.len() as u128
        }
        _ => make_view(raw, 0, start),
    }
}

/// None where a field is not of its column's type.
fn scalars(format: &CsvFormat, kind: Kind, fields: Fields) -> Option<Column> {
    let mut column = Column::new(kind);
    for (_, raw) in fields.each() {
        match format.value(kind, raw, false, true) {
            Ok(Held::Value(value)) => column.push(value),
            _ => return None,
        }
    }
    Some(column)
}

/// Where each field ends: the places of separators and line feeds. None unless every line has `width` fields.
fn ends(data: &[u8], sep: u8, width: usize) -> Option<Vec<u32>> {
    let mut ends: Vec<u32> = Vec::with_capacity(data.len() / 6 + 1);
    // Fields so far at each line's end must be a whole number of lines, and lines as many as that number.
    let mut lines = 0;
    let (words, rest) = data.as_chunks::<8>();
    for (number, &word) in words.iter().enumerate() {
        let mut feeds = equal(word, b'\n');
        let mut hits = equal(word, sep) | feeds;
        let before = ends.len();
        while hits != 0 {
            ends.push(8 * number as u32 + hits.trailing_zeros() / 8);
            hits &= hits - 1;
        }
        while feeds != 0 {
            let place = 8 * number as u32 + feeds.trailing_zeros() / 8;
            let at = before + ends[before..].iter().position(|&end| end == place)?;
            lines += 1;
            if at + 1 != lines * width {
                return None;
            }
            feeds &= feeds - 1;
        }
    }
    for (at, &byte) in (data.len() - rest.len()..).zip(rest) {
        if byte == sep || byte == b'\n' {
            ends.push(at as u32);
        }
        if byte == b'\n' {
            lines += 1;
            if ends.len() != lines * width {
                return None;
            }
        }
    }
    if data.last().is_some_and(|&byte| byte != b'\n') {
        ends.push(data.len() as u32);
        lines += 1;
    }
    (ends.len() == lines * width).then_some(ends)
}

/// The high bit of each byte that is `byte`.
#[inline(always)]
fn equal(word: [u8; 8], byte: u8) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let differ = u64::from_le_bytes(word) ^ u64::from_le_bytes([byte; 8]);
    // Exact in every byte: no carry leaves one.
    !(((differ & LOW) + LOW) | differ | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_arrows() {
        let data = b"0123456789abcdefghi\xc3\xa4";
        for start in 0..data.len() {
            for end in start..=data.len() {
                let raw = &data[start..end];
                assert_eq!(
                    view(data, start as u32, raw),
                    make_view(raw, 0, start as u32)
                );
            }
        }
    }

    #[test]
    fn the_ends_of_fields_are_found_wherever_they_lie() {
        let data = b"a\tbb\tccc\n\t\t\nlonger than eight\t1\t2";
        assert_eq!(
            ends(data, b'\t', 3).unwrap(),
            [1, 4, 8, 9, 10, 11, 29, 31, 33]
        );
        assert!(ends(b"a\tb\nc\n", b'\t', 2).is_none());
        assert!(ends(b"a\tb\tc\nd\n", b'\t', 2).is_none());
        assert!(ends(b"", b'\t', 2).unwrap().is_empty());
        assert!(ends(b"a\nb\tc\t\n", b'\t', 2).is_none());
        for byte in 0..=255u8 {
            let word = [
                byte,
                byte ^ 1,
                byte ^ 128,
                byte,
                0,
                255,
                byte.wrapping_add(1),
                byte,
            ];
            let expected: u64 = (0..8)
                .map(|i| u64::from(word[i] == byte) << (8 * i + 7))
                .sum();
            assert_eq!(equal(word, byte), expected);
        }
    }
}
