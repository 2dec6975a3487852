//! Writing rows: a worker takes the distinct keys of its shards through index, row and optimizer.

use crate::batch::{Distinct, DistinctKeys, Update};
use crate::config::Admission;
use crate::found::NONE;
use crate::group::Gathered;
use crate::hash::mix;
use crate::index::Home;
use crate::line::{Search, prefetch};
use crate::lookup::{BLOCK, prefetch_side, prefetch_values, shard_of};
use crate::rows::{COUNT, LAST_SEEN, Row};
use crate::shard::{Inserting, Shard, Shared, Work};
use crate::simd::at_each_level;

/// What an update did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// Distinct keys.
    pub distinct: u64,
    /// Rows that were there and took their step.
    pub stepped: u64,
    /// Rows that were made, with or without a step.
    pub created: u64,
    /// Sightings of keys that have no row yet.
    pub sightings: u64,
    pub(crate) refused: u64,
}

impl Updated {
    pub(crate) fn join(&mut self, other: Updated) {
        self.distinct += other.distinct;
        self.stepped += other.stepped;
        self.created += other.created;
        self.sightings += other.sightings;
        self.refused += other.refused;
    }
}

/// The instant of an update, the same for all workers.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    pub update: u64,
    pub halvings: u32,
    pub now: u32,
}

/// One worker's memory, kept between batches.
#[derive(Default)]
pub(crate) struct Worker {
    pub distinct: DistinctKeys,
    pub inserting: Inserting,
    group: Gathered,
    pub done: Updated,
}

impl Worker {
    /// Applies the places `order` of a checked batch (all if None), which belong to `shards`, the first of them number `first`.
    /// `known`: the batch's keys are distinct, with only the bits that count, and have these rows (or nobody knows).
    #[allow(clippy::too_many_arguments)]
    pub fn work(
        &mut self,
        shared: &Shared,
        shards: &mut [Shard],
        first: usize,
        batch: &Update,
        mask: u64,
        known: Option<&[u32]>,
        order: Option<&[u32]>,
        moment: Moment,
    ) {
        let mut distinct = std::mem::take(&mut self.distinct);
        let mine = first..first + shards.len();
        match known {
            Some(rows) => distinct.take(batch, rows, order),
            None => distinct.collect(shared.level, batch, mask, shared.layout.dim, order, mine),
        }
        self.done.distinct += distinct.keys.len() as u64;
        // SAFETY: a table's level is available.
        unsafe {
            apply(
                shared.level,
                self,
                shared,
                shards,
                first,
                batch,
                &distinct,
                moment,
            )
        };
        self.distinct = distinct;
    }

    pub fn take_counts(&mut self) -> (Updated, Work) {
        (
            std::mem::take(&mut self.done),
            std::mem::take(&mut self.inserting.work),
        )
    }
}

/// What there is of one block.
#[inline(always)]
fn block<T>(all: &[T], from: usize) -> &[T] {
    let rest = &all[from.min(all.len())..];
    &rest[..rest.len().min(BLOCK)]
}

// Functions rather than closures: only what is inlined is compiled for the level.

#[inline(always)]
fn ask(shared: &Shared, shards: &[Shard], first: usize, keys: &[Distinct], known: &[u32]) {
    for (i, key) in keys.iter().enumerate() {
        if known.get(i).is_some_and(|&row| row != NONE) {
            continue;
        }
        prefetch(
            shards[shard_of(key.hash) - first]
                .buckets
                .home_line(&shared.lines, key.hash),
        );
    }
}

/// Finds the rows of a block and asks for them. The home line is computed anew: rows that were made since it was asked for
/// may have grown the bucket. What is found stays true: rows never move, and no other distinct key can make this one.
#[inline(always)]
unsafe fn land<S: Search>(
    shared: &Shared,
    shards: &[Shard],
    first: usize,
    keys: &[Distinct],
    known: &[u32],
    rows: &mut [Option<u32>; BLOCK],
) {
    let mut beyond = [0u8; BLOCK];
    let mut farther = 0;
    for (i, key) in keys.iter().enumerate() {
        let shard = &shards[shard_of(key.hash) - first];
        if let Some(&number) = known.get(i)
            && number != NONE
        {
            rows[i] = approach(shared, shard, number);
            continue;
        }
        let line = shard.buckets.home_line(&shared.lines, key.hash);
        // SAFETY: the line is this hash's; the caller vouches for S.
        rows[i] = match unsafe { shard.buckets.find_at_home::<S>(line, key.hash) } {
            Home::Row(number) => approach(shared, shard, number),
            Home::Absent => None,
            Home::Beyond => {
                prefetch(line.wrapping_add(1));
                beyond[farther] = i as u8;
                farther += 1;
                None
            }
        };
    }
    for &i in &beyond[..farther] {
        let hash = keys[i as usize].hash;
        let shard = &shards[shard_of(hash) - first];
        if let Some(number) = shard.buckets.find(&shared.lines, hash) {
            rows[i as usize] = approach(shared, shard, number);
        }
    }
    if !shared.config.admission.at_first_sight() {
        for (key, row) in keys.iter().zip(rows) {
            if row.is_none() {
                shards[shard_of(key.hash) - first].sketch.prefetch(key.hash);
            }
        }
    }
}

#[inline(always)]
fn approach(shared: &Shared, shard: &Shard, number: u32) -> Option<u32> {
    let row = shard.rows.row(&shared.layout, number);
    prefetch_values(shared, row);
    prefetch_side(shared, row);
    shard.changes.prefetch(number);
    Some(number)
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn apply_body<S: Search>(
    worker: &mut Worker,
    shared: &Shared,
    shards: &mut [Shard],
    first: usize,
    batch: &Update,
    distinct: &DistinctKeys,
    moment: Moment,
) {
    let keys = &distinct.keys[..];
    let layout = &shared.layout;
    let mut rows = [[None; BLOCK]; 2];
    let known = &distinct.rows[..];
    let (here, rows_here) = (block(keys, 0), block(known, 0));
    // SAFETY (both): the caller vouches for S.
    ask(shared, shards, first, here, rows_here);
    unsafe { land::<S>(shared, shards, first, here, rows_here, &mut rows[0]) };
    ask(
        shared,
        shards,
        first,
        block(keys, BLOCK),
        block(known, BLOCK),
    );
    let (mut from, mut turn) = (0, 0);
    while from < keys.len() {
        let (next, after) = (from + BLOCK, from + 2 * BLOCK);
        unsafe {
            land::<S>(
                shared,
                shards,
                first,
                block(keys, next),
                block(known, next),
                &mut rows[1 - turn],
            )
        };
        ask(
            shared,
            shards,
            first,
            block(keys, after),
            block(known, after),
        );
        worker.group.clear();
        for key in block(keys, from + BLOCK) {
            let gradient = distinct.gradient(batch, layout.dim, key);
            prefetch(gradient);
            prefetch(gradient.wrapping_add(layout.dim - 1));
        }
        for (i, key) in block(keys, from).iter().enumerate() {
            let shard = &mut shards[shard_of(key.hash) - first];
            let shows = distinct.shows.get(from + i).copied();
            let row = match rows[turn][i] {
                Some(number) => {
                    if shard.keep.is_some() {
                        shard.save(layout, number, key.hash);
                    }
                    shard.changes.mark(number);
                    let row = shard.rows.row(layout, number);
                    touch(shared, row, key.occurrences, shows, moment.now);
                    worker.done.stepped += 1;
                    row
                }
                None => match absent(
                    shared,
                    shard,
                    key,
                    shows,
                    moment,
                    &mut worker.inserting,
                    &mut worker.done,
                ) {
                    Some(row) => row,
                    None => continue,
                },
            };
            let grad = distinct.gradient(batch, layout.dim, key);
            worker
                .group
                .push(shared, row, key.hash, grad, distinct.first[from + i]);
        }
        worker.group.step(shared, batch, moment);
        from += BLOCK;
        turn = 1 - turn;
    }
}

at_each_level! {
    /// # Safety
    /// `level` is available; every distinct key belongs to `shards`, of which the first is number `first`.
    unsafe fn apply(
        worker: &mut Worker, shared: &Shared, shards: &mut [Shard], first: usize, batch: &Update<'_>,
        distinct: &DistinctKeys, moment: Moment,
    ) = apply_body
}

/// Counts and stamps a present row.
#[inline(always)]
fn touch(shared: &Shared, row: Row, occurrences: u32, shows: Option<[f32; 2]>, now: u32) {
    // SAFETY: a present row of a shard that the caller holds by `&mut`; every word is within its side.
    unsafe {
        if let Some(at) = shared.layout.score {
            let score = f32::from_bits(row.get(at));
            row.set(
                at,
                scored(shared, score, row.get(LAST_SEEN), shows, now).to_bits(),
            );
        }
        row.set(COUNT, row.get(COUNT).saturating_add(occurrences));
        row.set(LAST_SEEN, row.get(LAST_SEEN).max(now));
        if let Some(version) = shared.layout.version {
            row.set(version, row.get(version).wrapping_add(1));
        }
    }
}

/// A score of `last` with what was seen at `now`, as of the later of the two.
fn scored(shared: &Shared, score: f32, last: u32, shows: Option<[f32; 2]>, now: u32) -> f32 {
    let Some(rule) = shared.config.eviction.score else {
        return score;
    };
    let [shows, clicks] = shows.unwrap_or_default();
    let more = shows * rule.show_weight + clicks * rule.click_weight;
    let fade = |idle: u32| crate::sweep::fade(idle, rule.half_life_s);
    if now >= last {
        score * fade(now - last) + more
    } else {
        score + more * fade(last - now)
    }
}

/// An absent key's sighting. The row, if there is one now that takes the gradient.
#[inline(never)]
fn absent(
    shared: &Shared,
    shard: &mut Shard,
    key: &Distinct,
    shows: Option<[f32; 2]>,
    moment: Moment,
    inserting: &mut Inserting,
    done: &mut Updated,
) -> Option<Row> {
    let at_once = shared.config.admission.at_first_sight();
    let count = match shared.config.admission {
        _ if at_once => key.occurrences,
        Admission::Count { least, .. } => {
            done.sightings += u64::from(key.occurrences);
            if let Some(keep) = &mut shard.keep {
                keep.save_sketch(&shard.sketch, key.hash);
            }
            let count = shard.sketch.add(key.hash, key.occurrences, moment.halvings);
            if count < least || key.occurrences == 0 {
                return None;
            }
            count
        }
        Admission::Probability(p) => {
            done.sightings += u64::from(key.occurrences);
            if !drawn(p, key, shared.config.seed, moment.update) {
                return None;
            }
            key.occurrences
        }
        Admission::Always => key.occurrences,
    };
    let Some(row) = shard.create(shared, key.hash, count, moment.now, inserting) else {
        done.refused += 1;
        return None;
    };
    done.created += 1;
    if let Some(at) = shared.layout.score {
        // SAFETY: a present row of a shard that the caller holds by `&mut`.
        unsafe {
            row.set(
                at,
                scored(shared, 0.0, moment.now, shows, moment.now).to_bits(),
            )
        };
    }
    at_once.then_some(row)
}

/// Whether one of a key's sightings in this update draws its row: the chance that none does is (1 - p)^sightings.
fn drawn(p: f64, key: &Distinct, seed: u64, update: u64) -> bool {
    let (mut none, mut square, mut left) = (1.0, 1.0 - p, key.occurrences);
    while left > 0 {
        if left & 1 == 1 {
            none *= square;
        }
        square *= square;
        left >>= 1;
    }
    let draw = (mix(key.hash ^ mix(update ^ mix(seed))) >> 11) as f64 / (1u64 << 53) as f64;
    draw >= none
}
