//! Pooling out of what is served: a snapshot, or a view of one. A request's few keys are asked for all at once, whatever
//! their slots: slot after slot, each would wait for memory on its own.

use super::find::Found;
use super::read::Snapshot;
use crate::artefact::{ArtefactError, Result};
use crate::hash::mix;
use crate::lookup::BLOCK;
use crate::pool::{Bag, Layout, Parted, Pooling, Rows, dims, pool, samples};
use crate::store::Keys;

/// Up to so many keys at once: what they ask for stays in the cache until it is read. More are looked up slot by slot, each
/// distinct key once.
const AT_ONCE: usize = 8192;

impl Rows for Snapshot {
    type Error = ArtefactError;

    fn dim(&self, slot: u32) -> Result<usize> {
        Ok(self.tables[self.slot(slot)?.0].dim)
    }

    fn mask(&self, slot: u32) -> Result<u64> {
        Ok(self.slot(slot)?.1.mask())
    }

    fn read(
        &self,
        slot: u32,
        keys: &[u64],
        out: &mut [f32],
        _: &mut [u32],
        _: bool,
    ) -> Result<u64> {
        self.lookup(slot, keys, out).map(|_| 0)
    }
}

/// Rows that are asked for, found and loaded one by one.
pub(crate) trait Served: Rows<Error = ArtefactError> {
    /// Where a row is.
    type Place: Copy;
    const NOWHERE: Self::Place;

    fn slot_of(&self, slot: u32) -> Result<(usize, Keys)>;
    /// Asks for what `ask_for` reads.
    fn announce_hash(&self, table: usize, hash: u64);
    /// Asks for what `place_of` reads.
    fn ask_for(&self, table: usize, hash: u64);
    /// Where the row of a hash is, and whether there is one.
    fn place_of(&self, table: usize, hash: u64) -> Result<(Self::Place, bool)>;
    fn load_from(&self, table: usize, hash: u64, place: Self::Place, out: &mut [f32]);
    fn count(&self, found: usize, asked: usize);
}

impl Served for Snapshot {
    type Place = Found;
    const NOWHERE: Found = Found::Absent;

    fn slot_of(&self, slot: u32) -> Result<(usize, Keys)> {
        self.slot(slot)
    }

    #[inline(always)]
    fn announce_hash(&self, table: usize, hash: u64) {
        self.announce(table, hash);
    }

    #[inline(always)]
    fn ask_for(&self, table: usize, hash: u64) {
        self.prefetch(table, hash);
    }

    #[inline(always)]
    fn place_of(&self, table: usize, hash: u64) -> Result<(Found, bool)> {
        let found = self.find(table, hash)?;
        Ok((found, found != Found::Absent))
    }

    #[inline(always)]
    fn load_from(&self, table: usize, hash: u64, place: Found, out: &mut [f32]) {
        self.load(table, hash, place, out);
    }

    fn count(&self, found: usize, asked: usize) {
        self.lookups.add(found, asked);
    }
}

impl Snapshot {
    /// As `Store::pool`, with the same sums in the same order. Errs at a damaged block.
    pub fn pool(
        &self,
        bags: &[Bag],
        pooling: Pooling,
        threads: usize,
        out: &mut [f32],
    ) -> Result<()> {
        pool_served(self, bags, pooling, threads, out)
    }
}

pub(crate) fn pool_served<S: Served>(
    rows: &S,
    bags: &[Bag],
    pooling: Pooling,
    threads: usize,
    out: &mut [f32],
) -> Result<()> {
    let keys: usize = bags.iter().map(|bag| bag.keys.len()).sum();
    if keys <= AT_ONCE {
        return pool_at_once(rows, bags, pooling, out);
    }
    let layout = Layout::default();
    pool(rows, bags, pooling, threads, layout, &mut [], out, None)
}

/// A key that was asked for.
#[derive(Clone, Copy)]
struct Asked<P> {
    table: usize,
    hash: u64,
    place: P,
}

fn pool_at_once<S: Served>(
    rows: &S,
    bags: &[Bag],
    pooling: Pooling,
    out: &mut [f32],
) -> Result<()> {
    let dims = dims(rows, bags)?;
    let samples = samples(bags)?;
    let stride = Parted::new(Layout::default(), &dims, samples, 0, out.len())?.stride;
    let asked = ask(rows, bags)?;
    let load = |one: &Asked<S::Place>, out: &mut [f32]| {
        rows.load_from(one.table, one.hash, one.place, out);
    };
    let mut row = vec![0.0; dims.iter().copied().max().unwrap_or(0)];
    let (mut first_key, mut column) = (0, 0);
    for (bag, &dim) in bags.iter().zip(&dims) {
        let (mine, row) = (&asked[first_key..][..bag.keys.len()], &mut row[..dim]);
        let plain = bag.is_plain(0..samples);
        for sample in 0..samples {
            let out = &mut out[sample * stride + column..][..dim];
            if plain {
                load(&mine[sample], out);
                continue;
            }
            out.fill(0.0);
            for at in bag.of(sample) {
                load(&mine[at], row);
                let weight = bag.weight(at);
                let add = |(sum, value): (&mut f32, &f32)| *sum += weight * value;
                out.iter_mut().zip(&*row).for_each(add);
            }
            let factor = bag.factor(sample, pooling);
            if factor != 1.0 {
                out.iter_mut().for_each(|value| *value *= factor);
            }
        }
        first_key += bag.keys.len();
        column += dim;
    }
    Ok(())
}

/// Where the keys of all bags are, one after another.
fn ask<S: Served>(rows: &S, bags: &[Bag]) -> Result<Vec<Asked<S::Place>>> {
    let keys = bags.iter().map(|bag| bag.keys.len()).sum();
    let mut asked = Vec::with_capacity(keys);
    for bag in bags {
        let (table, written) = rows.slot_of(bag.slot)?;
        let mask = written.mask();
        asked.extend(bag.keys.iter().map(|key| Asked {
            table,
            hash: mix(key & mask),
            place: S::NOWHERE,
        }));
    }
    let announce = |one: &Asked<S::Place>| rows.announce_hash(one.table, one.hash);
    let ask = |one: &Asked<S::Place>| rows.ask_for(one.table, one.hash);
    asked.iter().take(2 * BLOCK).for_each(announce);
    asked.iter().take(BLOCK).for_each(ask);
    let mut found = 0;
    for at in 0..asked.len() {
        asked.get(at + 2 * BLOCK).into_iter().for_each(announce);
        asked.get(at + BLOCK).into_iter().for_each(ask);
        let one = &mut asked[at];
        let (place, here) = rows.place_of(one.table, one.hash)?;
        one.place = place;
        found += usize::from(here);
    }
    rows.count(found, asked.len());
    Ok(asked)
}
