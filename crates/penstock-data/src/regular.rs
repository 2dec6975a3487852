//! Chunks of CSV without a quote and with the same number of fields in every line, which is what logs are: columns are
//! built one after another from the places of the separators, and strings stay where they are.
//!
//! Anything else (a quote, a line too short, a field of another type) makes `columns` None: the careful way of `csv.rs`
//! then reads the whole chunk, and knows what to say of it.

use std::ops::Range;
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
    let mut texts = vec![];
    for (place, &column) in mapping.iter().enumerate() {
        let fields = Fields {
            data,
            ends: &ends,
            place,
            width: mapping.len(),
        };
        let (kind, wanted) = (format.columns[column].kind, format.wanted[column]);
        if kind == Kind::Str {
            if wanted {
                texts.push((column, Strings::new(place, rows)));
            }
        } else {
            let values = scalars(format, kind, fields)?;
            found[column] = wanted.then(|| values.finish());
        }
    }
    // A few lines at a time: what the first column has fetched the others find near.
    for first in (0..rows).step_by(LINES) {
        let lines = first..rows.min(first + LINES);
        for (_, strings) in &mut texts {
            strings.take(format, data, &ends, mapping.len(), lines.clone());
        }
    }
    for (column, strings) in texts {
        found[column] = Some(strings.finish(&text));
    }
    Some((found.into_iter().flatten().collect(), rows))
}

/// Lines whose strings are taken together.
const LINES: usize = 64;

/// One field of every line from that of field `place` on.
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
        let last = self.place % self.width + 1 == self.width;
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

/// A column of strings, on its way.
struct Strings {
    place: usize,
    views: Vec<u128>,
    /// Rows without a value.
    missing: Vec<usize>,
}

impl Strings {
    fn new(place: usize, rows: usize) -> Strings {
        Strings {
            place,
            views: Vec::with_capacity(rows),
            missing: Vec::new(),
        }
    }

    #[inline]
    fn take(
        &mut self,
        format: &CsvFormat,
        data: &[u8],
        ends: &[u32],
        width: usize,
        lines: Range<usize>,
    ) {
        let fields = Fields {
            data,
            ends: &ends[..lines.end * width],
            place: lines.start * width + self.place,
            width,
        };
        for (row, (start, raw)) in lines.zip(fields.each()) {
            if raw.is_empty() || format.is_null(raw) {
                self.missing.push(row);
            }
            self.views.push(view(data, start, raw));
        }
    }

    fn finish(self, text: &Buffer) -> ArrayRef {
        let rows = self.views.len();
        let nulls = (!self.missing.is_empty()).then(|| {
            let mut there = BooleanBufferBuilder::new(rows);
            there.append_n(rows, true);
            self.missing
                .iter()
                .for_each(|&row| there.set_bit(row, false));
            NullBuffer::new(there.finish())
        });
        let views = ScalarBuffer::from(self.views);
        // SAFETY: the text is UTF-8 and every view is a part of it between separators of one byte below 128, hence UTF-8
        // too; offsets and lengths are those of the slices.
        Arc::new(unsafe { StringViewArray::new_unchecked(views, [text.clone()].into(), nulls) })
    }
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
    let mut ends: Vec<u32> = Vec::with_capacity(data.len() / 6 + 64);
    let mut feeds = places(data, sep, &mut ends);
    if data.last().is_some_and(|&byte| byte != b'\n') {
        ends.push(data.len() as u32);
        feeds += 1;
    }
    // As many lines as there must be, each with a line feed (or the end of all) where its last field ends.
    let lines = ends.len() / width;
    let last = |line: &[u32]| {
        data.get(line[width - 1] as usize)
            .is_none_or(|&end| end == b'\n')
    };
    let whole = ends.len() == lines * width && feeds == lines && ends.chunks_exact(width).all(last);
    whole.then_some(ends)
}

/// The places of separators and line feeds, and how many of these are line feeds.
fn places(data: &[u8], sep: u8, out: &mut Vec<u32>) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
        unsafe fn avx2(data: &[u8], sep: u8, out: &mut Vec<u32>) -> usize {
            places_in(data, out, |block| {
                // SAFETY: the caller's processor has AVX2.
                unsafe { wide::masks(block, sep) }
            })
        }
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
        {
            // SAFETY: the processor has them.
            return unsafe { avx2(data, sep, out) };
        }
    }
    places_in(data, out, |block| masks(block, sep))
}

/// `masks`: the bits of separators and line feeds of 64 bytes, and of line feeds alone.
#[inline(always)]
fn places_in(data: &[u8], out: &mut Vec<u32>, masks: impl Fn(&[u8; 64]) -> (u64, u64)) -> usize {
    let mut lines = 0;
    let (blocks, rest) = data.as_chunks::<64>();
    let mut take = |first: usize, (mut hits, feeds): (u64, u64)| {
        lines += feeds.count_ones() as usize;
        let count = hits.count_ones() as usize;
        out.reserve(64);
        let at = out.len();
        let room = out.spare_capacity_mut();
        // Eight at a time, whatever their number: how many there are nobody can guess.
        let mut done = 0;
        while done < count {
            for place in &mut room[done..done + 8] {
                place.write(first as u32 + hits.trailing_zeros());
                hits &= hits.wrapping_sub(1);
            }
            done += 8;
        }
        // SAFETY: `count` places were written.
        unsafe { out.set_len(at + count) };
    };
    for (number, block) in blocks.iter().enumerate() {
        take(64 * number, masks(block));
    }
    if !rest.is_empty() {
        let mut block = [0; 64];
        block[..rest.len()].copy_from_slice(rest);
        let (hits, feeds) = masks(&block);
        let there = (1 << rest.len()) - 1;
        take(64 * blocks.len(), (hits & there, feeds & there));
    }
    lines
}

/// One bit a byte.
fn masks(block: &[u8; 64], sep: u8) -> (u64, u64) {
    let (words, _) = block.as_chunks::<8>();
    let (mut hits, mut feeds) = (0, 0);
    for (number, &word) in words.iter().enumerate() {
        let feed = equal(word, b'\n');
        feeds |= packed(feed) << (8 * number);
        hits |= packed(equal(word, sep) | feed) << (8 * number);
    }
    (hits, feeds)
}

/// The high bits of eight bytes side by side.
#[inline(always)]
fn packed(high: u64) -> u64 {
    (high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    /// As `super::masks`.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[inline(always)]
    pub(super) unsafe fn masks(block: &[u8; 64], sep: u8) -> (u64, u64) {
        // SAFETY: the block is two whole vectors; the caller vouches for AVX2.
        unsafe {
            let half = |at: usize| {
                let bytes = _mm256_loadu_si256(block.as_ptr().add(at).cast());
                let feeds = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(b'\n' as i8));
                let seps = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(sep as i8));
                let hits = _mm256_movemask_epi8(_mm256_or_si256(feeds, seps)) as u32;
                (
                    u64::from(hits),
                    u64::from(_mm256_movemask_epi8(feeds) as u32),
                )
            };
            let ((hits, feeds), (high_hits, high_feeds)) = (half(0), half(32));
            (hits | high_hits << 32, feeds | high_feeds << 32)
        }
    }
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
        // Every distance of separators, over whole and broken blocks, by both ways of looking.
        for width in 1..70 {
            for length in 0..200usize {
                let text: Vec<u8> = (0..length)
                    .map(|at| {
                        if at % width == width - 1 {
                            [b',', b'\n'][at / width % 2]
                        } else {
                            b'x'
                        }
                    })
                    .collect();
                let expected: Vec<u32> = (0..length as u32)
                    .filter(|&at| text[at as usize] != b'x')
                    .collect();
                let (mut found, mut plain) = (vec![], vec![]);
                let lines = places(&text, b',', &mut found);
                assert_eq!(
                    places_in(&text, &mut plain, |block| masks(block, b',')),
                    lines
                );
                assert_eq!((&found, &plain), (&expected, &expected));
                assert_eq!(lines, text.iter().filter(|&&byte| byte == b'\n').count());
            }
        }
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
            let bits: u64 = (0..8).map(|i| u64::from(word[i] == byte) << i).sum();
            assert_eq!(packed(equal(word, byte)), bits);
        }
    }
}
