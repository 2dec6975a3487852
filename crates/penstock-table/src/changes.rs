//! Which rows of a shard changed in which epoch, and which keys went: enough for "everything since epoch E".

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows of one finished epoch, in whichever form is smaller.
enum Frozen {
    Bits(Box<[u64]>),
    List(Box<[u32]>),
}

/// What one finished epoch changed in a shard. Never changes again, so open cuts share it.
pub struct Epoch {
    rows: Frozen,
    gone: Vec<u64>,
}

impl Epoch {
    /// Of these rows, ascending, and of these evicted hashes.
    pub fn of(rows: Vec<u32>, gone: Vec<u64>) -> Epoch {
        Epoch {
            rows: Frozen::List(rows.into()),
            gone,
        }
    }

    pub fn has(&self, row: u32) -> bool {
        match &self.rows {
            Frozen::Bits(bits) => bits
                .get(row as usize >> 6)
                .is_some_and(|word| word >> (row & 63) & 1 == 1),
            Frozen::List(rows) => rows.binary_search(&row).is_ok(),
        }
    }

    pub fn each_row(&self, mut each: impl FnMut(u32)) {
        match &self.rows {
            Frozen::Bits(bits) => rows_of(bits).for_each(each),
            Frozen::List(rows) => rows.iter().for_each(|&row| each(row)),
        }
    }

    /// Sets the bits of its rows.
    fn add_to(&self, all: &mut [u64]) {
        match &self.rows {
            Frozen::Bits(bits) => all
                .iter_mut()
                .zip(bits)
                .for_each(|(all, &bits)| *all |= bits),
            Frozen::List(rows) => rows
                .iter()
                .for_each(|&row| all[row as usize >> 6] |= 1 << (row & 63)),
        }
    }

    /// Hashes evicted in the epoch, in order.
    pub fn gone(&self) -> &[u64] {
        &self.gone
    }

    fn bytes(&self) -> usize {
        let rows = match &self.rows {
            Frozen::Bits(bits) => bits.len() * 8,
            Frozen::List(rows) => rows.len() * 4,
        };
        rows + self.gone.capacity() * 8
    }
}

/// One shard's changed rows and evicted hashes.
pub struct Changes {
    /// Changed in the current epoch, one bit a row.
    bits: Vec<AtomicU64>,
    /// Which words of `bits` were ever touched in it, one bit a word: so that ending an epoch reads no others.
    touched: Vec<AtomicU64>,
    frozen: VecDeque<(u32, Arc<Epoch>)>,
    /// Evicted in the current epoch.
    gone: Vec<u64>,
    /// Tombstones of all epochs.
    tombstones: usize,
    epoch: u32,
    /// Nobody asks for anything before this epoch.
    oldest: u32,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes::at(1, 1, VecDeque::new())
    }
}

impl Changes {
    /// In epoch `epoch`, with what finished epochs from `oldest` on changed.
    pub fn at(epoch: u32, oldest: u32, frozen: VecDeque<(u32, Arc<Epoch>)>) -> Changes {
        Changes {
            bits: Vec::new(),
            touched: Vec::new(),
            tombstones: frozen.iter().map(|(_, epoch)| epoch.gone.len()).sum(),
            frozen,
            gone: Vec::new(),
            epoch,
            oldest,
        }
    }

    /// Finished epochs that are kept, oldest first.
    pub fn finished(&self) -> &VecDeque<(u32, Arc<Epoch>)> {
        &self.frozen
    }

    /// Room for rows below `end`.
    pub fn reach(&mut self, end: u32) {
        let words = (end as usize).div_ceil(64);
        if words > self.bits.len() {
            self.bits.resize_with(words, AtomicU64::default);
            self.touched
                .resize_with(words.div_ceil(64), AtomicU64::default);
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
        let word = self.bits[row as usize >> 6].get_mut();
        let first = *word & bit == 0;
        if *word == 0 {
            *self.touched[row as usize >> 12].get_mut() |= 1 << (row >> 6 & 63);
        }
        *word |= bit;
        first
    }

    /// The same for a holder of `&`: threads that each change rows of their own may share a word of bits.
    #[inline(always)]
    pub fn mark_beside(&self, row: u32) {
        let bit = 1 << (row & 63);
        let word = &self.bits[row as usize >> 6];
        // Most rows that are found have been changed in this epoch before.
        if word.load(Ordering::Relaxed) & bit == 0 {
            let before = word.fetch_or(bit, Ordering::Relaxed);
            if before == 0 {
                self.touched[row as usize >> 12].fetch_or(1 << (row >> 6 & 63), Ordering::Relaxed);
            }
        }
    }

    /// A row that went: its number may be another key's later.
    pub fn unmark(&mut self, row: u32) {
        let bit = 1 << (row & 63);
        *self.bits[row as usize >> 6].get_mut() &= !bit;
    }

    pub fn bury(&mut self, hash: u64) {
        if self.epoch >= self.oldest {
            self.gone.push(hash);
            self.tombstones += 1;
        }
    }

    pub fn tombstones(&self) -> usize {
        self.tombstones
    }

    /// The epoch of the oldest tombstone that goes if all but `most` of them go.
    pub fn epoch_at_bound(&self, most: usize) -> Option<u32> {
        let mut over = self.tombstones.checked_sub(most + 1)?;
        for (epoch, set) in &self.frozen {
            over = match over.checked_sub(set.gone.len()) {
                Some(over) => over,
                None => return Some(*epoch),
            };
        }
        Some(self.epoch)
    }

    /// Ends the epoch: what it changed becomes a set of its own. Returns the words of bits that it was told by: those
    /// that were touched, and one a 64 of all.
    pub fn freeze(&mut self) -> usize {
        let touched: Vec<u64> = self
            .touched
            .iter_mut()
            .map(|word| std::mem::take(word.get_mut()))
            .collect();
        let mut told = Vec::new();
        for word in rows_of(&touched) {
            let bits = std::mem::take(self.bits[word as usize].get_mut());
            told.push((word, bits));
        }
        let changed: u32 = told.iter().map(|(_, bits)| bits.count_ones()).sum();
        let rows = if (changed as usize) * 2 < self.bits.len() {
            let each = told.iter().flat_map(|&(word, bits)| {
                rows_of(std::slice::from_ref(&bits))
                    .map(move |row| word << 6 | row)
                    .collect::<Vec<_>>()
            });
            Frozen::List(each.collect())
        } else {
            let mut all = vec![0; self.bits.len()];
            told.iter()
                .for_each(|&(word, bits)| all[word as usize] = bits);
            Frozen::Bits(all.into())
        };
        let mut gone = std::mem::take(&mut self.gone);
        gone.shrink_to_fit();
        self.frozen
            .push_back((self.epoch, Arc::new(Epoch { rows, gone })));
        self.epoch += 1;
        touched.len() + told.len()
    }

    /// Forgets everything before `epoch`.
    pub fn forget(&mut self, epoch: u32) {
        self.oldest = self.oldest.max(epoch);
        while self.frozen.front().is_some_and(|(old, _)| *old < epoch) {
            if let Some((_, old)) = self.frozen.pop_front() {
                self.tombstones -= old.gone.len();
            }
        }
        if self.epoch < epoch {
            self.tombstones -= self.gone.len();
            self.gone = Vec::new();
        }
    }

    /// As `rows_since`, but only what finished epochs changed: nothing is read for rows that none of them did.
    pub fn finished_since(&self, since: u32) -> Vec<u32> {
        let sets = || self.frozen.iter().filter(|(epoch, _)| *epoch >= since);
        let lists = sets().map(|(_, set)| match &set.rows {
            Frozen::List(rows) => Some(&**rows),
            Frozen::Bits(_) => None,
        });
        let Some(lists) = lists.collect::<Option<Vec<_>>>() else {
            // A set of bits is of at least half as many rows as there are words.
            let mut all = vec![0; self.bits.len()];
            sets().for_each(|(_, set)| set.add_to(&mut all));
            return rows_of(&all).collect();
        };
        let mut rows = lists.concat();
        if lists.len() > 1 {
            rows.sort_unstable();
            rows.dedup();
        }
        rows
    }

    /// The numbers of rows changed in `since` or later, ascending, each once. Rows that went since may be among them.
    pub fn rows_since(&self, since: u32) -> Vec<u32> {
        let now = self.bits.iter().map(|word| word.load(Ordering::Relaxed));
        let mut all: Vec<u64> = now.collect();
        for (_, set) in self.frozen.iter().filter(|(epoch, _)| *epoch >= since) {
            set.add_to(&mut all);
        }
        rows_of(&all).collect()
    }

    /// Hashes evicted in `since` or later, newest first. A hash may appear again.
    pub fn gone_since(&self, since: u32) -> impl Iterator<Item = u64> + '_ {
        let older = self.frozen.iter().rev();
        let older = older.take_while(move |(epoch, _)| *epoch >= since);
        let older = older.flat_map(|(_, set)| set.gone.iter().rev());
        self.gone.iter().rev().chain(older).copied()
    }

    pub fn bytes(&self) -> u64 {
        let sets = self.frozen.iter().map(|(_, set)| set.bytes());
        ((self.bits.capacity() + self.touched.capacity()) * 8
            + self.gone.capacity() * 8
            + sets.sum::<usize>()) as u64
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
