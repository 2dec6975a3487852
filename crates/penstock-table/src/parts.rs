//! Whole rows, read and put one by one: what checkpoints, deltas and tools need.

use std::ops::Range;

use crate::error::{Result, TableError};
use crate::hash::{BUCKETS, mix, unmix};
use crate::index::BUCKETS_A_SHARD;
use crate::lookup::shard_of;
use crate::rows::{COUNT, LAST_SEEN, Row};
use crate::shard::store_nearest;
use crate::table::{Table, check};

/// One row as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RowParts {
    pub values: Vec<f32>,
    pub state: Vec<f32>,
    pub count: u32,
    pub last_seen_s: u32,
    pub version: u32,
    pub score: f32,
}

impl Table {
    /// Every row, bucket by bucket, in order of hash within an index line's reach.
    pub fn each(&self, each: impl FnMut(u64, RowParts)) {
        self.each_in(0..BUCKETS, each);
    }

    /// The rows of these of the 4,096 buckets, as `each`.
    pub fn each_in(&self, buckets: Range<usize>, mut each: impl FnMut(u64, RowParts)) {
        for bucket in buckets.start..buckets.end.min(BUCKETS) {
            let (shard, bucket) = (
                &self.shards[bucket / BUCKETS_A_SHARD],
                bucket % BUCKETS_A_SHARD,
            );
            if shard.rows.live() == 0 {
                continue;
            }
            for at in 0..shard.buckets.lines(bucket) {
                let line = shard.buckets.line(&self.shared.lines, bucket, at);
                for entry in line.entries() {
                    let row = shard.rows.row(&self.shared.layout, line.row(entry));
                    each(
                        unmix(shard.buckets.hash_in(bucket, line, entry)),
                        self.parts(row),
                    );
                }
            }
        }
    }

    /// A key's row.
    pub fn get(&self, key: u64) -> Option<RowParts> {
        self.find(mix(key)).map(|row| self.parts(row))
    }

    /// Puts a whole row in place of whatever the key had: what a checkpoint or a delta says.
    pub fn put(&mut self, key: u64, parts: &RowParts) -> Result<()> {
        check("values", parts.values.len(), self.shared.layout.dim)?;
        check("state", parts.state.len(), self.shared.layout.state_len)?;
        let hash = mix(key);
        let row = match self.find(hash) {
            Some(row) => {
                let shard = &mut self.shards[shard_of(hash)];
                if let Some(number) = shard.buckets.find(&self.shared.lines, hash) {
                    shard.save(&self.shared.layout, number, hash);
                    shard.changes.mark(number);
                }
                row
            }
            None => {
                let by = &mut self.workers[0].inserting;
                self.shards[shard_of(hash)]
                    .attach(&self.shared, hash, 0, 0, by)
                    .ok_or_else(|| TableError::OutOfMemory {
                        table: self.shared.config.name.clone(),
                        refused: 1,
                    })?
            }
        };
        // SAFETY: a present row, `self` is borrowed for writing, and every word is within its side.
        unsafe {
            row.set(COUNT, parts.count);
            row.set(LAST_SEEN, parts.last_seen_s);
            if let Some(version) = self.shared.layout.version {
                row.set(version, parts.version);
            }
            if let Some(score) = self.shared.layout.score {
                row.set(score, parts.score.to_bits());
            }
            store_nearest(&self.shared.layout, row, &parts.values);
            row.state(&self.shared.layout).copy_from_slice(&parts.state);
        }
        Ok(())
    }

    pub(crate) fn find(&self, hash: u64) -> Option<Row> {
        let shard = &self.shards[shard_of(hash)];
        let number = shard.buckets.find(&self.shared.lines, hash)?;
        Some(shard.rows.row(&self.shared.layout, number))
    }

    pub(crate) fn parts(&self, row: Row) -> RowParts {
        let layout = &self.shared.layout;
        let mut values = vec![0.0; layout.dim];
        // SAFETY: a present row; `self` is borrowed, so nobody writes.
        unsafe {
            row.load(layout, &mut values);
            RowParts {
                values,
                state: row.state(layout).to_vec(),
                count: row.get(COUNT),
                last_seen_s: row.get(LAST_SEEN),
                version: layout.version.map_or(0, |version| row.get(version)),
                score: layout
                    .score
                    .map_or(0.0, |score| f32::from_bits(row.get(score))),
            }
        }
    }
}
