//! Learning: rows gather to micro-batches; each is found, scored, judged, and stepped by the owners of its rows.
//!
//! A micro-batch is split twice. By rows, into a part a thread: filled, found, scored and judged apart. By the keys' hash,
//! to an owner a thread: it sums the gradients of its keys, part after part, and steps each distinct row once. A key's
//! gradients are thus summed in the order of rows whatever the number of threads. What costs a cache miss or a step is done
//! once for each distinct key of a part, what is done for every key stays within the nearest caches.

use penstock_table::Place;
use rayon::prelude::*;

use super::columns::Columns;
use super::model::Model;
use super::owner::Owner;
use super::part::{Part, Targets};
use super::settings::GROWTH;
use super::state::{Reader, Writer};
use super::step::Linear;
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
    /// Rows learnt from by this trainer: what a row's `seen` counts.
    samples: u32,
    /// Rows of the present micro-batch: wanted, and there.
    size: usize,
    filled: usize,
    absent: Vec<u32>,
    /// Hashes of a table's keys that an open cut may want.
    kept: Vec<u64>,
    passes: u32,
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
            samples: 0,
            size,
            filled: 0,
            absent: vec![],
            kept: vec![],
            passes: 0,
        })
    }

    /// What moves beside the tables' rows, as bytes. Rows that wait are not in it.
    pub(crate) fn state(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(u64::from(self.passes));
        out.u64(self.seen);
        out.u64(u64::from(self.samples));
        out.floats(&self.model.own);
        self.tally.write(&mut out);
        out.bytes
    }

    /// Takes a state of the same model over. False, and nothing was taken, if it is none.
    pub(crate) fn restore(&mut self, state: &[u8]) -> bool {
        let Some((passes, seen, samples, own, tally)) = read(state) else {
            return false;
        };
        if own.len() != self.model.own.len() {
            return false;
        }
        (self.passes, self.seen, self.samples) = (passes, seen, samples);
        (self.model.own, self.tally) = (own.into(), tally);
        self.filled = 0;
        self.size = self.model.settings.rows_at(seen);
        true
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

    /// Rows learnt from since the last `begin_pass`.
    pub fn rows(&self) -> u64 {
        self.tally.rows()
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
            part.find(model, true);
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
        self.keep();
        self.sight()?;
        let numbers = self.model.numbers;
        let places: Vec<Place> = (0..=numbers).map(|n| self.model.own_place(n)).collect();
        let (parts, settings) = (&self.parts, self.model.settings);
        let (linear, now) = (Linear::new(&settings), self.samples);
        self.owners
            .par_iter_mut()
            .enumerate()
            .for_each(|(number, owner)| {
                owner.begin(if number == 0 { &places } else { &[] }, settings.rank());
                if let [part] = &parts[..] {
                    owner.take_all(part);
                } else {
                    owner.take_dealt(parts, number);
                }
                owner.step(&linear, settings.factors.as_ref(), now, number == 0);
            });
        if settings.evict_after > 0 {
            self.model.sweep(self.filled, now);
        }
        self.seen += self.filled as u64;
        self.samples = self.samples.wrapping_add(self.filled as u32);
        self.filled = 0;
        self.size = self.model.settings.rows_at(self.seen);
        Ok(())
    }

    /// Rows that an open cut may want are kept as they are: they are about to be stepped.
    fn keep(&mut self) {
        let tables = self.model.store.tables_mut();
        for (number, table) in (0u32..).zip(tables) {
            if !table.is_being_cut() {
                continue;
            }
            for part in &self.parts {
                let (hashes, tables) = (part.distinct.hashes(), part.distinct.tables());
                let own = hashes.iter().zip(tables).filter(|(_, of)| **of == number);
                self.kept.clear();
                self.kept.extend(own.map(|(hash, _)| *hash));
                table.keep_places(&self.kept);
            }
        }
    }

    /// Keys without a row are sighted, in order, as often as they are there. The sighting that admits a key after several drops its gradient: it was
    /// taken at zeros (ADR 0030).
    fn sight(&mut self) -> Result<()> {
        if self.passes > 1 {
            return Ok(());
        }
        let Trainer {
            model,
            parts,
            absent,
            ..
        } = self;
        let at_first_sight = model.settings.least == 1;
        for (number, part) in parts.iter_mut().enumerate() {
            // A key of the first part alone is known to have no row; another's may have got one just now.
            let known = at_first_sight && number == 0;
            absent.clear();
            if at_first_sight {
                let none = (0u32..)
                    .zip(&part.places)
                    .filter(|(_, place)| place.is_none());
                absent.extend(none.map(|(number, _)| number));
            } else {
                let none = |number: &&u32| part.places[**number as usize].is_none();
                absent.extend(part.number.iter().filter(none));
            }
            for &number in &*absent {
                let at = number as usize;
                let (table, hash) = (part.distinct.tables()[at], part.distinct.hashes()[at]);
                let place = model.sight(table as usize, hash, known)?;
                if at_first_sight {
                    part.places[at] = place;
                }
            }
        }
        Ok(())
    }
}

/// Passes, rows in all, samples, own rows, tally.
fn read(state: &[u8]) -> Option<(u32, u64, u32, Vec<f32>, Tally)> {
    let mut from = Reader(state);
    let (passes, seen, samples) = (from.u64()?, from.u64()?, from.u64()?);
    let (own, tally) = (from.floats()?, Tally::read(&mut from)?);
    let (passes, samples) = (passes.try_into().ok()?, samples.try_into().ok()?);
    from.0
        .is_empty()
        .then_some((passes, seen, samples, own, tally))
}
