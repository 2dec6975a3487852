//! One cut through all tables of a store.

use super::{Bucket, Cut, PrepareWork};
use crate::artefact::Result;
use crate::store::Store;

pub(crate) struct StoreCut {
    pub cuts: Vec<Cut>,
    next: usize,
}

impl StoreCut {
    /// `since`: an epoch a table. If one table cannot be cut, none is.
    pub fn new(store: &mut Store, id: &str, since: Option<&[u32]>, limit: u64) -> Result<StoreCut> {
        let tables = store.tables_mut().iter_mut().enumerate();
        let cuts =
            tables.map(|(number, table)| table.cut(id, since.map(|since| since[number]), limit));
        Ok(StoreCut {
            cuts: cuts.collect::<Result<_>>()?,
            next: 0,
        })
    }

    /// The next bucket of the next table.
    pub fn read(&mut self, store: &Store) -> Result<Option<(usize, Bucket)>> {
        while let Some(cut) = self.cuts.get_mut(self.next) {
            if let Some(bucket) = cut.read(&store.tables()[self.next])? {
                return Ok(Some((self.next, bucket)));
            }
            self.next += 1;
        }
        // A limit that was passed after the last bucket matters to nobody.
        Ok(None)
    }

    pub fn end(self, store: &mut Store) {
        drop(self.cuts);
        store
            .tables_mut()
            .iter_mut()
            .for_each(|table| table.end_given_up_cut());
    }

    pub fn work(&self) -> PrepareWork {
        self.cuts
            .iter()
            .fold(PrepareWork::default(), |sum, cut| PrepareWork {
                shards: sum.shards + cut.work.shards,
                words: sum.words + cut.work.words,
                sets: sum.sets + cut.work.sets,
                buckets: sum.buckets + cut.work.buckets,
            })
    }
}
