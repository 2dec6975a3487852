//! Regressions and factorisation machines over raw keys: rows by field and key, from a bundle, and what a chain lays over.
//! Scores are probabilities of label 1.

use std::path::Path;
use std::sync::Arc;

use penstock_training::online::{
    Columns, Factors, Model, Offsets, Optimizer, Rates, RowOut, Settings, Slot,
};
use serde::Deserialize;

use super::Options;
use super::linear::{Scaled, sigmoid, standardised};
use super::live::{Live, Position};
use super::manifest::{Manifest, broken};
use super::matrix::{Keys, Matrix};
use super::sides::OnlineSide;
use super::weights::Rows as Columnar;
use crate::error::{Fault, Result};

/// The part of a bundle's manifest that says what its rows are.
#[derive(Deserialize)]
pub(super) struct OnlineForm {
    rates: RatesForm,
    shared: bool,
    fields: usize,
    numbers: Vec<Scaled>,
}

#[derive(Deserialize)]
struct RatesForm {
    alpha: f64,
    beta: f64,
    l1: f64,
    l2: f64,
    #[serde(default)]
    rank: usize,
}

/// What two bundles must have alike for one's deltas to fit the other.
#[derive(PartialEq)]
struct Shape {
    rank: usize,
    shared: bool,
    fields: usize,
    numbers: Vec<Scaled>,
}

pub(super) struct OnlineScorer {
    shape: Shape,
    rows: Rows,
}

enum Rows {
    Still(Model),
    /// They follow a chain.
    Live(Live<OnlineSide>),
}

/// Places in a trainer's row that score (crates/penstock-training/src/online/step.rs).
const W: usize = 0;
const FIRST: usize = 5;

impl OnlineScorer {
    pub fn open(folder: &Path, form: OnlineForm, options: &Options) -> Result<Self> {
        let model = model(folder, &form)?;
        let rows = match &options.following {
            None => Rows::Still(model),
            Some(following) => {
                let (base, bytes) = (Arc::new(model), following.overlay_bytes);
                Rows::Live(Live::new(following, || OnlineSide::new(&base, bytes))?)
            }
        };
        let shape = form.shape();
        Ok(OnlineScorer { shape, rows })
    }

    /// What follows a chain; None where nothing does.
    pub fn live(&self) -> Option<&Live<OnlineSide>> {
        match &self.rows {
            Rows::Still(_) => None,
            Rows::Live(live) => Some(live),
        }
    }

    /// Opens the base of a bundle's folder beside what is shown.
    pub fn stage(&self, folder: &Path, manifest: &Manifest, at: Position) -> Result<()> {
        let live = self
            .live()
            .ok_or_else(|| Fault::internal("it follows no chain"))?;
        let form: OnlineForm = manifest.form(folder)?;
        let base = Arc::new(model(folder, &form)?);
        if form.shape() != self.shape {
            let folder = folder.display();
            let said = format!("the base {folder} has other fields, numbers or factors");
            return Err(Fault::invalid(said));
        }
        let bytes = live.following().overlay_bytes;
        live.stage(at, || OnlineSide::new(&base, bytes))
    }

    /// Probabilities of label 1, and where in its chain the model stood.
    pub fn scores(&self, matrix: &Matrix) -> Result<(Vec<f64>, Option<Position>)> {
        let numbers = standardised(&self.shape.numbers, matrix);
        let slots: Vec<Slot> = matrix.fields.iter().map(slot).collect();
        let columns = Columns {
            rows: matrix.rows,
            slots: &slots,
            numbers: &numbers,
        };
        let (margins, position) = match &self.rows {
            Rows::Still(model) => (model.margins(&columns), None),
            Rows::Live(live) => {
                let side = live.pin();
                (side.held.0.margins(&columns), Some(side.position))
            }
        };
        let margins = margins.map_err(|error| Fault::invalid(error.to_string()))?;
        Ok((margins.into_iter().map(sigmoid).collect(), position))
    }
}

impl OnlineForm {
    fn shape(self) -> Shape {
        Shape {
            rank: self.rates.rank,
            shared: self.shared,
            fields: self.fields,
            numbers: self.numbers,
        }
    }
}

/// The rows of a bundle's folder.
fn model(folder: &Path, form: &OnlineForm) -> Result<Model> {
    let fault = |error: &dyn std::fmt::Display| broken(folder, error);
    let RatesForm {
        alpha,
        beta,
        l1,
        l2,
        rank,
    } = form.rates;
    let rates = Rates {
        alpha,
        beta,
        l1,
        l2,
    };
    let settings = Settings {
        optimizer: Optimizer::Adagrad,
        rates,
        factors: (rank > 0).then_some(Factors {
            rank,
            rates,
            spread: 0.0,
            seed: 0,
        }),
        least: 1,
        evict_after: 0,
        batch: 1,
        threads: 1,
    };
    let numbers = form.numbers.len();
    let mut model = Model::new(settings, form.fields, numbers, form.shared, false)
        .map_err(|error| fault(&error))?;
    let rows = Columnar::read(folder, "rows.parquet")?;
    let fields = rows.fields()?.values().to_vec();
    let keys = rows.keys()?.values().to_vec();
    let width = model.width();
    let mut values = vec![0.0; keys.len() * width];
    for (row, w) in values.chunks_exact_mut(width).zip(rows.f32s("w")?) {
        row[W] = *w;
    }
    if rank > 0 {
        let factors = rows.vectors("factors", rank)?;
        for (row, own) in values
            .chunks_exact_mut(width)
            .zip(factors.chunks_exact(rank))
        {
            row[FIRST..FIRST + rank].copy_from_slice(own);
        }
    }
    let out = RowOut {
        fields,
        keys,
        values,
    };
    model.put(&out).map_err(|error| fault(&error))?;
    Ok(model)
}

fn slot(keys: &Keys) -> Slot<'_> {
    Slot {
        offsets: Offsets::Wide(&keys.offsets),
        keys: &keys.keys,
        values: keys.values.as_deref(),
    }
}
