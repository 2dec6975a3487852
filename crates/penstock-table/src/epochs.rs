//! Epochs of a table: what changed since, for whom it is kept, and when it is forgotten.

use std::collections::{HashSet, VecDeque};

use rayon::prelude::*;

use crate::changes::Changes;
use crate::error::{Result, TableError};
use crate::hash::unmix;
use crate::index::SHARDS;
use crate::parts::RowParts;
use crate::rows::LOCATOR;
use crate::table::Table;

/// One key's newest operation since an epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Row(u64, RowParts),
    Gone(u64),
}

impl Table {
    /// Over the bound, epochs go whole, the oldest first: half an epoch could be told to nobody. The bound is the table's,
    /// kept shard by shard.
    pub(crate) fn bound_tombstones(&mut self) {
        let most = self.shared.config.bounds.tombstones / SHARDS;
        let over = self
            .shards
            .iter()
            .filter_map(|shard| shard.changes.epoch_at_bound(most))
            .max();
        if let Some(epoch) = over {
            self.forget(epoch + 1);
        }
    }

    pub(crate) fn forget(&mut self, before: u32) {
        if before > self.clock.oldest {
            self.clock.oldest = before;
            self.shards
                .iter_mut()
                .for_each(|shard| shard.changes.forget(before));
        }
    }

    /// Ends the epoch and returns the number of the next. What nobody registered for is forgotten.
    pub fn flip(&mut self) -> u32 {
        self.freeze();
        self.release();
        self.clock.epoch
    }

    /// Ends the epoch and forgets nothing. Returns the words of bits that it was told by.
    pub(crate) fn freeze(&mut self) -> usize {
        self.clock.epoch += 1;
        match &self.pool {
            Some(pool) => pool.install(|| {
                let shards = self.shards.par_iter_mut();
                shards.map(|shard| shard.changes.freeze()).sum()
            }),
            None => {
                let shards = self.shards.iter_mut();
                shards.map(|shard| shard.changes.freeze()).sum()
            }
        }
    }

    /// Keeps changes for a consumer that has everything before `epoch` (or will take a full snapshot now).
    pub fn register(&mut self, consumer: &str, epoch: u32) {
        self.consumers.insert(consumer.into(), epoch);
        self.release();
    }

    /// An empty table that stands in for another from here on: it has that one's learning rate, epochs and consumers, so
    /// that what comes into it is a change for them.
    pub fn stand_in_for(&mut self, other: &Table) {
        self.shared.rate = other.shared.rate;
        self.clock.epoch = other.clock.epoch;
        self.clock.oldest = other.clock.oldest;
        self.consumers.clone_from(&other.consumers);
        for shard in &mut self.shards {
            shard.changes = Changes::at(self.clock.epoch, self.clock.oldest, VecDeque::new());
        }
    }

    /// Keeps nothing more for a consumer.
    pub fn unregister(&mut self, consumer: &str) {
        self.consumers.remove(consumer);
        self.release();
    }

    pub(crate) fn release(&mut self) {
        let bound = self
            .clock
            .epoch
            .saturating_sub(u32::try_from(self.shared.config.bounds.epochs).unwrap_or(u32::MAX));
        let needed = self
            .consumers
            .values()
            .copied()
            .min()
            .unwrap_or(self.clock.epoch);
        self.forget(needed.min(self.clock.epoch).max(bound));
    }

    /// Where a consumer's changes begin; None: nobody of that name is registered.
    pub fn told(&self, consumer: &str) -> Option<u32> {
        self.consumers.get(consumer).copied()
    }

    /// Every key changed in epoch `since` or later, once, by its newest operation; shard by shard.
    pub fn changes(&self, since: u32, each: impl FnMut(Change)) -> Result<()> {
        self.told_by(since, |changes| changes.rows_since(since), each)
            .map(drop)
    }

    /// As `changes`, of a table whose epoch has just ended: reads only what finished epochs changed, and returns how many
    /// rows those were.
    pub(crate) fn finished_changes(&self, since: u32, each: impl FnMut(Change)) -> Result<u64> {
        self.told_by(since, |changes| changes.finished_since(since), each)
    }

    fn told_by(
        &self,
        since: u32,
        rows: impl Fn(&Changes) -> Vec<u32>,
        mut each: impl FnMut(Change),
    ) -> Result<u64> {
        if since < self.clock.oldest {
            return Err(TableError::FullSnapshotNeeded {
                epoch: since,
                oldest: self.clock.oldest,
            });
        }
        let mut visited = 0;
        for shard in &self.shards {
            for number in rows(&shard.changes) {
                visited += 1;
                let row = shard.rows.row(&self.shared.layout, number);
                // SAFETY: a row that was allocated; the shards are borrowed, so nobody writes.
                let locator = unsafe { row.get(LOCATOR) };
                if let Some(hash) = shard.buckets.hash_of(&self.shared.lines, locator, number) {
                    each(Change::Row(unmix(hash), self.parts(row)));
                }
            }
            let mut told = HashSet::new();
            for hash in shard.changes.gone_since(since) {
                if shard.buckets.find(&self.shared.lines, hash).is_none() && told.insert(hash) {
                    each(Change::Gone(unmix(hash)));
                }
            }
        }
        Ok(visited)
    }

    /// Tombstones kept.
    pub fn tombstones(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.changes.tombstones())
            .sum()
    }
}
