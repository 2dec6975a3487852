//! Bags of keys into one vector each, for all slots of a model at once (`staged.rs` is the way back).
//!
//! A slot's distinct keys are read once (`found.rs`), table by table; then samples are filled, tile by tile.
//! In: keys with row offsets (CSR), weights if any. Out: a matrix with a row a sample and each bag's columns side by side.

use std::iter::zip;
use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Result, TableError};
use crate::found::{self, Found, Read};
use crate::line::prefetch;
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

/// Samples whose keys are looked for together, where nobody keeps what was found.
const SPAN: usize = 16 * TILE;
/// Samples pooled at a time: their rows of the result stay there while slot after slot fills its columns.
const TILE: usize = 256;

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
    pub(crate) fn is_plain(&self, samples: Range<usize>) -> bool {
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
    /// The bits of a slot's keys that count.
    fn mask(&self, slot: u32) -> std::result::Result<u64, Self::Error>;
    /// The values of `keys` into `out`, and where it can say so each one's row into `rows`, good as long as the stamp that
    /// it returns. `alone`: by the calling thread.
    fn read(
        &self,
        slot: u32,
        keys: &[u64],
        out: &mut [f32],
        rows: &mut [u32],
        alone: bool,
    ) -> std::result::Result<u64, Self::Error>;
}

impl Rows for Store {
    type Error = TableError;

    fn dim(&self, slot: u32) -> Result<usize> {
        Ok(self.tables()[self.slot(slot)?.table].config().dim)
    }

    fn mask(&self, slot: u32) -> Result<u64> {
        Ok(self.slot(slot)?.keys.mask())
    }

    fn read(
        &self,
        slot: u32,
        keys: &[u64],
        out: &mut [f32],
        rows: &mut [u32],
        alone: bool,
    ) -> Result<u64> {
        let slot = self.slot(slot)?;
        self.tables()[slot.table].read(keys, slot.keys.mask(), out, rows, alone)
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
/// `lead` columns go to `leads` instead. `keep`: where to leave what was found.
#[allow(clippy::too_many_arguments)]
pub(crate) fn pool<R: Rows>(
    rows: &R,
    bags: &[Bag],
    pooling: Pooling,
    threads: usize,
    layout: Layout,
    leads: &mut [f32],
    out: &mut [f32],
    keep: Option<&mut Found>,
) -> std::result::Result<(), R::Error> {
    let dims = dims(rows, bags)?;
    let samples = samples(bags)?;
    let parted = Parted::new(layout, &dims, samples, leads.len(), out.len())?;
    if out.is_empty() {
        return Ok(());
    }
    let span = if keep.is_some() { samples } else { SPAN };
    let (mut leads, mut kept) = (leads, Vec::new());
    for (number, out) in out.chunks_mut(span * parted.stride).enumerate() {
        let here = out.len() / parted.stride;
        let first = number * span;
        let keys = |bag: &Bag| bag.of(first).start..bag.of(first + here - 1).end;
        let read = found::read(rows, bags, keys, threads)?;
        let (mine, others) = leads.split_at_mut(here * parted.leads);
        leads = others;
        let sources: Vec<Source> = zip(bags, &dims)
            .zip(&read)
            .map(|((bag, &dim), read)| Source {
                bag,
                dim,
                first: keys(bag).start,
                read,
            })
            .collect();
        fill(&sources, pooling, threads, parted, first, mine, out);
        kept = read;
    }
    if let Some(keep) = keep {
        keep.bags = kept.into_iter().map(|read| read.found).collect();
    }
    Ok(())
}

/// One bag and the values of its keys from place `first` on.
struct Source<'a> {
    bag: &'a Bag<'a>,
    dim: usize,
    first: usize,
    read: &'a Read,
}

impl Source<'_> {
    /// The row of the key at a place of the bag.
    #[inline(always)]
    fn row(&self, at: usize) -> &[f32] {
        let number = self.read.found.numbers[at - self.first] as usize;
        &self.read.values[number * self.dim..][..self.dim]
    }

    /// A sample's rows as the pooling says, its first columns into `front`, the others into `rest`.
    fn sum(&self, sample: usize, pooling: Pooling, front: &mut [f32], rest: &mut [f32]) {
        front.fill(0.0);
        rest.fill(0.0);
        for at in self.bag.of(sample) {
            let (ahead, row) = self.row(at).split_at(front.len());
            let weight = self.bag.weight(at);
            let add = |(sum, value): (&mut f32, &f32)| *sum += weight * value;
            front.iter_mut().zip(ahead).for_each(add);
            rest.iter_mut().zip(row).for_each(add);
        }
        let factor = self.bag.factor(sample, pooling);
        if factor != 1.0 {
            front.iter_mut().for_each(|value| *value *= factor);
            rest.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

/// Fills samples from `first` on, tile by tile.
fn fill(
    sources: &[Source],
    pooling: Pooling,
    threads: usize,
    parted: Parted,
    first: usize,
    mut leads: &mut [f32],
    out: &mut [f32],
) {
    let mut tiles = Vec::with_capacity(out.len().div_ceil(TILE * parted.stride));
    for (number, out) in out.chunks_mut(TILE * parted.stride).enumerate() {
        let (mine, others) = leads.split_at_mut(out.len() / parted.stride * parted.leads);
        leads = others;
        tiles.push(Tile {
            first: first + number * TILE,
            parted,
            leads: mine,
            out,
        });
    }
    let fill = |mut tile: Tile| tile.fill(sources, pooling);
    match crate::threads::pool(threads) {
        Some(pool) if threads > 1 && tiles.len() > 1 => {
            pool.install(|| tiles.into_par_iter().for_each(fill));
        }
        _ => tiles.into_iter().for_each(fill),
    }
}

/// Samples of the result that are filled together, from `first` on.
struct Tile<'a> {
    first: usize,
    parted: Parted,
    leads: &'a mut [f32],
    out: &'a mut [f32],
}

/// Samples whose rows are asked for ahead.
const AHEAD: usize = 4;

impl Tile<'_> {
    /// Sample by sample: what is written lies side by side, and rows are read from wherever they are.
    fn fill(&mut self, sources: &[Source], pooling: Pooling) {
        let Parted {
            lead,
            leads,
            stride,
        } = self.parted;
        let end = self.first + self.out.len() / stride;
        let mine = self.first..end;
        let plain = |source: &Source| source.bag.is_plain(mine.clone());
        let plain: Vec<bool> = sources.iter().map(plain).collect();
        for (number, out) in self.out.chunks_exact_mut(stride).enumerate() {
            let sample = self.first + number;
            let mut fronts = &mut self.leads[number * leads..][..leads];
            let mut rests = out;
            for (source, &plain) in sources.iter().zip(&plain) {
                let (front, others) = fronts.split_at_mut(lead);
                fronts = others;
                let (rest, others) = rests.split_at_mut(source.dim - lead);
                rests = others;
                if plain {
                    let next = source.row((sample + AHEAD).min(end - 1));
                    prefetch(next.as_ptr());
                    prefetch(next.as_ptr().wrapping_add(source.dim - 1));
                    // The commonest widths are copied in straight lines.
                    let (ahead, row) = source.row(sample).split_at(lead);
                    match row.len() {
                        8 => rest[..8].copy_from_slice(&row[..8]),
                        16 => rest[..16].copy_from_slice(&row[..16]),
                        32 => rest[..32].copy_from_slice(&row[..32]),
                        _ => rest.copy_from_slice(row),
                    }
                    for (front, value) in zip(front, ahead) {
                        *front = *value;
                    }
                } else {
                    source.sum(sample, pooling, front, rest);
                }
            }
        }
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
        pool(self, bags, pooling, threads, layout, leads, out, None)
    }

    /// As `pool_parted`, and what was found: `stage_parted` takes it.
    pub fn pool_found(
        &self,
        bags: &[Bag],
        pooling: Pooling,
        threads: usize,
        layout: Layout,
        leads: &mut [f32],
        out: &mut [f32],
    ) -> Result<Found> {
        let mut found = Found::default();
        let keep = Some(&mut found);
        pool(self, bags, pooling, threads, layout, leads, out, keep)?;
        Ok(found)
    }
}
