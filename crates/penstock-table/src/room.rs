//! What a table holds in bytes, and what happens where a limit is set.

use std::collections::{BTreeMap, HashSet};

use crate::error::{Result, TableError};
use crate::hash::{bucket, mix};
use crate::index::{BUCKETS_A_SHARD, SHARDS};
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
        Err(TableError::MemoryLimit {
            table: self.shared.config.name.clone(),
            limit,
            needed,
        })
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
