//! Weights by raw key, for scoring: an open-addressing table, read only once built.

use rayon::prelude::*;

use crate::fields::check_lists;
use crate::{Result, invalid};

pub struct KeyTable {
    slots: Vec<(u64, f64)>,
    used: Vec<bool>,
    mask: usize,
}

fn mix(key: u64) -> u64 {
    // The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
    let mut x = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl KeyTable {
    pub fn new(keys: &[u64], weights: &[f64]) -> Result<KeyTable> {
        if keys.len() != weights.len() {
            return invalid("there must be as many weights as keys");
        }
        let size = (keys.len() * 2).next_power_of_two().max(2);
        let mut table = KeyTable {
            slots: vec![(0, 0.0); size],
            used: vec![false; size],
            mask: size - 1,
        };
        for (&key, &weight) in keys.iter().zip(weights) {
            let at = table.place(key);
            if table.used[at] {
                return invalid(format!("key {key} stands twice"));
            }
            table.used[at] = true;
            table.slots[at] = (key, weight);
        }
        Ok(table)
    }

    fn place(&self, key: u64) -> usize {
        let mut at = mix(key) as usize & self.mask;
        while self.used[at] && self.slots[at].0 != key {
            at = (at + 1) & self.mask;
        }
        at
    }

    /// The weight of `key`, 0 where it is unknown.
    pub fn get(&self, key: u64) -> f64 {
        self.slots[self.place(key)].1
    }

    /// `margins[row] += sum of weight * value over the row's keys`, in the order they stand in.
    pub fn add(
        &self,
        offsets: &[i64],
        keys: &[u64],
        values: Option<&[f32]>,
        margins: &mut [f64],
    ) -> Result<()> {
        if check_lists(offsets, keys.len(), values)? != margins.len() {
            return invalid("the keys have another number of rows than the margins");
        }
        for (row, margin) in margins.iter_mut().enumerate() {
            for at in offsets[row] as usize..offsets[row + 1] as usize {
                *margin += self.get(keys[at]) * values.map_or(1.0, |v| f64::from(v[at]));
            }
        }
        Ok(())
    }
}

/// The distinct keys, ascending, and each key's place among them.
pub fn compact(keys: &[u64]) -> Result<(Vec<u64>, Vec<u32>)> {
    if keys.len() >= u32::MAX as usize {
        return invalid(format!("{} keys are more than one model takes", keys.len()));
    }
    let mut distinct = keys.to_vec();
    distinct.par_sort_unstable();
    distinct.dedup();
    let places: Vec<f64> = (0..distinct.len()).map(|i| i as f64).collect();
    let table = KeyTable::new(&distinct, &places)?;
    // Places are below 2^32, so they pass through f64 unchanged.
    Ok((
        distinct,
        keys.par_iter().map(|&key| table.get(key) as u32).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_weigh_and_unknown_ones_do_not() {
        let keys: Vec<u64> = (0..1000).map(|k| k * k).collect();
        let weights: Vec<f64> = (0..1000).map(|k| k as f64).collect();
        let table = KeyTable::new(&keys, &weights).unwrap();
        let mut margins = vec![1.0, 0.0];
        table
            .add(&[0, 3, 3], &[0, 9, 5], Some(&[1.0, 2.0, 1.0]), &mut margins)
            .unwrap();
        assert_eq!(margins, [7.0, 0.0]);
        assert!(KeyTable::new(&[1, 1], &[0.0, 0.0]).is_err());
    }
}
