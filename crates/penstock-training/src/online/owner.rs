//! The rows that one thread steps: each distinct one of a micro-batch with the sum of its gradients.

use penstock_table::Place;

use super::distinct::Distinct;
use super::part::Part;
use super::settings::{Factors, Optimizer};
use super::step::{Linear, step_factors, step_rows, width};

/// An owner's rows: first its own (bias and numbers, of the first owner), then one a distinct key.
#[derive(Default)]
pub(crate) struct Owner {
    own: usize,
    rank: usize,
    /// Of several parts: their distinct keys told apart, and the number here of each of a part's.
    distinct: Distinct,
    numbers: Vec<u32>,
    here: Vec<u32>,
    places: Vec<Place>,
    gradients: Vec<f32>,
    /// Of the factors: sums of `g x S` (rank floats) and of `g x^2`.
    outer: Vec<f32>,
    inner: Vec<f32>,
}

impl Owner {
    pub fn begin(&mut self, own: &[Place], rank: usize) {
        self.own = own.len();
        self.rank = rank;
        self.places.clear();
        self.places.extend_from_slice(own);
        self.gradients.clear();
        self.outer.clear();
        self.inner.clear();
        self.make_room();
    }

    /// Zeros for the rows that have come since.
    fn make_room(&mut self) {
        let rows = self.places.len();
        self.gradients.resize(rows, 0.0);
        if self.rank > 0 {
            self.outer.resize(rows * self.rank, 0.0);
            self.inner.resize(rows, 0.0);
        }
    }

    /// The keys of the only part.
    pub fn take_all(&mut self, part: &Part) {
        self.places.extend_from_slice(&part.places);
        self.make_room();
        self.add_numbers(part);
        let own = self.own;
        self.add(part, 0..part.number.len(), |number| own + number as usize);
    }

    /// The keys that every part dealt to owner `number`.
    pub fn take_dealt(&mut self, parts: &[Part], number: usize) {
        let most = parts
            .iter()
            .map(|part| part.dealt[number].distinct.len())
            .sum();
        self.distinct.begin(most);
        let mut here = std::mem::take(&mut self.here);
        for part in parts {
            here.resize(here.len().max(part.places.len()), 0);
            let (tables, hashes) = (part.distinct.tables(), part.distinct.hashes());
            let dealt = &part.dealt[number];
            self.numbers.clear();
            for &key in &dealt.distinct {
                let at = key as usize;
                let hash = std::iter::once(hashes[at]);
                self.distinct
                    .number_all::<true>(tables[at], hash, &mut self.numbers);
            }
            for (&key, &found) in dealt.distinct.iter().zip(&self.numbers) {
                let found = self.own + found as usize;
                if found == self.places.len() {
                    self.places.push(part.places[key as usize]);
                }
                here[key as usize] = found as u32;
            }
            self.make_room();
            self.add_numbers(part);
            let keys = part.dealt[number].keys.iter().map(|&key| key as usize);
            self.add(part, keys, |number| here[number as usize] as usize);
        }
        self.here = here;
    }

    /// The bias is the first of the owner's rows, then the numbers.
    fn add_numbers(&mut self, part: &Part) {
        let Some(numbers) = self.own.checked_sub(1) else {
            return;
        };
        let rank = self.rank;
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

    /// `here`: the number here of a part's distinct key.
    #[inline(always)]
    fn add(&mut self, part: &Part, keys: impl Iterator<Item = usize>, here: impl Fn(u32) -> usize) {
        let rank = self.rank;
        if rank > 0 {
            for key in keys {
                let (at, row) = (here(part.number[key]), part.row[key] as usize);
                let x = part.values.get(key).copied().unwrap_or(1.0);
                let slope = part.slopes[row] * x;
                self.gradients[at] += slope;
                self.add_factors(at, slope, x, &part.sums[row * rank..][..rank]);
            }
        } else if part.values.is_empty() {
            for key in keys {
                self.gradients[here(part.number[key])] += part.slopes[part.row[key] as usize];
            }
        } else {
            for key in keys {
                let slope = part.slopes[part.row[key] as usize] * part.values[key];
                self.gradients[here(part.number[key])] += slope;
            }
        }
    }

    #[inline(always)]
    fn add_factors(&mut self, at: usize, slope: f32, x: f32, sums: &[f32]) {
        let outer = &mut self.outer[at * sums.len()..][..sums.len()];
        outer
            .iter_mut()
            .zip(sums)
            .for_each(|(outer, sum)| *outer += slope * sum);
        self.inner[at] += slope * x;
    }

    /// Steps every distinct row; `has_bias`: the first is the bias, without penalties and factors. Keys without a row are left out.
    /// `now`: the samples before this batch, which each row keeps.
    pub fn step(&mut self, linear: &Linear, factors: Option<&Factors>, now: u32, has_bias: bool) {
        let first = usize::from(has_bias);
        if let Some(factors) = factors {
            let (width, sgd) = (width(factors.rank), linear.optimizer() == Optimizer::Sgd);
            for (at, &place) in self.places.iter().enumerate().skip(first) {
                if place.is_none() {
                    continue;
                }
                // SAFETY: a row of `width` floats, in no other owner's hands.
                let row = unsafe { std::slice::from_raw_parts_mut(place.values(), width) };
                let outer = &mut self.outer[at * factors.rank..][..factors.rank];
                step_factors(factors, sgd, row, outer, self.inner[at]);
            }
        }
        let mut there = self.places.len();
        if self.places.contains(&Place::NONE) {
            there = 0;
            for at in 0..self.places.len() {
                self.places[there] = self.places[at];
                self.gradients[there] = self.gradients[at];
                there += usize::from(!self.places[at].is_none());
            }
        }
        let (places, gradients) = (&self.places[..there], &self.gradients[..there]);
        // SAFETY: rows of four floats or more, in no other owner's hands, each once.
        unsafe {
            step_rows(&linear.free(), now, &places[..first], &gradients[..first]);
            step_rows(linear, now, &places[first..], &gradients[first..]);
        }
    }
}
