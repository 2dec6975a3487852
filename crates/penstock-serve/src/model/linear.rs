//! Models without a graph: tree ensembles with weights beside them, and support vector machines; `online.rs` has those over
//! raw keys. Scores are probabilities of label 1.

use std::path::Path;

use serde::Deserialize;

use super::Stopper;
use super::manifest::{broken, text};
use super::matrix::Matrix;
use super::trees::Trees;
use super::weights::{Rows, Weights};
use crate::error::Result;

/// A standardised number beyond this counts as this (training/online_scorer.py).
const FARTHEST: f64 = 10.0;
const KEYS: &str = "keys.parquet";

pub(super) fn sigmoid(margin: f64) -> f64 {
    1.0 / (1.0 + (-margin).exp())
}

// --- trees, and trees with a regression over keys ---

#[derive(Deserialize)]
pub(super) struct TreesForm {
    #[serde(default)]
    bias: f64,
    #[serde(default)]
    fields: usize,
    #[serde(default)]
    over_keys: bool,
    /// Trained on one unnamed matrix: the tensor it takes.
    pub input: Option<InputForm>,
}

#[derive(Deserialize)]
pub(super) struct InputForm {
    pub name: String,
    pub width: usize,
}

pub(super) struct TreeScorer {
    trees: Trees,
    bias: f64,
    weights: Weights,
    /// Field by field the keys that are columns, ascending, where the trees split on keys.
    columns: Option<Vec<Vec<u64>>>,
}

impl TreeScorer {
    pub fn open(folder: &Path, form: &TreesForm, width: usize, fields: usize) -> Result<Self> {
        let trees = Trees::parse(&text(folder, "trees.txt")?)
            .map_err(|fault| broken(folder, fault.message))?;
        let columns = match form.over_keys {
            false => None,
            true => {
                let rows = Rows::read(folder, "columns.parquet")?;
                let keys = rows.keys()?.values();
                let bounds = rows.bounds(fields)?;
                let parts = bounds.windows(2).map(|at| keys[at[0]..at[1]].to_vec());
                Some(parts.collect::<Vec<_>>())
            }
        };
        let given = match &columns {
            Some(columns) => columns.iter().map(Vec::len).sum(),
            None => width,
        };
        if trees.features > given {
            let said = format!("its trees read {} columns of {given}", trees.features);
            return Err(broken(folder, said));
        }
        Ok(TreeScorer {
            weights: Weights::read(folder, KEYS, form.fields)?,
            bias: form.bias,
            trees,
            columns,
        })
    }

    pub fn classes(&self) -> usize {
        self.trees.classes
    }

    /// [rows, classes].
    pub fn scores(&self, matrix: &Matrix, stopper: &Stopper) -> Result<Vec<f64>> {
        let classes = self.trees.classes;
        let mut out = vec![0.0; matrix.rows * classes];
        let mut wide = self
            .columns
            .as_ref()
            .map(|columns| vec![0.0; columns.iter().map(Vec::len).sum()]);
        for (row, scores) in out.chunks_exact_mut(classes).enumerate() {
            stopper.check()?;
            match (&self.columns, &mut wide) {
                (Some(columns), Some(wide)) => {
                    let touched = spread(columns, matrix, row, wide);
                    self.trees.add(wide, scores);
                    touched.iter().for_each(|&at| wide[at] = 0.0);
                }
                _ => self.trees.add(matrix.row(row), scores),
            }
            scores.iter_mut().for_each(|score| *score += self.bias);
        }
        self.weights.add(&matrix.fields, &mut out)?;
        for scores in out.chunks_exact_mut(classes) {
            self.trees.link.apply(scores);
        }
        Ok(out)
    }
}

/// Writes a row's keys into their columns, a key twice added up in f32 as SciPy does. Returns which were written.
fn spread(columns: &[Vec<u64>], matrix: &Matrix, row: usize, wide: &mut [f64]) -> Vec<usize> {
    let (mut touched, mut first) = (vec![], 0);
    for (known, keys) in columns.iter().zip(&matrix.fields) {
        let (keys, values) = keys.row(row);
        for (place, key) in keys.iter().enumerate() {
            if let Ok(at) = known.binary_search(key) {
                let sum = wide[first + at] as f32 + values.map_or(1.0, |v| v[place]);
                wide[first + at] = f64::from(sum);
                touched.push(first + at);
            }
        }
        first += known.len();
    }
    touched
}

// --- support vector machines ---

#[derive(Deserialize, PartialEq)]
pub(super) struct Scaled {
    mean: f64,
    scale: f64,
    #[serde(default)]
    weight: f64,
}

#[derive(Deserialize)]
pub(super) struct MachineForm {
    bias: f64,
    platt: (f64, f64),
    fields: usize,
    numbers: Vec<Scaled>,
}

pub(super) struct MachineScorer {
    form: MachineForm,
    weights: Weights,
}

impl MachineScorer {
    pub fn open(folder: &Path, form: MachineForm) -> Result<Self> {
        let weights = Weights::read(folder, KEYS, form.fields)?;
        Ok(MachineScorer { form, weights })
    }

    pub fn scores(&self, matrix: &Matrix) -> Result<Vec<f64>> {
        let mut out = vec![self.form.bias; matrix.rows];
        for (row, margin) in out.iter_mut().enumerate() {
            for (own, x) in self.form.numbers.iter().zip(matrix.row(row)) {
                let x = (x - own.mean) / own.scale;
                *margin += own.weight * if x.is_finite() { x } else { 0.0 };
            }
        }
        self.weights.add(&matrix.fields, &mut out)?;
        let (a, b) = self.form.platt;
        out.iter_mut().for_each(|m| *m = sigmoid(a * *m + b));
        Ok(out)
    }
}

/// [rows, numbers] f32, standardised and clipped; what is missing counts as the mean.
pub(super) fn standardised(numbers: &[Scaled], matrix: &Matrix) -> Vec<f32> {
    let mut out = Vec::with_capacity(matrix.rows * numbers.len());
    for row in 0..matrix.rows {
        out.extend(numbers.iter().zip(matrix.row(row)).map(|(own, x)| {
            let x = ((x - own.mean) / own.scale).clamp(-FARTHEST, FARTHEST);
            if x.is_finite() { x as f32 } else { 0.0 }
        }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const TREES: &str = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=0\n\
        objective=binary sigmoid:1\n\nTree=0\nnum_leaves=2\nnum_cat=0\nsplit_feature=0\nthreshold=0.5\n\
        decision_type=2\nleft_child=-1\nright_child=-2\nleaf_value=-1 1\n\nend of trees\n";

    #[test]
    fn a_run_over_many_rows_ends_when_it_is_stopped() {
        let scorer = TreeScorer {
            trees: Trees::parse(TREES).expect("trees"),
            bias: 0.0,
            weights: Weights::read(Path::new("nowhere"), KEYS, 0).expect("no fields, no file"),
            columns: None,
        };
        let mut matrix = Matrix::new(1, 0);
        (matrix.numbers, matrix.rows) = (vec![1.0; 1_000], 1_000);
        let stopper = Stopper {
            stopped: Default::default(),
            run: None,
        };
        let scores = scorer.scores(&matrix, &stopper).expect("scores");
        assert_eq!(scores, vec![sigmoid(1.0); 1_000]);
        stopper.stop();
        let late = scorer.scores(&matrix, &stopper).expect_err("stopped");
        assert_eq!(late.kind, Kind::Late);
        stopper.reset();
        assert!(scorer.scores(&matrix, &stopper).is_ok());
    }
}
