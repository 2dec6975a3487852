//! Rows: where their values, counts and state lie, and where fresh ones come from (ADR 0030).

use std::sync::Mutex;

use crate::half::Dtype;
use crate::index::SHARDS;
use crate::line::ROWS_A_SHARD;
use crate::memory::{HUGE_PAGE, Mapping, PAGE};

const NONE: u32 = u32::MAX;
/// Of a whole table.
pub const MOST_ROWS: u64 = ROWS_A_SHARD as u64 * SHARDS as u64;
/// From this much on, rows are mapped by so much.
const LARGE_FROM: u64 = 128 << 20;
const LARGE_MAPPING: usize = 32 << 20;

/// The shape of a table's rows. Strides in bytes, offsets in 4-byte words of the side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub dim: usize,
    pub dtype: Dtype,
    pub value_stride: usize,
    pub side_stride: usize,
    pub version: Option<usize>,
    pub score: Option<usize>,
    pub state: usize,
    pub state_len: usize,
}

/// The words that every row has beside its values.
pub const COUNT: usize = 0;
pub const LAST_SEEN: usize = 1;
pub const LOCATOR: usize = 2;
const FIXED: usize = 3;

impl Layout {
    pub fn new(dim: usize, dtype: Dtype, state_len: usize, version: bool, score: bool) -> Layout {
        let value_stride = dim * dtype.size_bytes();
        let (version_at, score_at) = (FIXED, FIXED + usize::from(version));
        let state = score_at + usize::from(score);
        let side_stride = 4 * (state + state_len);
        Layout {
            dim,
            dtype,
            value_stride,
            side_stride,
            version: version.then_some(version_at),
            score: score.then_some(score_at),
            state,
            state_len,
        }
    }

    /// The side's part of an extent of so many rows.
    fn side_bytes(&self, rows: usize) -> usize {
        (self.side_stride * rows).next_multiple_of(64)
    }

    pub fn extent_bytes(&self, rows: usize) -> usize {
        self.side_bytes(rows) + (self.value_stride * rows).next_multiple_of(64)
    }
}

/// Extents to a doubling of a shard's rows, as a power of two: the unused part of the last one is small beside the rest,
/// and their list is short enough for the nearest caches.
const FINE: u32 = 6;
/// Rows of the smallest extents, as a power of two.
const LEAST: u32 = 4;

/// (extent, its rows as a power of two, place within it) of a row.
#[inline(always)]
fn place(row: u32) -> (usize, u32, usize) {
    let biased = row + (1 << (FINE + LEAST));
    let size = 31 - biased.leading_zeros() - FINE;
    let extent = ((size - LEAST) << FINE) + ((biased >> size) & ((1 << FINE) - 1));
    (extent as usize, size, (biased & ((1 << size) - 1)) as usize)
}

/// Fresh extents of a table, shared by its shards.
pub struct Extents {
    inner: Mutex<Source>,
}

#[derive(Default)]
struct Source {
    mappings: Vec<Mapping>,
    mapped: u64,
    taken: u64,
    next: usize,
}

impl Extents {
    pub fn new() -> Extents {
        Extents {
            inner: Mutex::default(),
        }
    }

    /// Bytes of the extents that were given out.
    pub fn taken(&self) -> u64 {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .taken
    }

    /// The boundary of a fresh zeroed extent and the pages its first touch brings in; None if the system has no memory.
    fn take(&self, layout: &Layout, rows: usize) -> Option<(*mut u8, u64)> {
        let bytes = layout.extent_bytes(rows);
        let mut source = self
            .inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if source
            .mappings
            .last()
            .is_none_or(|last| source.next + bytes > last.bytes())
        {
            if let Some(full) = source.mappings.last() {
                full.make_huge(full.bytes() / HUGE_PAGE - 1);
            }
            let least = if source.mapped >= LARGE_FROM {
                LARGE_MAPPING
            } else {
                HUGE_PAGE
            };
            let mapping = Mapping::zeroed(least.max(bytes))?;
            source.mapped += mapping.bytes() as u64;
            source.mappings.push(mapping);
            source.next = 0;
        }
        let last = source.mappings.last()?;
        // What is full comes onto huge pages: never more than its own size, and no insert waits for it.
        for part in source.next / HUGE_PAGE..(source.next + bytes) / HUGE_PAGE {
            last.make_huge(part);
        }
        let pages = (source.next + bytes).div_ceil(PAGE) - source.next.div_ceil(PAGE);
        // SAFETY: `next + bytes` is within the mapping.
        let boundary = unsafe { last.base().add(source.next + layout.side_bytes(rows)) };
        source.next += bytes;
        source.taken += bytes as u64;
        Some((boundary, pages as u64))
    }

    /// Maps `bytes` for the extents to come and takes them from the system now. None if it has not so much.
    pub fn reserve(&self, bytes: usize) -> Option<()> {
        let mut source = self
            .inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mapping = Mapping::zeroed(bytes)?;
        mapping.take(bytes).then_some(())?;
        source.mapped += mapping.bytes() as u64;
        source.mappings.push(mapping);
        source.next = 0;
        Some(())
    }
}

/// A row's two places. Valid as long as the table; who may write is the shard's owner.
#[derive(Clone, Copy)]
pub struct Row {
    pub values: *mut u8,
    pub side: *mut u32,
}

impl Row {
    /// # Safety
    /// `word` is within the side, and nobody writes it meanwhile.
    #[inline(always)]
    pub unsafe fn get(self, word: usize) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { *self.side.add(word) }
    }

    /// # Safety
    /// `word` is within the side, and nobody else uses it meanwhile.
    #[inline(always)]
    pub unsafe fn set(self, word: usize, value: u32) {
        // SAFETY: the caller's promise.
        unsafe { *self.side.add(word) = value }
    }
}

/// One shard's rows.
pub struct Rows {
    extents: Vec<*mut u8>,
    /// Rows that the extents hold.
    room: u32,
    next: u32,
    free: u32,
    live: u32,
}

// SAFETY: the extents belong to this shard alone until the table that maps them is dropped.
unsafe impl Send for Rows {}
// SAFETY: rows are written through `&mut Rows`'s owner only; readers hold `&`.
unsafe impl Sync for Rows {}

impl Rows {
    pub fn new() -> Rows {
        Rows {
            extents: Vec::new(),
            room: 0,
            next: 0,
            free: NONE,
            live: 0,
        }
    }

    /// Rows in use.
    pub fn live(&self) -> u32 {
        self.live
    }

    /// Row numbers given out so far are below this.
    pub fn end(&self) -> u32 {
        self.next
    }

    /// Bytes of fresh memory that `new` more rows take: freed rows and the begun extent come first.
    pub fn bytes_for(&self, layout: &Layout, new: u64) -> u64 {
        let mut left = u64::from(self.room - self.live);
        let (mut room, mut bytes) = (self.room, 0);
        while left < new {
            let rows = 1u32 << place(room).1;
            room = room.saturating_add(rows);
            left += u64::from(rows);
            // A row's bit is the changes', whose list may double.
            bytes += layout.extent_bytes(rows as usize) as u64 + u64::from(rows) / 4;
        }
        bytes
    }

    /// The places of row `row`, which was allocated.
    #[inline(always)]
    pub fn row(&self, layout: &Layout, row: u32) -> Row {
        let (extent, _, within) = place(row);
        debug_assert!(row < self.next);
        // SAFETY: allocated row numbers have their extent, and both strides stay within it.
        unsafe {
            let boundary = *self.extents.get_unchecked(extent);
            Row {
                values: boundary.add(within * layout.value_stride),
                side: boundary.sub((within + 1) * layout.side_stride).cast(),
            }
        }
    }

    /// Takes extents for at least `rows` rows. None if there is no memory.
    pub fn reserve(&mut self, layout: &Layout, source: &Extents, rows: u32) -> Option<()> {
        while self.room < rows {
            self.extend(layout, source)?;
        }
        Some(())
    }

    /// One extent more; returns the pages that its first touch brings in.
    fn extend(&mut self, layout: &Layout, source: &Extents) -> Option<u64> {
        if self.room >= ROWS_A_SHARD {
            return None;
        }
        let rows = 1 << place(self.room).1;
        let (boundary, fresh) = source.take(layout, rows as usize)?;
        self.extents.push(boundary);
        self.room += rows;
        Some(fresh)
    }

    /// A row of undefined contents, and the pages that it faulted in; None if there is no memory.
    pub fn allocate(&mut self, layout: &Layout, source: &Extents) -> Option<(u32, u64)> {
        if self.free != NONE {
            let row = self.free;
            // SAFETY: a freed row keeps the next freed one in its count, and is nobody's.
            self.free = unsafe { self.row(layout, row).get(COUNT) };
            self.live += 1;
            return Some((row, 0));
        }
        let mut pages = 0;
        if self.next == self.room {
            pages = self.extend(layout, source)?;
        }
        let row = self.next;
        self.next += 1;
        self.live += 1;
        // The shard's next row is asked for now: its memory is as cold.
        let next = self.row(layout, row);
        crate::line::prefetch(next.values.wrapping_add(layout.value_stride));
        crate::line::prefetch(next.side.cast::<u8>().wrapping_sub(layout.side_stride));
        Some((row, pages))
    }

    /// Gives an allocated row back for the next `allocate`.
    pub fn release(&mut self, layout: &Layout, row: u32) {
        // SAFETY: the row is allocated and leaves its owner here.
        unsafe { self.row(layout, row).set(COUNT, self.free) };
        self.free = row;
        self.live -= 1;
    }
}
