//! Linear support vector machine with hinge loss, by dual coordinate descent (Hsieh et al., ICML 2008).

use crate::{Result, TrainError, invalid};

/// Rows of a sparse matrix: row `i` is in `offsets[i]..offsets[i + 1]`.
pub struct Rows<'a> {
    pub offsets: &'a [i64],
    pub columns: &'a [u32],
    pub values: &'a [f32],
    /// Number of columns.
    pub size: usize,
}

pub struct Svm {
    pub weights: Vec<f64>,
    pub bias: f64,
    pub epochs: usize,
}

impl Rows<'_> {
    fn check(&self) -> Result<usize> {
        let rows = crate::fields::check_lists(self.offsets, self.columns.len(), Some(self.values))?;
        if self.columns.iter().any(|&c| c as usize >= self.size) {
            return invalid(format!("a column is outside 0..{}", self.size));
        }
        Ok(rows)
    }

    fn row(&self, i: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let span = self.offsets[i] as usize..self.offsets[i + 1] as usize;
        self.columns[span.clone()]
            .iter()
            .zip(&self.values[span])
            .map(|(&c, &v)| (c as usize, f64::from(v)))
    }

    fn dot(&self, i: usize, weights: &[f64]) -> f64 {
        self.row(i).map(|(c, v)| weights[c] * v).sum()
    }
}

/// Fit to `signs` (+1 or -1) with a cost per row (0 leaves the row out).
///
/// Rows are visited in an order drawn from `seed`; those stuck at a bound are skipped until the rest is solved.
/// `progress(epoch, violation)` returns false to stop with `TrainError::Stopped`.
pub fn fit(
    x: &Rows,
    signs: &[f64],
    costs: &[f64],
    seed: u64,
    tolerance: f64,
    max_epochs: usize,
    mut progress: impl FnMut(usize, f64) -> bool,
) -> Result<Svm> {
    let rows = x.check()?;
    if signs.len() != rows || costs.len() != rows {
        return invalid("labels or costs do not match the rows");
    }
    let squares: Vec<f64> = (0..rows)
        .map(|i| 1.0 + x.row(i).map(|(_, v)| v * v).sum::<f64>())
        .collect();
    let mut alpha = vec![0.0; rows];
    let (mut weights, mut bias) = (vec![0.0; x.size], 0.0);
    let all: Vec<usize> = (0..rows).filter(|&i| costs[i] > 0.0).collect();
    let mut active = all.clone();
    let (mut high, mut low) = (f64::INFINITY, f64::NEG_INFINITY);
    let mut state = seed;
    let mut epochs = 0;
    while epochs < max_epochs {
        epochs += 1;
        shuffle(&mut active, &mut state);
        let (mut worst, mut best) = (f64::NEG_INFINITY, f64::INFINITY);
        active.retain(|&i| {
            let (y, cost) = (signs[i], costs[i]);
            let gradient = y * (x.dot(i, &weights) + bias) - 1.0;
            let projected = if alpha[i] == 0.0 {
                if gradient > high {
                    return false;
                }
                gradient.min(0.0)
            } else if alpha[i] == cost {
                if gradient < low {
                    return false;
                }
                gradient.max(0.0)
            } else {
                gradient
            };
            worst = worst.max(projected);
            best = best.min(projected);
            if projected.abs() > 1e-12 {
                let old = alpha[i];
                alpha[i] = (old - gradient / squares[i]).clamp(0.0, cost);
                let change = (alpha[i] - old) * y;
                for (c, v) in x.row(i) {
                    weights[c] += change * v;
                }
                bias += change;
            }
            true
        });
        let violation = (worst - best).max(0.0);
        if !progress(epochs, violation) {
            return Err(TrainError::Stopped);
        }
        if violation <= tolerance {
            if active.len() == all.len() {
                break;
            }
            // Solved without the skipped rows: look at all of them once more.
            active.clone_from(&all);
            (high, low) = (f64::INFINITY, f64::NEG_INFINITY);
            continue;
        }
        high = if worst > 0.0 { worst } else { f64::INFINITY };
        low = if best < 0.0 { best } else { f64::NEG_INFINITY };
    }
    Ok(Svm {
        weights,
        bias,
        epochs,
    })
}

/// The margin of every row.
pub fn margins(x: &Rows, model: &Svm) -> Result<Vec<f64>> {
    let rows = x.check()?;
    Ok((0..rows)
        .map(|i| x.dot(i, &model.weights) + model.bias)
        .collect())
}

/// Platt's sigmoid: `(a, b)` such that `1 / (1 + exp(-(a * margin + b)))` fits the labels (Lin, Lin, Weng 2007).
pub fn platt(margins: &[f64], signs: &[f64], sample: &[f64]) -> Result<(f64, f64)> {
    if margins.len() != signs.len() || margins.len() != sample.len() {
        return invalid("margins, labels and weights differ in length");
    }
    let positives: f64 = signs
        .iter()
        .zip(sample)
        .filter(|(s, _)| **s > 0.0)
        .map(|(_, w)| w)
        .sum();
    let negatives: f64 = signs
        .iter()
        .zip(sample)
        .filter(|(s, _)| **s <= 0.0)
        .map(|(_, w)| w)
        .sum();
    // Targets a little inside 0 and 1, so that separable margins do not run to infinity.
    let (top, bottom) = (
        (positives + 1.0) / (positives + 2.0),
        1.0 / (negatives + 2.0),
    );
    let target = |i: usize| if signs[i] > 0.0 { top } else { bottom };
    let objective = |a: f64, b: f64| -> f64 {
        (0..margins.len())
            .map(|i| {
                let m = a * margins[i] + b;
                sample[i] * (m.max(0.0) + (-m.abs()).exp().ln_1p() - target(i) * m)
            })
            .sum()
    };
    let (mut a, mut b) = (0.0, ((positives + 1.0) / (negatives + 1.0)).ln());
    let mut value = objective(a, b);
    for _ in 0..100 {
        let (mut ga, mut gb, mut haa, mut hab, mut hbb) = (0.0, 0.0, 1e-12, 0.0, 1e-12);
        for i in 0..margins.len() {
            let p = 1.0 / (1.0 + (-(a * margins[i] + b)).exp());
            let (g, h) = (sample[i] * (p - target(i)), sample[i] * p * (1.0 - p));
            ga += g * margins[i];
            gb += g;
            haa += h * margins[i] * margins[i];
            hab += h * margins[i];
            hbb += h;
        }
        if ga.abs() < 1e-7 && gb.abs() < 1e-7 {
            break;
        }
        let det = haa * hbb - hab * hab;
        if det <= 0.0 {
            break;
        }
        let (da, db) = (-(hbb * ga - hab * gb) / det, -(haa * gb - hab * ga) / det);
        let slope = ga * da + gb * db;
        let mut length = 1.0;
        let better = loop {
            let tried = objective(a + length * da, b + length * db);
            if tried <= value + 1e-4 * length * slope {
                break Some(tried);
            }
            length *= 0.5;
            if length < 1e-10 {
                break None;
            }
        };
        let Some(tried) = better else { break };
        (a, b, value) = (a + length * da, b + length * db, tried);
    }
    Ok((a, b))
}

fn shuffle(order: &mut [usize], state: &mut u64) {
    for i in (1..order.len()).rev() {
        *state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let draw = ((*state >> 32) * (i as u64 + 1)) >> 32;
        order.swap(i, draw as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_margin_is_found_exactly() {
        // Two points at -1 and +1 on a line: w = 1, b = 0 is the hard-margin solution.
        let x = Rows {
            offsets: &[0, 1, 2],
            columns: &[0, 0],
            values: &[-1.0, 1.0],
            size: 1,
        };
        let model = fit(&x, &[-1.0, 1.0], &[100.0, 100.0], 1, 1e-8, 1000, |_, _| {
            true
        })
        .unwrap();
        assert!((model.weights[0] - 1.0).abs() < 1e-6 && model.bias.abs() < 1e-6);
        assert_eq!(margins(&x, &model).unwrap().len(), 2);
    }

    #[test]
    fn platt_recovers_a_sigmoid() {
        let margins: Vec<f64> = (0..2000).map(|i| f64::from(i % 41) / 10.0 - 2.0).collect();
        let signs: Vec<f64> = margins
            .iter()
            .enumerate()
            .map(|(i, m)| {
                let p = 1.0 / (1.0 + (-(2.0 * m + 0.5)).exp());
                if ((i / 41) as f64 + 0.5) / 48.8 < p {
                    1.0
                } else {
                    -1.0
                }
            })
            .collect();
        let (a, b) = platt(&margins, &signs, &vec![1.0; 2000]).unwrap();
        assert!((a - 2.0).abs() < 0.1 && (b - 0.5).abs() < 0.1, "{a} {b}");
    }
}
