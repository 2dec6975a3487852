//! Eviction: a cursor goes round the index, a bounded number of lines a call, and drops what the rules condemn.

use crate::config::Eviction;
use crate::hash::BUCKETS;
use crate::index::BUCKETS_A_SHARD;
use crate::line::prefetch;
use crate::rows::{COUNT, LAST_SEEN, Row};
use crate::shard::{Shard, Shared};

/// Where the next sweep begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub bucket: u32,
    pub line: u32,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub lines: u64,
    pub visited: u64,
    pub evicted: u64,
    /// Whether it passed the end of the last bucket.
    pub wrapped: bool,
}

/// 2^(-idle / half_life) in basic operations: bits for the whole part, a series for the rest.
pub(crate) fn fade(idle: u32, half_life: u32) -> f32 {
    let halvings = f64::from(idle) / f64::from(half_life);
    if halvings >= 1000.0 {
        return 0.0;
    }
    let whole = halvings as u64;
    let x = -(halvings - whole as f64) * std::f64::consts::LN_2;
    // e^x for x in (-0.7, 0]: the first term left out is below 2^-53.
    let mut sum = 1.0;
    let mut term = 18.0;
    while term >= 1.0 {
        sum = 1.0 + x * sum / term;
        term -= 1.0;
    }
    (sum * f64::from_bits((1023 - whole) << 52)) as f32
}

/// A row that is being judged.
struct Candidate {
    hash: u64,
    row: Row,
}

/// What sweeping needs in memory, kept between calls.
#[derive(Default)]
pub(crate) struct Judge {
    candidates: Vec<Candidate>,
    values: Vec<f32>,
    rows: Vec<*mut f32>,
    state: Vec<*mut f32>,
    facts: Vec<f32>,
    condemned: Vec<u64>,
}

// SAFETY: the pointers are only alive within one call of `sweep`, on one thread.
unsafe impl Send for Judge {}
// SAFETY: as above; `&Judge` reads nothing through them.
unsafe impl Sync for Judge {}
// SAFETY: see `Judge`.
unsafe impl Send for Candidate {}

/// Lines that are judged together.
const TOGETHER: u32 = 16;

impl Judge {
    /// Visits up to `budget` lines from the cursor on, at most once around.
    pub fn sweep(
        &mut self,
        shared: &Shared,
        shards: &mut [Shard],
        cursor: &mut Cursor,
        budget: u64,
        now: u32,
    ) -> Swept {
        if shared.config.eviction.is_none() {
            return Swept::default();
        }
        self.visit(shared, shards, cursor, budget, |judge| {
            judge.judge(shared, now);
        })
    }

    /// The same by the caller's rule: whether a row goes, given its values.
    pub fn sweep_by(
        &mut self,
        shared: &Shared,
        shards: &mut [Shard],
        cursor: &mut Cursor,
        budget: u64,
        mut goes: impl FnMut(*const u8) -> bool,
    ) -> Swept {
        self.visit(shared, shards, cursor, budget, |judge| {
            judge.condemned.clear();
            let condemned = judge.candidates.iter().filter(|held| goes(held.row.values));
            judge.condemned.extend(condemned.map(|held| held.hash));
        })
    }

    fn visit(
        &mut self,
        shared: &Shared,
        shards: &mut [Shard],
        cursor: &mut Cursor,
        budget: u64,
        mut judge: impl FnMut(&mut Judge),
    ) -> Swept {
        let mut swept = Swept::default();
        while swept.lines < budget {
            let shard = &mut shards[cursor.bucket as usize / BUCKETS_A_SHARD];
            let bucket = cursor.bucket as usize % BUCKETS_A_SHARD;
            let lines = shard.buckets.lines(bucket);
            let from = cursor.line.min(lines);
            let to = lines.min(from + TOGETHER.min((budget - swept.lines).min(16) as u32));
            self.gather(shared, shard, bucket, from, to);
            judge(self);
            for &hash in &self.condemned {
                shard.evict(shared, hash);
            }
            swept.lines += u64::from(to - from);
            swept.visited += self.candidates.len() as u64;
            swept.evicted += self.condemned.len() as u64;
            cursor.line = to;
            if to == lines {
                *cursor = Cursor {
                    bucket: cursor.bucket + 1,
                    line: 0,
                };
                if cursor.bucket as usize == BUCKETS {
                    cursor.bucket = 0;
                    swept.wrapped = true;
                    break;
                }
            }
        }
        swept
    }

    /// The rows whose home is one of these lines, in order of hash: where entries lie beyond their home depends on the
    /// table's past, and a restored table has another one.
    fn gather(&mut self, shared: &Shared, shard: &Shard, bucket: usize, from: u32, to: u32) {
        self.candidates.clear();
        let lines = shard.buckets.lines(bucket);
        let mut passed = false;
        for at in (from..lines).chain(0..from) {
            if (at < from || at >= to) && !passed {
                break;
            }
            let line = shard.buckets.line(&shared.lines, bucket, at);
            passed = line.was_passed();
            for entry in line.entries() {
                if !(from..to).contains(&shard.buckets.home_in(bucket, line, entry)) {
                    continue;
                }
                let row = shard.rows.row(&shared.layout, line.row(entry));
                prefetch(row.side);
                self.candidates.push(Candidate {
                    hash: shard.buckets.hash_in(bucket, line, entry),
                    row,
                });
            }
        }
        self.candidates
            .sort_unstable_by_key(|candidate| candidate.hash);
    }

    fn judge(&mut self, shared: &Shared, now: u32) {
        self.condemned.clear();
        let rules = &shared.config.eviction;
        self.values.resize(shared.layout.dim, 0.0);
        for candidate in &self.candidates {
            if condemned(shared, rules, candidate.row, now, &mut self.values) {
                self.condemned.push(candidate.hash);
            }
        }
        if rules.policy.is_some() {
            self.ask_policy(shared, now);
        }
    }

    fn ask_policy(&mut self, shared: &Shared, now: u32) {
        let (rules, layout) = (&shared.config.eviction, &shared.layout);
        let Some(policy) = rules.policy else { return };
        let half = layout.dtype != crate::half::Dtype::F32;
        self.rows.clear();
        self.state.clear();
        self.facts.clear();
        self.values
            .resize(layout.dim * self.candidates.len().max(1), 0.0);
        for (candidate, wide) in self
            .candidates
            .iter()
            .zip(self.values.chunks_exact_mut(layout.dim))
        {
            let row = candidate.row;
            // SAFETY: a present row of a shard that the caller holds by `&mut`.
            unsafe {
                let idle = now.saturating_sub(row.get(LAST_SEEN));
                self.facts.extend([
                    row.get(COUNT) as f32,
                    idle as f32,
                    current_score(shared, row, now),
                    0.0,
                ]);
                if half {
                    row.load(layout, wide);
                }
            }
            self.rows.push(if half {
                wide.as_mut_ptr()
            } else {
                row.values.cast()
            });
            self.state.push(row.side.wrapping_add(layout.state).cast());
        }
        // SAFETY: as above; the pointers are the candidates', each once.
        unsafe {
            policy.judge(
                layout.dim,
                layout.state_len,
                &self.rows,
                &self.state,
                &mut self.facts,
            )
        };
        for (candidate, facts) in self.candidates.iter().zip(self.facts.chunks_exact(4)) {
            let spared = facts[1] < rules.grace_s as f32;
            if facts[3] == 1.0 && !spared && !self.condemned.contains(&candidate.hash) {
                self.condemned.push(candidate.hash);
            }
        }
    }
}

fn condemned(shared: &Shared, rules: &Eviction, row: Row, now: u32, values: &mut [f32]) -> bool {
    // SAFETY: a present row of a shard that the caller holds by `&mut`.
    let (count, last) = unsafe { (row.get(COUNT), row.get(LAST_SEEN)) };
    let idle = now.saturating_sub(last);
    if rules.ttl_s.is_some_and(|ttl| idle > ttl) {
        return true;
    }
    if idle < rules.grace_s {
        return false;
    }
    if rules.least_count.is_some_and(|least| count < least) {
        return true;
    }
    if rules
        .score
        .is_some_and(|rule| current_score(shared, row, now) < rule.least)
    {
        return true;
    }
    rules.least_norm.is_some_and(|least| {
        // SAFETY: as above.
        unsafe { row.load(&shared.layout, &mut values[..shared.layout.dim]) };
        let square = crate::optimizers::lane_sum(&values[..shared.layout.dim], |x| x * x);
        square.sqrt() < least
    })
}

fn current_score(shared: &Shared, row: Row, now: u32) -> f32 {
    let (Some(at), Some(rule)) = (shared.layout.score, shared.config.eviction.score) else {
        return 0.0;
    };
    // SAFETY: a present row of a shard that the caller holds by `&mut`.
    let (score, last) = unsafe { (f32::from_bits(row.get(at)), row.get(LAST_SEEN)) };
    score * fade(now.saturating_sub(last), rule.half_life_s)
}
