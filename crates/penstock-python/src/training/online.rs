//! Binding of `penstock_training::online`: one object learns from batches of Arrow columns, scores them, gives rows.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use arrow_array::{Array, Float32Array, Int32Array, Int64Array, UInt64Array};
use arrow_pyarrow::PyArrowType;
use penstock_table::ArtefactError;
use penstock_training::online::{
    Columns, Cuts, Factors, Model, Offsets, Optimizer, Rates, RowOut, Settings, Slot, Trainer,
};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::tables::{Packed, artefact_error, folder, packed};

use super::{Given, f32s, f64_out, i64s, on_pool, to_py, u64_out, u64s};

reader!(i32s, Int32Array, Int32);

#[pyclass]
pub struct Online {
    trainer: Trainer,
    cuts: Mutex<Option<Cuts>>,
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
        Ok(Online {
            trainer,
            cuts: Mutex::default(),
        })
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

    /// Rows learnt from since the pass began.
    fn progress_rows(&self) -> u64 {
        self.trainer.rows()
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

    /// Changes of rows are kept for a consumer from here on.
    fn track_changes(&mut self, py: Python<'_>, consumer: &str) {
        let trainer = &mut self.trainer;
        py.detach(|| trainer.track(consumer));
    }

    /// As `Tables.pack_changes`, of rows as they score: a table a field, the weight and then the factors.
    fn pack_changes(
        &mut self,
        py: Python<'_>,
        consumer: &str,
        named: Vec<PyBuffer<i64>>,
        half: bool,
        most: usize,
    ) -> PyResult<Packed> {
        let trainer = &mut self.trainer;
        packed(py, &named, half, most, |named, packer| {
            trainer.pack(consumer, named, packer)
        })
    }

    /// The consumer has everything before these epochs, one a field.
    fn tell_changes(&mut self, py: Python<'_>, consumer: &str, epochs: Vec<u32>) {
        let trainer = &mut self.trainer;
        py.detach(|| trainer.tell(consumer, &epochs));
    }

    /// The weights that are no key's: name, shape, f32 values each.
    fn own_weights(&self) -> Vec<(&'static str, Vec<u64>, Given)> {
        let own = self.trainer.model.own_weights().into_iter();
        own.map(|(name, shape, values)| {
            let values = PyArrowType(Float32Array::from(values).into_data());
            (name, shape, values)
        })
        .collect()
    }

    /// The newest cut of the folder (made if it is not there) into a trainer that has learnt nothing yet, and the folder for
    /// cuts to come. Returns the caller's sections; None where there is no cut. After an error the trainer is as it was.
    fn resume<'py>(
        &mut self,
        py: Python<'py>,
        path: PathBuf,
        plan: String,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let trainer = &mut self.trainer;
        let resume = || {
            let mut cuts = Cuts::open(folder(path)?, plan)?;
            let sections = cuts.resume(trainer)?;
            Ok((cuts, sections))
        };
        let (cuts, sections) = py
            .detach(resume)
            .map_err(|error| artefact_error(py, error))?;
        self.cuts = Mutex::new(Some(cuts));
        let Some(sections) = sections else {
            return Ok(None);
        };
        let found = PyDict::new(py);
        for (name, bytes) in sections {
            found.set_item(name, PyBytes::new(py, &bytes))?;
        }
        Ok(Some(found))
    }

    /// Begins a cut here, between two calls of `learn`; nothing is written yet.
    fn prepare_cut(
        &mut self,
        py: Python<'_>,
        sections: Vec<(String, Bound<'_, PyBytes>)>,
    ) -> PyResult<()> {
        let sections = sections.into_iter();
        let sections = sections.map(|(name, bytes)| (name, bytes.as_bytes().to_vec()));
        let sections = sections.collect();
        self.cut(py, |cuts, trainer| cuts.prepare(trainer, sections))
    }

    /// Writes about `rows` rows more of the open cut; whether it lasts now.
    fn write_cut(&mut self, py: Python<'_>, rows: u64) -> PyResult<bool> {
        let written = self.cut(py, |cuts, trainer| cuts.write(trainer, rows))?;
        Ok(written.is_some())
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

impl Online {
    fn cut<T: Send>(
        &mut self,
        py: Python<'_>,
        work: impl FnOnce(&mut Cuts, &mut Trainer) -> Result<T, ArtefactError> + Send,
    ) -> PyResult<T> {
        let cuts = self.cuts.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(cuts) = cuts else {
            return Err(PyValueError::new_err("there is no folder for cuts"));
        };
        let trainer = &mut self.trainer;
        py.detach(|| work(cuts, trainer))
            .map_err(|error| artefact_error(py, error))
    }
}
