//! Reading a cut bucket by bucket, while its table is borrowed and therefore still.

use super::{Cut, Sets, record};
use crate::artefact::{ArtefactError, Result};
use crate::hash::{BUCKETS, bucket as bucket_of};
use crate::index::BUCKETS_A_SHARD;
use crate::rows::LOCATOR;
use crate::shard::Shard;
use crate::table::Table;

/// A bucket as it was at the cut.
pub(crate) struct Bucket {
    pub number: usize,
    /// In order of hash.
    pub records: Vec<u8>,
    pub rows: usize,
    /// (hash, epoch) of keys that went, whether or not they are back.
    pub gone: Vec<(u64, u32)>,
    /// The sketch of its shard, with the shard's first bucket.
    pub sketch: Option<Vec<u8>>,
}

/// What is known about the shard that is being read.
pub(super) struct Reading {
    shard: usize,
    /// Of each row number: the epoch of its last change, 0 if that is not kept.
    changed: Vec<u32>,
    /// Of an incremental cut: the rows that changed, local bucket by local bucket.
    rows: Vec<Vec<(u64, u32)>>,
    gone: Vec<Vec<(u64, u32)>>,
}

impl Reading {
    fn begin(
        number: usize,
        sets: &Sets,
        since: Option<u32>,
        shard: &Shard,
        table: &Table,
    ) -> Reading {
        let mut changed = vec![0; sets.end as usize];
        let mut gone = vec![Vec::new(); BUCKETS_A_SHARD];
        for (epoch, set) in &sets.epochs {
            set.each_row(|row| changed[row as usize] = *epoch);
            if since.is_none_or(|since| *epoch >= since) {
                for &hash in set.gone() {
                    gone[bucket_of(hash) % BUCKETS_A_SHARD].push((hash, *epoch));
                }
            }
        }
        let mut rows = vec![Vec::new(); BUCKETS_A_SHARD];
        if let (Some(since), Some(keep)) = (since, &shard.keep) {
            for (row, _) in (0..).zip(&changed).filter(|(_, epoch)| **epoch >= since) {
                if !keep.is_untouched(row) {
                    continue;
                }
                // SAFETY: a row that was allocated; the table is borrowed, so nobody writes.
                let locator = unsafe { shard.rows.row(&table.shared.layout, row).get(LOCATOR) };
                if let Some(hash) = shard.buckets.hash_of(&table.shared.lines, locator, row) {
                    rows[bucket_of(hash) % BUCKETS_A_SHARD].push((hash, row));
                }
            }
        }
        Reading {
            shard: number,
            changed,
            rows,
            gone,
        }
    }
}

impl Cut {
    /// The next bucket; None after the last. What it read is not copied any more.
    pub fn read(&mut self, table: &Table) -> Result<Option<Bucket>> {
        self.check()?;
        // A shard without rows and tombstones has nothing to say.
        while self.next < BUCKETS && self.next.is_multiple_of(BUCKETS_A_SHARD) {
            let number = self.next / BUCKETS_A_SHARD;
            let sets = &self.shards[number];
            let gone = sets.epochs.iter().any(|(_, set)| !set.gone().is_empty());
            if sets.end > 0 || gone || table.shards[number].sketch.lines() > 0 {
                break;
            }
            self.next += BUCKETS_A_SHARD;
        }
        if self.next == BUCKETS {
            return Ok(None);
        }
        let (number, local) = (self.next / BUCKETS_A_SHARD, self.next % BUCKETS_A_SHARD);
        let shard = &table.shards[number];
        let keep = shard
            .keep
            .as_ref()
            .filter(|keep| std::sync::Arc::ptr_eq(keep.ledger(), &self.ledger));
        let Some(keep) = keep else {
            return Err(ArtefactError::CutOver {
                cut: self.ledger.cut.clone(),
            });
        };
        if self
            .reading
            .as_ref()
            .is_none_or(|reading| reading.shard != number)
        {
            let sets = &self.shards[number];
            self.reading = Some(Reading::begin(number, sets, self.since, shard, table));
        }
        let Some(reading) = &mut self.reading else {
            return Ok(None);
        };
        let layout = &table.shared.layout;
        let size = record::size(layout);
        let mut found: Vec<(u64, u32)> = Vec::new();
        if self.since.is_some() {
            found = std::mem::take(&mut reading.rows[local]);
            found.retain(|&(_, row)| keep.is_untouched(row));
        } else {
            for at in 0..shard.buckets.lines(local) {
                let line = shard.buckets.line(&table.shared.lines, local, at);
                for entry in line.entries() {
                    let row = line.row(entry);
                    if keep.is_untouched(row) {
                        found.push((shard.buckets.hash_in(local, line, entry), row));
                    }
                }
            }
        }
        // Saved ones have a place among the saved for their number, and the top bit.
        const SAVED: u32 = 1 << 31;
        let saved = keep.saved(local);
        for (place, record) in (0..).zip(saved.chunks_exact(size)) {
            found.push((record::hash(record), SAVED | place));
        }
        found.sort_unstable();
        let mut records = Vec::with_capacity(found.len() * size);
        for (i, &(hash, row)) in found.iter().enumerate() {
            if let Some(&(_, next)) = found.get(i + AHEAD).filter(|(_, next)| next & SAVED == 0) {
                let next = shard.rows.row(layout, next);
                crate::lookup::prefetch_values(&table.shared, next);
                crate::line::prefetch(next.side);
            }
            let at = records.len();
            let number = if row & SAVED == 0 {
                record::write(layout, hash, row, shard.rows.row(layout, row), &mut records);
                row
            } else {
                let place = (row & !SAVED) as usize * size;
                records.extend_from_slice(&saved[place..][..size]);
                record::epoch(&records[at..])
            };
            record::set_epoch(&mut records[at..], reading.changed[number as usize]);
        }
        let sketch = (local == 0 && shard.sketch.lines() > 0).then(|| {
            let lines = keep.sketch(&shard.sketch);
            keep.sketch_was_read();
            lines
        });
        keep.was_read(local);
        self.next += 1;
        Ok(Some(Bucket {
            number: self.next - 1,
            rows: found.len(),
            records,
            gone: std::mem::take(&mut reading.gone[local]),
            sketch,
        }))
    }
}

/// Rows that are asked for ahead of being written.
const AHEAD: usize = 12;
