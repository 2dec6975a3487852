//! Where the index's lines lie, and how a bucket is searched, filled, thinned and grown (ADR 0030).
//!
//! `Lines` is shared by a table's shards and only gives out memory; `Buckets` is one shard's 64 buckets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::hash::{BUCKETS, REMAINDER_BITS, REMAINDER_MASK};
use crate::line::{ENTRIES, Line, Search};
use crate::memory::{HUGE_PAGE, Mapping, PAGE};

pub const SHARDS: usize = 64;
pub const BUCKETS_A_SHARD: usize = BUCKETS / SHARDS;
/// Chunks to a doubling, as a power of two: a bucket grows by 1/8 to 1/16.
const FINE: u32 = 3;
const CLASSES: usize = (26 - FINE as usize) << FINE;
/// Classes of chunks from this one on have a mapping of 4 MiB or more each; those before share one.
const LARGE_FROM: usize = 4 << FINE;

/// A bucket with more than this part of its entries in use grows.
const LOAD: (u64, u64) = (9, 10);

/// Lines asked for ahead of being lifted out.
const LIFT_AHEAD: usize = 24;

/// Bytes of the mapping of one class of chunks, for all buckets.
const fn class_bytes(class: usize) -> usize {
    (BUCKETS << (class >> FINE)) * size_of::<Line>()
}

/// Bytes of the classes before `class`.
const fn bytes_before(class: usize) -> usize {
    let (size, rest) = (class >> FINE, class & ((1 << FINE) - 1));
    // Each size has eight classes, of twice the bytes of those before.
    class_bytes(0) * ((1 << FINE) * ((1 << size) - 1) + (rest << size))
}

/// The memory of all buckets' lines: chunk class c of all 4,096 buckets lies together.
pub struct Lines {
    bases: [AtomicPtr<Line>; CLASSES],
    mappings: Mutex<Vec<Mapping>>,
}

/// (class, lines in a chunk of the class as a power of two, place within the chunk)
#[inline(always)]
fn place(line: u32) -> (usize, u32, usize) {
    let biased = line + (1 << FINE);
    let size = 31 - biased.leading_zeros() - FINE;
    let class = (size << FINE) + ((biased >> size) & ((1 << FINE) - 1));
    (class as usize, size, (biased & ((1 << size) - 1)) as usize)
}

impl Lines {
    pub fn new() -> Option<Lines> {
        let mut bases = [const { AtomicPtr::new(std::ptr::null_mut()) }; CLASSES];
        let first = Mapping::zeroed(bytes_before(LARGE_FROM))?;
        for (class, base) in bases.iter_mut().enumerate().take(LARGE_FROM) {
            *base.get_mut() = first.base().wrapping_add(bytes_before(class)).cast();
        }
        Some(Lines {
            bases,
            mappings: Mutex::new(vec![first]),
        })
    }

    /// Line `line` of a bucket that has at least as many.
    #[inline(always)]
    fn at(&self, bucket: usize, line: u32) -> *mut Line {
        let (class, size, within) = place(line);
        debug_assert!(class < CLASSES);
        // SAFETY: a bucket has a line only after its class was mapped, for all 4,096 buckets.
        unsafe {
            let base = self.bases.get_unchecked(class).load(Ordering::Relaxed);
            base.add((bucket << size) + within)
        }
    }

    /// Takes the memory of the first `lines` lines of every bucket now. None if the system has not so much.
    pub fn take(&self, lines: u32) -> Option<()> {
        let last = place(lines - 1).0;
        (0..=last).try_for_each(|class| self.map(class).map(drop))?;
        let mappings = self
            .mappings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut small = bytes_before(LARGE_FROM.min(last + 1));
        let taken = mappings
            .iter()
            .all(|mapping| mapping.take(std::mem::replace(&mut small, mapping.bytes())));
        taken.then_some(())
    }

    /// Makes sure that class `class` is mapped. Returns a page's size; None if the system has no memory.
    fn map(&self, class: usize) -> Option<usize> {
        if self.bases.get(class)?.load(Ordering::Acquire).is_null() {
            let mut mappings = self
                .mappings
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if self.bases[class].load(Ordering::Acquire).is_null() {
                let mapping = Mapping::zeroed(class_bytes(class))?;
                self.bases[class].store(mapping.base().cast(), Ordering::Release);
                // Buckets fill alike: the class before is full, or nearly.
                let full = mappings.last()?;
                (0..full.bytes() / HUGE_PAGE).for_each(|part| full.make_huge(part));
                mappings.push(mapping);
            }
        }
        Some(PAGE)
    }
}

/// One entry in flight between two geometries of a bucket: its remainder and row.
type Entry = (u64, u32);

/// What growth has in hand while it moves a bucket; kept between growths, so that none allocates.
#[derive(Default)]
pub struct Moving {
    entries: Vec<Entry>,
    lines: Vec<*mut Line>,
}

// SAFETY: the pointers are only used within one call of `grow`, which has them anew.
unsafe impl Send for Moving {}
// SAFETY: as above; `&Moving` reads nothing through them.
unsafe impl Sync for Moving {}

/// What growing a bucket cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    pub entries_moved: u64,
    pub pages_faulted: u64,
}

/// What a home line says about a hash.
pub enum Home {
    Row(u32),
    Absent,
    /// A line after it may hold it.
    Beyond,
}

/// The 64 buckets of one shard.
pub struct Buckets {
    first: usize,
    lines: [u32; BUCKETS_A_SHARD],
    used: [u32; BUCKETS_A_SHARD],
}

#[inline(always)]
fn home(remainder: u64, lines: u32) -> u32 {
    ((u64::from((remainder >> (REMAINDER_BITS - 32)) as u32) * u64::from(lines)) >> 32) as u32
}

#[inline(always)]
fn local(hash: u64) -> usize {
    (hash >> REMAINDER_BITS) as usize % BUCKETS_A_SHARD
}

/// Whether so many lines are too few for so many entries.
fn needs_growth(entries: u64, lines: u32) -> bool {
    entries * LOAD.1 > u64::from(lines) * ENTRIES as u64 * LOAD.0
}

/// The 32 bits of a hash below its shard's: what a row keeps so that its index line can be found again.
#[inline(always)]
pub fn locator(hash: u64) -> u32 {
    (hash >> (58 - 32)) as u32
}

impl Buckets {
    pub fn new(shard: usize) -> Buckets {
        Buckets {
            first: shard * BUCKETS_A_SHARD,
            lines: [1; BUCKETS_A_SHARD],
            used: [0; BUCKETS_A_SHARD],
        }
    }

    /// Lines of local bucket `bucket`.
    pub fn lines(&self, bucket: usize) -> u32 {
        self.lines[bucket]
    }

    /// Bytes of lines in use.
    pub fn bytes(&self) -> u64 {
        self.lines
            .iter()
            .map(|&lines| u64::from(lines))
            .sum::<u64>()
            * size_of::<Line>() as u64
    }

    /// Bytes of lines that `new` more rows of local bucket `bucket` take.
    pub fn bytes_for(&self, bucket: usize, new: u64) -> u64 {
        let mut lines = self.lines[bucket];
        while needs_growth(u64::from(self.used[bucket]) + new, lines) {
            lines += 1 << place(lines).1;
        }
        u64::from(lines - self.lines[bucket]) * size_of::<Line>() as u64
    }

    /// Lines of a bucket that is to hold `rows` rows without growing, at 9/11 of its entries: lines behind a full home
    /// are met one after another, and at 9/10 an insert passes five times as many of them.
    pub fn lines_for(rows: u64) -> u32 {
        let mut lines = 1;
        while needs_growth(rows + rows / 10, lines) {
            lines += 1 << place(lines).1;
        }
        lines
    }

    #[inline(always)]
    pub fn home_line(&self, memory: &Lines, hash: u64) -> *const Line {
        let bucket = local(hash);
        memory.at(
            self.first + bucket,
            home(hash & REMAINDER_MASK, self.lines[bucket]),
        )
    }

    /// What a hash's home line says about it.
    ///
    /// # Safety
    /// `line` is this hash's home line, and the processor has S's instructions.
    #[inline(always)]
    pub unsafe fn find_at_home<S: Search>(&self, line: *const Line, hash: u64) -> Home {
        // SAFETY: the caller's promise; lines are only written through `&mut self`.
        let (line, found) = unsafe { (&*line, S::find(&*line, hash & REMAINDER_MASK)) };
        if found != 0 {
            Home::Row(line.row(found.trailing_zeros() as usize))
        } else if line.may_be_away(hash & REMAINDER_MASK) {
            Home::Beyond
        } else {
            Home::Absent
        }
    }

    /// The row of a hash.
    pub fn find(&self, memory: &Lines, hash: u64) -> Option<u32> {
        self.locate(memory, hash).map(|(_, _, row)| row)
    }

    fn locate(&self, memory: &Lines, hash: u64) -> Option<(u32, usize, u32)> {
        let (bucket, remainder) = (local(hash), hash & REMAINDER_MASK);
        let lines = self.lines[bucket];
        let mut at = home(remainder, lines);
        for _ in 0..lines {
            // SAFETY: `at` is below the bucket's lines; nobody writes while `&self` is held. `Plain` needs no instructions.
            let (line, found) = unsafe {
                let line = &*memory.at(self.first + bucket, at);
                (line, <crate::line::Plain as Search>::find(line, remainder))
            };
            if found != 0 {
                let entry = found.trailing_zeros() as usize;
                return Some((at, entry, line.row(entry)));
            }
            if !line.was_passed() {
                return None;
            }
            at = if at + 1 == lines { 0 } else { at + 1 };
        }
        None
    }

    /// The hash of a row by its locator; None if the row is not in the index.
    pub fn hash_of(&self, memory: &Lines, locator: u32, row: u32) -> Option<u64> {
        let bucket = (locator >> 26) as usize;
        let lines = self.lines[bucket];
        let top = |below: u64| ((u64::from(locator << 6) | below) * u64::from(lines)) >> 32;
        let (mut at, last) = (top(0) as u32, top(63) as u32);
        for _ in 0..lines {
            let line = self.line(memory, bucket, at);
            for entry in line.entries() {
                if line.row(entry) == row {
                    return Some(
                        ((self.first + bucket) as u64) << REMAINDER_BITS | line.remainder(entry),
                    );
                }
            }
            if !line.was_passed() && at >= last {
                return None;
            }
            at = if at + 1 == lines { 0 } else { at + 1 };
        }
        None
    }

    pub fn line<'a>(&'a self, memory: &'a Lines, bucket: usize, at: u32) -> &'a Line {
        assert!(at < self.lines[bucket]);
        // SAFETY: below the bucket's lines; nobody writes while `&self` is held.
        unsafe { &*memory.at(self.first + bucket, at) }
    }

    /// The hash of an entry of a line of local bucket `bucket`.
    pub fn hash_in(&self, bucket: usize, line: &Line, entry: usize) -> u64 {
        ((self.first + bucket) as u64) << REMAINDER_BITS | line.remainder(entry)
    }

    /// The home line of an entry of a line of local bucket `bucket`.
    pub fn home_in(&self, bucket: usize, line: &Line, entry: usize) -> u32 {
        home(line.remainder(entry), self.lines[bucket])
    }

    /// Gives the empty local bucket `bucket` so many lines, as growth would have; None if there is no memory or growth
    /// comes past no such number.
    pub fn reserve(&mut self, memory: &Lines, bucket: usize, lines: u32) -> Option<()> {
        debug_assert!(self.used[bucket] == 0);
        let mut reached = 1;
        while reached < lines {
            let (class, size, _) = place(reached);
            memory.map(class)?;
            reached += 1 << size;
        }
        self.lines[bucket] = reached;
        (reached == lines).then_some(())
    }

    /// Adds an absent hash. None (and nothing changed) if the system has no memory for growth.
    pub fn insert(
        &mut self,
        memory: &Lines,
        hash: u64,
        row: u32,
        moving: &mut Moving,
    ) -> Option<Growth> {
        let bucket = local(hash);
        let growth = if needs_growth(u64::from(self.used[bucket]) + 1, self.lines[bucket]) {
            self.grow(memory, bucket, moving)?
        } else {
            Growth::default()
        };
        let at = |at| memory.at(self.first + bucket, at);
        // SAFETY: these are the bucket's lines, and `&mut self` is the only writer of this shard's buckets.
        unsafe { put(self.lines[bucket], at, hash & REMAINDER_MASK, row) };
        self.used[bucket] += 1;
        Some(growth)
    }

    /// Takes a hash out. Returns its row.
    pub fn remove(&mut self, memory: &Lines, hash: u64) -> Option<u32> {
        let (at, entry, row) = self.locate(memory, hash)?;
        let bucket = local(hash);
        let lines = self.lines[bucket];
        let mut passed = home(hash & REMAINDER_MASK, lines);
        // SAFETY (both): below the bucket's lines, and `&mut self` is the only writer of this shard's buckets.
        while passed != at {
            unsafe { (*memory.at(self.first + bucket, passed)).unpass() };
            passed = if passed + 1 == lines { 0 } else { passed + 1 };
        }
        unsafe { (*memory.at(self.first + bucket, at)).take(entry) };
        self.used[bucket] -= 1;
        Some(row)
    }

    /// One chunk more for a bucket: its entries are lifted out and put back in their new homes.
    #[cold]
    fn grow(&mut self, memory: &Lines, bucket: usize, moving: &mut Moving) -> Option<Growth> {
        let old = self.lines[bucket];
        let (class, size, _) = place(old);
        let page = memory.map(class)?;
        let new = old + (1 << size);
        self.lines[bucket] = new;
        moving.lines.clear();
        let lines = (0..new).map(|at| memory.at(self.first + bucket, at));
        moving.lines.extend(lines);
        moving
            .entries
            .resize(self.used[bucket] as usize, Entry::default());
        let (mut lifted, ahead) = (0, LIFT_AHEAD.min(old as usize));
        moving.lines[..ahead]
            .iter()
            .for_each(|&line| crate::line::prefetch(line));
        for at in 0..old as usize {
            crate::line::prefetch(moving.lines[(at + ahead).min(old as usize - 1)]);
            // SAFETY: below the bucket's lines, and `&mut self` is the only writer of this shard's buckets.
            let line = unsafe { moving.lines[at].replace(Line::EMPTY) };
            for entry in line.entries() {
                moving.entries[lifted] = (line.remainder(entry), line.row(entry));
                lifted += 1;
            }
        }
        for &(remainder, row) in &moving.entries {
            // SAFETY: as above; the bucket has `new` lines, and they are these.
            unsafe { put(new, |at| moving.lines[at as usize], remainder, row) };
        }
        let bytes = size_of::<Line>() << size;
        Some(Growth {
            entries_moved: lifted as u64,
            pages_faulted: bytes.div_ceil(page) as u64,
        })
    }
}

/// Puts an entry into a bucket of `lines` lines that has room for it.
///
/// # Safety
/// `at` gives the places of the bucket's lines, and the caller is its only user.
#[inline(always)]
unsafe fn put(lines: u32, at: impl Fn(u32) -> *mut Line, remainder: u64, row: u32) {
    let mut here = home(remainder, lines);
    // SAFETY (both): the caller's promise.
    let mut line = unsafe { &mut *at(here) };
    if line.is_full() {
        line.send_away(remainder);
    }
    while line.is_full() {
        line.pass();
        here = if here + 1 == lines { 0 } else { here + 1 };
        line = unsafe { &mut *at(here) };
    }
    line.put(remainder, row);
}
