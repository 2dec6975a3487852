//! Rows over a snapshot: an insert-only open-addressed index of fixed capacity, and rows that are sequence locks.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::line::prefetch;
use crate::memory::Mapping;

/// Words of a row before its values: sequence, state, hash.
const HEAD: usize = 4;
const ROW: u32 = 1;
const GONE: u32 = 2;

/// What lies over a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Laid {
    Nothing,
    Row,
    Gone,
}

pub struct Overlay {
    /// `low half of the hash << 32 | 1 + row`, 0 if empty. At most half of them are in use.
    index: Mapping,
    slots: usize,
    rows: Mapping,
    stride: usize,
    capacity: usize,
    /// Rows in use; whoever holds it is the only writer.
    used: Mutex<usize>,
}

/// The right to write, and the rows in use.
pub type Writer<'a> = MutexGuard<'a, usize>;

impl Overlay {
    /// None if the system gives no address space.
    pub fn new(dim: usize, bytes: u64) -> Option<Overlay> {
        let stride = HEAD + dim;
        // Two to four places of the index a row.
        let capacity =
            (bytes / (4 * stride as u64 + 32)).clamp(1, u64::from(u32::MAX - 1)) as usize;
        let slots = (2 * capacity).next_power_of_two();
        Some(Overlay {
            index: Mapping::zeroed(slots * 8)?,
            slots,
            rows: Mapping::zeroed(capacity * stride * 4)?,
            stride,
            capacity,
            used: Mutex::new(0),
        })
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn writer(&self) -> Writer<'_> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn room(&self, writer: &Writer<'_>) -> usize {
        self.capacity - **writer
    }

    fn index(&self) -> &[AtomicU64] {
        // SAFETY: the mapping holds `slots` zeroed, aligned words, and is only ever used as atomics.
        unsafe { std::slice::from_raw_parts(self.index.base().cast(), self.slots) }
    }

    fn row(&self, number: usize) -> &[AtomicU32] {
        assert!(number < self.capacity);
        // SAFETY: the mapping holds `capacity` rows of `stride` zeroed, aligned words, only ever used as atomics.
        unsafe {
            std::slice::from_raw_parts(
                self.rows
                    .base()
                    .cast::<AtomicU32>()
                    .add(number * self.stride),
                self.stride,
            )
        }
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.slots as u128) >> 64) as usize
    }

    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.index()[self.home(hash)]);
    }

    /// Asks for what `find` and `lay` will touch of these hashes, all at once: index first, then the rows listed there.
    pub fn ask_for(&self, hashes: &[u64]) {
        hashes.iter().for_each(|hash| self.prefetch(*hash));
        for hash in hashes {
            let entry = self.index()[self.home(*hash)].load(Ordering::Acquire);
            if entry != 0 {
                let row = self.row((entry as u32 - 1) as usize).as_ptr_range();
                prefetch(row.start);
                prefetch(row.end.wrapping_sub(1));
            }
        }
    }

    /// The row of a hash, or the empty place where it would be listed.
    #[inline(always)]
    fn find(&self, hash: u64) -> std::result::Result<&[AtomicU32], usize> {
        let index = self.index();
        let mut at = self.home(hash);
        loop {
            let entry = index[at].load(Ordering::Acquire);
            if entry == 0 {
                return Err(at);
            }
            if entry >> 32 == hash & 0xffff_ffff {
                let row = self.row((entry as u32 - 1) as usize);
                // Written before the row was listed, and never again.
                let high = row[3].load(Ordering::Relaxed);
                if u64::from(high) == hash >> 32 {
                    return Ok(row);
                }
            }
            at = (at + 1) & (self.slots - 1);
        }
    }

    pub fn has(&self, hash: u64) -> bool {
        self.find(hash).is_ok()
    }

    /// The number of what lies over a hash: it stays where it is.
    #[inline(always)]
    pub fn number_of(&self, hash: u64) -> Option<u32> {
        let row = self.find(hash).ok()?;
        prefetch(row.as_ptr_range().end.wrapping_sub(1).cast::<u8>());
        let first = self.rows.base().cast::<AtomicU32>();
        Some(((row.as_ptr() as usize - first as usize) / (4 * self.stride)) as u32)
    }

    /// What lies over a hash; its values into `out` if it is a row.
    #[inline(always)]
    pub fn read(&self, hash: u64, out: &mut [f32]) -> Laid {
        match self.find(hash) {
            Ok(row) => self.load(row, out),
            Err(_) => Laid::Nothing,
        }
    }

    /// The same by its number.
    #[inline(always)]
    pub fn read_at(&self, number: u32, out: &mut [f32]) -> Laid {
        self.load(self.row(number as usize), out)
    }

    /// Whether a number's row is one, and no tombstone.
    #[inline(always)]
    pub fn is_row(&self, number: u32) -> bool {
        self.row(number as usize)[1].load(Ordering::Relaxed) == ROW
    }

    #[inline(always)]
    fn load(&self, row: &[AtomicU32], out: &mut [f32]) -> Laid {
        loop {
            let before = row[0].load(Ordering::Acquire);
            if before & 1 == 0 {
                let state = row[1].load(Ordering::Relaxed);
                for (out, value) in out.iter_mut().zip(&row[HEAD..]) {
                    *out = f32::from_bits(value.load(Ordering::Relaxed));
                }
                fence(Ordering::Acquire);
                if row[0].load(Ordering::Relaxed) == before {
                    return if state == ROW { Laid::Row } else { Laid::Gone };
                }
            }
            std::hint::spin_loop();
        }
    }

    /// Lays a row, or a tombstone if None. There is room for it.
    pub fn lay(&self, used: &mut Writer<'_>, hash: u64, values: Option<&[f32]>) {
        let (row, listed) = match self.find(hash) {
            Ok(row) => (row, None),
            Err(place) => {
                let number = **used;
                **used += 1;
                let row = self.row(number);
                row[2].store(hash as u32, Ordering::Relaxed);
                row[3].store((hash >> 32) as u32, Ordering::Relaxed);
                (row, Some((place, (hash << 32) | (number as u64 + 1))))
            }
        };
        let sequence = row[0].load(Ordering::Relaxed);
        row[0].store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        row[1].store(if values.is_some() { ROW } else { GONE }, Ordering::Relaxed);
        for (stored, value) in row[HEAD..].iter().zip(values.unwrap_or_default()) {
            stored.store(value.to_bits(), Ordering::Relaxed);
        }
        row[0].store(sequence.wrapping_add(2), Ordering::Release);
        if let Some((place, entry)) = listed {
            self.index()[place].store(entry, Ordering::Release);
        }
    }
}
