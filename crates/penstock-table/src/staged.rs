//! Gradients of pooled rows on their way back to keys: summed key by key as they come, applied when the caller says so.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::batch::Update;
use crate::error::Result;
use crate::found::{Found, NONE};
use crate::line::{Search, prefetch};
use crate::numbering::Numbering;
use crate::pool::{Bag, Layout, Parted, Pooling, dims, samples};
use crate::simd::{Level, at_each_level};
use crate::store::Store;
use crate::table::Table;
use crate::update::Updated;

/// Gradients that wait for their step, a list a table.
#[derive(Debug, Default)]
pub struct Staged {
    tables: Vec<Gradients>,
    /// Whether a gradient came that is not finite: seen as it came, so that nobody has to look again.
    infinite: bool,
}

/// One gradient a key, in the order in which keys first came. Duplicates are added in their order.
#[derive(Debug, Default, Clone)]
struct Gradients {
    keys: Numbering,
    /// `dim` floats a key.
    sums: Vec<f32>,
    /// How often each key came.
    counts: Vec<u32>,
    /// Its row, or `NONE`; good as long as the table has this stamp.
    rows: Vec<u32>,
    stamp: u64,
}

impl Staged {
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.keys.len() == 0)
    }

    pub fn clear(&mut self) {
        self.tables.iter_mut().for_each(Gradients::clear);
        self.infinite = false;
    }

    pub fn scale(&mut self, factor: f32) {
        for table in &mut self.tables {
            table.sums.iter_mut().for_each(|value| *value *= factor);
        }
        let mut values = self.tables.iter().flat_map(|table| &table.sums);
        self.infinite |= !values.all(|value| value.is_finite());
    }

    pub fn is_finite(&self) -> bool {
        !self.infinite
    }

    /// The sum of the squares of each key's whole gradient, as clipping by a model's global norm needs it.
    pub fn square_sum(&self) -> f64 {
        let squares = |table: &Gradients| -> f64 {
            let values = table.sums.iter();
            values.map(|v| f64::from(*v).powi(2)).sum()
        };
        self.tables.iter().map(squares).sum()
    }
}

/// A call of `stage`.
struct Call<'a> {
    bags: &'a [Bag<'a>],
    found: &'a Found,
    pooling: Pooling,
    samples: usize,
    parted: Parted,
    leads: &'a [f32],
    grads: &'a [f32],
    level: Level,
}

/// One bag of a table: its number, the first of its columns, and of each of its distinct keys the table's number.
struct Coming {
    bag: usize,
    column: usize,
    numbers: Vec<u32>,
}

impl Gradients {
    fn clear(&mut self) {
        self.keys.clear();
        self.sums.clear();
        self.counts.clear();
        self.rows.clear();
    }

    fn update(&self, event_time_s: i64) -> Update<'_> {
        Update {
            keys: self.keys.keys(),
            grads: &self.sums,
            occurrences: Some(&self.counts),
            event_time_s,
            ..Update::default()
        }
    }

    /// Adds what bags (each with its first column) bring, in `parts` parts on `pool`. Whether all of it is finite.
    fn add(
        &mut self,
        call: &Call,
        bags: &[(usize, usize)],
        dim: usize,
        pool: Option<&Arc<rayon::ThreadPool>>,
    ) -> bool {
        let coming: Vec<Coming> = bags
            .iter()
            .map(|&(bag, column)| Coming {
                bag,
                column,
                numbers: self.number(call, bag),
            })
            .collect();
        // Zeros that change nothing, not even the sign of a zero that is added.
        self.sums.resize(self.keys.len() * dim, -0.0);
        let sum = |range: Range<usize>, sums: &mut [f32]| {
            coming.iter().fold(true, |finite, bag| {
                // SAFETY: a table's level is available.
                finite & unsafe { sum(call.level, call, bag, dim, &range, sums) }
            })
        };
        let Some(pool) = pool else {
            return sum(0..self.keys.len(), &mut self.sums);
        };
        let mut parts = Vec::new();
        let mut sums = &mut self.sums[..];
        for range in shares(&self.counts, pool.current_num_threads()) {
            let (mine, rest) = sums.split_at_mut(range.len() * dim);
            parts.push((range, mine));
            sums = rest;
        }
        pool.install(|| {
            let parts = parts.into_par_iter();
            parts
                .map(|(range, sums)| sum(range, sums))
                .min()
                .unwrap_or(true)
        })
    }

    /// The numbers of a bag's distinct keys, which are known and counted from now on.
    fn number(&mut self, call: &Call, bag: usize) -> Vec<u32> {
        let found = &call.found.bags[bag];
        let first = self.keys.len() == 0;
        if first {
            self.stamp = found.stamp;
        } else if self.stamp != found.stamp {
            // Looked for at different times: the step looks again.
            self.rows.fill(NONE);
        }
        let mut numbers = Vec::with_capacity(found.keys.len());
        if first {
            self.keys.adopt(&found.keys);
            numbers.extend(0..found.keys.len() as u32);
        } else {
            self.keys.number(found.keys.iter().copied(), &mut numbers);
        }
        self.counts.resize(self.keys.len(), 0);
        self.rows.resize(self.keys.len(), NONE);
        if self.stamp == found.stamp {
            for (&number, &row) in numbers.iter().zip(&found.rows) {
                self.rows[number as usize] = row;
            }
        }
        for &number in &found.numbers {
            let count = &mut self.counts[numbers[number as usize] as usize];
            *count = count.saturating_add(1);
        }
        numbers
    }
}

/// Numbers cut into `parts` ranges that came about equally often.
fn shares(counts: &[u32], parts: usize) -> Vec<Range<usize>> {
    let all: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let (mut ranges, mut first, mut seen) = (Vec::with_capacity(parts), 0, 0);
    for (number, &count) in counts.iter().enumerate() {
        seen += u64::from(count);
        if seen * parts as u64 >= all * (ranges.len() + 1) as u64 {
            ranges.push(first..number + 1);
            first = number + 1;
        }
    }
    ranges
}

/// Samples whose gradients are asked for ahead: a table's lie far from one another.
const AHEAD: usize = 12;

/// Adds a bag's gradients to the sums of numbers `range`. Whether all of them are finite.
#[inline(always)]
unsafe fn sum_body<S: Search>(
    call: &Call,
    coming: &Coming,
    dim: usize,
    range: &Range<usize>,
    sums: &mut [f32],
) -> bool {
    let lead = call.parted.lead;
    let bag = &call.bags[coming.bag];
    let largest = if bag.is_plain(0..call.samples) {
        // The commonest widths in straight lines.
        match (lead, dim - lead) {
            (0, 8) => plain(call, coming, 0, 8, range, sums),
            (0, 16) => plain(call, coming, 0, 16, range, sums),
            (0, 32) => plain(call, coming, 0, 32, range, sums),
            (1, 8) => plain(call, coming, 1, 8, range, sums),
            (1, 16) => plain(call, coming, 1, 16, range, sums),
            (1, 32) => plain(call, coming, 1, 32, range, sums),
            (lead, rest) => plain(call, coming, lead, rest, range, sums),
        }
    } else {
        weighted(call, coming, dim, range, sums)
    };
    largest < f32::INFINITY.to_bits()
}

at_each_level! {
    /// # Safety
    /// `level` is available.
    unsafe fn sum(call: &Call<'_>, coming: &Coming, dim: usize, range: &Range<usize>, sums: &mut [f32]) -> bool
        = sum_body
}

/// Where the gradients of a sample's bag begin, those of its lead and those of the rest.
#[inline(always)]
fn of<'a>(call: &Call<'a>, coming: &Coming, sample: usize) -> (&'a [f32], &'a [f32]) {
    let Parted {
        lead,
        leads,
        stride,
    } = call.parted;
    (
        &call.leads[sample * leads + coming.bag * lead..],
        &call.grads[sample * stride + coming.column..],
    )
}

/// `sums += weight * gradients`. The largest magnitude that was added, as bits.
#[inline(always)]
fn add(sums: &mut [f32], gradients: &[f32], weight: f32) -> u32 {
    let mut largest = 0;
    for (sum, gradient) in sums.iter_mut().zip(gradients) {
        let value = weight * gradient;
        largest = largest.max(value.to_bits() & 0x7fff_ffff);
        *sum += value;
    }
    largest
}

/// One key of weight 1 a sample.
#[inline(always)]
fn plain(
    call: &Call,
    coming: &Coming,
    lead: usize,
    rest: usize,
    range: &Range<usize>,
    sums: &mut [f32],
) -> u32 {
    let dim = lead + rest;
    let mut largest = 0;
    for (sample, &number) in call.found.bags[coming.bag].numbers.iter().enumerate() {
        let (_, ahead) = of(call, coming, (sample + AHEAD).min(call.samples - 1));
        prefetch(ahead.as_ptr());
        prefetch(ahead.as_ptr().wrapping_add(rest - 1));
        let number = coming.numbers[number as usize] as usize;
        if !range.contains(&number) {
            continue;
        }
        let sum = &mut sums[(number - range.start) * dim..][..dim];
        let (front, back) = sum.split_at_mut(lead);
        let (ahead, gradient) = of(call, coming, sample);
        largest = largest.max(add(front, &ahead[..lead], 1.0));
        largest = largest.max(add(back, &gradient[..rest], 1.0));
    }
    largest
}

#[inline(always)]
fn weighted(
    call: &Call,
    coming: &Coming,
    dim: usize,
    range: &Range<usize>,
    sums: &mut [f32],
) -> u32 {
    let (lead, bag) = (call.parted.lead, &call.bags[coming.bag]);
    let numbers = &call.found.bags[coming.bag].numbers;
    let mut largest = 0;
    for sample in 0..call.samples {
        let keys = bag.of(sample);
        if keys.is_empty() {
            continue;
        }
        let factor = bag.factor(sample, call.pooling);
        let (ahead, gradient) = of(call, coming, sample);
        for at in keys {
            let number = coming.numbers[numbers[at] as usize] as usize;
            if !range.contains(&number) {
                continue;
            }
            let weight = factor * bag.weight(at);
            let sum = &mut sums[(number - range.start) * dim..][..dim];
            let (front, back) = sum.split_at_mut(lead);
            largest = largest.max(add(front, ahead, weight));
            largest = largest.max(add(back, gradient, weight));
        }
    }
    largest
}

impl Store {
    /// The threads that its tables have.
    fn threads(&self) -> usize {
        let threads = self.tables().iter().map(Table::threads);
        threads.max().unwrap_or(1)
    }

    /// Stage the gradient of `pool`'s result for each key that went into it. Nothing of the tables changes.
    pub fn stage(
        &self,
        bags: &[Bag],
        pooling: Pooling,
        grads: &[f32],
        staged: &mut Staged,
    ) -> Result<()> {
        let layout = Layout::default();
        self.stage_parted(bags, pooling, layout, &[], grads, None, staged)
    }

    /// Likewise of `pool_parted`'s results; what is behind the bags' columns is passed over. `found`: what `pool_found`
    /// gave for these bags, so that nothing is looked for again.
    #[allow(clippy::too_many_arguments)]
    pub fn stage_parted(
        &self,
        bags: &[Bag],
        pooling: Pooling,
        layout: Layout,
        leads: &[f32],
        grads: &[f32],
        found: Option<&Found>,
        staged: &mut Staged,
    ) -> Result<()> {
        let dims = dims(self, bags)?;
        let samples = samples(bags)?;
        let parted = Parted::new(layout, &dims, samples, leads.len(), grads.len())?;
        if grads.is_empty() {
            return Ok(());
        }
        let threads = self.threads();
        let numbered;
        let found = match found {
            Some(found) => {
                found.check(bags)?;
                found
            }
            None => {
                numbered = Found::numbered(self, bags, threads)?;
                &numbered
            }
        };
        staged
            .tables
            .resize(self.tables().len(), Gradients::default());
        let mut of_tables = vec![Vec::new(); self.tables().len()];
        let mut column = 0;
        for (number, bag) in bags.iter().enumerate() {
            of_tables[self.slot(bag.slot)?.table].push((number, column));
            column += dims[number] - layout.lead;
        }
        let mut work: Vec<_> = staged
            .tables
            .iter_mut()
            .zip(&of_tables)
            .zip(self.tables())
            .filter(|((_, bags), _)| !bags.is_empty())
            .collect();
        let call = Call {
            bags,
            found,
            pooling,
            samples,
            parted,
            leads,
            grads,
            level: self.tables()[0].level(),
        };
        let pool = crate::threads::pool(threads).filter(|_| threads > 1 && samples >= 256);
        let finite = match &pool {
            Some(pool) if work.len() >= 2 * threads => pool.install(|| {
                let each = work.par_iter_mut().with_max_len(1);
                each.map(|((mine, bags), table)| mine.add(&call, bags, table.config().dim, None))
                    .min()
            }),
            pool => {
                let pool = pool.as_ref();
                let each = work.iter_mut();
                each.map(|((mine, bags), table)| mine.add(&call, bags, table.config().dim, pool))
                    .min()
            }
        };
        staged.infinite |= finite == Some(false);
        Ok(())
    }

    /// Apply what is staged, each table once, at `event_time_s`; then nothing is staged.
    ///
    /// A gradient that is not finite refuses the whole step before any table changes; what is staged stays. A table
    /// that finds no room keeps its own gradients, the others apply theirs; what was applied is not staged any more,
    /// so a step that is tried again applies nothing twice.
    pub fn step(&mut self, staged: &mut Staged, event_time_s: i64) -> Result<Updated> {
        if staged.infinite {
            for (table, gradients) in self.tables().iter().zip(&staged.tables) {
                table.check(&gradients.update(event_time_s))?;
            }
        }
        let threads = self.threads();
        let mut waiting: Vec<(&mut Table, &mut Gradients)> = self
            .tables_mut()
            .iter_mut()
            .zip(&mut staged.tables)
            .filter(|(_, gradients)| gradients.keys.len() > 0)
            .collect();
        let step = |(table, gradients): &mut (&mut Table, &mut Gradients), alone: bool| {
            let known = Some((&gradients.rows[..], gradients.stamp));
            let update = gradients.update(event_time_s);
            let updated = table.apply(&update, u64::MAX, known, alone)?;
            gradients.clear();
            Ok(updated)
        };
        let done: Vec<Result<Updated>> = match crate::threads::pool(threads) {
            // Enough tables to keep every thread busy: each is one thread's.
            Some(pool) if threads > 1 && waiting.len() >= 2 * threads => pool.install(|| {
                let each = waiting.par_iter_mut().with_max_len(1);
                each.map(|one| step(one, true)).collect()
            }),
            _ => waiting.iter_mut().map(|one| step(one, false)).collect(),
        };
        let mut all = Updated::default();
        for updated in done {
            all.join(updated?);
        }
        Ok(all)
    }
}
