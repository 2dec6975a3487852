//! Binding of `penstock_training::online`: one object learns from batches of Arrow columns, scores them, gives rows.

use arrow_array::{Array, Float32Array, Int32Array, Int64Array, UInt64Array};
use arrow_pyarrow::PyArrowType;
use penstock_training::online::{
    Columns, Factors, Model, Offsets, Optimizer, Rates, RowOut, Settings, Slot, Trainer,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::{Given, f32s, f64_out, i64s, on_pool, to_py, u64_out, u64s};

reader!(i32s, Int32Array, Int32);

#[pyclass]
pub struct Online {
    trainer: Trainer,
}

enum Starts {
    Narrow(Int32Array),
    Wide(Int64Array),
}

/// A column of key lists: offsets, keys, and their values or None.
type GivenSlot = (Given, Given, Option<Given>);

struct Held {
    starts: Starts,
    keys: UInt64Array,
    values: Option<Float32Array>,
}

impl Held {
    fn new((offsets, keys, values): GivenSlot) -> PyResult<Held> {
        let narrow = *offsets.0.data_type() == arrow_schema::DataType::Int32;
        Ok(Held {
            starts: if narrow {
                Starts::Narrow(i32s(offsets, "offsets")?)
            } else {
                Starts::Wide(i64s(offsets, "offsets")?)
            },
            keys: u64s(keys, "keys")?,
            values: values.map(|v| f32s(v, "values")).transpose()?,
        })
    }

    fn slot(&self) -> Slot<'_> {
        Slot {
            offsets: match &self.starts {
                Starts::Narrow(offsets) => Offsets::Narrow(offsets.values()),
                Starts::Wide(offsets) => Offsets::Wide(offsets.values()),
            },
            keys: self.keys.values(),
            values: self.values.as_ref().map(|v| &v.values()[..]),
        }
    }
}

fn held(slots: Vec<GivenSlot>) -> PyResult<Vec<Held>> {
    slots.into_iter().map(Held::new).collect()
}

#[pymethods]
impl Online {
    /// `factors`: (rank, alpha, beta, l2, spread), or None for a plain regression.
    #[new]
    #[pyo3(signature = (*, slots, numbers, shared, positions, optimizer, rates, factors, min_count, evict_after, batch, seed, threads))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        slots: usize,
        numbers: usize,
        shared: bool,
        positions: bool,
        optimizer: &str,
        rates: (f64, f64, f64, f64),
        factors: Option<(usize, f64, f64, f64, f64)>,
        min_count: u32,
        evict_after: u32,
        batch: usize,
        seed: u64,
        threads: usize,
    ) -> PyResult<Self> {
        let optimizer = match optimizer {
            "ftrl" => Optimizer::Ftrl,
            "adagrad" => Optimizer::Adagrad,
            "sgd" => Optimizer::Sgd,
            other => {
                return Err(PyValueError::new_err(format!(
                    "there is no optimizer {other}"
                )));
            }
        };
        let (alpha, beta, l1, l2) = rates;
        let settings = Settings {
            optimizer,
            rates: Rates {
                alpha,
                beta,
                l1,
                l2,
            },
            factors: factors.map(|(rank, alpha, beta, l2, spread)| Factors {
                rank,
                rates: Rates {
                    alpha,
                    beta,
                    l1: 0.0,
                    l2,
                },
                spread,
                seed,
            }),
            least: min_count,
            evict_after,
            batch,
            threads,
        };
        let model = Model::new(settings, slots, numbers, shared, positions).map_err(to_py)?;
        let trainer = Trainer::new(model).map_err(to_py)?;
        Ok(Online { trainer })
    }

    /// Predict, then learn. `numbers`: f32, row by row.
    #[pyo3(signature = (slots, numbers, labels, sample=None))]
    fn learn(
        &mut self,
        py: Python<'_>,
        slots: Vec<GivenSlot>,
        numbers: Given,
        labels: Given,
        sample: Option<Given>,
    ) -> PyResult<()> {
        let held = held(slots)?;
        let (numbers, labels) = (f32s(numbers, "numbers")?, f32s(labels, "labels")?);
        let sample = sample.map(|s| f32s(s, "sample")).transpose()?;
        let trainer = &mut self.trainer;
        py.detach(|| {
            let slots: Vec<Slot> = held.iter().map(Held::slot).collect();
            let columns = Columns {
                rows: labels.len(),
                slots: &slots,
                numbers: numbers.values(),
            };
            trainer.learn(
                &columns,
                labels.values(),
                sample.as_ref().map(|s| &s.values()[..]),
            )
        })
        .map_err(to_py)
    }

    fn finish(&mut self, py: Python<'_>) -> PyResult<()> {
        let trainer = &mut self.trainer;
        py.detach(|| trainer.finish()).map_err(to_py)
    }

    fn begin_pass(&mut self) {
        self.trainer.begin_pass();
    }

    fn warm(&mut self) {
        self.trainer.warm();
    }

    /// Rows, weight, mean log loss and AUC since the pass began; NaN where undefined.
    fn progress(&self) -> (u64, f64, f64, f64) {
        let found = self.trainer.progress();
        (found.rows, found.weight, found.logloss, found.auc)
    }

    /// The margin of each of `rows` rows.
    fn margins(
        &self,
        py: Python<'_>,
        slots: Vec<GivenSlot>,
        numbers: Given,
        rows: usize,
        threads: usize,
    ) -> PyResult<Given> {
        let held = held(slots)?;
        let numbers = f32s(numbers, "numbers")?;
        let model = &self.trainer.model;
        let score = || {
            let slots: Vec<Slot> = held.iter().map(Held::slot).collect();
            model.margins(&Columns {
                rows,
                slots: &slots,
                numbers: numbers.values(),
            })
        };
        on_pool(py, threads, score)?.map_err(to_py).map(f64_out)
    }

    /// Every row by field and key: fields i32 (-1: bias and numbers), keys u64, values f32 (`width` a row).
    fn rows(&self, py: Python<'_>) -> (Given, Given, Given) {
        let model = &self.trainer.model;
        let rows = py.detach(|| model.rows());
        (
            PyArrowType(Int32Array::from(rows.fields).into_data()),
            u64_out(rows.keys),
            PyArrowType(Float32Array::from(rows.values).into_data()),
        )
    }

    fn put(&mut self, py: Python<'_>, fields: Given, keys: Given, values: Given) -> PyResult<()> {
        let rows = RowOut {
            fields: i32s(fields, "fields")?.values().to_vec(),
            keys: u64s(keys, "keys")?.values().to_vec(),
            values: f32s(values, "values")?.values().to_vec(),
        };
        let model = &mut self.trainer.model;
        py.detach(|| model.put(&rows)).map_err(to_py)
    }

    #[getter]
    fn width(&self) -> usize {
        self.trainer.model.width()
    }

    /// Rows of keys so far.
    #[getter]
    fn keys(&self) -> u64 {
        self.trainer.model.keys()
    }
}
