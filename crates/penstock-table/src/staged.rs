//! Gradients of pooled rows on their way back to keys: staged, summed over uses, applied when the caller says so.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::batch::Update;
use crate::error::Result;
use crate::pool::{Bag, Layout, Parted, Pooling, TILE, dims, samples};
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

#[derive(Debug, Default, Clone)]
struct Gradients {
    keys: Vec<u64>,
    values: Vec<f32>,
}

impl Staged {
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.keys.is_empty())
    }

    pub fn clear(&mut self) {
        self.tables.iter_mut().for_each(Gradients::clear);
        self.infinite = false;
    }

    pub fn scale(&mut self, factor: f32) {
        for table in &mut self.tables {
            table.values.iter_mut().for_each(|value| *value *= factor);
        }
        self.look_again();
    }

    pub fn is_finite(&self) -> bool {
        !self.infinite
    }

    /// The sum of the squares of each key's whole gradient, as clipping by a model's global norm needs it.
    pub fn square_sum(&mut self, dims: &[usize]) -> f64 {
        let mut total = 0.0;
        for (table, dim) in self.tables.iter_mut().zip(dims) {
            table.sum_duplicates(*dim);
            total += table
                .values
                .iter()
                .map(|v| f64::from(*v).powi(2))
                .sum::<f64>();
        }
        self.look_again();
        total
    }

    /// After the values were changed in place.
    fn look_again(&mut self) {
        let mut values = self.tables.iter().flat_map(|table| &table.values);
        self.infinite = !values.all(|value| value.is_finite());
    }
}

impl Gradients {
    fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
    }

    fn update(&self, event_time_s: i64) -> Update<'_> {
        Update {
            keys: &self.keys,
            grads: &self.values,
            event_time_s,
            ..Update::default()
        }
    }

    /// One gradient a key, where the key first stood; duplicates are added in their order.
    fn sum_duplicates(&mut self, dim: usize) {
        let mut places = std::collections::HashMap::with_capacity(self.keys.len());
        let mut kept = 0;
        for at in 0..self.keys.len() {
            let place = *places.entry(self.keys[at]).or_insert(kept);
            if place == kept {
                self.keys[kept] = self.keys[at];
                self.values
                    .copy_within(at * dim..(at + 1) * dim, kept * dim);
                kept += 1;
            } else {
                let (sums, rest) = self.values.split_at_mut(at * dim);
                let sum = &mut sums[place * dim..(place + 1) * dim];
                sum.iter_mut()
                    .zip(rest)
                    .for_each(|(sum, value)| *sum += *value);
            }
        }
        self.keys.truncate(kept);
        self.values.truncate(kept * dim);
    }
}

/// Room for the gradients of one bag's keys, in the order of the keys.
type Room<'a> = &'a mut [MaybeUninit<f32>];

/// Writes `weight * gradient`. Whether all of it is finite.
#[inline(always)]
fn write_scaled(room: Room, gradient: &[f32], weight: f32) -> bool {
    let mut largest = 0;
    for (room, gradient) in room.iter_mut().zip(gradient) {
        let value = weight * gradient;
        largest = largest.max(value.to_bits() & 0x7fff_ffff);
        room.write(value);
    }
    largest < f32::INFINITY.to_bits()
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
        self.stage_parted(bags, pooling, Layout::default(), &[], grads, staged)
    }

    /// Likewise of `pool_parted`'s results; what is behind the bags' columns is passed over.
    pub fn stage_parted(
        &self,
        bags: &[Bag],
        pooling: Pooling,
        layout: Layout,
        leads: &[f32],
        grads: &[f32],
        staged: &mut Staged,
    ) -> Result<()> {
        let dims = dims(self, bags)?;
        let samples = samples(bags)?;
        let parted = Parted::new(layout, &dims, samples, leads.len(), grads.len())?;
        let lead = layout.lead;
        if grads.is_empty() {
            return Ok(());
        }
        let slots = bags
            .iter()
            .map(|bag| self.slot(bag.slot))
            .collect::<Result<Vec<_>>>()?;
        staged
            .tables
            .resize(self.tables().len(), Gradients::default());
        // Of each tile of samples: every bag's number, first column and room. A table's bags follow one another.
        let mut tiles: Vec<Vec<(usize, usize, Room)>> = Vec::new();
        tiles.resize_with(samples.div_ceil(TILE), Vec::new);
        let mut lengths = vec![0; staged.tables.len()];
        for (number, table) in staged.tables.iter_mut().enumerate() {
            let mine = || (0..bags.len()).filter(|&bag| slots[bag].table == number);
            for bag in mine() {
                let mask = slots[bag].keys.mask();
                table
                    .keys
                    .extend(bags[bag].keys.iter().map(|key| key & mask));
            }
            let dim = self.tables()[number].config().dim;
            lengths[number] = table.keys.len() * dim;
            table.values.reserve(lengths[number] - table.values.len());
            let mut room = table.values.spare_capacity_mut();
            for bag in mine() {
                let column = dims[..bag].iter().sum::<usize>() - bag * lead;
                for (tile, rooms) in tiles.iter_mut().enumerate() {
                    let end = bags[bag].of(((tile + 1) * TILE).min(samples) - 1).end;
                    let keys = end - bags[bag].of(tile * TILE).start;
                    let (here, rest) = room.split_at_mut(keys * dim);
                    rooms.push((bag, column, here));
                    room = rest;
                }
            }
        }
        let write = |(tile, rooms): (usize, Vec<(usize, usize, Room)>)| {
            let mut finite = true;
            let mut places: Vec<_> = rooms
                .into_iter()
                .map(|(bag, column, room)| (bag, column, room.chunks_exact_mut(dims[bag])))
                .collect();
            // Sample by sample: gradients are read as they lie, each bag's are written one after another.
            for sample in tile * TILE..((tile + 1) * TILE).min(samples) {
                for (number, column, places) in &mut places {
                    let (bag, dim) = (&bags[*number], dims[*number]);
                    let ahead = &leads[sample * parted.leads + *number * lead..][..lead];
                    let gradient = &grads[sample * parted.stride + *column..][..dim - lead];
                    let factor = bag.factor(sample, pooling);
                    for (at, place) in bag.of(sample).zip(places) {
                        let weight = factor * bag.weight(at);
                        let (front, back) = place.split_at_mut(lead);
                        finite &= write_scaled(front, ahead, weight);
                        finite &= write_scaled(back, gradient, weight);
                    }
                }
            }
            finite
        };
        let finite = match crate::threads::pool(self.threads()) {
            Some(pool) if self.threads() > 1 && tiles.len() > 1 => {
                pool.install(|| tiles.into_par_iter().enumerate().map(write).min())
            }
            _ => tiles.into_iter().enumerate().map(write).min(),
        };
        for (table, length) in staged.tables.iter_mut().zip(lengths) {
            // SAFETY: the tiles' rooms were all of a table's keys that were added, and each was written.
            unsafe { table.values.set_len(length) };
        }
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
            .filter(|(_, gradients)| !gradients.keys.is_empty())
            .collect();
        let step = |(table, gradients): &mut (&mut Table, &mut Gradients), alone: bool| {
            let updated = table.apply(&gradients.update(event_time_s), u64::MAX, alone)?;
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
