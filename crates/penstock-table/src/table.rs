//! A table: raw keys to rows, in 64 single-writer shards. Read ADR 0030 for what everything means.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use crate::batch::Update;
use crate::config::{Engine, TableConfig};
use crate::error::{Result, TableError};
use crate::hash::{BUCKETS, bucket, mix, unmix};
use crate::index::{BUCKETS_A_SHARD, Lines, SHARDS};
use crate::lookup::{self, Extras, shard_of};
use crate::rows::{COUNT, Extents, LAST_SEEN, LOCATOR, Layout, Row};
use crate::shard::{Shard, Shared, Work, store_nearest};
use crate::sweep::{Cursor, Judge, Swept};
use crate::update::{Moment, Updated, Worker};

/// More than a bucket grows by until a table has millions of rows.
const CHUNK: usize = 4096;

pub struct Table {
    pub(crate) shared: Shared,
    pub(crate) shards: Vec<Shard>,
    workers: Vec<Worker>,
    pool: Option<rayon::ThreadPool>,
    judge: Judge,
    order: Vec<u32>,
    pub(crate) clock: Clock,
    consumers: BTreeMap<String, u32>,
    work: Work,
}

/// Everything that moves as a table lives, beside its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Updates so far.
    pub update: u64,
    /// The latest event time that the table was told.
    pub now_s: u32,
    /// Sightings of absent keys so far: they age the sketch.
    pub sightings: u64,
    pub cursor: Cursor,
    /// The current epoch, from 1.
    pub epoch: u32,
    /// Changes of this epoch and later are kept.
    pub oldest: u32,
}

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

/// One key's newest operation since an epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Row(u64, RowParts),
    Gone(u64),
}

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
    pub fn new(config: TableConfig, engine: Engine) -> Result<Table> {
        config.check()?;
        let no_memory = || TableError::OutOfMemory {
            table: config.name.clone(),
            refused: 0,
        };
        let state_len = config.optimizer.state_len(config.dim);
        let layout = Layout::new(
            config.dim,
            config.dtype,
            state_len,
            config.versions,
            config.eviction.score.is_some(),
        );
        let lines = Lines::new().ok_or_else(no_memory)?;
        let pool = match engine.threads {
            0 | 1 => None,
            threads => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .map_err(|_| no_memory())?,
            ),
        };
        let shards = (0..SHARDS)
            .map(|shard| Shard::new(shard, &config))
            .collect();
        let rate = config.learning_rate;
        Ok(Table {
            shared: Shared {
                config,
                layout,
                lines,
                extents: Extents::new(),
                level: engine.level.available(),
                rate,
            },
            shards,
            workers: (0..engine.threads.max(1))
                .map(|_| Worker::default())
                .collect(),
            pool,
            judge: Judge::default(),
            order: Vec::new(),
            clock: Clock {
                update: 0,
                now_s: 0,
                sightings: 0,
                cursor: Cursor::default(),
                epoch: 1,
                oldest: 1,
            },
            consumers: BTreeMap::new(),
            work: Work::default(),
        })
    }

    pub fn config(&self) -> &TableConfig {
        &self.shared.config
    }

    pub fn level(&self) -> crate::simd::Level {
        self.shared.level
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Of updates from now on.
    pub fn set_learning_rate(&mut self, rate: f32) {
        self.shared.rate = rate;
    }

    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| u64::from(shard.rows.live()))
            .sum()
    }

    /// Tells the table that event time reached `now_s`; it never goes back.
    pub fn advance(&mut self, now_s: i64) {
        self.clock.now_s = self.clock.now_s.max(seconds(now_s));
    }

    /// The values of `keys`, `dim` floats each, into `out`. Changes nothing. Returns how many have a row.
    pub fn lookup(&self, keys: &[u64], out: &mut [f32]) -> Result<usize> {
        self.lookup_masked(keys, u64::MAX, out)
    }

    pub(crate) fn lookup_masked(&self, keys: &[u64], mask: u64, out: &mut [f32]) -> Result<usize> {
        let dim = self.shared.layout.dim;
        check("out", out.len(), keys.len() * dim)?;
        // SAFETY (both): the level is available, the shards are all of them, `out` was checked.
        let values = |keys: &[u64], out: &mut [f32]| unsafe {
            lookup::values(
                self.shared.level,
                &self.shared,
                &self.shards,
                keys,
                mask,
                out,
            )
        };
        let part = keys.len().div_ceil(self.workers.len()).max(1024);
        Ok(match &self.pool {
            Some(pool) if part < keys.len() => pool.install(|| {
                keys.par_chunks(part)
                    .zip(out.par_chunks_mut(part * dim))
                    .map(|(keys, out)| values(keys, out))
                    .sum()
            }),
            _ => values(keys, out),
        })
    }

    /// Versions and state columns of `keys`. Changes nothing.
    pub fn lookup_extras(&self, keys: &[u64], extras: Extras) -> Result<()> {
        self.extras_masked(keys, u64::MAX, extras)
    }

    pub(crate) fn extras_masked(&self, keys: &[u64], mask: u64, extras: Extras) -> Result<()> {
        let columns = self.shared.config.optimizer.columns(self.shared.layout.dim);
        if let Some(versions) = &extras.versions {
            check("versions", versions.len(), keys.len())?;
        }
        if let Some((chosen, out)) = &extras.state {
            if let Some(&column) = chosen.iter().find(|&&column| column >= columns.len()) {
                return self.refuse(format!(
                    "the optimizer has {} state columns, there is no {column}",
                    columns.len()
                ));
            }
            let width: usize = chosen.iter().map(|&column| columns[column].width).sum();
            check("state", out.len(), keys.len() * width)?;
        }
        lookup::extras(&self.shared, &self.shards, keys, mask, extras);
        Ok(())
    }

    /// Counts, stamps, makes rows and steps the optimizer. On every error but `OutOfMemory` nothing was changed.
    pub fn update(&mut self, batch: &Update) -> Result<Updated> {
        self.update_masked(batch, u64::MAX)
    }

    pub(crate) fn update_masked(&mut self, batch: &Update, mask: u64) -> Result<Updated> {
        batch.check(
            self.shared.level,
            self.shared.layout.dim,
            self.shared.layout.state_len,
        )?;
        self.make_room(batch.keys, mask)?;
        self.clock.update += 1;
        let halvings = match self.shared.config.admission {
            crate::config::Admission::Count { halve_every, .. } => {
                (self.clock.sightings / halve_every) as u32
            }
            _ => 0,
        };
        let now = seconds(batch.event_time_s);
        let moment = Moment {
            update: self.clock.update,
            halvings,
            now,
        };
        match &self.pool {
            Some(pool) if batch.keys.len() >= 64 * self.workers.len() => {
                let (starts, order) = by_shard(batch.keys, mask, &mut self.order);
                let (shared, mut shards, mut first) = (&self.shared, &mut self.shards[..], 0);
                pool.scope(|scope| {
                    let threads = self.workers.len();
                    for (number, worker) in self.workers.iter_mut().enumerate() {
                        let end = share(
                            &starts,
                            first,
                            (number + 1) * order.len() / threads,
                            number + 1 == threads,
                        );
                        let (mine, rest) = shards.split_at_mut(end - first);
                        shards = rest;
                        let (from, places) = (first, &order[starts[first]..starts[end]]);
                        first = end;
                        if !places.is_empty() {
                            scope.spawn(move |_| {
                                worker.work(shared, mine, from, batch, mask, Some(places), moment)
                            });
                        }
                    }
                });
            }
            _ => self.workers[0].work(&self.shared, &mut self.shards, 0, batch, mask, None, moment),
        }
        let mut done = Updated::default();
        for worker in &mut self.workers {
            let (counts, work) = worker.take_counts();
            done.join(counts);
            self.work.join(work);
        }
        self.clock.now_s = self.clock.now_s.max(now);
        self.clock.sightings += done.sightings;
        match done.refused {
            0 => Ok(done),
            refused => Err(TableError::OutOfMemory {
                table: self.shared.config.name.clone(),
                refused,
            }),
        }
    }

    /// Errs if the batch's new rows could pass the memory limit, after one sweep around if that helps.
    fn make_room(&mut self, keys: &[u64], mask: u64) -> Result<()> {
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

    /// Looks at up to `lines` lines of the index (at most six rows each) from where the last sweep ended.
    pub fn sweep(&mut self, lines: u64) -> Swept {
        let Clock { now_s, epoch, .. } = self.clock;
        let swept = self.judge.sweep(
            &self.shared,
            &mut self.shards,
            &mut self.clock.cursor,
            lines,
            now_s,
            epoch,
        );
        if swept.evicted > 0 {
            self.bound_tombstones();
        }
        swept
    }

    /// Drops a key's row, leaving a tombstone. Whether there was one.
    pub fn evict(&mut self, key: u64) -> bool {
        let hash = mix(key);
        let gone = self.shards[shard_of(hash)].evict(&self.shared, hash, self.clock.epoch);
        self.bound_tombstones();
        gone
    }

    /// Over the bound, epochs go whole, the oldest first: half an epoch could be told to nobody. The bound is the table's,
    /// kept shard by shard.
    fn bound_tombstones(&mut self) {
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

    fn forget(&mut self, before: u32) {
        if before > self.clock.oldest {
            self.clock.oldest = before;
            self.shards
                .iter_mut()
                .for_each(|shard| shard.changes.forget(before));
        }
    }

    /// Ends the epoch and returns the number of the next. What nobody registered for is forgotten.
    pub fn flip(&mut self) -> u32 {
        let epoch = self.clock.epoch;
        match &self.pool {
            Some(pool) => pool.install(|| {
                self.shards
                    .par_iter_mut()
                    .for_each(|shard| shard.changes.freeze(epoch))
            }),
            None => self
                .shards
                .iter_mut()
                .for_each(|shard| shard.changes.freeze(epoch)),
        }
        self.clock.epoch += 1;
        self.release();
        self.clock.epoch
    }

    /// Keeps changes for a consumer that has everything before `epoch` (or will take a full snapshot now).
    pub fn register(&mut self, consumer: &str, epoch: u32) {
        self.consumers.insert(consumer.into(), epoch);
        self.release();
    }

    /// Keeps nothing more for a consumer.
    pub fn unregister(&mut self, consumer: &str) {
        self.consumers.remove(consumer);
        self.release();
    }

    fn release(&mut self) {
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

    /// Every key changed in epoch `since` or later, once, by its newest operation; shard by shard.
    pub fn changes(&self, since: u32, mut each: impl FnMut(Change)) -> Result<()> {
        if since < self.clock.oldest {
            return Err(TableError::FullSnapshotNeeded {
                epoch: since,
                oldest: self.clock.oldest,
            });
        }
        for shard in &self.shards {
            for number in shard.changes.rows_since(since) {
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
        Ok(())
    }

    /// Every row, bucket by bucket, in order of hash within an index line's reach.
    pub fn each(&self, mut each: impl FnMut(u64, RowParts)) {
        for bucket in 0..BUCKETS {
            let (shard, bucket) = (
                &self.shards[bucket / BUCKETS_A_SHARD],
                bucket % BUCKETS_A_SHARD,
            );
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

    pub fn memory(&self) -> Memory {
        let sum = |of: fn(&Shard) -> u64| self.shards.iter().map(of).sum();
        Memory {
            rows: self.shared.extents.taken(),
            index: sum(|shard| shard.buckets.bytes()),
            changes: sum(|shard| shard.changes.bytes()),
            sketch: sum(|shard| shard.sketch.bytes()),
        }
    }

    /// Entries moved and pages faulted by growth so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Tombstones kept.
    pub fn tombstones(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.changes.tombstones())
            .sum()
    }

    fn find(&self, hash: u64) -> Option<Row> {
        let shard = &self.shards[shard_of(hash)];
        let number = shard.buckets.find(&self.shared.lines, hash)?;
        Some(shard.rows.row(&self.shared.layout, number))
    }

    fn parts(&self, row: Row) -> RowParts {
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

    fn refuse<T>(&self, what: String) -> Result<T> {
        Err(TableError::Config {
            table: self.shared.config.name.clone(),
            what,
        })
    }
}

fn check(what: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(TableError::Length {
            what,
            found,
            expected,
        })
    }
}

/// Seconds as a row keeps them: from 1970 to 2106, what is outside at its end.
fn seconds(event_time_s: i64) -> u32 {
    event_time_s.clamp(0, i64::from(u32::MAX)) as u32
}

/// The places of a batch in order of shard, each shard's in batch order, and where each shard's begin.
fn by_shard<'a>(
    keys: &[u64],
    mask: u64,
    order: &'a mut Vec<u32>,
) -> ([usize; SHARDS + 1], &'a [u32]) {
    let mut starts = [0; SHARDS + 1];
    for &key in keys {
        starts[shard_of(mix(key & mask)) + 1] += 1;
    }
    for shard in 0..SHARDS {
        starts[shard + 1] += starts[shard];
    }
    let mut next = starts;
    order.resize(keys.len(), 0);
    for (place, &key) in (0u32..).zip(keys) {
        let at = &mut next[shard_of(mix(key & mask))];
        order[*at] = place;
        *at += 1;
    }
    (starts, order)
}

/// The end of a thread's shards: the first shard from `first` on that begins at `until` or later.
fn share(starts: &[usize; SHARDS + 1], first: usize, until: usize, last: bool) -> usize {
    if last {
        SHARDS
    } else {
        (first..SHARDS)
            .find(|&shard| starts[shard] >= until)
            .unwrap_or(SHARDS)
    }
}
