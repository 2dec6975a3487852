//! The compiled file: `header | table | blob`, all integers little-endian.
//!
//! ```text
//!   0  magic "PNSTKDIC"            56  SHA-256 of the blob
//!   8  format version, u32         88  XXH3-64 of the table
//!  12  0, u32                      96  XXH3-64 of the 96 bytes before
//!  16  number of values, u64      104  zeros up to 128
//!  24  table capacity, u64        128  table: capacity x 16 bytes
//!  32  start of the blob, u64          [offset into the blob u64 | fingerprint u32 | index u32, 0 = empty]
//!  40  length of the blob, u64      …  blob: the values in order, each as LEB128 length and bytes
//!  48  0, u64
//! ```
//! A value's home is `hash * capacity >> 64` with its XXH3-64 (seed 0); the fingerprint is the hash's low half;
//! collisions go to the next place. One line of the table and one place in the blob answer a look-up.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

pub(super) const MAX_ENTRIES: usize = u32::MAX as usize;
const MAGIC: &[u8; 8] = b"PNSTKDIC";
const VERSION: u32 = 1;
const CHECKED: usize = 96;
pub(super) const TABLE_START: usize = 128;

#[derive(Clone)]
pub(super) struct Header {
    pub entries: usize,
    pub capacity: usize,
    pub table: Range<usize>,
    pub blob: Range<usize>,
    pub sha256: [u8; 32],
    pub table_checksum: u64,
}

impl Header {
    /// Room for a third more than the values: at 75 % full a probe ends after 2.5 places on average when it fails.
    pub(super) fn plan(entries: usize, blob: usize, sha256: [u8; 32]) -> Self {
        let capacity = entries + entries / 3 + 1;
        let table = TABLE_START..TABLE_START + capacity * Entry::SIZE;
        let blob = table.end..table.end + blob;
        Self {
            entries,
            capacity,
            table,
            blob,
            sha256,
            table_checksum: 0,
        }
    }

    pub(super) fn write(&self, file: &mut [u8]) {
        file[..8].copy_from_slice(MAGIC);
        file[8..12].copy_from_slice(&VERSION.to_le_bytes());
        for (at, number) in [
            (16, self.entries),
            (24, self.capacity),
            (32, self.blob.start),
            (40, self.blob.len()),
        ] {
            file[at..at + 8].copy_from_slice(&(number as u64).to_le_bytes());
        }
        file[56..88].copy_from_slice(&self.sha256);
        file[88..96].copy_from_slice(&self.table_checksum.to_le_bytes());
        let checksum = xxh3_64(&file[..CHECKED]);
        file[CHECKED..CHECKED + 8].copy_from_slice(&checksum.to_le_bytes());
    }

    pub(super) fn read(file: &[u8]) -> Result<Self, &'static str> {
        if file.len() < TABLE_START || &file[..8] != MAGIC {
            return Err("it does not start like one");
        }
        let number =
            |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap_or_default());
        if number(8) != u64::from(VERSION) {
            return Err("it was written by another version of Penstock");
        }
        if number(CHECKED) != xxh3_64(&file[..CHECKED]) {
            return Err("its header is damaged");
        }
        let sizes = [number(16), number(24), number(32), number(40)].map(usize::try_from);
        let [Ok(entries), Ok(capacity), Ok(blob_start), Ok(blob_size)] = sizes else {
            return Err("it is larger than this machine can map");
        };
        let table_end = capacity
            .checked_mul(Entry::SIZE)
            .and_then(|size| size.checked_add(TABLE_START));
        let blob_end = blob_start.checked_add(blob_size);
        if table_end != Some(blob_start) || blob_end != Some(file.len()) || entries >= capacity {
            return Err("it is truncated, or more was appended to it");
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(&file[56..88]);
        Ok(Self {
            entries,
            capacity,
            table: TABLE_START..blob_start,
            blob: blob_start..file.len(),
            sha256,
            table_checksum: number(88),
        })
    }
}

/// One place of the table.
pub(super) struct Entry {
    pub offset: u64,
    pub fingerprint: u32,
    pub index: u32,
}

impl Entry {
    pub(super) const SIZE: usize = 16;

    #[inline]
    pub(super) fn read(table: &[u8], slot: usize) -> Self {
        let bytes: [u8; Self::SIZE] = table[slot * Self::SIZE..][..Self::SIZE]
            .try_into()
            .unwrap_or_default();
        let whole = u128::from_le_bytes(bytes);
        Self {
            offset: whole as u64,
            fingerprint: (whole >> 64) as u32,
            index: (whole >> 96) as u32,
        }
    }

    pub(super) fn write(&self, table: &mut [u8], slot: usize) {
        let whole = u128::from(self.offset)
            | u128::from(self.fingerprint) << 64
            | u128::from(self.index) << 96;
        table[slot * Self::SIZE..][..Self::SIZE].copy_from_slice(&whole.to_le_bytes());
    }
}

/// Where the probe of a hash begins.
#[inline]
pub(super) fn home(hash: u64, capacity: usize) -> usize {
    ((u128::from(hash) * capacity as u128) >> 64) as usize
}

/// The value stored at `offset`; None where that is no place of a value.
#[inline]
pub(super) fn value_at(blob: &[u8], offset: usize) -> Option<&[u8]> {
    let (mut length, mut shift) = (0usize, 0);
    for (i, byte) in blob.get(offset..)?.iter().enumerate() {
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            let start = offset + i + 1;
            return blob.get(start..start.checked_add(length)?);
        }
        shift += 7;
    }
    None
}

#[inline]
pub(super) fn value_is(blob: &[u8], offset: usize, value: &[u8]) -> bool {
    value_at(blob, offset) == Some(value)
}

/// The bytes that a value of this length takes in the blob.
pub(super) fn stored_size(length: usize) -> usize {
    length + (length.max(1).ilog2() as usize / 7 + 1)
}

pub(super) fn store(blob: &mut Vec<u8>, value: &[u8]) {
    let mut length = value.len();
    while length >= 0x80 {
        blob.push(length as u8 | 0x80);
        length >>= 7;
    }
    blob.push(length as u8);
    blob.extend_from_slice(value);
}

/// Ask for the cache line at `at`; nothing happens where that is outside.
#[inline]
pub(super) fn prefetch(memory: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if at < memory.len() {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect on the program, and the address lies inside `memory`.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(memory.as_ptr().add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (memory, at);
}
