//! The rows of a micro-batch that one thread scores: their keys, where these lie, and what comes of them.

use std::ops::Range;

use penstock_table::Place;
use penstock_table::hash::mix;

use super::columns::{Columns, Slot};
use super::distinct::Distinct;
use super::model::Model;
use super::step::{FIRST, W};
use super::tally::log_loss;

/// Labels (0 or 1) and sample weights of the rows of `Columns`.
#[derive(Clone, Copy)]
pub(crate) struct Targets<'a> {
    pub labels: &'a [f32],
    pub sample: Option<&'a [f32]>,
}

/// Keys of one table, one after another.
pub(crate) struct Segment {
    pub table: usize,
    pub keys: Range<usize>,
}

/// What a part has for one owner.
#[derive(Default)]
pub(crate) struct Dealt {
    pub distinct: Vec<u32>,
    pub keys: Vec<u32>,
}

#[derive(Default)]
pub(crate) struct Part {
    pub rows: usize,
    pub keys: Vec<u64>,
    /// Of each key: its row within the part.
    pub row: Vec<u32>,
    /// Of each key: its value; empty where all are 1.
    pub values: Vec<f32>,
    pub segments: Vec<Segment>,
    pub numbers: Vec<f32>,
    labels: Vec<f32>,
    sample: Vec<f32>,

    /// The part's distinct keys; of each key, which of them it is; of each distinct one, where its row lies, and its weight.
    pub distinct: Distinct,
    pub number: Vec<u32>,
    pub places: Vec<Place>,
    above: Vec<Place>,
    weights: Vec<f32>,
    /// Of each owner: its distinct keys, and its keys, in order. Not used where there is one owner.
    pub dealt: Vec<Dealt>,
    pub margins: Vec<f64>,
    pub losses: Vec<f64>,
    /// Derivative of each row's weighted loss by its margin.
    pub slopes: Vec<f32>,
    /// Of each row: the sum of its factors times values, and the sum of their squares.
    pub sums: Vec<f32>,
    squares: Vec<f32>,
}

impl Part {
    pub fn clear(&mut self, model: &Model) {
        self.rows = 0;
        self.keys.clear();
        self.row.clear();
        self.values.clear();
        self.segments.clear();
        self.numbers.clear();
        self.labels.clear();
        self.sample.clear();
        debug_assert!(model.settings.rank() == 0 || model.width() > FIRST);
    }

    /// Takes `rows` of the columns in.
    pub fn fill(
        &mut self,
        model: &Model,
        columns: &Columns,
        targets: Option<Targets>,
        rows: Range<usize>,
    ) {
        let count = model.numbers;
        self.numbers
            .extend_from_slice(&columns.numbers[rows.start * count..rows.end * count]);
        if let Some(targets) = targets {
            self.labels.extend_from_slice(&targets.labels[rows.clone()]);
            match targets.sample {
                Some(sample) => self.sample.extend_from_slice(&sample[rows.clone()]),
                None => self.sample.resize(self.rows + rows.len(), 1.0),
            }
        }
        if model.positions() {
            let most = columns.longest(rows.clone()).min(model.tables().len());
            for place in 0..most {
                self.fill_place(model, &columns.slots[0], place, &rows);
            }
        } else {
            for (number, slot) in columns.slots.iter().enumerate() {
                self.fill_slot(model.table_of(number), slot, &rows);
            }
        }
        self.rows += rows.len();
    }

    fn fill_slot(&mut self, table: usize, slot: &Slot, rows: &Range<usize>) {
        let (from, to) = (slot.offsets.at(rows.start), slot.offsets.at(rows.end));
        let first = self.keys.len();
        self.keys.extend_from_slice(&slot.keys[from..to]);
        if to - from == rows.len()
            && rows
                .clone()
                .all(|row| slot.offsets.at(row) == from + row - rows.start)
        {
            // A key a row: most slots.
            self.row
                .extend(self.rows as u32..(self.rows + rows.len()) as u32);
        } else {
            for (at, row) in (self.rows as u32..).zip(rows.clone()) {
                let length = slot.offsets.at(row + 1) - slot.offsets.at(row);
                self.row.extend(std::iter::repeat_n(at, length));
            }
        }
        self.weigh(first, slot.values.map(|values| &values[from..to]));
        self.close(table, first);
    }

    fn fill_place(&mut self, model: &Model, slot: &Slot, place: usize, rows: &Range<usize>) {
        let first = self.keys.len();
        for (at, row) in (self.rows as u32..).zip(rows.clone()) {
            let (from, to) = (slot.offsets.at(row), slot.offsets.at(row + 1));
            if from + place < to {
                self.keys.push(slot.keys[from + place]);
                self.row.push(at);
                if let Some(values) = slot.values {
                    self.values.push(values[from + place]);
                }
            }
        }
        self.close(model.table_of(place), first);
    }

    /// Values of the keys from `first` on. Once some were given all are written out.
    fn weigh(&mut self, first: usize, values: Option<&[f32]>) {
        match values {
            Some(values) => {
                self.values.resize(first, 1.0);
                self.values.extend_from_slice(values);
            }
            None if !self.values.is_empty() => self.values.resize(self.keys.len(), 1.0),
            None => {}
        }
    }

    fn close(&mut self, table: usize, first: usize) {
        let keys = first..self.keys.len();
        match self.segments.last_mut() {
            Some(last) if last.table == table && last.keys.end == first => last.keys.end = keys.end,
            _ => self.segments.push(Segment { table, keys }),
        }
    }

    /// Tells keys apart, and finds each distinct one's row: to be written, or only read.
    pub fn find(&mut self, model: &Model, to_write: bool) {
        self.distinct.begin(self.keys.len());
        self.number.clear();
        self.places.clear();
        for Segment { table, keys } in &self.segments {
            let first = self.distinct.hashes().len();
            let hashes = self.keys[keys.clone()].iter().map(|&key| mix(key));
            let distinct = &mut self.distinct;
            if model.tables().len() > 1 {
                distinct.number_all::<true>(*table as u32, hashes, &mut self.number);
            } else {
                distinct.number_all::<false>(0, hashes, &mut self.number);
            }
            let hashes = &distinct.hashes()[first..];
            self.places.resize(first + hashes.len(), Place::NONE);
            let (table, places) = (&model.tables()[*table], &mut self.places[first..]);
            if to_write {
                table.find_to_write(hashes, places);
            } else {
                table.find_to_read(hashes, places);
            }
        }
    }

    /// After `find`: what has a row in `over` too is read from there.
    pub fn find_over(&mut self, over: &Model) {
        let (hashes, tables) = (self.distinct.hashes(), self.distinct.tables());
        let mut from = 0;
        for run in tables.chunk_by(|one, other| one == other) {
            let at = from..from + run.len();
            from = at.end;
            self.above.clear();
            self.above.resize(run.len(), Place::NONE);
            over.tables()[run[0] as usize].find_to_read(&hashes[at.clone()], &mut self.above);
            for (place, above) in self.places[at].iter_mut().zip(&self.above) {
                if !above.is_none() {
                    *place = *above;
                }
            }
        }
    }

    /// Which owner steps which key: a part of the hash decides.
    pub fn deal(&mut self, owners: usize) {
        self.dealt.resize_with(owners, Dealt::default);
        for dealt in &mut self.dealt {
            dealt.distinct.clear();
            dealt.keys.clear();
        }
        let owner = |hash: u64| (((hash >> 32) * owners as u64) >> 32) as usize;
        let hashes = self.distinct.hashes();
        for (number, &hash) in (0u32..).zip(hashes) {
            self.dealt[owner(hash)].distinct.push(number);
        }
        for (key, &number) in (0u32..).zip(&self.number) {
            self.dealt[owner(hashes[number as usize])].keys.push(key);
        }
    }

    /// Margins, in one order for each row: bias, numbers, slots; what has no row adds nothing.
    pub fn score(&mut self, model: &Model) {
        let rank = model.settings.rank();
        let bias = f64::from(model.own_row(0)[W]);
        self.margins.clear();
        self.margins.resize(self.rows, bias);
        if rank > 0 {
            self.sums.clear();
            self.sums.resize(self.rows * rank, 0.0);
            self.squares.clear();
            self.squares.resize(self.rows, 0.0);
        }
        for number in 0..model.numbers {
            let weights = model.own_row(1 + number);
            for row in 0..self.rows {
                let x = self.numbers[row * model.numbers + number];
                self.margins[row] += f64::from(weights[W]) * f64::from(x);
                if rank > 0 {
                    let sums = &mut self.sums[row * rank..][..rank];
                    self.squares[row] += add_factors(&weights[FIRST..][..rank], x, sums);
                }
            }
        }
        // What has no row weighs nothing.
        static ABSENT: f32 = 0.0;
        self.weights.clear();
        self.weights.extend(self.places.iter().map(|place| {
            let weight = if place.is_none() {
                &raw const ABSENT
            } else {
                place.values().cast_const()
            };
            // SAFETY: a row of the model, which nobody writes while it is borrowed, or the zero.
            unsafe { *weight }
        }));
        if rank > 0 {
            self.score_factors(rank);
        } else if self.values.is_empty() {
            // Keys of a row mostly lie together: their sum stays in a register.
            let mut at = 0;
            while let Some(&row) = self.row.get(at) {
                let mut margin = self.margins[row as usize];
                while self.row.get(at) == Some(&row) {
                    margin += f64::from(self.weights[self.number[at] as usize]);
                    at += 1;
                }
                self.margins[row as usize] = margin;
            }
        } else {
            for ((&number, &row), &x) in self.number.iter().zip(&self.row).zip(&self.values) {
                self.margins[row as usize] +=
                    f64::from(self.weights[number as usize]) * f64::from(x);
            }
        }
    }

    fn score_factors(&mut self, rank: usize) {
        for (key, (&number, &row)) in self.number.iter().zip(&self.row).enumerate() {
            let place = self.places[number as usize];
            if place.is_none() {
                continue;
            }
            let x = self.values.get(key).copied().unwrap_or(1.0);
            // SAFETY: a row of `FIRST + rank` floats or more, which nobody writes while the model is borrowed.
            let factors = unsafe { std::slice::from_raw_parts(place.values().add(FIRST), rank) };
            let row = row as usize;
            self.margins[row] += f64::from(self.weights[number as usize]) * f64::from(x);
            let sums = &mut self.sums[row * rank..][..rank];
            self.squares[row] += add_factors(factors, x, sums);
        }
        for (row, sums) in self.sums.chunks(rank).enumerate() {
            let square: f32 = sums.iter().map(|s| s * s).sum();
            self.margins[row] += 0.5 * f64::from(square - self.squares[row]);
        }
    }

    /// Losses and slopes. Whether every margin is finite.
    pub fn judge(&mut self) -> bool {
        self.losses.clear();
        self.slopes.clear();
        for ((&margin, &label), &sample) in self.margins.iter().zip(&self.labels).zip(&self.sample)
        {
            let p = 1.0 / (1.0 + (-margin).exp());
            self.losses.push(log_loss(margin, label));
            self.slopes.push(((p - f64::from(label)) as f32) * sample);
        }
        self.margins.iter().all(|margin| margin.is_finite())
    }

    /// Margin, label, sample weight and loss of each row.
    pub fn judged(&self) -> impl Iterator<Item = (f64, f32, f32, f64)> {
        (0..self.rows).map(|i| {
            (
                self.margins[i],
                self.labels[i],
                self.sample[i],
                self.losses[i],
            )
        })
    }
}

/// `sums += x v`; returns the sum of `(x v)^2`.
#[inline(always)]
fn add_factors(v: &[f32], x: f32, sums: &mut [f32]) -> f32 {
    let mut squares = [0.0f32; 4];
    let (v4, v_rest) = v.as_chunks::<4>();
    let (s4, s_rest) = sums.as_chunks_mut::<4>();
    for (v, sums) in v4.iter().zip(s4) {
        for lane in 0..4 {
            let xv = x * v[lane];
            sums[lane] += xv;
            squares[lane] += xv * xv;
        }
    }
    let mut square = (squares[0] + squares[1]) + (squares[2] + squares[3]);
    for (v, sum) in v_rest.iter().zip(s_rest) {
        let xv = x * v;
        *sum += xv;
        square += xv * xv;
    }
    square
}
