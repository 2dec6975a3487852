//! A cut through a table between two batches: `keep.rs` saves what changes after it, `read.rs` reads it, `record.rs` says
//! what a row is, `restore.rs` puts it back (ADR 0032).

mod keep;
mod read;
mod record;
mod restore;
mod store;
mod writing;

use std::sync::Arc;

pub(crate) use keep::Keep;
use keep::Ledger;
pub(crate) use read::Bucket;
pub(crate) use record::Records;
pub(crate) use restore::{Filling, take};
pub(crate) use store::StoreCut;
pub(crate) use writing::{Encode, Writing};

use crate::artefact::{ArtefactError, Result};
use crate::changes::Epoch;
use crate::error::TableError;
use crate::hash::BUCKETS;
use crate::index::{BUCKETS_A_SHARD, SHARDS};
use crate::table::{Clock, Table};

/// What `prepare` did while training waited: nothing of it grows with a row's size or number but a bit a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrepareWork {
    pub shards: u64,
    /// Words of 64 rows' bits.
    pub words: u64,
    /// Finished epochs' sets that were shared.
    pub sets: u64,
    /// Buckets whose line counts were copied.
    pub buckets: u64,
}

/// A table as it was at one instant.
pub(crate) struct Cut {
    ledger: Arc<Ledger>,
    /// The epoch that began with the cut is this clock's.
    pub clock: Clock,
    pub rate: f32,
    pub consumers: Vec<(String, u32)>,
    pub rows: u64,
    pub work: PrepareWork,
    pub lines: Vec<u32>,
    /// Only what changed from this epoch on.
    pub since: Option<u32>,
    shards: Vec<Sets>,
    reading: Option<read::Reading>,
    next: usize,
}

/// What a shard's finished epochs changed, and how many row numbers it had.
struct Sets {
    epochs: Vec<(u32, Arc<Epoch>)>,
    end: u32,
}

impl Table {
    /// Cuts here. `since`: what changed from that epoch on; everything if None. At most one cut is open.
    pub(crate) fn cut(&mut self, cut: &str, since: Option<u32>, limit: u64) -> Result<Cut> {
        self.end_given_up_cut();
        if let Some(keep) = &self.shards[0].keep {
            return Err(ArtefactError::CutOpen {
                open: keep.ledger().cut.clone(),
            });
        }
        if let Some(epoch) = since.filter(|&since| since < self.clock.oldest) {
            return Err(TableError::FullSnapshotNeeded {
                epoch,
                oldest: self.clock.oldest,
            }
            .into());
        }
        let mut work = PrepareWork {
            shards: SHARDS as u64,
            words: self.freeze() as u64,
            buckets: BUCKETS as u64,
            sets: 0,
        };
        let ledger = Arc::new(Ledger::new(cut, limit));
        let shards: Vec<Sets> = self
            .shards
            .iter_mut()
            .map(|shard| {
                let epochs: Vec<_> = shard.changes.finished().iter().cloned().collect();
                work.sets += epochs.len() as u64;
                let end = shard.rows.end();
                let wanted = since.map(|since| {
                    let wanted = epochs.iter().filter(|(epoch, _)| *epoch >= since);
                    wanted.map(|(_, set)| Arc::clone(set)).collect()
                });
                shard.keep = Some(Box::new(Keep::new(Arc::clone(&ledger), end, wanted)));
                Sets { epochs, end }
            })
            .collect();
        let lines = (0..BUCKETS).map(|bucket| {
            self.shards[bucket / BUCKETS_A_SHARD]
                .buckets
                .lines(bucket % BUCKETS_A_SHARD)
        });
        let lines = lines.collect();
        let consumers = self.consumers.clone().into_iter().collect();
        self.release();
        Ok(Cut {
            ledger,
            clock: self.clock,
            rate: self.shared.rate,
            consumers,
            rows: self.rows(),
            work,
            lines,
            since,
            shards,
            reading: None,
            next: 0,
        })
    }

    /// Drops the copies of a cut that is over.
    pub(crate) fn end_given_up_cut(&mut self) {
        if self.shards[0]
            .keep
            .as_ref()
            .is_some_and(|keep| keep.ledger().is_over())
        {
            self.shards.iter_mut().for_each(|shard| shard.keep = None);
        }
    }

    /// Bytes of rows that an open cut copied.
    pub fn copied_bytes(&self) -> u64 {
        self.shards[0]
            .keep
            .as_ref()
            .map_or(0, |keep| keep.ledger().copied())
    }
}

impl Cut {
    /// Errs if the copies passed their limit.
    pub fn check(&self) -> Result<()> {
        if self.ledger.passed_limit() {
            return Err(ArtefactError::CopyLimit {
                cut: self.ledger.cut.clone(),
                limit: self.ledger.limit,
            });
        }
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.ledger.end();
    }
}
