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

    /// Whether each of these samples has the one key of its number, of weight 1: pooled, it is its row.
    fn is_plain(&self, samples: Range<usize>) -> bool {
        let offsets = &self.offsets[samples.start..=samples.end];
        let one_each = |(&offset, at): (&i64, usize)| offset == at as i64;
        self.weights.is_none() && offsets.iter().zip(samples.start..).all(one_each)
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

/// The width of each bag's columns.
pub(crate) fn dims<R: Rows>(rows: &R, bags: &[Bag]) -> std::result::Result<Vec<usize>, R::Error> {
    bags.iter().map(|bag| rows.dim(bag.slot)).collect()
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

/// How a sample's columns are laid out: the first `lead` of every bag stand together, apart from the rest. A sample of
/// the rest may be wider than the bags need; what is behind their columns is the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    pub lead: usize,
    /// The width of a sample's rest; None: just what the bags need.
    pub stride: Option<usize>,
}

/// A layout of these very bags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parted {
    pub lead: usize,
    pub leads: usize,
    pub stride: usize,
}

impl Parted {
    /// Refuses matrices that are not of `samples` samples, and a lead that leaves nothing.
    pub fn new(
        layout: Layout,
        dims: &[usize],
        samples: usize,
        leads: usize,
        rest: usize,
    ) -> Result<Parted> {
        let lead = layout.lead;
        let length = |what, found, expected| {
            if found == expected {
                return Ok(());
            }
            Err(TableError::Length {
                what,
                found,
                expected,
            })
        };
        for &dim in dims {
            length("lead", lead, lead.min(dim.saturating_sub(1)))?;
        }
        let width = dims.iter().sum::<usize>() - lead * dims.len();
        let stride = layout.stride.unwrap_or(width);
        length("stride", stride, stride.max(width))?;
        length("leads", leads, samples * lead * dims.len())?;
        length("the matrix", rest, samples * stride)?;
        Ok(Parted {
            lead,
            leads: lead * dims.len(),
            stride,
        })
    }
}

/// Fill `out` (samples x the bags' dims side by side) with pooled rows, on `threads` threads; of each bag the first
/// `lead` columns go to `leads` instead.
pub(crate) fn pool<R: Rows>(
    rows: &R,
    bags: &[Bag],
    pooling: Pooling,
    threads: usize,
    layout: Layout,
    mut leads: &mut [f32],
    out: &mut [f32],
) -> std::result::Result<(), R::Error> {
    let dims = dims(rows, bags)?;
    let samples = samples(bags)?;
    let parted = Parted::new(layout, &dims, samples, leads.len(), out.len())?;
    if out.is_empty() {
        return Ok(());
    }
    let mut tiles = Vec::with_capacity(samples.div_ceil(TILE));
    for (number, out) in out.chunks_mut(TILE * parted.stride).enumerate() {
        let here = out.len() / parted.stride * parted.leads;
        let (mine, others) = std::mem::take(&mut leads).split_at_mut(here);
        leads = others;
        tiles.push(Tile {
            first: number * TILE,
            parted,
            leads: mine,
            out,
        });
    }
    let fill = |read: &mut Vec<f32>, mut tile: Tile| {
        let (mut column, mut first) = (0, 0);
        for (bag, dim) in bags.iter().zip(&dims) {
            tile.fill(rows, bag, pooling, (first, column, *dim), read)?;
            column += dim - layout.lead;
            first += layout.lead;
        }
        Ok(())
    };
    match crate::threads::pool(threads) {
        Some(pool) if threads > 1 && tiles.len() > 1 => {
            pool.install(|| tiles.into_par_iter().try_for_each_init(Vec::new, fill))
        }
        _ => {
            let mut read = Vec::new();
            tiles.into_iter().try_for_each(|tile| fill(&mut read, tile))
        }
    }
}

/// Samples of the result that are filled together, from `first` on.
struct Tile<'a> {
    first: usize,
    parted: Parted,
    leads: &'a mut [f32],
    out: &'a mut [f32],
}

impl Tile<'_> {
    /// One bag's columns: where its lead begins, where the rest, and its dim. `read` is scratch.
    fn fill<R: Rows>(
        &mut self,
        rows: &R,
        bag: &Bag,
        pooling: Pooling,
        (first, column, dim): (usize, usize, usize),
        read: &mut Vec<f32>,
    ) -> std::result::Result<(), R::Error> {
        let Parted {
            lead,
            leads,
            stride,
        } = self.parted;
        let samples = self.out.len() / stride;
        let last = bag.of(self.first + samples - 1).end;
        read.resize(read.len().max(READ * dim), 0.0);
        if bag.is_plain(self.first..self.first + samples) {
            let keys = &bag.keys[self.first..self.first + samples];
            let rest = dim - lead;
            for (keys, at) in keys.chunks(READ).zip((0..).step_by(READ)) {
                let read = &mut read[..keys.len() * dim];
                rows.read(bag.slot, keys, read)?;
                let outs = self.out[at * stride..].chunks_exact_mut(stride);
                for (row, out) in read.chunks_exact(dim).zip(outs) {
                    out[column..column + rest].copy_from_slice(&row[lead..]);
                }
                if lead > 0 {
                    let fronts = self.leads[at * leads..].chunks_exact_mut(leads);
                    for (row, front) in read.chunks_exact(dim).zip(fronts) {
                        front[first..first + lead].copy_from_slice(&row[..lead]);
                    }
                }
            }
            return Ok(());
        }
        // The keys in `read` are those from `start`.
        let (mut start, mut end) = (0, 0);
        for (number, out) in self.out.chunks_exact_mut(stride).enumerate() {
            let sample = self.first + number;
            let front = &mut self.leads[number * leads + first..][..lead];
            let target = &mut out[column..column + dim - lead];
            front.fill(0.0);
            target.fill(0.0);
            for at in bag.of(sample) {
                if at >= end {
                    start = at;
                    end = (at + READ).min(last);
                    let into = &mut read[..(end - start) * dim];
                    rows.read(bag.slot, &bag.keys[start..end], into)?;
                }
                let (ahead, row) = read[(at - start) * dim..][..dim].split_at(lead);
                let weight = bag.weight(at);
                let add = |(sum, value): (&mut f32, &f32)| *sum += weight * value;
                front.iter_mut().zip(ahead).for_each(add);
                target.iter_mut().zip(row).for_each(add);
            }
            let factor = bag.factor(sample, pooling);
            if factor != 1.0 {
                front.iter_mut().for_each(|value| *value *= factor);
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
        self.pool_parted(bags, pooling, threads, Layout::default(), &mut [], out)
    }

    /// As `pool`, but the columns are laid out as `layout` says: `leads` is samples x (bags x lead).
    pub fn pool_parted(
        &self,
        bags: &[Bag],
        pooling: Pooling,
        threads: usize,
        layout: Layout,
        leads: &mut [f32],
        out: &mut [f32],
    ) -> Result<()> {
        pool(self, bags, pooling, threads, layout, leads, out)
    }
}
