//! Training checkpoints: a folder of cuts, each a file, incremental ones building on those before (ADR 0032).
//!
//! In: a `Store` between two batches. Out: the same store, bit for bit, another day. `write.rs` and `read.rs` do it.

mod carry;
mod facts;
mod read;
mod tables;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::artefact::{ArtefactError, Result, io};
use crate::cut::{PrepareWork, StoreCut, Writing};
use crate::disk::Disk;
use crate::error::TableError;
use crate::store::Store;

pub(crate) use facts::{SAME, compared, identity};
pub use read::Checkpoint;
pub use tables::CheckpointTable;
use write::Encoding;

/// For whom tables keep changes between cuts.
pub const CONSUMER: &str = "checkpoint";
const SUFFIX: &str = ".cut";

/// How a cut is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOptions {
    /// Everything, although a cut to build on is there.
    pub full: bool,
    /// Copies of rows that change while the cut is open; at this the cut is given up.
    pub copy_limit_bytes: u64,
}

impl Default for CutOptions {
    fn default() -> CutOptions {
        CutOptions {
            full: false,
            copy_limit_bytes: 1 << 30,
        }
    }
}

/// A cut that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub sequence: u64,
    pub file: String,
    /// The cut that it builds on.
    pub parent: Option<u64>,
    pub rows: u64,
}

/// What the next incremental cut builds on.
struct Base {
    sequence: u64,
    identity: u64,
    /// The epoch that began with it, table by table.
    epochs: Vec<u32>,
}

/// A folder of checkpoints, written by one process.
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    plan: String,
    next: u64,
    base: Option<Base>,
    /// Bytes of the last full cut, and of those that build on it.
    full: u64,
    added: u64,
}

/// A cut that is being written.
pub struct OpenCut {
    writing: Writing<Encoding>,
    sequence: u64,
    parent: Option<u64>,
    epochs: Vec<u32>,
}

fn file(sequence: u64) -> String {
    format!("{sequence:012}{SUFFIX}")
}

fn sequence(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?;
    (number.len() == 12).then(|| number.parse().ok())?
}

impl Checkpoints {
    /// `plan` is recorded and compared: the fingerprint of whatever gives keys their meaning.
    pub fn open(disk: Arc<dyn Disk>, plan: impl Into<String>) -> Result<Checkpoints> {
        let mut checkpoints = Checkpoints {
            disk,
            plan: plan.into(),
            next: 1,
            base: None,
            full: 0,
            added: 0,
        };
        checkpoints.next = checkpoints.sequences()?.last().map_or(1, |last| last + 1);
        Ok(checkpoints)
    }

    /// Cuts the store here, between two batches, without touching the disk.
    pub fn prepare(&mut self, store: &mut Store, id: &str, options: CutOptions) -> Result<OpenCut> {
        let names: BTreeSet<&str> = store
            .tables()
            .iter()
            .map(|table| &*table.config().name)
            .collect();
        if names.len() < store.tables().len() {
            return Err(ArtefactError::Table(TableError::Config {
                table: store.tables()[0].config().name.clone(),
                what: "two tables of the store have the same name; a checkpoint tells them apart by it".into(),
            }));
        }
        let base = self.base.as_ref().filter(|base| {
            let kept = |(&epoch, table): (&u32, &crate::Table)| epoch >= table.clock().oldest;
            !options.full && base.epochs.iter().zip(store.tables()).all(kept)
        });
        let since = base.map(|base| &base.epochs[..]);
        let cut = StoreCut::new(store, id, since, options.copy_limit_bytes)?;
        let epochs: Vec<u32> = cut.cuts.iter().map(|cut| cut.clock.epoch).collect();
        if self.base.is_none() {
            // What changes from here on is the next cut's.
            for (table, &epoch) in store.tables_mut().iter_mut().zip(&epochs) {
                table.register(CONSUMER, epoch);
            }
        }
        let sequence = self.next;
        self.next += 1;
        let parent = base.map(|base| (base.sequence, base.identity));
        let encode = Encoding::new(store, &self.plan, id, sequence, parent);
        Ok(OpenCut {
            writing: Writing::new(&self.disk, file(sequence), id, cut, encode),
            sequence,
            parent: parent.map(|parent| parent.0),
            epochs,
        })
    }

    /// Whether what builds on the last full cut weighs more than that: without another full one `prune` never has
    /// anything to remove, and resuming reads all of it.
    pub fn outweighed(&self) -> bool {
        self.added > self.full
    }

    fn weigh(&mut self, sequence: u64, full: bool) {
        // Of what cannot be opened nothing is known; a cut that lasts does not fail for it.
        let bytes = self.disk.open(&file(sequence)).map_or(0, |cut| cut.bytes());
        if full {
            (self.full, self.added) = (bytes, 0);
        } else {
            self.added += bytes;
        }
    }

    /// Writes what is left and makes the cut last.
    pub fn commit(&mut self, mut cut: OpenCut, store: &mut Store) -> Result<Committed> {
        let identity = cut.writing.commit(store)?;
        for (table, &epoch) in store.tables_mut().iter_mut().zip(&cut.epochs) {
            table.register(CONSUMER, epoch);
        }
        self.base = Some(Base {
            sequence: cut.sequence,
            identity,
            epochs: std::mem::take(&mut cut.epochs),
        });
        self.weigh(cut.sequence, cut.parent.is_none());
        Ok(Committed {
            sequence: cut.sequence,
            file: file(cut.sequence),
            parent: cut.parent,
            rows: cut.writing.rows(),
        })
    }

    /// Fills a store that was declared as the checkpoint's was and has no rows yet; the next cut builds on it.
    pub fn resume(&mut self, checkpoint: &Checkpoint, store: Store) -> Result<Store> {
        let mut store = checkpoint.restore(store, 0..crate::hash::BUCKETS)?;
        let epochs: Vec<u32> = store
            .tables()
            .iter()
            .map(|table| table.clock().epoch)
            .collect();
        for (table, &epoch) in store.tables_mut().iter_mut().zip(&epochs) {
            table.register(CONSUMER, epoch);
        }
        self.base = Some(Base {
            sequence: checkpoint.sequence(),
            identity: checkpoint.identity(),
            epochs,
        });
        for (place, sequence) in checkpoint.chain().into_iter().enumerate() {
            self.weigh(sequence, place == 0);
        }
        Ok(store)
    }

    /// The cuts in the folder, oldest first.
    pub fn sequences(&self) -> Result<Vec<u64>> {
        let names = self
            .disk
            .names()
            .map_err(io("the folder of checkpoints", "listing it"))?;
        let mut sequences: Vec<u64> = names.iter().filter_map(|name| sequence(name)).collect();
        sequences.sort_unstable();
        Ok(sequences)
    }

    /// The newest cut. Damage is an error: `at` opens an older one.
    pub fn newest(&self) -> Result<Option<Checkpoint>> {
        self.sequences()?
            .last()
            .map(|&newest| self.at(newest))
            .transpose()
    }

    pub fn at(&self, sequence: u64) -> Result<Checkpoint> {
        Checkpoint::open(&*self.disk, &self.plan, sequence)
    }

    /// Removes what neither the newest cut nor the one before it needs. Returns how many files went.
    pub fn prune(&self) -> Result<usize> {
        let sequences = self.sequences()?;
        let mut needed = BTreeSet::new();
        for &kept in sequences.iter().rev().take(2) {
            needed.extend(self.at(kept)?.chain());
        }
        let Some(&newest) = sequences.last() else {
            return Ok(0);
        };
        let names = self
            .disk
            .names()
            .map_err(io("the folder of checkpoints", "listing it"))?;
        let mut removed = 0;
        for name in names {
            let unfinished = name.strip_suffix(".tmp").and_then(sequence);
            let goes = match sequence(&name) {
                Some(sequence) => !needed.contains(&sequence),
                None => unfinished.is_some_and(|sequence| sequence < newest),
            };
            if goes {
                self.disk.remove(&name).map_err(io(&name, "removing it"))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl OpenCut {
    /// What the pause was spent on.
    pub fn work(&self) -> PrepareWork {
        self.writing.work()
    }

    /// Adds the caller's bytes: reader positions, dense weights, generators. The last of a name counts.
    pub fn section(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.writing
            .encode
            .sections
            .insert(name.into(), bytes.into());
    }

    /// Writes about `rows` rows more. Whether the file is whole and synced; sections added later are not in it.
    pub fn step(&mut self, store: &Store, rows: u64) -> Result<bool> {
        self.writing.step(store, rows)
    }

    /// Leaves the folder and the store as if the cut had not been.
    pub fn abort(mut self, store: &mut Store) {
        self.writing.abort(store);
    }
}
