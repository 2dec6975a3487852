//! Where a block lies, and what its verification learnt of it: all that a look-up reads before the block itself.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use crate::artefact::{Entry, long};
use crate::hash::BUCKET_BITS;

/// Parts of a block's range of hashes whose first rows are known.
const PARTS: usize = 8;

/// One block; the default is none. Half a line of memory, so that it comes at once.
#[repr(align(32))]
#[derive(Debug, Default)]
pub(super) struct Place {
    pub offset: usize,
    pub rows: u32,
    /// One more than the number of its entry; 0: none of its hashes has a row.
    entry: u32,
    /// The first row of each part but the first, whose is 0.
    firsts: [AtomicU16; PARTS - 1],
    sound: AtomicBool,
}

impl Place {
    pub fn new(number: u32, entry: &Entry) -> Place {
        Place {
            offset: entry.offset as usize,
            rows: entry.count,
            entry: number + 1,
            ..Place::default()
        }
    }

    /// The number of the block's entry.
    #[inline(always)]
    pub fn entry(&self) -> Option<usize> {
        (self.entry as usize).checked_sub(1)
    }

    /// Whether it was verified and found sound.
    #[inline(always)]
    pub fn is_sound(&self) -> bool {
        self.sound.load(Ordering::Acquire)
    }

    /// After its verification: `hashes` are the block's, `bits` what blocks are told by below buckets.
    pub fn set_sound(&self, hashes: &[u8], bits: u32) {
        let mut row = 0;
        for (part, first) in (1..).zip(&self.firsts) {
            while row < self.rows as usize && within(long(hashes, row * 8), bits) >> 61 < part {
                row += 1;
            }
            // Of so many rows none is left to guess among: look-ups then find them step by step.
            first.store(row.try_into().unwrap_or(u16::MAX), Ordering::Relaxed);
        }
        self.sound.store(true, Ordering::Release);
    }

    pub fn set_damaged(&self) {
        self.sound.store(false, Ordering::Release);
    }

    /// Where a hash would be among the block's rows, which are spread evenly over each part of it.
    #[inline(always)]
    pub fn guess(&self, hash: u64, bits: u32) -> usize {
        let within = within(hash, bits);
        if !self.is_sound() {
            return share(within, self.rows as usize);
        }
        let first = |part: usize| self.firsts[part].load(Ordering::Relaxed) as usize;
        let part = (within >> 61) as usize;
        let from = part.checked_sub(1).map_or(0, first);
        let to = if part == PARTS - 1 {
            self.rows as usize
        } else {
            first(part)
        };
        from + share(within << 3, to.saturating_sub(from))
    }
}

/// A hash's place in the range of its block, as a share of 2^64.
#[inline(always)]
fn within(hash: u64, bits: u32) -> u64 {
    hash << (BUCKET_BITS + bits)
}

#[inline(always)]
fn share(of: u64, rows: usize) -> usize {
    ((u128::from(of) * rows as u128) >> 64) as usize
}
