//! A segment's name and the 88 bytes that it begins with. A segment is sealed once the next one is there.
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | `PENSTLOG` |
//! | 8..12 | format, 1 |
//! | 12..16 | CRC-32 of bytes 16..88 |
//! | 16..24 | number, from 1, one more than the segment before |
//! | 24..32 | offset of its first record |
//! | 32..40 | bytes of the segment before that count; what lies behind them was torn off |
//! | 40..48 | offset after the last record before |
//! | 48..56 | when it was made, milliseconds since the epoch |
//! | 56..64 | the latest time of all records before |
//! | 64..80 | the boot it was made in |
//! | 80..88 | bytes at which a writer begins the next |

use penstock_disk::{Disk, Source};

use crate::fault::{Fault, Result};
use crate::frame::HEAD as FRAME_HEAD;

pub const FORMAT: u32 = 1;
pub(crate) const HEAD: u64 = 88;
const MAGIC: [u8; 8] = *b"PENSTLOG";
const SUFFIX: &str = ".log";
/// Appended at once.
pub const MOST_BATCH: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub number: u64,
    pub base: u64,
    pub previous_bytes: u64,
    pub previous_end: u64,
    pub made_ms: i64,
    /// `i64::MIN` where there was none.
    pub latest_before_ms: i64,
    pub boot: u128,
    pub roll_bytes: u64,
}

impl Header {
    pub fn encode(&self) -> [u8; HEAD as usize] {
        let mut out = [0; HEAD as usize];
        let mut at = 16;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.number.to_le_bytes());
        put(&self.base.to_le_bytes());
        put(&self.previous_bytes.to_le_bytes());
        put(&self.previous_end.to_le_bytes());
        put(&self.made_ms.to_le_bytes());
        put(&self.latest_before_ms.to_le_bytes());
        put(&self.boot.to_le_bytes());
        put(&self.roll_bytes.to_le_bytes());
        let crc = crc32fast::hash(&out[16..]);
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn read(source: &dyn Source, number: u64, file: &str) -> Result<Header> {
        let not = |what| Fault::NotALog {
            file: file.into(),
            what,
        };
        let mut bytes = [0; HEAD as usize];
        if source.bytes_now().unwrap_or(0) < HEAD {
            return Err(not("shorter than the head of a log's segment"));
        }
        source
            .read(0, &mut bytes)
            .map_err(|error| Fault::io(file, "reading its head", error))?;
        if bytes[..8] != MAGIC {
            return Err(not("not a segment of a log"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let found = u32_at(8);
        if found != FORMAT {
            return Err(Fault::Version {
                file: file.into(),
                found,
                known: FORMAT,
            });
        }
        if u32_at(12) != crc32fast::hash(&bytes[16..]) {
            return Err(not("its head is damaged"));
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let header = Header {
            number: u64_at(16),
            base: u64_at(24),
            previous_bytes: u64_at(32),
            previous_end: u64_at(40),
            made_ms: u64_at(48) as i64,
            latest_before_ms: u64_at(56) as i64,
            boot: u128::from_le_bytes(bytes[64..80].try_into().expect("16 bytes")),
            roll_bytes: u64_at(80),
        };
        if header.number != number {
            return Err(not("its head says another number than its name"));
        }
        Ok(header)
    }

    /// Whether what was written into it may have been lost with the power.
    pub fn of_another_boot(&self, boot: u128) -> bool {
        boot == 0 || self.boot != boot
    }

    /// No record that was ever in it, lost ones too, had an offset from here on.
    pub fn most(&self) -> u64 {
        let bytes = self.roll_bytes.saturating_add(MOST_BATCH as u64);
        self.base.saturating_add(bytes / FRAME_HEAD as u64)
    }
}

pub(crate) fn name(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

/// Whether there are segments after this one. They may be gone again, but not before it is itself.
pub(crate) fn is_followed(disk: &dyn Disk, label: &str, number: u64) -> Result<bool> {
    let there = || Ok(disk.exists(&name(number + 1))? || !disk.exists(&name(number))?);
    there().map_err(|error| Fault::io(label, "looking for segments", error))
}

/// Numbers of the segments of a log, in order: of those in the folder, the last ones without a gap.
pub(crate) fn numbers(disk: &dyn Disk, label: &str) -> Result<Vec<u64>> {
    Ok(all_numbers(disk, label)?.1)
}

/// Segments that come before a gap, which power brought back after they were removed; those of the log.
pub(crate) fn all_numbers(disk: &dyn Disk, label: &str) -> Result<(Vec<u64>, Vec<u64>)> {
    let names = disk
        .names()
        .map_err(|error| Fault::io(label, "listing the folder", error))?;
    let number = |name: &String| name.strip_suffix(SUFFIX)?.parse().ok();
    let mut strays: Vec<u64> = names.iter().filter_map(number).collect();
    strays.sort_unstable();
    let gap = strays.windows(2).rposition(|pair| pair[0] + 1 != pair[1]);
    let numbers = strays.split_off(gap.map_or(0, |gap| gap + 1));
    Ok((strays, numbers))
}
