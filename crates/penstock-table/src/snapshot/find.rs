//! Looking hashes up in a mapped snapshot: a guess where one would be among its block's, then the lines around it.

use std::sync::atomic::Ordering;

use super::read::{SOUND, Snapshot};
use super::table::{NONE, SnapshotTable};
use super::{block_of, values_at};
use crate::artefact::{Entry, Result, long};
use crate::hash::{BUCKET_BITS, mix};
use crate::line::prefetch;
use crate::lookup::BLOCK;

/// Where a hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Absent,
    /// The place of its values in the file.
    At(usize),
}

impl Snapshot {
    /// The block of a hash, verified; None if it has no rows.
    #[inline(always)]
    fn block(&self, table: &SnapshotTable, hash: u64) -> Result<Option<&Entry>> {
        let place = table.blocks[block_of(hash, table.bits)];
        if place == NONE {
            return Ok(None);
        }
        let entry = &self.frame.entries[place as usize];
        if self.states[place as usize].load(Ordering::Relaxed) != SOUND {
            self.touch(place as usize)?;
        }
        Ok(Some(entry))
    }

    /// Asks for the place where a hash of a table should be.
    #[inline(always)]
    pub(crate) fn prefetch(&self, table: usize, hash: u64) {
        let table = &self.tables[table];
        let place = table.blocks[block_of(hash, table.bits)];
        if place != NONE {
            let entry = &self.frame.entries[place as usize];
            let guess = guess(hash, table.bits, entry.count as usize);
            let at = self
                .bytes
                .as_ptr()
                .wrapping_add(entry.offset as usize + guess * 8);
            // A guess is right within a few lines.
            for line in 0..=NEAR / 8 {
                prefetch(at.wrapping_add(64 * line).wrapping_sub(8 * BEFORE));
            }
        }
    }

    /// Where a hash of table `table` is. Its block is verified if it was not.
    #[inline(always)]
    pub(crate) fn find(&self, table: usize, hash: u64) -> Result<Found> {
        let table = &self.tables[table];
        let Some(entry) = self.block(table, hash)? else {
            return Ok(Found::Absent);
        };
        let rows = entry.count as usize;
        let section = self.section(entry);
        let Some(row) = search(&section[..rows * 8], hash, guess(hash, table.bits, rows)) else {
            return Ok(Found::Absent);
        };
        let at = entry.offset as usize + values_at(rows) + row * table.row_bytes();
        prefetch(self.bytes.as_ptr().wrapping_add(at));
        Ok(Found::At(at))
    }

    /// The values of what `find` found.
    #[inline(always)]
    pub(crate) fn load(&self, table: usize, hash: u64, found: Found, out: &mut [f32]) {
        let table = &self.tables[table];
        match found {
            Found::Absent => table.missing(hash, out),
            Found::At(at) => table.widen(&self.bytes[at..][..table.row_bytes()], out),
        }
    }

    /// The values of a slot's keys, `dim` floats each. Returns how many have a row; errs at a damaged block.
    pub fn lookup(&self, slot: u32, keys: &[u64], out: &mut [f32]) -> Result<usize> {
        let (table, written) = self.slot(slot)?;
        let dim = self.tables[table].dim;
        crate::table::check("out", out.len(), keys.len() * dim)?;
        let hash = |key: u64| mix(key & written.mask());
        let block = |number: usize| number * BLOCK..((number + 1) * BLOCK).min(keys.len());
        let ask = |number: usize| {
            let asked = keys.get(block(number)).unwrap_or_default();
            asked
                .iter()
                .for_each(|&key| self.prefetch(table, hash(key)));
        };
        let (mut found, blocks) = (0, keys.len().div_ceil(BLOCK));
        let mut places = [[Found::Absent; BLOCK]; 2];
        ask(0);
        // One block is asked for, the one before is found, and the one before that is read.
        for number in 0..=blocks {
            ask(number + 1);
            if number < blocks {
                for (place, &key) in places[number % 2].iter_mut().zip(&keys[block(number)]) {
                    *place = self.find(table, hash(key))?;
                    found += usize::from(*place != Found::Absent);
                }
            }
            if let Some(before) = number.checked_sub(1) {
                let out = out[block(before).start * dim..].chunks_exact_mut(dim);
                let places = &places[before % 2];
                for ((place, &key), out) in places.iter().zip(&keys[block(before)]).zip(out) {
                    self.load(table, hash(key), *place, out);
                }
            }
        }
        Ok(found)
    }
}

/// Hashes that are looked at around a guess, and how many of them lie before it: two deviations of a block of 600.
const NEAR: usize = 48;
const BEFORE: usize = 24;

/// Where a hash would be among `rows` that are spread evenly over its block.
#[inline(always)]
fn guess(hash: u64, bits: u32, rows: usize) -> usize {
    let within = hash << (BUCKET_BITS + bits);
    ((u128::from(within) * rows as u128) >> 64) as usize
}

/// A hash among ascending ones: near the guess all at once, since nobody can predict on which side; else outwards.
#[inline(always)]
fn search(hashes: &[u8], hash: u64, guess: usize) -> Option<usize> {
    let first = guess.saturating_sub(BEFORE);
    if let Some((near, _)) = hashes[8 * first..].split_first_chunk::<{ 8 * NEAR }>() {
        let near = near.as_chunks::<8>().0;
        let here = (0..NEAR).fold(0u64, |here, place| {
            here | u64::from(u64::from_le_bytes(near[place]) == hash) << place
        });
        if here != 0 {
            return Some(first + here.trailing_zeros() as usize);
        }
    }
    search_outwards(hashes, hash, guess)
}

#[cold]
fn search_outwards(hashes: &[u8], hash: u64, guess: usize) -> Option<usize> {
    let at = |place: usize| long(hashes, place * 8);
    let rows = hashes.len() / 8;
    let (mut low, mut high, mut stride) = (guess, guess.min(rows), 4);
    if guess < rows && at(guess) <= hash {
        while low + stride < rows && at(low + stride) <= hash {
            low += stride;
            stride *= 2;
        }
        high = rows.min(low + stride);
    } else {
        while high > stride && at(high - stride) > hash {
            high -= stride;
            stride *= 2;
        }
        low = high.saturating_sub(stride);
    }
    while high - low > 1 {
        let middle = (low + high) / 2;
        if at(middle) <= hash {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low < high && at(low) == hash).then_some(low)
}
