//! Canonical bytes, the one text under which a value is hashed, looked up and shown; and their XXH3-64.

use std::io::Write;

use arrow_array::{Array, ArrayRef, UInt64Array};
use arrow_buffer::NullBuffer;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::block::{Block, Kind};
use crate::civil;
use crate::error::ApplyError;
use crate::load;

/// Room for the longest canonical form of anything but strings: a date of a far year.
const LONGEST: usize = 32;

/// Formats non-string values without allocating.
#[derive(Default)]
pub(crate) struct Writer {
    number: itoa::Buffer,
    date: [u8; LONGEST],
}

impl Writer {
    /// The canonical bytes of element `e`, which must be valid and of a kind that `hashable` accepts.
    #[inline]
    pub(crate) fn bytes<'w>(&'w mut self, block: &'w Block<'_>, e: usize) -> &'w [u8] {
        match block.kind {
            Kind::Text | Kind::Binary => block.bytes[e],
            Kind::Int | Kind::Time => self.number.format(block.ints[e]).as_bytes(),
            Kind::UInt => self.number.format(block.words[e]).as_bytes(),
            Kind::Bool if block.words[e] != 0 => b"true",
            Kind::Bool => b"false",
            Kind::Date => self.date(block.ints[e]),
            Kind::Null | Kind::Float => b"",
        }
    }

    fn date(&mut self, days: i64) -> &[u8] {
        let (year, month, day) = civil::from_days(days);
        let mut rest = &mut self.date[..];
        // 32 bytes hold every date of a 32-bit day number; were it not so, the text would be cut, never overrun.
        let _ = if (0..=9999).contains(&year) {
            write!(rest, "{year:04}-{month:02}-{day:02}")
        } else {
            write!(rest, "{year:+05}-{month:02}-{day:02}")
        };
        let left = rest.len();
        &self.date[..LONGEST - left]
    }
}

/// Why elements of this kind cannot be hashed; None if they can.
pub(crate) fn hashable(kind: Kind) -> Result<(), String> {
    match kind {
        Kind::Float => {
            Err("floats cannot be hashed or looked up: cut them with piecewise first".into())
        }
        _ => Ok(()),
    }
}

/// XXH3-64 of each element's canonical bytes; arbitrary for elements without a value.
pub(crate) fn hash_elements(
    block: &Block<'_>,
    seed: u64,
    out: &mut Vec<u64>,
) -> Result<(), String> {
    hashable(block.kind)?;
    out.clear();
    match block.kind {
        Kind::Text | Kind::Binary => out.extend(
            block
                .bytes
                .iter()
                .map(|bytes| xxh3_64_with_seed(bytes, seed)),
        ),
        Kind::Null => out.resize(block.len(), 0),
        _ => {
            let mut writer = Writer::default();
            out.extend((0..block.len()).map(|e| xxh3_64_with_seed(writer.bytes(block, e), seed)));
        }
    }
    Ok(())
}

/// XXH3-64 with `seed` of each value's canonical bytes; nulls stay null.
///
/// Raises for types that have no canonical bytes (floats, decimals, time, struct, map) and for lists.
pub fn hash_column(array: &ArrayRef, seed: u64) -> Result<UInt64Array, ApplyError> {
    let (mut block, mut chunk) = (Block::default(), Vec::new());
    let mut hashes = Vec::with_capacity(array.len());
    let mut start = 0;
    loop {
        let rows = (array.len() - start).min(crate::apply::CHUNK_ROWS);
        load::column(array.as_ref(), start, rows, &mut block).map_err(ApplyError::Unhashable)?;
        if block.lists {
            return Err(ApplyError::Unhashable("a list has no single hash".into()));
        }
        hash_elements(&block, seed, &mut chunk).map_err(ApplyError::Unhashable)?;
        hashes.extend_from_slice(&chunk);
        start += rows;
        if start == array.len() {
            break;
        }
    }
    let nulls: Option<NullBuffer> = array.logical_nulls();
    Ok(UInt64Array::new(hashes.into(), nulls))
}
