//! The distinct keys of a batch, numbered in the order in which they first appear.

const EMPTY: u32 = u32::MAX;

/// Numbers for (table, hash). The hashes are mixed: their low bits are as good as any.
#[derive(Default)]
pub(crate) struct Distinct {
    /// Open addressing with steps of one; at most two thirds are in use.
    slots: Vec<u32>,
    count: usize,
    hashes: Vec<u64>,
    tables: Vec<u32>,
}

impl Distinct {
    /// Forget all, and make room for so many keys.
    pub fn begin(&mut self, keys: usize) {
        let slots = (keys + keys / 2 + 2).next_power_of_two();
        self.slots.clear();
        self.slots.resize(slots, EMPTY);
        self.count = 0;
        // One more than can be needed: the place that a key is compared at before it is known to be new.
        self.hashes.resize(self.hashes.len().max(keys + 1), 0);
        self.tables.clear();
        self.tables.resize(keys + 1, 0);
    }

    pub fn hashes(&self) -> &[u64] {
        &self.hashes[..self.count]
    }

    /// Of each its table; zeros where `number_all` was told of no others.
    pub fn tables(&self) -> &[u32] {
        &self.tables[..self.count]
    }

    /// The number of each of a table's hashes, put behind `numbers`. `MANY`: there are other tables.
    #[inline(always)]
    pub fn number_all<const MANY: bool>(
        &mut self,
        table: u32,
        hashes: impl Iterator<Item = u64>,
        numbers: &mut Vec<u32>,
    ) {
        let (slots, known) = (&mut self.slots[..], &mut self.hashes[..]);
        let mask = slots.len() - 1;
        let mut count = self.count;
        numbers.extend(hashes.map(|hash| {
            // Put where it would be new, so that "new" and "there already" are one comparison: half of a batch's keys are
            // first ones, and nobody can guess which.
            known[count] = hash;
            if MANY {
                self.tables[count] = table;
            }
            let mut at = hash as usize ^ (table as usize) << 3;
            loop {
                let slot = &mut slots[at & mask];
                let new = *slot == EMPTY;
                let number = if new { count as u32 } else { *slot };
                let here = number as usize;
                if known[here] == hash && (!MANY || self.tables[here] == table) {
                    *slot = number;
                    count += usize::from(new);
                    return number;
                }
                at += 1;
            }
        }));
        self.count = count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_first_appearance_and_tables_do_not_mix() {
        let mut distinct = Distinct::default();
        for turn in 0..3 {
            distinct.begin(6);
            let seen = [(0, 7), (0, 9), (0, 7), (1, 7), (0, 1 << 40), (1, 7)];
            let mut numbers = vec![];
            for (table, hash) in seen {
                let hashes = std::iter::once(hash + turn);
                distinct.number_all::<true>(table, hashes, &mut numbers);
            }
            assert_eq!(numbers, [0, 1, 0, 2, 3, 2]);
            assert_eq!(
                distinct.hashes(),
                [7 + turn, 9 + turn, 7 + turn, (1 << 40) + turn]
            );
            assert_eq!(distinct.tables(), [0, 0, 1, 0]);
        }
    }

    #[test]
    fn a_table_full_of_keys_that_begin_alike_is_walked() {
        let mut distinct = Distinct::default();
        distinct.begin(1000);
        let mut numbers = vec![];
        distinct.number_all::<false>(0, (0..2000).map(|i| (i % 1000) << 32), &mut numbers);
        assert!((0..2000).all(|i| numbers[i as usize] == i % 1000));
    }
}
