//! Bags of keys into one vector each, for all slots of a model at once (`staged.rs` is the way back).
//!
//! In: keys with row offsets (CSR), weights if any. Out: a matrix with a row a sample and each bag's columns side by side.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Result, TableError};
use crate::store::Store;

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
/// Samples pooled at a time: their rows of the result stay there while slot after slot fills its columns.
pub(crate) const TILE: usize = 256;

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

    pub(crate) fn of(&self, sample: usize) -> Range<usize> {
        self.offsets[sample] as usize..self.offsets[sample + 1] as usize
    }

    pub(crate) fn weight(&self, at: usize) -> f32 {
        self.weights.map_or(1.0, |weights| weights[at])
    }

    /// What the weighted sum of a sample's rows is multiplied by.
    pub(crate) fn factor(&self, sample: usize, pooling: Pooling) -> f32 {
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
pub(crate) fn columns<R: Rows>(
    rows: &R,
    bags: &[Bag],
) -> std::result::Result<(Vec<usize>, usize), R::Error> {
    let dims = bags
        .iter()
        .map(|bag| rows.dim(bag.slot))
        .collect::<std::result::Result<Vec<usize>, _>>()?;
    let width = dims.iter().sum();
    Ok((dims, width))
}

pub(crate) fn samples(bags: &[Bag]) -> Result<usize> {
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
    let tiles = |read: &mut Vec<f32>, (number, out): (usize, &mut [f32])| {
        let first = number * TILE;
        let mut tile = Tile { first, width, out };
        let mut column = 0;
        for (bag, dim) in bags.iter().zip(&dims) {
            tile.fill(rows, bag, pooling, column..column + dim, read)?;
            column += dim;
        }
        Ok(())
    };
    match crate::threads::pool(threads) {
        Some(pool) if threads > 1 && samples > TILE => pool.install(|| {
            out.par_chunks_mut(TILE * width)
                .enumerate()
                .try_for_each_init(Vec::new, tiles)
        }),
        _ => {
            let mut read = Vec::new();
            let mut all = out.chunks_mut(TILE * width).enumerate();
            all.try_for_each(|tile| tiles(&mut read, tile))
        }
    }
}

/// Samples of the result that are filled together, from `first` on.
struct Tile<'a> {
    first: usize,
    width: usize,
    out: &'a mut [f32],
}

impl Tile<'_> {
    /// One bag's columns. `read` is scratch.
    fn fill<R: Rows>(
        &mut self,
        rows: &R,
        bag: &Bag,
        pooling: Pooling,
        columns: Range<usize>,
        read: &mut Vec<f32>,
    ) -> std::result::Result<(), R::Error> {
        let dim = columns.len();
        let samples = self.out.len() / self.width;
        let last = bag.of(self.first + samples - 1).end;
        read.resize(read.len().max(READ * dim), 0.0);
        // The keys in `read` are those from `start`.
        let (mut start, mut end) = (0, 0);
        for (sample, out) in (self.first..).zip(self.out.chunks_exact_mut(self.width)) {
            let target = &mut out[columns.clone()];
            target.fill(0.0);
            for at in bag.of(sample) {
                if at >= end {
                    start = at;
                    end = (at + READ).min(last);
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
            let factor = bag.factor(sample, pooling);
            if factor != 1.0 {
                target.iter_mut().for_each(|value| *value *= factor);
            }
        }
        Ok(())
    }
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
}
