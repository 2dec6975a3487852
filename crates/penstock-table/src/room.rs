//! What a table holds in bytes, and what happens where a limit is set.

use std::collections::{BTreeMap, HashSet};

use crate::error::{Result, TableError};
use crate::hash::{BUCKETS, bucket, mix};
use crate::index::{BUCKETS_A_SHARD, Buckets, SHARDS};
use crate::line::Line;
use crate::lookup::shard_of;
use crate::shard::Shard;
use crate::table::Table;

/// More than a bucket grows by until a table has millions of rows.
const CHUNK: usize = 4096;

/// Bytes by purpose, touched or about to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub rows: u64,
    pub index: u64,
    pub changes: u64,
    pub sketch: u64,
}

impl Memory {
    pub fn total(&self) -> u64 {
        self.rows + self.index + self.changes + self.sketch
    }
}

impl Table {
    pub fn memory(&self) -> Memory {
        let sum = |of: fn(&Shard) -> u64| self.shards.iter().map(of).sum();
        Memory {
            rows: self.shared.extents.taken(),
            index: sum(|shard| shard.buckets.bytes()),
            changes: sum(|shard| shard.changes.bytes()),
            sketch: sum(|shard| shard.sketch.bytes()),
        }
    }

    /// Takes the memory of the rows that are expected, in a table that has none yet.
    pub(crate) fn take_expected(&mut self) -> Result<()> {
        let rows = self.shared.config.expected_rows;
        if rows == 0 {
            return Ok(());
        }
        let layout = &self.shared.layout;
        let in_shard = rows.div_ceil(SHARDS as u64);
        // Hashes spread rows as evenly as chance does: two deviations more have room in all but a few buckets, which grow.
        let in_bucket = rows as f64 / BUCKETS as f64;
        let lines = Buckets::lines_for((in_bucket + 2.0 * in_bucket.sqrt()).ceil() as u64);
        let rows_bytes = self.shards[0].rows.bytes_for(layout, in_shard) * SHARDS as u64;
        let needed = rows_bytes + u64::from(lines) * (BUCKETS * size_of::<Line>()) as u64;
        if let Some(limit) = self.shared.config.bounds.memory_limit
            && self.memory().total() + needed > limit
        {
            return Err(self.beyond(limit, self.memory().total() + needed));
        }
        // What is not there would be taken page by page until the system ends somebody.
        let taken = (needed < crate::memory::available())
            .then_some(())
            .and_then(|()| self.shared.lines.take(lines))
            .and_then(|()| {
                self.shared
                    .extents
                    .reserve(usize::try_from(rows_bytes).ok()?)
            })
            .and_then(|()| {
                self.shards.iter_mut().try_for_each(|shard| {
                    (0..BUCKETS_A_SHARD).try_for_each(|bucket| {
                        shard.buckets.reserve(&self.shared.lines, bucket, lines)
                    })?;
                    let room = u32::try_from(in_shard).ok()?;
                    shard.rows.reserve(layout, &self.shared.extents, room)
                })
            });
        taken.ok_or_else(|| TableError::OutOfMemory {
            table: self.shared.config.name.clone(),
            refused: rows,
        })
    }

    fn beyond(&self, limit: u64, needed: u64) -> TableError {
        TableError::MemoryLimit {
            table: self.shared.config.name.clone(),
            limit,
            needed,
        }
    }

    /// Errs if the batch's new rows could pass the memory limit, after one sweep around if that helps.
    pub(crate) fn make_room(&mut self, keys: &[u64], mask: u64) -> Result<()> {
        let Some(limit) = self.shared.config.bounds.memory_limit else {
            return Ok(());
        };
        // Most batches are far from it: an extent and a chunk for every key would still fit.
        let careless = (self.shared.layout.extent_bytes(256) + CHUNK) * keys.len();
        if self.memory().total() + careless as u64 <= limit {
            return Ok(());
        }
        let mut needed = self.memory_with(keys, mask);
        if needed > limit && !self.shared.config.eviction.is_none() {
            // From the cursor to the end, then all around.
            self.sweep(u64::MAX);
            self.sweep(u64::MAX);
            if self.memory().total() > limit {
                // Tombstones go before rows do: readers will take a full snapshot.
                self.forget(self.clock.epoch + 1);
            }
            needed = self.memory_with(keys, mask);
        }
        if needed <= limit.max(self.memory().total()) {
            return Ok(());
        }
        Err(self.beyond(limit, needed))
    }

    /// The bytes that the table would use if all of `keys` had rows.
    fn memory_with(&self, keys: &[u64], mask: u64) -> u64 {
        let hashes = keys.iter().map(|&key| mix(key & mask));
        let absent: HashSet<u64> = hashes.filter(|&hash| self.find(hash).is_none()).collect();
        let (mut in_shard, mut in_bucket) = ([0u64; SHARDS], BTreeMap::new());
        for hash in absent {
            in_shard[shard_of(hash)] += 1;
            *in_bucket.entry(bucket(hash)).or_insert(0u64) += 1;
        }
        let layout = &self.shared.layout;
        let rows = in_shard
            .iter()
            .zip(&self.shards)
            .map(|(&new, shard)| shard.rows.bytes_for(layout, new));
        let lines = in_bucket.iter().map(|(&bucket, &new)| {
            self.shards[bucket / BUCKETS_A_SHARD]
                .buckets
                .bytes_for(bucket % BUCKETS_A_SHARD, new)
        });
        self.memory().total() + rows.sum::<u64>() + lines.sum::<u64>()
    }
}
