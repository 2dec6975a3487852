//! How a version's scores are distributed, and how far from another's.

/// Of a score: its sign, its exponent and five bits of its mantissa; 3 % wide.
const BITS: u32 = 14;
/// Groups that the index is taken over: live's tenths.
const GROUPS: usize = 10;

#[derive(Clone, Debug)]
pub struct Scores {
    bins: Vec<u32>,
    total: u64,
}

impl Default for Scores {
    fn default() -> Scores {
        Scores {
            bins: vec![0; 1 << BITS],
            total: 0,
        }
    }
}

impl Scores {
    /// NaN is no score.
    pub fn add(&mut self, score: f32) {
        if !score.is_nan() {
            self.bins[(ordered(score) >> (32 - BITS)) as usize] += 1;
            self.total += 1;
        }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// The population stability index against `live`, over tenths of live's scores: sum (a - b) ln(a / b) of the shares.
    /// A thousandth is added to each share: an empty one has a logarithm, and a few rows beyond all of live's are no shift.
    pub fn stability_index(&self, live: &Scores) -> f64 {
        let mut groups: Vec<(u64, u64)> = Vec::with_capacity(GROUPS + 2);
        let (mut passed, mut ours, mut lives, mut tenth) = (0u64, 0u64, 0u64, 1u64);
        for (mine, theirs) in self.bins.iter().zip(&live.bins) {
            if passed == 0 && *theirs > 0 && ours > 0 {
                groups.push((ours, 0)); // below all of live's
                ours = 0;
            }
            ours += u64::from(*mine);
            lives += u64::from(*theirs);
            passed += u64::from(*theirs);
            if *theirs > 0 && passed * GROUPS as u64 >= live.total * tenth {
                groups.push((ours, lives));
                (ours, lives) = (0, 0);
                tenth = passed * GROUPS as u64 / live.total + 1;
            }
        }
        if ours > 0 {
            groups.push((ours, 0)); // beyond all of live's
        }
        let share = |count: u64, total: u64| {
            (count as f64 / total as f64 + 0.001) / (1.0 + 0.001 * groups.len() as f64)
        };
        let parts = groups.iter().map(|(ours, lives)| {
            let (a, b) = (share(*ours, self.total), share(*lives, live.total));
            (a - b) * (a / b).ln()
        });
        parts.sum()
    }
}

/// Bits that order as the floats do.
fn ordered(score: f32) -> u32 {
    let bits = score.to_bits();
    if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scores: impl Iterator<Item = f32>) -> Scores {
        let mut all = Scores::default();
        scores.for_each(|s| all.add(s));
        all
    }

    fn spread(from: f32, to: f32) -> Scores {
        of((0..10_000).map(|i| from + (to - from) * i as f32 / 10_000.0))
    }

    #[test]
    fn equal_scores_have_no_distance_and_moved_ones_have() {
        assert!(spread(0.0, 1.0).stability_index(&spread(0.0, 1.0)) < 1e-9);
        let near = spread(0.02, 1.02).stability_index(&spread(0.0, 1.0));
        assert!(near < 0.1, "{near}");
        let far = spread(0.5, 1.5).stability_index(&spread(0.0, 1.0));
        assert!(far > 1.0, "{far}");
    }

    #[test]
    fn one_constant_score_on_both_sides_is_no_shift_and_two_are() {
        let constant = |score: f32| of(std::iter::repeat_n(score, 2000));
        assert!(constant(0.3).stability_index(&constant(0.3)).abs() < 1e-9);
        assert!(constant(0.31).stability_index(&constant(0.3)) > 0.25);
        assert!(constant(0.29).stability_index(&constant(0.3)) > 0.25);
        let half = of((0..2000).map(|i| if i % 2 == 0 { 0.3 } else { 0.1 }));
        assert!(constant(0.9).stability_index(&half) > 0.25);
    }

    #[test]
    fn negative_scores_order_below_positive_ones_and_nan_is_none() {
        let orders = [-1e9, -1.0, -0.5, 0.0, 0.5, 1e9].map(ordered);
        assert!(orders.is_sorted());
        assert_eq!(of([f32::NAN, 1.0].into_iter()).total(), 1);
    }
}
