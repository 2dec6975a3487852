//! Which rows of a shard changed in which epoch, and which keys went: enough for "everything since epoch E".

use std::collections::VecDeque;

/// The rows of one finished epoch, in whichever form is smaller.
enum Frozen {
    Bits(Box<[u64]>),
    List(Box<[u32]>),
}

/// One shard's changed rows and evicted hashes.
#[derive(Default)]
pub struct Changes {
    /// Changed in the current epoch, one bit a row.
    bits: Vec<u64>,
    changed: u32,
    frozen: VecDeque<(u32, Frozen)>,
    gone: VecDeque<(u64, u32)>,
    /// Nobody asks for anything before this epoch.
    oldest: u32,
}

impl Changes {
    /// Room for rows below `end`.
    pub fn reach(&mut self, end: u32) {
        let words = (end as usize).div_ceil(64);
        if words > self.bits.len() {
            self.bits.resize(words, 0);
        }
    }

    #[inline(always)]
    pub fn prefetch(&self, row: u32) {
        crate::line::prefetch(self.bits.as_ptr().wrapping_add(row as usize >> 6));
    }

    /// Marks a row that `reach` made room for. Whether this is its first change in the epoch.
    #[inline(always)]
    pub fn mark(&mut self, row: u32) -> bool {
        let bit = 1 << (row & 63);
        let word = &mut self.bits[row as usize >> 6];
        let first = *word & bit == 0;
        *word |= bit;
        self.changed += u32::from(first);
        first
    }

    /// A row that went: its number may be another key's later.
    pub fn unmark(&mut self, row: u32) {
        let bit = 1 << (row & 63);
        let word = &mut self.bits[row as usize >> 6];
        self.changed -= u32::from(*word & bit != 0);
        *word &= !bit;
    }

    pub fn bury(&mut self, hash: u64, epoch: u32) {
        if epoch >= self.oldest {
            self.gone.push_back((hash, epoch));
        }
    }

    pub fn tombstones(&self) -> usize {
        self.gone.len()
    }

    /// The epoch of the oldest tombstone that goes if all but `most` of them go.
    pub fn epoch_at_bound(&self, most: usize) -> Option<u32> {
        let over = self.gone.len().checked_sub(most + 1)?;
        Some(self.gone[over].1)
    }

    /// Ends `epoch`: its changed rows become a set of their own.
    pub fn freeze(&mut self, epoch: u32) {
        let set = if (self.changed as usize) * 2 < self.bits.len() {
            Frozen::List(rows_of(&self.bits).collect())
        } else {
            Frozen::Bits(self.bits.clone().into())
        };
        self.frozen.push_back((epoch, set));
        self.bits.fill(0);
        self.changed = 0;
    }

    /// Forgets everything before `epoch`.
    pub fn forget(&mut self, epoch: u32) {
        self.oldest = self.oldest.max(epoch);
        while self.frozen.front().is_some_and(|(old, _)| *old < epoch) {
            self.frozen.pop_front();
        }
        while self.gone.front().is_some_and(|(_, old)| *old < epoch) {
            self.gone.pop_front();
        }
        self.gone.shrink_to(2 * self.gone.len());
    }

    /// The numbers of rows changed in `since` or later, ascending, each once. Rows that went since may be among them.
    pub fn rows_since(&self, since: u32) -> Vec<u32> {
        let mut all = self.bits.clone();
        for (_, set) in self.frozen.iter().filter(|(epoch, _)| *epoch >= since) {
            match set {
                Frozen::Bits(bits) => all
                    .iter_mut()
                    .zip(bits)
                    .for_each(|(all, &bits)| *all |= bits),
                Frozen::List(rows) => rows
                    .iter()
                    .for_each(|&row| all[row as usize >> 6] |= 1 << (row & 63)),
            }
        }
        rows_of(&all).collect()
    }

    /// Hashes evicted in `since` or later, newest first. A hash may appear again.
    pub fn gone_since(&self, since: u32) -> impl Iterator<Item = u64> + '_ {
        self.gone
            .iter()
            .rev()
            .take_while(move |(_, epoch)| *epoch >= since)
            .map(|(hash, _)| *hash)
    }

    pub fn bytes(&self) -> u64 {
        let sets = self.frozen.iter().map(|(_, set)| match set {
            Frozen::Bits(bits) => bits.len() * 8,
            Frozen::List(rows) => rows.len() * 4,
        });
        (self.bits.capacity() * 8 + self.gone.capacity() * 16 + sets.sum::<usize>()) as u64
    }
}

fn rows_of(bits: &[u64]) -> impl Iterator<Item = u32> + '_ {
    (0u32..).step_by(64).zip(bits).flat_map(|(first, &word)| {
        let mut left = word;
        std::iter::from_fn(move || {
            (left != 0).then(|| {
                let bit = left.trailing_zeros();
                left &= left - 1;
                first + bit
            })
        })
    })
}
