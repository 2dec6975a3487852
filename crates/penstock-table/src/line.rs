//! One line of the index: six entries in one cache line (ADR 0030), and how wide instructions find one.

use crate::hash::{REMAINDER_BITS, REMAINDER_MASK};

pub const ENTRIES: usize = 6;
/// Row numbers are below this.
pub const ROWS_A_SHARD: u32 = 1 << 28;
const FULL: u8 = (1 << ENTRIES) - 1;

/// Entry i is `remainder | row high bits << 52` in `head[i]` and the row's low 16 bits in `low[i]`.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Line {
    head: [u64; ENTRIES],
    low: [u16; ENTRIES],
    /// One bit for each sixteenth of the hashes that call this home and lie beyond it.
    away: u16,
    /// Entries that wanted this line or one before it, and lie beyond it. Stuck once at its maximum.
    over: u8,
    used: u8,
}

impl Line {
    pub const EMPTY: Line = Line {
        head: [0; ENTRIES],
        low: [0; ENTRIES],
        away: 0,
        over: 0,
        used: 0,
    };

    #[inline(always)]
    pub fn row(&self, entry: usize) -> u32 {
        ((self.head[entry] >> REMAINDER_BITS) as u32) << 16 | u32::from(self.low[entry])
    }

    #[inline(always)]
    pub fn remainder(&self, entry: usize) -> u64 {
        self.head[entry] & REMAINDER_MASK
    }

    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.used == FULL
    }

    /// The entries in use.
    pub fn entries(&self) -> impl Iterator<Item = usize> + use<> {
        let used = self.used;
        (0..ENTRIES).filter(move |entry| used >> entry & 1 == 1)
    }

    #[inline]
    pub fn put(&mut self, remainder: u64, row: u32) {
        let entry = self.used.trailing_ones() as usize;
        self.head[entry] = remainder | u64::from(row >> 16) << REMAINDER_BITS;
        self.low[entry] = row as u16;
        self.used |= 1 << entry;
    }

    pub fn take(&mut self, entry: usize) {
        self.used &= !(1 << entry);
    }

    /// Whether a hash that calls this line home, and is not in it, may lie beyond it.
    #[inline(always)]
    pub fn may_be_away(&self, remainder: u64) -> bool {
        self.away >> (remainder & 15) & 1 == 1
    }

    /// A hash that calls this line home goes beyond it.
    pub fn send_away(&mut self, remainder: u64) {
        self.away |= 1 << (remainder & 15);
    }

    /// Whether any entry passed this line.
    #[inline(always)]
    pub fn was_passed(&self) -> bool {
        self.over != 0
    }

    pub fn pass(&mut self) {
        self.over = self.over.saturating_add(1);
    }

    /// An entry that had passed went.
    pub fn unpass(&mut self) {
        if self.over != u8::MAX {
            self.over -= 1;
        }
        if self.over == 0 {
            self.away = 0;
        }
    }
}

/// How a remainder is found among a line's six.
pub trait Search {
    /// The used entries with this remainder, one bit each (at most one is set).
    ///
    /// # Safety
    /// The processor has the instructions of the implementation.
    unsafe fn find(line: &Line, remainder: u64) -> u32;
}

pub struct Plain;
impl Search for Plain {
    #[inline(always)]
    unsafe fn find(line: &Line, remainder: u64) -> u32 {
        let mut found = 0;
        for entry in 0..ENTRIES {
            found |=
                u32::from((line.head[entry] ^ remainder) << (64 - REMAINDER_BITS) == 0) << entry;
        }
        found & u32::from(line.used)
    }
}

#[cfg(target_arch = "x86_64")]
pub use wide::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::*;
    use std::arch::x86_64::*;
    const UNUSED_BITS: i32 = (64 - REMAINDER_BITS) as i32;

    pub struct Avx2;
    impl Search for Avx2 {
        #[inline(always)]
        unsafe fn find(line: &Line, remainder: u64) -> u32 {
            let base = std::ptr::from_ref(line).cast::<__m256i>();
            // SAFETY: a line is 64 aligned bytes, two whole vectors; the caller vouches for AVX2.
            unsafe {
                let wanted = _mm256_set1_epi64x((remainder << UNUSED_BITS) as i64);
                let first = _mm256_slli_epi64::<UNUSED_BITS>(_mm256_load_si256(base));
                let second = _mm256_slli_epi64::<UNUSED_BITS>(_mm256_load_si256(base.add(1)));
                let first =
                    _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(first, wanted)));
                let second =
                    _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(second, wanted)));
                (first | second << 4) as u32 & u32::from(line.used)
            }
        }
    }

    pub struct Avx512;
    impl Search for Avx512 {
        #[inline(always)]
        unsafe fn find(line: &Line, remainder: u64) -> u32 {
            let base = std::ptr::from_ref(line).cast::<__m512i>();
            // SAFETY: a line is 64 aligned bytes, one whole vector; the caller vouches for AVX-512F.
            unsafe {
                let wanted = _mm512_set1_epi64((remainder << UNUSED_BITS) as i64);
                let all = _mm512_slli_epi64::<{ UNUSED_BITS as u32 }>(_mm512_load_si512(base));
                u32::from(_mm512_cmpeq_epi64_mask(all, wanted)) & u32::from(line.used)
            }
        }
    }
}

/// Asks for the cache line at `at`; any address is allowed.
#[inline(always)]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and faults on nothing.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
