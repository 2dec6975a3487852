//! Serving snapshots: the values of a store's rows in one mapped file (ADR 0032). `write.rs` takes one; `read.rs` and
//! `table.rs` open it, `find.rs` and `pool.rs` look keys up, `near.rs` brings it into memory.

mod bytes;
mod find;
mod lookups;
mod near;
mod place;
mod pool;
mod read;
mod table;
mod write;

use std::sync::Arc;

use crate::artefact::{Result, io};
use crate::cut::{PrepareWork, StoreCut, Writing};
use crate::disk::Disk;
use crate::hash::BUCKET_BITS;
use crate::store::Store;

use bytes::{Bytes, Map};
pub(crate) use find::Found;
pub use near::Nearing;
pub(crate) use pool::{Served, pool_served};
pub use read::Snapshot;
pub use table::SnapshotTable;
use write::Encoding;

/// How big blocks are: the hashes and the values of a small one lie in the same page or two, and a guess among few rows
/// is close; but no more are listed than `MANY_BLOCKS`, unless each has grown as big as is verified at a first touch.
const SMALLEST_BLOCK: u64 = 6 << 10;
const BIGGEST_BLOCK: u64 = 48 << 10;
const MANY_BLOCKS: u64 = 1 << 18;
/// Hashes and values of a block begin on this.
const ALIGN: usize = 64;

/// A snapshot that is being written.
pub struct OpenSnapshot(Writing<Encoding>);

/// Cuts the store here, between two batches, for a snapshot of this name.
pub fn prepare_snapshot(
    disk: &Arc<dyn Disk>,
    name: &str,
    plan: &str,
    store: &mut Store,
    copy_limit_bytes: u64,
) -> Result<OpenSnapshot> {
    let cut = StoreCut::new(store, name, None, copy_limit_bytes)?;
    let encode = Encoding::new(store, plan, &cut);
    Ok(OpenSnapshot(Writing::new(
        disk,
        name.into(),
        name,
        cut,
        encode,
    )))
}

impl OpenSnapshot {
    pub fn work(&self) -> PrepareWork {
        self.0.work()
    }

    /// The epochs that began with the cut, table by table: changes from there on are not in the snapshot.
    pub fn epochs(&self) -> &[u32] {
        &self.0.encode.epochs
    }

    /// Writes about `rows` rows more. Whether the file is whole and synced.
    pub fn step(&mut self, store: &Store, rows: u64) -> Result<bool> {
        self.0.step(store, rows)
    }

    /// Writes what is left and puts the file in place of any of its name. Returns its rows.
    pub fn commit(mut self, store: &mut Store) -> Result<u64> {
        self.0.commit(store)?;
        Ok(self.0.rows())
    }

    pub fn abort(mut self, store: &mut Store) {
        self.0.abort(store);
    }
}

/// Bits below a bucket's that blocks are told by.
fn block_bits(rows: u64, row_bytes: u64) -> u32 {
    let bytes = rows.saturating_mul(row_bytes);
    let blocks = bytes / (bytes / MANY_BLOCKS).clamp(SMALLEST_BLOCK, BIGGEST_BLOCK);
    blocks
        .next_power_of_two()
        .ilog2()
        .saturating_sub(BUCKET_BITS)
        .min(16)
}

/// The block of a hash.
#[inline(always)]
fn block_of(hash: u64, bits: u32) -> usize {
    (hash >> (64 - BUCKET_BITS - bits)) as usize
}

/// Where the values of a block of so many rows begin.
#[inline(always)]
fn values_at(rows: usize) -> usize {
    (rows * 8).next_multiple_of(ALIGN)
}

impl Snapshot {
    /// Reads it whole through a disk: for tests, and for stores that cannot be mapped.
    pub fn read(disk: &dyn Disk, name: &str, store: Option<(&Store, &str)>) -> Result<Snapshot> {
        let source = disk.open(name).map_err(io(name, "opening it"))?;
        let mut bytes = vec![0; source.bytes() as usize];
        source.read(0, &mut bytes).map_err(io(name, "reading it"))?;
        Snapshot::of(name, Bytes::of(Map::Held(bytes)), store)
    }
}
