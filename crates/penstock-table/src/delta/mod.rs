//! Deltas: what changed in a store's tables, as records of a chain (ADR 0043). `pack.rs` makes them, `read.rs` reads them.
//!
//! In: a store and the epochs that a consumer has. Out: bytes that say what they are, of which delta, and whether they are
//! whole. A delta is any number of parts and then its commit record; what nobody committed does not count.

mod chain;
mod pack;
mod read;
mod write;

use xxhash_rust::xxh3::xxh3_64;

pub use chain::{PackError, pack, tell, track};
pub use pack::{Pack, Packer};
pub use read::{Block, Commit, Content, Record, Weight};
pub use write::{announcement, beginning, commit, dense_parts, part};

/// Where a record stands: of one delta all records say the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub generation: u64,
    /// The sequence numbers that it stands for, both included: it follows on `from - 1` and leads to `to`.
    pub from: u64,
    pub to: u64,
    /// Whoever wrote it: parts of two writers are never taken for one delta.
    pub writer: u64,
}

/// What can be wrong with a record, or with what is to become one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    #[error("it is no record of a chain")]
    Foreign,
    #[error("it is of format {found}, this version reads {VERSION}")]
    Version { found: u16 },
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    #[error("table {table}: the row of key {key} holds a number that is none")]
    NotFinite { table: u32, key: u64 },
    #[error("weight '{0}' holds a number that is none")]
    WeightNotFinite(String),
}

const MAGIC: &[u8; 8] = b"PENSTDLT";
const VERSION: u16 = 1;
/// Magic, version u16, kind u16, part u32, generation, from, to, writer (u64 each), bytes of the body u32, 0 u32, and
/// XXH3-64 of these 56 bytes and the body.
const HEAD: usize = 64;
const SUMMED: usize = 56;
/// A record is at most so long, whatever a topic takes.
const MOST_BYTES: usize = 16 << 20;

/// Table, dim, kind of values, rows, gone, 0: u32 each. Keys, values and gone keys follow.
const BLOCK_HEAD: usize = 24;
const F32: u32 = 1;
const F16: u32 = 2;

const ROWS: u16 = 1;
const DENSE: u16 = 2;
const COMMIT: u16 = 3;
const BASE: u16 = 4;
const BEGIN: u16 = 5;

fn checksum(head: &[u8], body: &[u8]) -> u64 {
    // The body's own sum is what commit records sum up.
    let mut whole = [0; SUMMED + 8];
    whole[..SUMMED].copy_from_slice(head);
    whole[SUMMED..].copy_from_slice(&xxh3_64(body).to_le_bytes());
    xxh3_64(&whole)
}
