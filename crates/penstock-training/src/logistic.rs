//! Elastic-net logistic regression over fields of sparse columns.
//!
//! Minimises `sum_i s_i log(1 + exp(-y_i m_i)) + sum_j (l1 |w_j| + l2_f / 2 (w_j - prior_j)^2)`, the bias free, by
//! newGLMNET (Yuan, Ho, Lin, JMLR 2012): an outer Newton step whose quadratic model is minimised by coordinate
//! descent, then a line search. The columns of a single-key field are orthogonal, so a whole field steps at once.

use rayon::prelude::*;

use crate::fields::{CHUNK, Entries, Field, Power};
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
const MAX_SWEEPS: usize = 8;

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

    /// Minimise the quadratic model around the present weights by coordinate descent.
    fn direction(&self, labels: &[f64], sample: &[f64], penalty: &Penalty) -> Direction {
        let (mut slope, curve) = derivatives(&self.margins, labels, sample);
        let curvature: Vec<Vec<f64>> = self
            .fields
            .iter()
            .map(|f| f.column_sums(&curve, Power::Two))
            .collect();
        let total_curve = ordered_sum(&curve).max(f64::MIN_POSITIVE);
        let mut moves: Vec<Vec<f64>> = self.fields.iter().map(|f| vec![0.0; f.size]).collect();
        let mut bias = 0.0;
        let mut first = f64::NAN;
        for _ in 0..MAX_SWEEPS {
            let step = -ordered_sum(&slope) / total_curve;
            bias += step;
            slope
                .par_iter_mut()
                .zip(&curve)
                .with_min_len(CHUNK)
                .for_each(|(s, c)| *s += c * step);
            let mut gain = step * step * total_curve;
            for (f, field) in self.fields.iter().enumerate() {
                let coordinate = Coordinates {
                    l1: penalty.l1,
                    l2: penalty.l2[f],
                    weights: &self.weights[f],
                    prior: &self.priors[f],
                    curvature: &curvature[f],
                };
                gain += sweep(field, &coordinate, &mut moves[f], &mut slope, &curve);
            }
            if first.is_nan() {
                first = gain;
            }
            if gain <= 0.01 * first {
                break;
            }
        }
        let mut margins = vec![bias; self.rows];
        for (field, moves) in self.fields.iter().zip(&moves) {
            field.add_rows(moves, None, &mut margins);
        }
        Direction {
            bias,
            moves,
            margins,
        }
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

struct Direction {
    bias: f64,
    moves: Vec<Vec<f64>>,
    margins: Vec<f64>,
}

/// What one field's coordinate steps need to know.
struct Coordinates<'a> {
    l1: f64,
    l2: f64,
    weights: &'a [f64],
    prior: &'a [f64],
    curvature: &'a [f64],
}

impl Coordinates<'_> {
    /// The move that minimises the model along column `j`, given its slope there and what it has moved so far.
    fn best(&self, j: usize, slope: f64, moved: f64) -> f64 {
        let curve = self.curvature[j] + self.l2;
        if curve <= 0.0 {
            return 0.0;
        }
        let at = self.weights[j] + moved;
        let slope = slope + self.l2 * (at - self.prior[j]);
        // Soft thresholding: the minimum of slope*z + curve/2*z^2 + l1*|at + z|.
        let target = at - slope / curve;
        let shrunk = (target.abs() - self.l1 / curve).max(0.0).copysign(target);
        shrunk - at
    }
}

/// One pass over a field's columns; `slope` keeps the model's derivative by row. Returns what it gained.
fn sweep(
    field: &Field,
    best: &Coordinates,
    moves: &mut [f64],
    slope: &mut [f64],
    curve: &[f64],
) -> f64 {
    let gain = |j: usize, step: f64| step * step * (best.curvature[j] + best.l2);
    match &field.entries {
        Entries::Codes(_) | Entries::Single { .. } => {
            let sums = field.column_sums(slope, Power::One);
            let steps: Vec<f64> = (0..field.size)
                .into_par_iter()
                .with_min_len(4096)
                .map(|j| best.best(j, sums[j], moves[j]))
                .collect();
            field.add_rows(&steps, Some(curve), slope);
            let mut total = 0.0;
            for (j, step) in steps.into_iter().enumerate() {
                moves[j] += step;
                total += gain(j, step);
            }
            total
        }
        Entries::Many(columns) => {
            let mut total = 0.0;
            for (j, moved) in moves.iter_mut().enumerate() {
                let step = best.best(j, columns.sum(j, slope, Power::One), *moved);
                if step != 0.0 {
                    columns.add(j, step, Some(curve), slope);
                    *moved += step;
                    total += gain(j, step);
                }
            }
            total
        }
    }
}

/// The first and second derivative of each row's loss by its margin.
fn derivatives(margins: &[f64], labels: &[f64], sample: &[f64]) -> (Vec<f64>, Vec<f64>) {
    (0..margins.len())
        .into_par_iter()
        .with_min_len(4096)
        .map(|i| {
            let p = 1.0 / (1.0 + (-margins[i]).exp());
            (sample[i] * (p - labels[i]), sample[i] * (p * (1.0 - p)))
        })
        .unzip()
}

fn loss(margins: &[f64], labels: &[f64], sample: &[f64]) -> f64 {
    let partials: Vec<f64> = margins
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(chunk, margins)| {
            let start = chunk * CHUNK;
            let row = |(k, &m): (usize, &f64)| {
                let i = start + k;
                // log(1 + exp(m)) - t m, without overflow.
                sample[i] * (m.max(0.0) + (-m.abs()).exp().ln_1p() - labels[i] * m)
            };
            margins.iter().enumerate().map(row).sum()
        })
        .collect();
    partials.iter().sum()
}

fn ordered_sum(values: &[f64]) -> f64 {
    let partials: Vec<f64> = values.par_chunks(CHUNK).map(|c| c.iter().sum()).collect();
    partials.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

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
