//! Association rules: every split of a frequent itemset that is confident enough.

use std::collections::HashMap;

use crate::itemsets::Itemsets;
use crate::{Result, invalid};

/// Rule `i` says `antecedents.get(i) => consequents.get(i)`; the sets' counts are those of the whole set.
#[derive(Default)]
pub struct Rules {
    pub antecedents: Itemsets,
    pub consequents: Itemsets,
    pub confidence: Vec<f64>,
    pub lift: Vec<f64>,
}

/// Sets longer than this have too many splits to list.
const LONGEST: usize = 24;

/// All rules with `confidence >= min_confidence` out of `sets` (with all their subsets, as `mine` gives them).
///
/// confidence = count(set) / count(antecedent); lift = confidence / (count(consequent) / baskets).
pub fn rules(
    sets: &Itemsets,
    baskets: u64,
    min_confidence: f64,
    max_rules: usize,
) -> Result<Rules> {
    let counts: HashMap<&[u32], u64> = (0..sets.len())
        .map(|i| (sets.get(i), sets.counts[i]))
        .collect();
    let empty = || Itemsets {
        offsets: vec![0],
        ..Itemsets::default()
    };
    let mut found = Rules {
        antecedents: empty(),
        consequents: empty(),
        ..Rules::default()
    };
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for i in 0..sets.len() {
        let (set, count) = (sets.get(i), sets.counts[i]);
        if set.len() > LONGEST {
            return invalid(format!(
                "a frequent itemset has {} items: too many to split into rules",
                set.len()
            ));
        }
        for mask in 1_u32..(1 << set.len()) - 1 {
            left.clear();
            right.clear();
            for (bit, &item) in set.iter().enumerate() {
                if mask >> bit & 1 == 1 {
                    left.push(item)
                } else {
                    right.push(item)
                }
            }
            let (Some(&before), Some(&after)) =
                (counts.get(left.as_slice()), counts.get(right.as_slice()))
            else {
                return invalid("the itemsets do not hold all their subsets");
            };
            let confidence = count as f64 / before as f64;
            if confidence < min_confidence {
                continue;
            }
            found.antecedents.push(&left, count);
            found.consequents.push(&right, count);
            found.confidence.push(confidence);
            found.lift.push(confidence * baskets as f64 / after as f64);
            if found.lift.len() > max_rules {
                return invalid(format!("there are more than {max_rules} association rules"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::itemsets::{Limits, mine};

    #[test]
    fn beer_follows_diapers() {
        // 0 in three baskets of four, always with 1; 1 in all four.
        let limits = Limits {
            min_count: 1,
            max_length: 0,
            max_sets: 100,
        };
        let sets = mine(&[0, 2, 4, 6, 7], &[0, 1, 0, 1, 1, 0, 1], 2, limits).unwrap();
        let found = rules(&sets, 4, 0.8, 100).unwrap();
        assert_eq!(
            (found.antecedents.get(0), found.consequents.get(0)),
            (&[0][..], &[1][..])
        );
        assert_eq!(
            (found.confidence[0], found.lift[0], found.lift.len()),
            (1.0, 1.0, 1)
        );
    }
}
