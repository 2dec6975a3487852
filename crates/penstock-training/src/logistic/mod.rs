//! Elastic-net logistic regression over fields of sparse columns.
//!
//! Minimises `sum_i s_i log(1 + exp(-y_i m_i)) + sum_j (l1 |w_j| + l2_f / 2 (w_j - prior_j)^2)`, the bias free, by
//! newGLMNET (Yuan, Ho, Lin, JMLR 2012): an outer Newton step whose quadratic model is minimised by coordinate
//! descent, then a line search. The columns of a single-key field are orthogonal, so a whole field steps at once.
//! Here stand the outer step and the line search; `descent` minimises the model, `loss` sums over the rows.

mod descent;
mod loss;

use rayon::prelude::*;

use self::descent::Direction;
use self::loss::{derivatives, loss};
use crate::fields::{Entries, Field};
use crate::{Result, TrainError, invalid};

/// How strongly a fit is held back, and when it is done.
#[derive(Clone, Debug)]
pub struct Penalty {
    pub l1: f64,
    /// L2 per field, in field order: the inverse variance of the prior of its weights.
    pub l2: Vec<f64>,
}

/// One outer iteration, told to the caller's progress function.
pub struct Step {
    pub iteration: usize,
    pub objective: f64,
}

/// The design matrix and, after `fit`, the weights; a second `fit` starts from the first one's weights.
pub struct Logistic {
    rows: usize,
    fields: Vec<Field>,
    priors: Vec<Vec<f64>>,
    weights: Vec<Vec<f64>>,
    bias: f64,
    margins: Vec<f64>,
}

const MAX_ITERATIONS: usize = 40;

impl Logistic {
    pub fn new(rows: usize) -> Result<Logistic> {
        if rows >= u32::MAX as usize {
            return invalid(format!("{rows} rows are more than one model takes"));
        }
        Ok(Logistic {
            rows,
            fields: vec![],
            priors: vec![],
            weights: vec![],
            bias: 0.0,
            margins: vec![0.0; rows],
        })
    }

    /// Add a field; its weights start at `prior`, and L2 pulls them there (zeros where not given).
    pub fn add(&mut self, field: Field, prior: Option<Vec<f64>>) -> Result<()> {
        let prior = prior.unwrap_or_else(|| vec![0.0; field.size]);
        let rows = match &field.entries {
            Entries::Codes(codes) => codes.len(),
            Entries::Single { codes, .. } => codes.len(),
            Entries::Many(columns) => columns.rows.iter().max().map_or(0, |&r| r as usize + 1),
        };
        if prior.len() != field.size || rows > self.rows {
            return invalid("a field does not fit the problem's rows or its prior");
        }
        field.add_rows(&prior, None, &mut self.margins);
        self.weights.push(prior.clone());
        self.priors.push(prior);
        self.fields.push(field);
        Ok(())
    }

    pub fn bias(&self) -> f64 {
        self.bias
    }

    pub fn keys(&self, field: usize) -> &[u64] {
        &self.fields[field].keys
    }

    pub fn weights(&self, field: usize) -> &[f64] {
        &self.weights[field]
    }

    pub fn fields(&self) -> usize {
        self.fields.len()
    }

    /// The margin of every row under the present weights, those of sample weight 0 included.
    pub fn margins(&self) -> &[f64] {
        &self.margins
    }

    /// Fit to `labels` (0 or 1) with sample weights; stop when an iteration lowers the objective by less than
    /// `tolerance` of it. Returns the objective. `progress` returns false to stop with `TrainError::Stopped`.
    pub fn fit(
        &mut self,
        labels: &[f64],
        sample: &[f64],
        penalty: &Penalty,
        tolerance: f64,
        mut progress: impl FnMut(&Step) -> bool,
    ) -> Result<f64> {
        if labels.len() != self.rows
            || sample.len() != self.rows
            || penalty.l2.len() != self.fields.len()
        {
            return invalid("labels, sample weights or penalties do not match the problem");
        }
        if !(penalty.l1 >= 0.0 && penalty.l2.iter().all(|&l| l >= 0.0 && l.is_finite())) {
            return invalid("penalties must be finite and not negative");
        }
        let mut objective = loss(&self.margins, labels, sample) + self.penalty(penalty, 0.0, &[]);
        for iteration in 1..=MAX_ITERATIONS {
            let before = objective;
            let direction = self.direction(labels, sample, penalty);
            let Some(after) = self.step(&direction, labels, sample, penalty, before) else {
                break;
            };
            objective = after;
            if !progress(&Step {
                iteration,
                objective,
            }) {
                return Err(TrainError::Stopped);
            }
            if before - after <= tolerance * before.abs() {
                break;
            }
        }
        Ok(objective)
    }

    /// Go along `direction` as far as the objective really falls (Armijo); None where it does not fall at all.
    fn step(
        &mut self,
        direction: &Direction,
        labels: &[f64],
        sample: &[f64],
        penalty: &Penalty,
        before: f64,
    ) -> Option<f64> {
        let (slope, _) = derivatives(&self.margins, labels, sample);
        let linear: f64 = slope
            .iter()
            .zip(&direction.margins)
            .map(|(s, m)| s * m)
            .sum();
        let expected =
            linear + self.penalty(penalty, 1.0, &direction.moves) - self.penalty(penalty, 0.0, &[]);
        let mut length = 1.0;
        for _ in 0..20 {
            let trial: Vec<f64> = self
                .margins
                .par_iter()
                .zip(&direction.margins)
                .map(|(m, d)| m + length * d)
                .collect();
            let after =
                loss(&trial, labels, sample) + self.penalty(penalty, length, &direction.moves);
            if after.is_finite() && after <= before + 0.01 * length * expected.min(0.0) {
                self.margins = trial;
                self.bias += length * direction.bias;
                for (weights, moves) in self.weights.iter_mut().zip(&direction.moves) {
                    for (w, m) in weights.iter_mut().zip(moves) {
                        *w += length * m;
                    }
                }
                return Some(after);
            }
            length *= 0.5;
        }
        None
    }

    /// The penalty at `weights + length * moves` (`moves` empty: at the weights).
    fn penalty(&self, penalty: &Penalty, length: f64, moves: &[Vec<f64>]) -> f64 {
        let mut total = 0.0;
        for f in 0..self.fields.len() {
            let (weights, prior) = (&self.weights[f], &self.priors[f]);
            for j in 0..weights.len() {
                let w = weights[j] + moves.get(f).map_or(0.0, |m| length * m[j]);
                total += penalty.l1 * w.abs() + 0.5 * penalty.l2[f] * (w - prior[j]).powi(2);
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::loss::ordered_sum;
    use super::*;
    use crate::fields::Power;

    fn noise(state: &mut u64) -> f64 {
        *state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (*state >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Rows with one code, one key, and a list of two weighted keys.
    fn problem(rows: usize) -> (Logistic, Vec<f64>) {
        let mut state = 7;
        let codes: Vec<u16> = (0..rows)
            .map(|_| (noise(&mut state) * 5.0) as u16)
            .collect();
        let keys: Vec<u64> = (0..rows)
            .map(|_| (noise(&mut state) * 9000.0) as u64)
            .collect();
        let many: Vec<u64> = (0..2 * rows)
            .map(|_| (noise(&mut state) * 40.0) as u64)
            .collect();
        let values: Vec<f32> = (0..2 * rows)
            .map(|_| noise(&mut state) as f32 + 0.5)
            .collect();
        let labels = (0..rows)
            .map(|i| {
                f64::from(
                    noise(&mut state)
                        < 0.2 + 0.1 * f64::from(codes[i]) + 0.2 * (many[2 * i] % 2) as f64,
                )
            })
            .collect();
        let ones: Vec<i64> = (0..=rows as i64).collect();
        let twos: Vec<i64> = (0..=rows as i64).map(|i| 2 * i).collect();
        let mut problem = Logistic::new(rows).unwrap();
        problem
            .add(Field::codes(codes.clone(), 5).unwrap(), Some(vec![0.1; 5]))
            .unwrap();
        problem
            .add(Field::keys(&ones, &keys, None).unwrap(), None)
            .unwrap();
        problem
            .add(Field::keys(&twos, &many, Some(&values)).unwrap(), None)
            .unwrap();
        (problem, labels)
    }

    fn fit(threads: usize, l1: f64) -> (Logistic, Vec<f64>) {
        let (mut problem, labels) = problem(100_000);
        let sample = vec![1.0; labels.len()];
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let penalty = Penalty {
            l1,
            l2: vec![1.0, 2.0, 3.0],
        };
        pool.install(|| problem.fit(&labels, &sample, &penalty, 1e-12, |_| true))
            .unwrap();
        (problem, labels)
    }

    #[test]
    fn the_gradient_vanishes_at_the_fit() {
        let (problem, labels) = fit(2, 0.0);
        let (slope, _) = derivatives(&problem.margins, &labels, &vec![1.0; labels.len()]);
        assert!(ordered_sum(&slope).abs() < 0.1, "{}", ordered_sum(&slope));
        for (f, l2) in [1.0, 2.0, 3.0].into_iter().enumerate() {
            let sums = problem.fields[f].column_sums(&slope, Power::One);
            for (j, sum) in sums.iter().enumerate() {
                assert!(
                    (sum + l2 * (problem.weights[f][j] - problem.priors[f][j])).abs() < 1e-2,
                    "{f} {j} {sum}"
                );
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (one, _) = fit(1, 0.5);
        let (three, _) = fit(3, 0.5);
        assert_eq!(one.weights, three.weights);
        assert_eq!(one.bias.to_bits(), three.bias.to_bits());
    }

    #[test]
    fn l1_leaves_few_weights() {
        let (problem, _) = fit(2, 3.0);
        let kept = problem.weights[1].iter().filter(|w| **w != 0.0).count();
        assert!(
            kept < problem.weights[1].len() / 10,
            "{kept} of {}",
            problem.weights[1].len()
        );
    }

    #[test]
    fn stopping_is_an_error_of_its_own() {
        let (mut problem, labels) = problem(100);
        let penalty = Penalty {
            l1: 0.0,
            l2: vec![1.0; 3],
        };
        let stopped = problem.fit(&labels, &[1.0; 100], &penalty, 1e-9, |_| false);
        assert!(matches!(stopped, Err(TrainError::Stopped)));
    }
}
