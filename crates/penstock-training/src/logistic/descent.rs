//! The inner half of a Newton step: the quadratic model's minimum by coordinate descent, a field at a time.

use rayon::prelude::*;

use super::loss::{derivatives, ordered_sum};
use super::{Logistic, Penalty};
use crate::fields::{CHUNK, Entries, Field, Power};

const MAX_SWEEPS: usize = 8;

/// Where the model's minimum lies from the present weights.
pub(super) struct Direction {
    pub bias: f64,
    pub moves: Vec<Vec<f64>>,
    /// What the bias and the moves change each row's margin by.
    pub margins: Vec<f64>,
}

impl Logistic {
    /// Minimise the quadratic model around the present weights by coordinate descent.
    pub(super) fn direction(&self, labels: &[f64], sample: &[f64], penalty: &Penalty) -> Direction {
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
