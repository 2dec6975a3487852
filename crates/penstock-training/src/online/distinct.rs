//! The distinct keys of a batch, numbered in the order in which they first appear.

const EMPTY: u32 = u32::MAX;

/// Numbers for (table, hash). The hashes are mixed: their low bits are as good as any.
#[derive(Default)]
pub(crate) struct Distinct {
    /// Open addressing with steps of one; at most two thirds are in use.
    slots: Vec<u32>,
    mask: usize,
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
        self.mask = slots - 1;
        self.count = 0;
        // One more than can be needed: the place that a key is compared at before it is known to be new.
        self.hashes.resize(self.hashes.len().max(keys + 1), 0);
        self.tables.resize(self.tables.len().max(keys + 1), 0);
    }

    pub fn hashes(&self) -> &[u64] {
        &self.hashes[..self.count]
    }

    pub fn tables(&self) -> &[u32] {
        &self.tables[..self.count]
    }

    /// The number of a hash in a table.
    #[inline(always)]
    pub fn number(&mut self, table: u32, hash: u64) -> u32 {
        let count = self.count;
        // Put where it would be new, so that "new" and "there already" are one comparison: half of a batch's keys are
        // first ones, and nobody can guess which.
        self.hashes[count] = hash;
        self.tables[count] = table;
        let mut at = (hash as usize ^ (table as usize) << 3) & self.mask;
        loop {
            let held = self.slots[at];
            let new = held == EMPTY;
            let number = if new { count as u32 } else { held };
            if self.hashes[number as usize] == hash && self.tables[number as usize] == table {
                self.slots[at] = number;
                self.count = count + usize::from(new);
                return number;
            }
            at = (at + 1) & self.mask;
        }
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
            let numbers = seen.map(|(table, hash)| distinct.number(table, hash + turn));
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
        let numbers: Vec<u32> = (0..2000u64)
            .map(|i| distinct.number(0, (i % 1000) << 32))
            .collect();
        assert!((0..2000).all(|i| numbers[i as usize] == i % 1000));
    }
}
