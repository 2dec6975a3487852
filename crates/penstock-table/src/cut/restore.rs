//! Filling an empty table with what a cut said, bucket by bucket.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::record;
use crate::changes::{Changes, Epoch};
use crate::error::{Result, TableError};
use crate::hash::bucket as bucket_of;
use crate::index::{BUCKETS_A_SHARD, SHARDS};
use crate::table::{Clock, Table};

/// Row numbers that changed in an epoch, and hashes that went.
type RowsAndGone = (Vec<u32>, Vec<u64>);

/// What filling gathers until the table is whole.
pub(crate) struct Filling {
    /// Shard by shard, epoch by epoch: rows that changed and hashes that went.
    epochs: Vec<BTreeMap<u32, RowsAndGone>>,
    clock: Clock,
}

/// Rows of a table of the same layout, as rows that changed in this one's current epoch.
pub(crate) fn take<'a>(table: &mut Table, records: impl Iterator<Item = &'a [u8]>) -> Result<()> {
    let shared = &table.shared;
    let by = &mut table.workers[0].inserting;
    for record in records {
        let hash = record::hash(record);
        let shard = &mut table.shards[bucket_of(hash) / BUCKETS_A_SHARD];
        let row = shard
            .attach(shared, hash, 0, 0, by)
            .ok_or_else(|| TableError::OutOfMemory {
                table: shared.config.name.clone(),
                refused: 1,
            })?;
        // SAFETY: the row was just attached, the table is borrowed for writing, the record has the layout's size.
        unsafe { record::restore(&shared.layout, record, row) };
    }
    Ok(())
}

impl Filling {
    pub fn new(clock: Clock) -> Filling {
        Filling {
            epochs: vec![BTreeMap::new(); SHARDS],
            clock,
        }
    }

    /// One bucket, each hash once; `lines` is its index's size. `Ok(false)` if the index has no such size.
    pub fn bucket<'a>(
        &mut self,
        table: &mut Table,
        bucket: usize,
        lines: u32,
        records: impl Iterator<Item = &'a [u8]>,
        gone: impl Iterator<Item = (u64, u32)>,
    ) -> Result<bool> {
        let (number, local) = (bucket / BUCKETS_A_SHARD, bucket % BUCKETS_A_SHARD);
        let kept = self.clock.oldest..self.clock.epoch;
        let epochs = &mut self.epochs[number];
        let shared = &table.shared;
        let shard = &mut table.shards[number];
        if shard.buckets.reserve(&shared.lines, local, lines).is_none() {
            return Ok(false);
        }
        let by = &mut table.workers[0].inserting;
        for record in records {
            let hash = record::hash(record);
            debug_assert_eq!(bucket_of(hash), bucket);
            let row =
                shard
                    .attach(shared, hash, 0, 0, by)
                    .ok_or_else(|| TableError::OutOfMemory {
                        table: shared.config.name.clone(),
                        refused: 1,
                    })?;
            // SAFETY: the row was just attached, the table is borrowed for writing, the record has the layout's size.
            unsafe { record::restore(&shared.layout, record, row) };
            let epoch = record::epoch(record);
            if kept.contains(&epoch) {
                epochs
                    .entry(epoch)
                    .or_default()
                    .0
                    .push(shard.rows.end() - 1);
            }
        }
        for (hash, epoch) in gone.filter(|(_, epoch)| kept.contains(epoch)) {
            epochs.entry(epoch).or_default().1.push(hash);
        }
        Ok(true)
    }

    /// The table's own facts, after the last bucket.
    pub fn finish(self, table: &mut Table, rate: f32, consumers: &[(String, u32)]) {
        let Clock { epoch, oldest, .. } = self.clock;
        for (shard, epochs) in table.shards.iter_mut().zip(self.epochs) {
            let sets = epochs
                .into_iter()
                .map(|(epoch, (rows, gone))| (epoch, Arc::new(Epoch::of(rows, gone))));
            let sets: VecDeque<_> = sets.collect();
            shard.changes = Changes::at(epoch, oldest, sets);
            shard.changes.reach(shard.rows.end());
        }
        table.clock = self.clock;
        table.shared.rate = rate;
        table.consumers = consumers.iter().cloned().collect();
    }
}
