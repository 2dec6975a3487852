//! Looking hashes up in a mapped snapshot: a guess where one would be among its block's, then the lines around it.

use super::place::Place;
use super::read::Snapshot;
use super::table::SnapshotTable;
use super::{block_of, values_at};
use crate::artefact::{Result, long};
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
    /// Asks for what `prefetch` reads of a hash.
    #[inline(always)]
    pub(crate) fn announce(&self, table: usize, hash: u64) {
        let table = &self.tables[table];
        let place: *const Place = &table.blocks[block_of(hash, table.bits)];
        prefetch(place.cast::<u8>());
    }

    /// Asks for the place where a hash of a table should be.
    #[inline(always)]
    pub(crate) fn prefetch(&self, table: usize, hash: u64) {
        let table = &self.tables[table];
        let place = &table.blocks[block_of(hash, table.bits)];
        if place.entry().is_some() {
            let first = place.guess(hash, table.bits) as isize - table.near() as isize / 2;
            let at = place.offset.wrapping_add_signed(8 * first);
            // A guess is right within a few lines.
            for line in 0..=table.near() / 8 {
                prefetch(self.bytes.as_ptr().wrapping_add(at + 64 * line));
            }
        }
    }

    /// Where a hash of table `table` is. Its block is verified if it was not.
    #[inline(always)]
    pub(crate) fn find(&self, table: usize, hash: u64) -> Result<Found> {
        let table = &self.tables[table];
        let place = &table.blocks[block_of(hash, table.bits)];
        let Some(entry) = place.entry() else {
            return Ok(Found::Absent);
        };
        if !place.is_sound() {
            self.touch(entry)?;
        }
        let rows = place.rows as usize;
        let hashes = &self.bytes[place.offset..][..rows * 8];
        let guess = place.guess(hash, table.bits);
        let row = match table.near() {
            NEAR => search::<NEAR>(hashes, hash, guess),
            _ => search::<NEARER>(hashes, hash, guess),
        };
        let Some(row) = row else {
            return Ok(Found::Absent);
        };
        let row_bytes = table.row_bytes();
        let at = place.offset + values_at(rows) + row * row_bytes;
        let values = self.bytes.as_ptr().wrapping_add(at);
        prefetch(values);
        prefetch(values.wrapping_add(row_bytes - 1));
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
        self.lookups.add(found, keys.len());
        Ok(found)
    }
}

/// Hashes that are looked at around a guess: more than two deviations on both sides, in blocks of up to 600 rows, of up
/// to 150.
const NEAR: usize = 24;
const NEARER: usize = 8;

impl SnapshotTable {
    /// How many hashes are looked at around a guess.
    #[inline(always)]
    fn near(&self) -> usize {
        if self.rows >> (BUCKET_BITS + self.bits) > 150 {
            NEAR
        } else {
            NEARER
        }
    }
}

/// A hash among ascending ones: near the guess all at once, since nobody can predict on which side; else outwards.
#[inline(always)]
fn search<const NEAR: usize>(hashes: &[u8], hash: u64, guess: usize) -> Option<usize> {
    let first = guess.saturating_sub(NEAR / 2);
    // Those past the end are not looked at: the last `NEAR` are, if there are so many.
    let first = first.min((hashes.len() / 8).saturating_sub(NEAR));
    let near = hashes[8 * first..].as_chunks::<8>().0;
    if let Some(near) = near.first_chunk::<NEAR>() {
        let here = (0..NEAR).fold(0u64, |here, place| {
            here | u64::from(u64::from_le_bytes(near[place]) == hash) << place
        });
        if here != 0 {
            return Some(first + here.trailing_zeros() as usize);
        }
        let [least, most] = [near[0], near[NEAR - 1]].map(u64::from_le_bytes);
        if least < hash && hash < most {
            return None;
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
