//! Pooling out of a snapshot. A request's few keys are asked for all at once, whatever their slots: slot after slot, each
//! would wait for memory on its own.

use super::find::Found;
use super::read::Snapshot;
use crate::artefact::{ArtefactError, Result};
use crate::hash::mix;
use crate::lookup::BLOCK;
use crate::pool::{Bag, Layout, Parted, Pooling, Rows, dims, pool, samples};

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

/// A key that was asked for.
#[derive(Clone, Copy)]
struct Asked {
    table: usize,
    hash: u64,
    found: Found,
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
        let keys: usize = bags.iter().map(|bag| bag.keys.len()).sum();
        if keys <= AT_ONCE {
            return self.pool_at_once(bags, pooling, out);
        }
        let layout = Layout::default();
        pool(self, bags, pooling, threads, layout, &mut [], out, None)
    }

    fn pool_at_once(&self, bags: &[Bag], pooling: Pooling, out: &mut [f32]) -> Result<()> {
        let dims = dims(self, bags)?;
        let samples = samples(bags)?;
        let stride = Parted::new(Layout::default(), &dims, samples, 0, out.len())?.stride;
        let asked = self.ask(bags)?;
        let mut row = vec![0.0; dims.iter().copied().max().unwrap_or(0)];
        let (mut first_key, mut column) = (0, 0);
        for (bag, &dim) in bags.iter().zip(&dims) {
            let (mine, row) = (&asked[first_key..][..bag.keys.len()], &mut row[..dim]);
            let plain = bag.is_plain(0..samples);
            for sample in 0..samples {
                let out = &mut out[sample * stride + column..][..dim];
                if plain {
                    self.load_asked(&mine[sample], out);
                    continue;
                }
                out.fill(0.0);
                for at in bag.of(sample) {
                    self.load_asked(&mine[at], row);
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
    fn ask(&self, bags: &[Bag]) -> Result<Vec<Asked>> {
        let keys = bags.iter().map(|bag| bag.keys.len()).sum();
        let mut asked = Vec::with_capacity(keys);
        for bag in bags {
            let (table, written) = self.slot(bag.slot)?;
            let mask = written.mask();
            asked.extend(bag.keys.iter().map(|key| Asked {
                table,
                hash: mix(key & mask),
                found: Found::Absent,
            }));
        }
        let announce = |one: &Asked| self.announce(one.table, one.hash);
        let ask = |one: &Asked| self.prefetch(one.table, one.hash);
        asked.iter().take(2 * BLOCK).for_each(announce);
        asked.iter().take(BLOCK).for_each(ask);
        let mut found = 0;
        for at in 0..asked.len() {
            asked.get(at + 2 * BLOCK).into_iter().for_each(announce);
            asked.get(at + BLOCK).into_iter().for_each(ask);
            let one = &mut asked[at];
            one.found = self.find(one.table, one.hash)?;
            found += usize::from(one.found != Found::Absent);
        }
        self.lookups.add(found, asked.len());
        Ok(asked)
    }

    #[inline(always)]
    fn load_asked(&self, asked: &Asked, out: &mut [f32]) {
        self.load(asked.table, asked.hash, asked.found, out);
    }
}
