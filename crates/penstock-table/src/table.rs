//! A table: raw keys to rows, in 64 single-writer shards. Read ADR 0030 for what everything means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::batch::Update;
use crate::config::{Engine, TableConfig};
use crate::error::{Result, TableError};
use crate::hash::mix;
use crate::index::{Lines, SHARDS};
use crate::lookup::{self, Extras, shard_of};
use crate::rows::{Extents, Layout};
use crate::shard::{Shard, Shared, Work};
use crate::sweep::{Cursor, Judge, Swept};
use crate::update::{Moment, Updated, Worker};

/// Batches of at least so many keys are taken shard by shard, on one thread too.
const BY_SHARD: usize = 16_384;

pub struct Table {
    pub(crate) shared: Shared,
    pub(crate) shards: Vec<Shard>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) pool: Option<Arc<rayon::ThreadPool>>,
    pub(crate) judge: Judge,
    order: Vec<u32>,
    pub(crate) clock: Clock,
    /// Another one whenever rows went: rows read under it are where they were. No two tables ever have the same.
    rows_stamp: u64,
    pub(crate) consumers: BTreeMap<String, u32>,
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
            threads => Some(crate::threads::pool(threads).ok_or_else(no_memory)?),
        };
        let shards = (0..SHARDS)
            .map(|shard| Shard::new(shard, &config))
            .collect();
        let rate = config.learning_rate;
        let mut table = Table {
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
            rows_stamp: new_stamp(),
            consumers: BTreeMap::new(),
            work: Work::default(),
        };
        table.take_expected()?;
        Ok(table)
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

    /// Of updates to come.
    pub fn learning_rate(&self) -> f32 {
        self.shared.rate
    }

    /// Of updates from now on.
    pub fn set_learning_rate(&mut self, rate: f32) {
        self.shared.rate = rate;
    }

    pub(crate) fn threads(&self) -> usize {
        self.workers.len()
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
        check("out", out.len(), keys.len() * self.shared.layout.dim)?;
        Ok(self.values(keys, mask, out, &mut [], false))
    }

    /// A lookup that says where rows are: their numbers into `rows`, `NONE` for a key without one. They are good as long
    /// as the table has the stamp that is returned. `alone`: by the calling thread, since others have other tables to do.
    pub(crate) fn read(
        &self,
        keys: &[u64],
        mask: u64,
        out: &mut [f32],
        rows: &mut [u32],
        alone: bool,
    ) -> Result<u64> {
        check("out", out.len(), keys.len() * self.shared.layout.dim)?;
        check("rows", rows.len(), keys.len())?;
        self.values(keys, mask, out, rows, alone);
        Ok(self.rows_stamp)
    }

    /// `rows` has a place a key, or none at all.
    fn values(
        &self,
        keys: &[u64],
        mask: u64,
        out: &mut [f32],
        rows: &mut [u32],
        alone: bool,
    ) -> usize {
        let dim = self.shared.layout.dim;
        // SAFETY (all): the level is available, the shards are all of them, lengths were checked.
        let values = |keys: &[u64], out: &mut [f32], rows: &mut [u32]| unsafe {
            let Table { shared, shards, .. } = self;
            lookup::values(shared.level, shared, shards, keys, mask, out, rows)
        };
        let part = keys.len().div_ceil(self.workers.len()).max(1024);
        match &self.pool {
            Some(pool) if !alone && part < keys.len() => pool.install(|| {
                let parts = keys.par_chunks(part).zip(out.par_chunks_mut(part * dim));
                if rows.is_empty() {
                    return parts.map(|(keys, out)| values(keys, out, &mut [])).sum();
                }
                parts
                    .zip(rows.par_chunks_mut(part))
                    .map(|((keys, out), rows)| values(keys, out, rows))
                    .sum()
            }),
            _ => values(keys, out, rows),
        }
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

    /// Whether the batch makes sense for this table; nothing is written.
    pub(crate) fn check(&self, batch: &Update) -> Result<()> {
        let layout = &self.shared.layout;
        batch.check(self.shared.level, layout.dim, layout.state_len)
    }

    pub(crate) fn update_masked(&mut self, batch: &Update, mask: u64) -> Result<Updated> {
        self.check(batch)?;
        self.apply(batch, mask, None, false)
    }

    /// An update that was checked. `known`: of a batch of distinct keys, rows and the stamp that they were read with.
    /// `alone`: by the calling thread, since others have other tables to do.
    pub(crate) fn apply(
        &mut self,
        batch: &Update,
        mask: u64,
        known: Option<(&[u32], u64)>,
        alone: bool,
    ) -> Result<Updated> {
        self.make_room(batch.keys, mask)?;
        self.end_given_up_cut();
        // Only now: making room may have swept rows away.
        let known = known.map(|(rows, stamp)| if stamp == self.rows_stamp { rows } else { &[] });
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
            Some(pool) if !alone && batch.keys.len() >= 64 * self.workers.len() => {
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
                                worker.work(
                                    shared,
                                    mine,
                                    from,
                                    batch,
                                    mask,
                                    known,
                                    Some(places),
                                    moment,
                                )
                            });
                        }
                    }
                });
            }
            _ => {
                // What a large batch meets on its way would not stay in the caches; a shard's part does.
                let order = (batch.keys.len() >= BY_SHARD)
                    .then(|| by_shard(batch.keys, mask, &mut self.order).1);
                self.workers[0].work(
                    &self.shared,
                    &mut self.shards,
                    0,
                    batch,
                    mask,
                    known,
                    order,
                    moment,
                );
            }
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

    /// Looks at up to `lines` lines of the index (at most six rows each) from where the last sweep ended.
    pub fn sweep(&mut self, lines: u64) -> Swept {
        let now_s = self.clock.now_s;
        let swept = self.judge.sweep(
            &self.shared,
            &mut self.shards,
            &mut self.clock.cursor,
            lines,
            now_s,
        );
        if swept.evicted > 0 {
            self.rows_stamp = new_stamp();
            self.bound_tombstones();
        }
        swept
    }

    /// Drops a key's row, leaving a tombstone. Whether there was one.
    pub fn evict(&mut self, key: u64) -> bool {
        let hash = mix(key);
        let gone = self.shards[shard_of(hash)].evict(&self.shared, hash);
        self.rows_stamp = new_stamp();
        self.bound_tombstones();
        gone
    }

    /// Entries moved and pages faulted by growth so far.
    pub fn work(&self) -> Work {
        self.work
    }

    fn refuse<T>(&self, what: String) -> Result<T> {
        Err(TableError::Config {
            table: self.shared.config.name.clone(),
            what,
        })
    }
}

/// From 1.
fn new_stamp() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

pub(crate) fn check(what: &'static str, found: usize, expected: usize) -> Result<()> {
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
