//! Bags of keys into one vector each, for all slots of a model at once; and gradients of those vectors back to keys.
//!
//! In: keys with row offsets (CSR), weights if any. Out: a matrix with a row a sample and each bag's columns side by
//! side. Gradients are staged, summed over uses, and applied when the caller says so.

use rayon::prelude::*;

use crate::batch::Update;
use crate::error::{Result, TableError};
use crate::store::Store;
use crate::update::Updated;

/// What becomes of a bag's rows. With weights as TensorFlow's `embedding_lookup_sparse` has them: the mean divides by
/// the sum of the weights, `Sqrtn` by the root of the sum of their squares. An empty bag is zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    Sum,
    Mean,
    Sqrtn,
}

/// The keys of one slot: sample `i` has `keys[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Copy, Debug)]
pub struct Bag<'a> {
    pub slot: u32,
    pub keys: &'a [u64],
    pub offsets: &'a [i64],
    pub weights: Option<&'a [f32]>,
}

/// Keys read at a time: their rows stay in the second-level cache until they are summed.
const READ: usize = 1024;

impl Bag<'_> {
    /// The number of samples; refuses offsets that do not cut the keys into bags.
    fn samples(&self) -> Result<usize> {
        let refuse = |what: String| {
            Err(TableError::Bag {
                slot: self.slot,
                what,
            })
        };
        let ends = self.keys.len() as i64;
        match (self.offsets.first(), self.offsets.last()) {
            (Some(0), Some(last)) if *last == ends => {}
            (Some(0), Some(last)) => {
                return refuse(format!(
                    "the last offset is {last}, and there are {ends} keys"
                ));
            }
            _ => return refuse("the first offset must be 0".into()),
        }
        if let Some(at) = self.offsets.windows(2).position(|pair| pair[0] > pair[1]) {
            return refuse(format!("offset {} is below the one before it", at + 1));
        }
        match self.weights {
            Some(weights) if weights.len() != self.keys.len() => {
                refuse(format!("{} weights for {ends} keys", weights.len()))
            }
            _ => Ok(self.offsets.len() - 1),
        }
    }

    fn of(&self, sample: usize) -> std::ops::Range<usize> {
        self.offsets[sample] as usize..self.offsets[sample + 1] as usize
    }

    fn weight(&self, at: usize) -> f32 {
        self.weights.map_or(1.0, |weights| weights[at])
    }

    /// What the weighted sum of a sample's rows is multiplied by.
    fn factor(&self, sample: usize, pooling: Pooling) -> f32 {
        let keys = self.of(sample);
        let sum = |power: i32| -> f32 {
            match self.weights {
                None => keys.len() as f32,
                Some(weights) => weights[keys.clone()].iter().map(|w| w.powi(power)).sum(),
            }
        };
        let divisor = match pooling {
            Pooling::Sum => return 1.0,
            Pooling::Mean => sum(1),
            Pooling::Sqrtn => sum(2).sqrt(),
        };
        if divisor == 0.0 { 0.0 } else { 1.0 / divisor }
    }
}

/// Gradients that wait for their step, a list a table.
#[derive(Debug, Default)]
pub struct Staged {
    tables: Vec<Gradients>,
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
    }

    pub fn scale(&mut self, factor: f32) {
        for table in &mut self.tables {
            table.values.iter_mut().for_each(|value| *value *= factor);
        }
    }

    pub fn is_finite(&self) -> bool {
        self.tables
            .iter()
            .all(|table| table.values.iter().all(|value| value.is_finite()))
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
        total
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

/// Where rows are read from, slot by slot.
pub(crate) trait Rows: Sync {
    type Error: From<TableError> + Send;
    fn dim(&self, slot: u32) -> std::result::Result<usize, Self::Error>;
    fn read(
        &self,
        slot: u32,
        keys: &[u64],
        out: &mut [f32],
    ) -> std::result::Result<(), Self::Error>;
}

impl Rows for Store {
    type Error = TableError;

    fn dim(&self, slot: u32) -> Result<usize> {
        Ok(self.tables()[self.slot(slot)?.table].config().dim)
    }

    fn read(&self, slot: u32, keys: &[u64], out: &mut [f32]) -> Result<()> {
        self.lookup(slot, keys, out).map(|_| ())
    }
}

/// The width of each bag's columns, and of all.
fn columns<R: Rows>(rows: &R, bags: &[Bag]) -> std::result::Result<(Vec<usize>, usize), R::Error> {
    let dims = bags
        .iter()
        .map(|bag| rows.dim(bag.slot))
        .collect::<std::result::Result<Vec<usize>, _>>()?;
    let width = dims.iter().sum();
    Ok((dims, width))
}

fn samples(bags: &[Bag]) -> Result<usize> {
    let mut samples = None;
    for bag in bags {
        let here = bag.samples()?;
        if *samples.get_or_insert(here) != here {
            return Err(TableError::Bag {
                slot: bag.slot,
                what: format!("{here} samples, and the slots before it have {samples:?}"),
            });
        }
    }
    Ok(samples.unwrap_or(0))
}

/// Fill `out` (samples x the bags' dims side by side) with pooled rows, on `threads` threads.
pub(crate) fn pool<R: Rows>(
    rows: &R,
    bags: &[Bag],
    pooling: Pooling,
    threads: usize,
    out: &mut [f32],
) -> std::result::Result<(), R::Error> {
    let (dims, width) = columns(rows, bags)?;
    let samples = samples(bags)?;
    if out.len() != samples * width {
        return Err(TableError::Length {
            what: "out",
            found: out.len(),
            expected: samples * width,
        }
        .into());
    }
    if out.is_empty() {
        return Ok(());
    }
    let share = samples.div_ceil(threads.max(1)).max(1);
    let part = |(number, out): (usize, &mut [f32])| {
        let first = number * share;
        let mut column = 0;
        for (bag, dim) in bags.iter().zip(&dims) {
            let column_of = column..column + dim;
            pool_column(rows, bag, pooling, first, column_of, width, out)?;
            column += dim;
        }
        Ok(())
    };
    if threads <= 1 {
        part((0, out))
    } else {
        out.par_chunks_mut(share * width)
            .enumerate()
            .try_for_each(part)
    }
}

/// One bag's columns of the samples from `first` on.
fn pool_column<R: Rows>(
    rows: &R,
    bag: &Bag,
    pooling: Pooling,
    first: usize,
    columns: std::ops::Range<usize>,
    width: usize,
    out: &mut [f32],
) -> std::result::Result<(), R::Error> {
    let samples = out.len() / width;
    let dim = columns.len();
    let mut read = vec![0.0; READ * dim];
    // The keys in `read` are those from `start`.
    let (mut start, mut end) = (0, 0);
    for sample in 0..samples {
        let keys = bag.of(first + sample);
        let target = &mut out[sample * width + columns.start..][..dim];
        target.fill(0.0);
        for at in keys {
            if at >= end {
                start = at;
                end = (at + READ).min(bag.of(first + samples - 1).end);
                let into = &mut read[..(end - start) * dim];
                rows.read(bag.slot, &bag.keys[start..end], into)?;
            }
            let row = &read[(at - start) * dim..][..dim];
            let weight = bag.weight(at);
            target
                .iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += weight * value);
        }
        let factor = bag.factor(first + sample, pooling);
        if factor != 1.0 {
            target.iter_mut().for_each(|value| *value *= factor);
        }
    }
    Ok(())
}

impl Store {
    /// Fill `out` (samples x the bags' dims side by side) with pooled rows, on `threads` threads. Reads only.
    pub fn pool(
        &self,
        bags: &[Bag],
        pooling: Pooling,
        threads: usize,
        out: &mut [f32],
    ) -> Result<()> {
        pool(self, bags, pooling, threads, out)
    }

    /// Stage the gradient of `pool`'s result for each key that went into it. Nothing of the tables changes.
    pub fn stage(
        &self,
        bags: &[Bag],
        pooling: Pooling,
        grads: &[f32],
        staged: &mut Staged,
    ) -> Result<()> {
        let (dims, width) = columns(self, bags)?;
        let samples = samples(bags)?;
        if grads.len() != samples * width {
            return Err(TableError::Length {
                what: "grads",
                found: grads.len(),
                expected: samples * width,
            });
        }
        staged
            .tables
            .resize(self.tables().len(), Gradients::default());
        let mut column = 0;
        for (bag, dim) in bags.iter().zip(dims) {
            let slot = self.slot(bag.slot)?;
            let table = &mut staged.tables[slot.table];
            table
                .keys
                .extend(bag.keys.iter().map(|key| key & slot.keys.mask()));
            table.values.reserve(bag.keys.len() * dim);
            for sample in 0..samples {
                let gradient = &grads[sample * width + column..][..dim];
                let factor = bag.factor(sample, pooling);
                for at in bag.of(sample) {
                    let weight = factor * bag.weight(at);
                    table
                        .values
                        .extend(gradient.iter().map(|value| weight * value));
                }
            }
            column += dim;
        }
        Ok(())
    }

    /// Apply what is staged, each table once, at `event_time_s`; then nothing is staged.
    ///
    /// A gradient that is not finite refuses the whole step before any table changes; what is staged stays. A table
    /// that finds no room keeps its own gradients and those of the tables after it; what was applied is not staged any
    /// more, so a step that is tried again applies nothing twice.
    pub fn step(&mut self, staged: &mut Staged, event_time_s: i64) -> Result<Updated> {
        for (table, gradients) in self.tables().iter().zip(&staged.tables) {
            table.check(&gradients.update(event_time_s))?;
        }
        let mut done = Updated::default();
        for (table, gradients) in self.tables_mut().iter_mut().zip(&mut staged.tables) {
            if !gradients.keys.is_empty() {
                done.join(table.update(&gradients.update(event_time_s))?);
                gradients.clear();
            }
        }
        Ok(done)
    }
}
