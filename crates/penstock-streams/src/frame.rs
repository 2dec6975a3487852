//! One record as it lies in a segment: 32 bytes, the key, the value; a checksum over all of it.
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | length of the whole, these 32 bytes included |
//! | 4..8 | CRC-32 of bytes 0..4 and 8..length |
//! | 8..16 | offset |
//! | 16..24 | time, milliseconds since the epoch, signed |
//! | 24..28 | length of the key plus 1; 0 for none |
//! | 28..32 | how many records before this one its writer had not known to be synced |
//!
//! All little-endian. The offset lets a reader that lost its way find the next record; the last number tells a record
//! that power took before it was promised from one that was damaged.

use crate::fault::{Fault, Result};

pub const HEAD: usize = 32;
/// Bytes of a record's key.
pub const MOST_KEY: usize = 64 << 10;
/// Bytes of a record's value.
pub const MOST_VALUE: usize = 16 << 20;
pub const MOST_FRAME: usize = HEAD + MOST_KEY + MOST_VALUE;

/// What is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    /// Milliseconds since the epoch.
    pub time_ms: i64,
}

impl Message<'_> {
    pub fn check(&self) -> Result<()> {
        let key = self.key.map_or(0, <[u8]>::len);
        for (what, size, most) in [
            ("the key of a record", key, MOST_KEY),
            ("the value of a record", self.value.len(), MOST_VALUE),
        ] {
            if size > most {
                let what = what.into();
                return Err(Fault::TooLarge { what, size, most });
            }
        }
        Ok(())
    }

    /// Bytes of its frame.
    pub fn size(&self) -> usize {
        HEAD + self.key.map_or(0, <[u8]>::len) + self.value.len()
    }

    /// Its frame, after what `out` holds.
    pub(crate) fn write(&self, offset: u64, synced: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let length = (self.size() as u32).to_le_bytes();
        let key = self.key.map_or(0, |key| key.len() as u32 + 1);
        let unsynced = u32::try_from(offset.saturating_sub(synced)).unwrap_or(u32::MAX);
        out.extend_from_slice(&length);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        out.extend_from_slice(&key.to_le_bytes());
        out.extend_from_slice(&unsynced.to_le_bytes());
        out.extend_from_slice(self.key.unwrap_or_default());
        out.extend_from_slice(self.value);
        let crc = checksum(&out[start..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub offset: u64,
    pub time_ms: i64,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    /// Records from here on were synced when this one was written, as far as its writer knew.
    pub(crate) synced: u64,
    /// Bytes of its frame.
    pub(crate) size: usize,
}

/// What stands at the beginning of some bytes.
pub(crate) enum Parsed<'a> {
    Record(Record<'a>),
    /// The beginning of one of so many bytes, or of its head.
    Part(usize),
    /// None; if it were one but for its checksum, its offset and size.
    Broken(Option<(u64, usize)>),
}

fn checksum(frame: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..4]);
    crc.update(&frame[8..]);
    crc.finalize()
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Offset and size that the head of a frame claims, if they can be.
pub(crate) fn claim(head: &[u8]) -> Option<(u64, usize)> {
    let size = u32::from_le_bytes(number(head, 0)) as usize;
    let key = u32::from_le_bytes(number(head, 24)) as usize;
    let fits = (HEAD..=MOST_FRAME).contains(&size)
        && key <= MOST_KEY + 1
        && key.saturating_sub(1) <= size - HEAD;
    fits.then(|| (u64::from_le_bytes(number(head, 8)), size))
}

pub(crate) fn parse(bytes: &[u8]) -> Parsed<'_> {
    if bytes.len() < HEAD {
        return Parsed::Part(HEAD);
    }
    let Some((offset, size)) = claim(bytes) else {
        return Parsed::Broken(None);
    };
    let Some(frame) = bytes.get(..size) else {
        return Parsed::Part(size);
    };
    if checksum(frame) != u32::from_le_bytes(number(frame, 4)) {
        return Parsed::Broken(Some((offset, size)));
    }
    let key = u32::from_le_bytes(number(frame, 24)) as usize;
    let (key_bytes, value) = frame[HEAD..].split_at(key.saturating_sub(1));
    let unsynced = u64::from(u32::from_le_bytes(number(frame, 28)));
    Parsed::Record(Record {
        offset,
        time_ms: i64::from_le_bytes(number(frame, 16)),
        key: (key > 0).then_some(key_bytes),
        value,
        synced: offset.saturating_sub(unsynced),
        size,
    })
}
