//! Learning: rows gather to micro-batches; each is found, scored, judged, and stepped by the owners of its rows.
//!
//! A micro-batch is split twice. By rows, into a part a thread: filled, found, scored and judged apart. By the keys' hash,
//! to an owner a thread: it sums the gradients of its keys, part after part, and steps each distinct row once. A key's
//! gradients are thus summed in the order of rows whatever the number of threads.

use penstock_table::Place;
use rayon::prelude::*;

use super::columns::Columns;
use super::model::Model;
use super::part::{Part, Targets};
use super::settings::{Factors, GROWTH, Optimizer};
use super::step::{Linear, TAG, step_factors, step_rows, width};
use super::tally::{Progress, Tally};
use crate::{Result, invalid};

pub struct Trainer {
    pub model: Model,
    parts: Vec<Part>,
    owners: Vec<Owner>,
    pool: Option<rayon::ThreadPool>,
    tally: Tally,
    /// Rows learnt from so far, in all passes.
    seen: u64,
    /// Rows of the present micro-batch: wanted, and there.
    size: usize,
    filled: usize,
    absent: Vec<(u32, u32)>,
    passes: u32,
}

/// Distinct rows of a micro-batch and their summed gradients: the first `count` of each list.
#[derive(Default)]
struct Owner {
    count: usize,
    places: Vec<Place>,
    gradients: Vec<f32>,
    /// Of the factors: sums of `g x S` (rank floats) and of `g x^2`.
    outer: Vec<f32>,
    inner: Vec<f32>,
}

impl Trainer {
    pub fn new(model: Model) -> Result<Trainer> {
        let threads = model.settings.threads.max(1);
        // A pool even for one thread: inside it, nothing is handed over.
        let pool = match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
            Ok(pool) => pool,
            Err(error) => return invalid(format!("no threads: {error}")),
        };
        let size = model.settings.rows_at(0);
        Ok(Trainer {
            model,
            parts: (0..threads).map(|_| Part::default()).collect(),
            owners: (0..threads).map(|_| Owner::default()).collect(),
            pool: Some(pool),
            tally: Tally::new(),
            seen: 0,
            size,
            filled: 0,
            absent: vec![],
            passes: 0,
        })
    }

    /// The rows' steps are short from the first on: the model was trained before.
    pub fn warm(&mut self) {
        self.seen = self.seen.max(GROWTH * self.model.settings.batch as u64);
        if self.filled == 0 {
            self.size = self.model.settings.rows_at(self.seen);
        }
    }

    /// Predict and learn row after row. What does not fill a micro-batch waits for the next call or for `finish`.
    pub fn learn(
        &mut self,
        columns: &Columns,
        labels: &[f32],
        sample: Option<&[f32]>,
    ) -> Result<()> {
        columns.check(self.model.slots(), self.model.numbers)?;
        if labels.len() != columns.rows || sample.is_some_and(|s| s.len() != columns.rows) {
            return invalid("there must be a label and a sample weight a row");
        }
        if labels.iter().any(|&y| y != 0.0 && y != 1.0) {
            return invalid("labels must be 0 or 1");
        }
        if sample.is_some_and(|s| s.iter().any(|w| !(*w >= 0.0 && w.is_finite()))) {
            return invalid("sample weights must be finite and not negative");
        }
        if self.model.positions() {
            self.model.grow(columns.longest(0..columns.rows))?;
        }
        self.in_pool(|trainer| trainer.take_in(columns, Targets { labels, sample }))
    }

    fn in_pool(&mut self, work: impl FnOnce(&mut Trainer) -> Result<()> + Send) -> Result<()> {
        match self.pool.take() {
            None => work(self),
            Some(pool) => {
                let done = pool.install(|| work(self));
                self.pool = Some(pool);
                done
            }
        }
    }

    fn take_in(&mut self, columns: &Columns, targets: Targets) -> Result<()> {
        let mut row = 0;
        while row < columns.rows {
            if self.filled == 0 {
                self.parts
                    .iter_mut()
                    .for_each(|part| part.clear(&self.model));
            }
            let taken = (self.size - self.filled).min(columns.rows - row);
            let (model, size, filled) = (&self.model, self.size, self.filled);
            let threads = self.parts.len();
            let fill = |(number, part): (usize, &mut Part)| {
                let own = (number * size / threads).max(filled)
                    ..((number + 1) * size / threads).min(filled + taken);
                if !own.is_empty() {
                    part.fill(
                        model,
                        columns,
                        Some(targets),
                        row + own.start - filled..row + own.end - filled,
                    );
                }
            };
            self.parts.par_iter_mut().enumerate().for_each(fill);
            self.filled += taken;
            row += taken;
            if self.filled == self.size {
                self.step()?;
            }
        }
        Ok(())
    }

    /// Learn from what waits.
    pub fn finish(&mut self) -> Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        self.in_pool(|trainer| trainer.step())
    }

    /// Since the last `begin_pass`.
    pub fn progress(&self) -> Progress {
        self.tally.progress()
    }

    /// A pass over the rows begins. Keys are sighted in the first one only: another would count the same rows again.
    pub fn begin_pass(&mut self) {
        self.passes += 1;
        self.tally = Tally::new();
    }

    fn step(&mut self) -> Result<()> {
        let (model, owners) = (&self.model, self.owners.len());
        let work = |part: &mut Part| {
            part.find(model);
            part.score(model);
            if owners > 1 {
                part.deal(owners);
            }
            part.judge()
        };
        let finite = self
            .parts
            .par_iter_mut()
            .map(work)
            .reduce(|| true, |a, b| a && b);
        if !finite {
            return invalid(
                "the weights grew beyond all bounds: lower alpha, or scale the values of the keys down",
            );
        }
        for part in &self.parts {
            for (margin, label, sample, loss) in part.judged() {
                self.tally.add(margin, label, sample, loss);
            }
        }
        self.sight()?;
        let numbers = self.model.numbers;
        let places: Vec<Place> = (0..=numbers).map(|n| self.model.own_place(n)).collect();
        let (parts, settings) = (&self.parts, self.model.settings);
        let linear = Linear::new(&settings);
        self.owners
            .par_iter_mut()
            .enumerate()
            .for_each(|(number, owner)| {
                let keys = parts.iter().map(|part| part.keys.len()).sum();
                owner.begin(
                    if number == 0 { &places } else { &[] },
                    keys,
                    settings.rank(),
                );
                for part in parts {
                    if number == 0 {
                        owner.add_numbers(part, numbers, settings.rank());
                    }
                    if owners > 1 {
                        let list = part.lists[number].iter().map(|&i| i as usize);
                        owner.add(part, list, settings.rank());
                    } else {
                        owner.add(part, 0..part.keys.len(), settings.rank());
                    }
                }
                owner.step(&linear, settings.factors.as_ref(), number == 0);
            });
        self.seen += self.filled as u64;
        self.filled = 0;
        self.size = self.model.settings.rows_at(self.seen);
        Ok(())
    }

    /// Keys without a row are sighted, in order. The sighting that admits a key after several drops its gradient: it was
    /// taken at zeros (ADR 0030).
    fn sight(&mut self) -> Result<()> {
        self.absent.clear();
        if self.passes > 1 {
            return Ok(());
        }
        for (number, part) in (0u32..).zip(&self.parts) {
            let none = part
                .places
                .iter()
                .enumerate()
                .filter(|(_, place)| place.is_none());
            self.absent
                .extend(none.map(|(key, _)| (number, key as u32)));
        }
        let at_first_sight = self.model.settings.least == 1;
        for &(part, at) in &self.absent {
            let part = &mut self.parts[part as usize];
            let at = at as usize;
            let segment = part.segments.partition_point(|s| s.keys.end <= at);
            let place = self
                .model
                .sight(part.segments[segment].table, part.keys[at])?;
            if at_first_sight {
                part.places[at] = place;
            }
        }
        Ok(())
    }
}

impl Owner {
    /// Room for so many keys beside the owner's `own` rows.
    fn begin(&mut self, own: &[Place], keys: usize, rank: usize) {
        let most = own.len() + keys + 1;
        if self.places.len() < most {
            self.places.resize(most, Place::NONE);
            self.gradients.resize(most, 0.0);
            self.outer.resize(most * rank, 0.0);
            self.inner.resize(if rank > 0 { most } else { 0 }, 0.0);
        }
        self.count = own.len();
        self.places[..own.len()].copy_from_slice(own);
        self.gradients[..own.len()].fill(0.0);
        if rank > 0 {
            self.outer[..own.len() * rank].fill(0.0);
            self.inner[..own.len()].fill(0.0);
        }
    }

    /// The bias is the first of the owner's rows, then the numbers.
    fn add_numbers(&mut self, part: &Part, numbers: usize, rank: usize) {
        for (row, &slope) in part.slopes.iter().enumerate() {
            self.gradients[0] += slope;
            for number in 0..numbers {
                let x = part.numbers[row * numbers + number];
                self.gradients[1 + number] += slope * x;
                if rank > 0 {
                    self.add_factors(1 + number, slope * x, x, &part.sums[row * rank..][..rank]);
                }
            }
        }
    }

    #[inline(always)]
    fn add(&mut self, part: &Part, keys: impl Iterator<Item = usize>, rank: usize) {
        if rank > 0 {
            for key in keys {
                let (place, row) = (part.places[key], part.row[key] as usize);
                if place.is_none() {
                    continue;
                }
                let x = part.values.get(key).copied().unwrap_or(1.0);
                let slope = part.slopes[row] * x;
                let (distinct, there) = self.add_gradient(place, slope);
                if !there {
                    self.outer[distinct * rank..][..rank].fill(0.0);
                    self.inner[distinct] = 0.0;
                }
                self.add_factors(distinct, slope, x, &part.sums[row * rank..][..rank]);
            }
        } else if part.values.is_empty() {
            for key in keys {
                let place = part.places[key];
                if !place.is_none() {
                    self.add_gradient(place, part.slopes[part.row[key] as usize]);
                }
            }
        } else {
            for key in keys {
                let place = part.places[key];
                if !place.is_none() {
                    let slope = part.slopes[part.row[key] as usize] * part.values[key];
                    self.add_gradient(place, slope);
                }
            }
        }
    }

    /// The number of a row among the owner's, and whether it was there. A tag from another batch is told by the place it
    /// leads to, and the end of the list for one that leads beyond it. No branch: half of a batch's keys are first ones, and nobody can guess which.
    #[inline(always)]
    fn distinct(&mut self, place: Place) -> (usize, bool) {
        let count = self.count;
        // SAFETY: a row of at least `TAG + 1` floats; a key has one owner, and only it touches tags now.
        let tag = unsafe { &mut *place.values().add(TAG).cast::<u32>() };
        let guess = (*tag as usize).min(self.places.len() - 1);
        let there = (self.places[guess] == place) & (guess < count);
        self.places[count] = place;
        let kept = usize::from(there).wrapping_neg();
        let number = guess & kept | count & !kept;
        *tag = number as u32;
        self.count += usize::from(!there);
        (number, there)
    }

    #[inline(always)]
    fn add_gradient(&mut self, place: Place, slope: f32) -> (usize, bool) {
        let (number, there) = self.distinct(place);
        let kept = u32::from(there).wrapping_neg();
        let before = f32::from_bits(self.gradients[number].to_bits() & kept);
        self.gradients[number] = before + slope;
        (number, there)
    }

    #[inline(always)]
    fn add_factors(&mut self, distinct: usize, slope: f32, x: f32, sums: &[f32]) {
        let outer = &mut self.outer[distinct * sums.len()..][..sums.len()];
        outer
            .iter_mut()
            .zip(sums)
            .for_each(|(outer, sum)| *outer += slope * sum);
        self.inner[distinct] += slope * x;
    }

    /// Steps every distinct row; `has_bias`: the first is the bias, without penalties and factors.
    fn step(&mut self, linear: &Linear, factors: Option<&Factors>, has_bias: bool) {
        let first = usize::from(has_bias);
        let (places, gradients) = (&self.places[..self.count], &self.gradients[..self.count]);
        // SAFETY: rows of `TAG + 1` floats or more, in no other owner's hands, each once.
        unsafe {
            step_rows(&linear.free(), &places[..first], &gradients[..first]);
            step_rows(linear, &places[first..], &gradients[first..]);
        }
        let Some(factors) = factors else {
            return;
        };
        let (width, sgd) = (width(factors.rank), linear.optimizer() == Optimizer::Sgd);
        for (number, &place) in places.iter().enumerate().skip(first) {
            // SAFETY: a row of `width` floats, in no other owner's hands.
            let row = unsafe { std::slice::from_raw_parts_mut(place.values(), width) };
            let outer = &mut self.outer[number * factors.rank..][..factors.rank];
            step_factors(factors, sgd, row, outer, self.inner[number]);
        }
    }
}
