//! A mapped snapshot: verified as it is touched, looked up by hash.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use super::table::{NONE, SnapshotTable};
use super::{block_of, values_at};
use crate::artefact::{
    ArtefactError, Entry, Frame, Kind, Pairs, Result, Section, damaged, io, long,
};
use crate::checkpoint::{compared, identity};
use crate::disk::Source;
use crate::hash::{BUCKET_BITS, BUCKETS, mix, unmix};
use crate::line::prefetch;
use crate::lookup::BLOCK;
use crate::pool::{Bag, Layout, Pooling, Rows, pool};
use crate::store::{Keys, Store};

/// A snapshot's bytes.
pub(super) enum Bytes {
    Mapped(memmap2::Mmap),
    Held(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Held(bytes) => bytes,
        }
    }
}

impl Source for Bytes {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, at: u64, out: &mut [u8]) -> std::io::Result<()> {
        let from = usize::try_from(at).ok();
        let found = from.and_then(|at| self.get(at..)?.get(..out.len()));
        out.copy_from_slice(found.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

const UNKNOWN: u8 = 0;
const SOUND: u8 = 1;
const BAD: u8 = 2;

/// Where a hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Absent,
    /// The place of its values in the file.
    At(usize),
}

/// An open snapshot. Readers share it.
pub struct Snapshot {
    bytes: Bytes,
    frame: Frame,
    /// Of each entry.
    states: Vec<AtomicU8>,
    tables: Vec<SnapshotTable>,
    slots: BTreeMap<u32, (usize, Keys)>,
    plan: String,
}

impl Rows for Snapshot {
    type Error = ArtefactError;

    fn dim(&self, slot: u32) -> Result<usize> {
        Ok(self.tables[self.slot(slot)?.0].dim)
    }

    fn read(&self, slot: u32, keys: &[u64], out: &mut [f32]) -> Result<()> {
        self.lookup(slot, keys, out).map(|_| ())
    }
}

impl Snapshot {
    /// Maps the file, which may be replaced by a rename only. With a store and a plan, those must be the ones it was taken from.
    pub fn open(path: &Path, store: Option<(&Store, &str)>) -> Result<Snapshot> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(io(&name, "opening it"))?;
        // SAFETY: the file is one that `commit` renamed into place and that nobody writes to (ADR 0032).
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io(&name, "mapping it"))?;
        Snapshot::of(&name, Bytes::Mapped(map), store)
    }

    pub(super) fn of(name: &str, bytes: Bytes, store: Option<(&Store, &str)>) -> Result<Snapshot> {
        let frame = Frame::open(name, Kind::Snapshot, &bytes)?;
        let facts = compared(&frame.pairs(&bytes, Section::Facts, 0)?);
        if let Some((store, plan)) = store {
            facts.compare(name, "", &identity(store, plan))?;
        }
        let mut tables = Vec::new();
        for (number, (place, table)) in facts.under("table ").enumerate() {
            if place != number.to_string() {
                return Err(damaged(name, "facts", "its tables are out of order"));
            }
            let pairs = frame.pairs(&bytes, Section::Table, number)?;
            tables.push(SnapshotTable::read(&frame, number, table, &pairs)?);
            if let Some((store, _)) = store {
                let config = store.tables()[number].config();
                let mut shape = Pairs::default();
                shape.add("dim", config.dim);
                shape.add("values", format!("{:?}", config.dtype));
                compared(&pairs).compare(name, &format!("table '{table}': "), &shape)?;
            }
        }
        let mut slots = BTreeMap::new();
        for (slot, said) in facts.under("slot ") {
            let slot = slot
                .parse()
                .ok()
                .zip(slot_of(said))
                .filter(|(_, (table, _))| *table < tables.len());
            let (id, slot) = slot.ok_or_else(|| damaged(name, "facts", "a slot is not one"))?;
            slots.insert(id, slot);
        }
        let states = frame
            .entries
            .iter()
            .map(|_| AtomicU8::new(UNKNOWN))
            .collect();
        Ok(Snapshot {
            bytes,
            frame,
            states,
            tables,
            slots,
            plan: facts.get("plan").unwrap_or_default().into(),
        })
    }

    pub fn tables(&self) -> &[SnapshotTable] {
        &self.tables
    }

    /// A slot's table and how its keys are written.
    pub fn slot(&self, slot: u32) -> Result<(usize, Keys)> {
        let found = self.slots.get(&slot).copied();
        found.ok_or(ArtefactError::Table(crate::TableError::UnknownSlot {
            slot,
        }))
    }

    /// The slots in order of their number, each with its table's.
    pub fn slots(&self) -> impl Iterator<Item = (u32, usize, Keys)> + '_ {
        let slots = self.slots.iter();
        slots.map(|(&slot, &(table, keys))| (slot, table, keys))
    }

    /// What was recorded as the plan when it was taken.
    pub fn plan(&self) -> &str {
        &self.plan
    }

    /// As `Store::pool`, with the same sums in the same order.
    pub fn pool(
        &self,
        bags: &[Bag],
        pooling: Pooling,
        threads: usize,
        out: &mut [f32],
    ) -> Result<()> {
        pool(
            self,
            bags,
            pooling,
            threads,
            Layout::default(),
            &mut [],
            out,
        )
    }

    /// The rows of table `table` in these of the 4,096 buckets, in order of hash within each.
    pub fn each_in(
        &self,
        table: usize,
        buckets: Range<usize>,
        mut each: impl FnMut(u64, &[f32]),
    ) -> Result<()> {
        let held = &self.tables[table];
        let mut values = vec![0.0; held.dim];
        let end = buckets.end.min(BUCKETS);
        for block in buckets.start << held.bits..end << held.bits {
            let place = held.blocks[block];
            if place == NONE {
                continue;
            }
            self.touch(place as usize)?;
            let entry = &self.frame.entries[place as usize];
            let (section, rows) = (self.section(entry), entry.count as usize);
            let stored = section[values_at(rows)..].chunks_exact(held.row_bytes());
            for (row, stored) in stored.take(rows).enumerate() {
                held.widen(stored, &mut values);
                each(unmix(long(section, row * 8)), &values);
            }
        }
        Ok(())
    }

    /// Verifies every section now.
    pub fn verify(&self) -> Result<()> {
        (0..self.states.len()).try_for_each(|place| self.check(place))
    }

    /// Verifies the section at `cursor` again, though it was sound before, and moves on: call it now and then from a thread
    /// of its own. Whether that was the last one and the cursor is at the first again.
    pub fn scrub(&self, cursor: &mut usize) -> Result<bool> {
        let place = *cursor % self.states.len().max(1);
        *cursor = (place + 1) % self.states.len().max(1);
        self.check(place)?;
        Ok(*cursor == 0)
    }

    fn check(&self, place: usize) -> Result<()> {
        let entry = &self.frame.entries[place];
        let verdict = self.frame.verify(entry, self.section(entry));
        // A section that was bad once stays so: a reader may have had it.
        if verdict.is_err() {
            self.states[place].store(BAD, Ordering::Relaxed);
        } else if self.states[place].load(Ordering::Relaxed) == UNKNOWN {
            self.states[place].store(SOUND, Ordering::Relaxed);
        }
        verdict
    }

    /// A section with its padding: within the file, since sections tile it.
    fn section(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.offset as usize..][..entry.padded() as usize]
    }

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

    #[cold]
    fn touch(&self, place: usize) -> Result<()> {
        if self.states[place].load(Ordering::Relaxed) == BAD {
            let entry = &self.frame.entries[place];
            return Err(damaged(
                &self.frame.name,
                entry.name(),
                "its checksum was wrong before",
            ));
        }
        self.check(place)
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

fn slot_of(said: &str) -> Option<(usize, Keys)> {
    let (table, keys) = said.strip_prefix("table ")?.split_once(", ")?;
    let keys = match keys {
        "mapped keys" => Keys::Mapped,
        "raw keys" => Keys::Raw,
        _ => return None,
    };
    Some((table.parse().ok()?, keys))
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
