//! Distinct keys, numbered in the order in which they first come.

use crate::hash::mix;

const EMPTY: u32 = u32::MAX;

/// Numbers of keys, from 0.
#[derive(Debug, Default, Clone)]
pub(crate) struct Numbering {
    /// Open addressing with steps of one; at most two thirds are in use. A power of two, or none where keys were adopted.
    slots: Vec<u32>,
    /// One place longer than there are keys: where a key is compared at before it is known to be new.
    keys: Vec<u64>,
    count: usize,
}

impl Numbering {
    pub fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.count = 0;
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn keys(&self) -> &[u64] {
        &self.keys[..self.count]
    }

    /// Takes distinct keys over while there are none: their numbers are their places.
    pub fn adopt(&mut self, keys: &[u64]) {
        debug_assert!(self.count == 0);
        self.slots.clear();
        self.keys.clear();
        self.keys.extend_from_slice(keys);
        self.count = keys.len();
    }

    /// Puts the number of each key behind `numbers`.
    pub fn number(&mut self, keys: impl ExactSizeIterator<Item = u64>, numbers: &mut Vec<u32>) {
        self.reserve(keys.len());
        let (slots, known) = (&mut self.slots[..], &mut self.keys[..]);
        let mask = slots.len() - 1;
        let mut count = self.count;
        numbers.extend(keys.map(|key| {
            // Put where it would be new, so that "new" and "there already" are one comparison: many of a batch's keys
            // are first ones, and nobody can guess which.
            known[count] = key;
            let mut at = mix(key) as usize;
            loop {
                let slot = &mut slots[at & mask];
                let new = *slot == EMPTY;
                let number = if new { count as u32 } else { *slot };
                if known[number as usize] == key {
                    *slot = number;
                    count += usize::from(new);
                    return number;
                }
                at += 1;
            }
        }));
        self.count = count;
    }

    /// Makes room for so many keys more.
    fn reserve(&mut self, more: usize) {
        let most = self.count + more;
        if self.keys.len() <= most {
            self.keys.resize(most + 1, 0);
        }
        let slots = (most + most / 2 + 2).next_power_of_two();
        if self.slots.len() < slots {
            self.slots.clear();
            self.slots.resize(slots, EMPTY);
            for number in 0..self.count {
                let mut at = mix(self.keys[number]) as usize;
                while self.slots[at & (slots - 1)] != EMPTY {
                    at += 1;
                }
                self.slots[at & (slots - 1)] = number as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbering: &mut Numbering, keys: &[u64]) -> Vec<u32> {
        let mut found = vec![];
        numbering.number(keys.iter().copied(), &mut found);
        found
    }

    #[test]
    fn numbers_follow_the_first_appearance_and_go_on() {
        let mut numbering = Numbering::default();
        for _ in 0..2 {
            assert_eq!(numbers(&mut numbering, &[7, 9, 7, 0, 9]), [0, 1, 0, 2, 1]);
            assert_eq!(numbers(&mut numbering, &[u64::MAX, 9]), [3, 1]);
            assert_eq!(numbering.keys(), [7, 9, 0, u64::MAX]);
            numbering.clear();
            assert_eq!(numbering.len(), 0);
        }
    }

    #[test]
    fn adopted_keys_have_their_places_as_numbers() {
        let mut numbering = Numbering::default();
        for _ in 0..2 {
            numbering.adopt(&[5, 3, 0]);
            assert_eq!(numbers(&mut numbering, &[0, 8, 5]), [2, 3, 0]);
            numbering.clear();
        }
    }

    #[test]
    fn growing_keeps_the_numbers() {
        let mut numbering = Numbering::default();
        for round in 0..50 {
            let keys: Vec<u64> = (0..100 * round).map(|i| (i % 1700) << 40).collect();
            let expected: Vec<u32> = (0..100 * round).map(|i| (i % 1700) as u32).collect();
            assert_eq!(numbers(&mut numbering, &keys), expected);
        }
    }
}
