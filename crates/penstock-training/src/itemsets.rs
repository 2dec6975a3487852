//! Frequent itemsets by FP-growth.

use rayon::prelude::*;

use crate::fptree::{Tree, Work};
use crate::{Result, TrainError, invalid};

/// Itemsets in flat form: set `i` is `items[offsets[i]..offsets[i + 1]]`, ascending, held by `counts[i]` baskets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Itemsets {
    pub offsets: Vec<i64>,
    pub items: Vec<u32>,
    pub counts: Vec<u64>,
}

impl Itemsets {
    fn new() -> Itemsets {
        Itemsets {
            offsets: vec![0],
            items: vec![],
            counts: vec![],
        }
    }

    pub(crate) fn push(&mut self, items: &[u32], count: u64) {
        self.items.extend_from_slice(items);
        self.offsets.push(self.items.len() as i64);
        self.counts.push(count);
    }

    pub fn len(&self) -> usize {
        self.counts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub fn get(&self, i: usize) -> &[u32] {
        &self.items[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }
}

/// Limits of a search. `max_length` 0 means any length; more than `max_sets` sets are an error, not an answer.
#[derive(Clone, Copy)]
pub struct Limits {
    pub min_count: u64,
    pub max_length: usize,
    pub max_sets: usize,
}

/// Every set of items that at least `min_count` baskets hold; an item twice in a basket counts once.
///
/// Basket `i` is `items[offsets[i]..offsets[i + 1]]`, items in `0..size`. The order of the answer is fixed.
pub fn mine(offsets: &[i64], items: &[u32], size: usize, limits: Limits) -> Result<Itemsets> {
    let baskets = crate::fields::check_lists(offsets, items.len(), None)?;
    if items.iter().any(|&i| i as usize >= size) {
        return invalid(format!("an item is outside 0..{size}"));
    }
    if limits.min_count == 0 {
        return invalid("the least count is at least 1");
    }
    let (flat, spans, order) = ranked(offsets, items, size, baskets, limits.min_count);
    let mut paths: Vec<(u32, u32)> = spans;
    let path = |&(start, end): &(u32, u32)| &flat[start as usize..end as usize];
    paths.par_sort_unstable_by(|a, b| path(a).cmp(path(b)));
    let tree = Tree::from_sorted(order.len(), paths.iter().map(|p| (path(p), 1)));

    // One task an item: its sets are found apart from all others, and are put together in item order.
    let found: Vec<Result<Itemsets>> = (0..order.len() as u32)
        .into_par_iter()
        .with_max_len(1)
        .map(|item| {
            let mut search = Search {
                limits,
                order: &order,
                found: Itemsets::new(),
                work: Work::default(),
            };
            search.grow(
                &tree,
                item,
                &mut Vec::new(),
                &(0..order.len() as u32).collect::<Vec<_>>(),
            )?;
            Ok(search.found)
        })
        .collect();
    let mut all = Itemsets::new();
    for part in found {
        let part = part?;
        for i in 0..part.len() {
            all.push(part.get(i), part.counts[i]);
        }
        if all.len() > limits.max_sets {
            return too_many(limits.max_sets);
        }
    }
    Ok(all)
}

fn too_many<T>(most: usize) -> Result<T> {
    Err(TrainError::Invalid(format!(
        "there are more than {most} frequent itemsets"
    )))
}

/// Baskets as ascending ranks of frequent items, without repeats; and rank -> item.
fn ranked(
    offsets: &[i64],
    items: &[u32],
    size: usize,
    baskets: usize,
    min_count: u64,
) -> (Vec<u32>, Vec<(u32, u32)>, Vec<u32>) {
    let mut counts = vec![0_u64; size];
    let mut last = vec![usize::MAX; size];
    for basket in 0..baskets {
        for &item in &items[offsets[basket] as usize..offsets[basket + 1] as usize] {
            if last[item as usize] != basket {
                last[item as usize] = basket;
                counts[item as usize] += 1;
            }
        }
    }
    let mut order: Vec<u32> = (0..size as u32)
        .filter(|&i| counts[i as usize] >= min_count)
        .collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(counts[i as usize]), i));
    let mut rank = vec![u32::MAX; size];
    for (r, &item) in order.iter().enumerate() {
        rank[item as usize] = r as u32;
    }
    let mut flat = Vec::with_capacity(items.len());
    let mut spans = Vec::with_capacity(baskets);
    let mut basket_ranks: Vec<u32> = Vec::new();
    for basket in 0..baskets {
        basket_ranks.clear();
        let held = &items[offsets[basket] as usize..offsets[basket + 1] as usize];
        basket_ranks.extend(
            held.iter()
                .map(|&i| rank[i as usize])
                .filter(|&r| r != u32::MAX),
        );
        basket_ranks.sort_unstable();
        basket_ranks.dedup();
        if !basket_ranks.is_empty() {
            let start = flat.len() as u32;
            flat.extend_from_slice(&basket_ranks);
            spans.push((start, flat.len() as u32));
        }
    }
    (flat, spans, order)
}

struct Search<'a> {
    limits: Limits,
    /// rank -> item.
    order: &'a [u32],
    found: Itemsets,
    work: Work,
}

impl Search<'_> {
    /// Report `suffix` with `item` of `tree`, then every longer set that `tree` holds above it.
    ///
    /// `names`: rank in `tree` -> rank in the whole; `suffix` holds ranks in the whole.
    fn grow(&mut self, tree: &Tree, item: u32, suffix: &mut Vec<u32>, names: &[u32]) -> Result<()> {
        suffix.push(names[item as usize]);
        self.report(suffix, tree.counts[item as usize])?;
        if self.limits.max_length == 0 || suffix.len() < self.limits.max_length {
            let (above, kept) = tree.conditional(item, self.limits.min_count, &mut self.work);
            let names: Vec<u32> = kept.iter().map(|&k| names[k as usize]).collect();
            for next in 0..names.len() as u32 {
                self.grow(&above, next, suffix, &names)?;
            }
        }
        suffix.pop();
        Ok(())
    }

    fn report(&mut self, ranks: &[u32], count: u64) -> Result<()> {
        let mut items: Vec<u32> = ranks.iter().map(|&r| self.order[r as usize]).collect();
        items.sort_unstable();
        self.found.push(&items, count);
        if self.found.len() > self.limits.max_sets {
            too_many(self.limits.max_sets)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn as_map(sets: &Itemsets) -> BTreeMap<Vec<u32>, u64> {
        (0..sets.len())
            .map(|i| (sets.get(i).to_vec(), sets.counts[i]))
            .collect()
    }

    /// All subsets, counted one by one.
    fn by_force(
        baskets: &[Vec<u32>],
        size: u32,
        min_count: u64,
        max_length: u32,
    ) -> BTreeMap<Vec<u32>, u64> {
        let mut found = BTreeMap::new();
        for mask in 1_u32..1 << size {
            if mask.count_ones() > max_length {
                continue;
            }
            let set: Vec<u32> = (0..size).filter(|i| mask >> i & 1 == 1).collect();
            let count = baskets
                .iter()
                .filter(|b| set.iter().all(|i| b.contains(i)))
                .count() as u64;
            if count >= min_count {
                found.insert(set, count);
            }
        }
        found
    }

    #[test]
    fn the_answer_is_that_of_counting_every_subset() {
        let mut state = 3_u64;
        let mut draw = |n: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        for round in 0..30 {
            let baskets: Vec<Vec<u32>> = (0..60)
                .map(|_| {
                    (0..draw(9))
                        .map(|_| (draw(8) * draw(8) / 8) as u32)
                        .collect()
                })
                .collect();
            let mut offsets = vec![0_i64];
            let mut items = vec![];
            for basket in &baskets {
                items.extend(basket);
                offsets.push(items.len() as i64);
            }
            let min_count = 1 + round % 6;
            let max_length = if round % 2 == 0 { 0 } else { 3 };
            let limits = Limits {
                min_count,
                max_length,
                max_sets: 10_000,
            };
            let found = mine(&offsets, &items, 8, limits).unwrap();
            let expected = by_force(&baskets, 8, min_count, if max_length == 0 { 8 } else { 3 });
            assert_eq!(as_map(&found), expected);
            assert_eq!(found.len(), expected.len());
        }
    }

    #[test]
    fn too_many_sets_are_an_error() {
        let items: Vec<u32> = (0..20).collect();
        let limits = Limits {
            min_count: 1,
            max_length: 0,
            max_sets: 1000,
        };
        let error = mine(&[0, 20], &items, 20, limits).unwrap_err();
        assert!(error.to_string().contains("more than 1000"));
    }
}
