//! Bindings of `penstock-training`: Arrow arrays in, Arrow arrays out.

use std::cell::RefCell;

use arrow_array::{
    Array, Float32Array, Float64Array, Int64Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_data::ArrayData;
use arrow_pyarrow::PyArrowType;
use penstock_training::fields::Field;
use penstock_training::itemsets::{self, Itemsets, Limits};
use penstock_training::key_table;
use penstock_training::logistic::{Logistic as Problem, Penalty, Step};
use penstock_training::{TrainError, rules, svm};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

type Given = PyArrowType<ArrayData>;

/// An error of ours, or the exception that the caller's progress function raised.
fn to_py(error: TrainError) -> PyErr {
    match error {
        TrainError::Invalid(message) => PyValueError::new_err(message),
        TrainError::Stopped => PyRuntimeError::new_err("stopped"),
    }
}

macro_rules! reader {
    ($name:ident, $array:ty, $variant:ident) => {
        fn $name(given: Given, what: &str) -> PyResult<$array> {
            let data = given.0;
            if *data.data_type() != arrow_schema::DataType::$variant || data.null_count() > 0 {
                let message = format!(
                    "{what} must be {} without nulls, not {}",
                    stringify!($variant),
                    data.data_type()
                );
                return Err(PyValueError::new_err(message));
            }
            Ok(<$array>::from(data))
        }
    };
}

mod online;

reader!(f32s, Float32Array, Float32);
reader!(f64s, Float64Array, Float64);
reader!(i64s, Int64Array, Int64);
reader!(u16s, UInt16Array, UInt16);
reader!(u32s, UInt32Array, UInt32);
reader!(u64s, UInt64Array, UInt64);

fn f64_out(values: Vec<f64>) -> Given {
    PyArrowType(Float64Array::from(values).into_data())
}

fn u64_out(values: Vec<u64>) -> Given {
    PyArrowType(UInt64Array::from(values).into_data())
}

/// Run on a pool of `threads` threads (0: one a core) without the GIL.
fn on_pool<T: Send>(
    py: Python<'_>,
    threads: usize,
    work: impl FnOnce() -> T + Send,
) -> PyResult<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    Ok(py.detach(|| pool.install(work)))
}

/// Calls the caller's progress function from inside native work; an exception there stops the work.
struct Teller {
    call: Option<Py<PyAny>>,
    raised: RefCell<Option<PyErr>>,
}

impl Teller {
    fn new(call: Option<Py<PyAny>>) -> Teller {
        Teller {
            call,
            raised: RefCell::new(None),
        }
    }

    fn tell(&self, count: usize, value: f64) -> bool {
        Python::attach(|py| {
            let told = match &self.call {
                Some(call) => call.call1(py, (count, value)).map(|_| ()),
                None => py.check_signals(),
            };
            told.map_err(|error| *self.raised.borrow_mut() = Some(error))
                .is_ok()
        })
    }

    fn settle<T>(self, result: Result<T, TrainError>) -> PyResult<T> {
        match self.raised.into_inner() {
            Some(error) => Err(error),
            None => result.map_err(to_py),
        }
    }
}

#[pyclass]
struct Logistic {
    problem: Problem,
    threads: usize,
}

#[pymethods]
impl Logistic {
    #[new]
    fn new(rows: usize, threads: usize) -> PyResult<Self> {
        Ok(Logistic {
            problem: Problem::new(rows).map_err(to_py)?,
            threads,
        })
    }

    #[pyo3(signature = (codes, size, prior=None))]
    fn add_codes(
        &mut self,
        py: Python<'_>,
        codes: Given,
        size: usize,
        prior: Option<Given>,
    ) -> PyResult<()> {
        let codes = u16s(codes, "codes")?;
        let prior = prior
            .map(|p| f64s(p, "prior"))
            .transpose()?
            .map(|p| p.values().to_vec());
        let problem = &mut self.problem;
        let add = || problem.add(Field::codes(codes.values().to_vec(), size)?, prior);
        on_pool(py, self.threads, add)?.map_err(to_py)
    }

    #[pyo3(signature = (offsets, keys, values=None))]
    fn add_keys(
        &mut self,
        py: Python<'_>,
        offsets: Given,
        keys: Given,
        values: Option<Given>,
    ) -> PyResult<()> {
        let (offsets, keys) = (i64s(offsets, "offsets")?, u64s(keys, "keys")?);
        let values = values.map(|v| f32s(v, "values")).transpose()?;
        let problem = &mut self.problem;
        let add = || {
            let values = values.as_ref().map(|v| &v.values()[..]);
            problem.add(Field::keys(offsets.values(), keys.values(), values)?, None)
        };
        on_pool(py, self.threads, add)?.map_err(to_py)
    }

    #[pyo3(signature = (labels, sample, l1, l2, tolerance=1e-5, progress=None))]
    #[allow(clippy::too_many_arguments)]
    fn fit(
        &mut self,
        py: Python<'_>,
        labels: Given,
        sample: Given,
        l1: f64,
        l2: Vec<f64>,
        tolerance: f64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<f64> {
        let (labels, sample) = (f64s(labels, "labels")?, f64s(sample, "sample")?);
        let penalty = Penalty { l1, l2 };
        let problem = &mut self.problem;
        let fit = || {
            let teller = Teller::new(progress);
            let tell = |step: &Step| teller.tell(step.iteration, step.objective);
            let result = problem.fit(labels.values(), sample.values(), &penalty, tolerance, tell);
            teller.settle(result)
        };
        on_pool(py, self.threads, fit)?
    }

    #[getter]
    fn bias(&self) -> f64 {
        self.problem.bias()
    }

    fn margins(&self) -> Given {
        f64_out(self.problem.margins().to_vec())
    }

    fn weights(&self, field: usize) -> PyResult<Given> {
        self.known(field)?;
        Ok(f64_out(self.problem.weights(field).to_vec()))
    }

    fn keys(&self, field: usize) -> PyResult<Given> {
        self.known(field)?;
        Ok(u64_out(self.problem.keys(field).to_vec()))
    }
}

impl Logistic {
    fn known(&self, field: usize) -> PyResult<()> {
        if field < self.problem.fields() {
            return Ok(());
        }
        Err(PyValueError::new_err(format!("there is no field {field}")))
    }
}

#[pyclass(frozen)]
struct KeyTable(key_table::KeyTable);

#[pymethods]
impl KeyTable {
    #[new]
    fn new(keys: Given, weights: Given) -> PyResult<Self> {
        let (keys, weights) = (u64s(keys, "keys")?, f64s(weights, "weights")?);
        key_table::KeyTable::new(keys.values(), weights.values())
            .map(KeyTable)
            .map_err(to_py)
    }

    #[pyo3(signature = (offsets, keys, margins, values=None))]
    fn add(
        &self,
        py: Python<'_>,
        offsets: Given,
        keys: Given,
        margins: Given,
        values: Option<Given>,
    ) -> PyResult<Given> {
        let (offsets, keys) = (i64s(offsets, "offsets")?, u64s(keys, "keys")?);
        let values = values.map(|v| f32s(v, "values")).transpose()?;
        let mut margins = f64s(margins, "margins")?.values().to_vec();
        let add = || {
            let values = values.as_ref().map(|v| &v.values()[..]);
            self.0
                .add(offsets.values(), keys.values(), values, &mut margins)
        };
        py.detach(add).map_err(to_py)?;
        Ok(f64_out(margins))
    }
}

/// Distinct keys, ascending, and each key's place among them.
#[pyfunction]
fn compact_keys(py: Python<'_>, keys: Given, threads: usize) -> PyResult<(Given, Given)> {
    let keys = u64s(keys, "keys")?;
    let (distinct, places) =
        on_pool(py, threads, || key_table::compact(keys.values()))?.map_err(to_py)?;
    Ok((
        u64_out(distinct),
        PyArrowType(UInt32Array::from(places).into_data()),
    ))
}

#[pyfunction]
#[pyo3(signature = (offsets, columns, values, size, signs, costs, seed, tolerance, max_epochs, progress=None))]
#[allow(clippy::too_many_arguments)]
fn fit_svm(
    py: Python<'_>,
    offsets: Given,
    columns: Given,
    values: Given,
    size: usize,
    signs: Given,
    costs: Given,
    seed: u64,
    tolerance: f64,
    max_epochs: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Given, f64, Given)> {
    let (offsets, columns, values) = (
        i64s(offsets, "offsets")?,
        u32s(columns, "columns")?,
        f32s(values, "values")?,
    );
    let (signs, costs) = (f64s(signs, "signs")?, f64s(costs, "costs")?);
    let fit = || {
        let teller = Teller::new(progress);
        let x = svm::Rows {
            offsets: offsets.values(),
            columns: columns.values(),
            values: values.values(),
            size,
        };
        let tell = |epoch, violation| teller.tell(epoch, violation);
        let fitted = svm::fit(
            &x,
            signs.values(),
            costs.values(),
            seed,
            tolerance,
            max_epochs,
            tell,
        )
        .and_then(|model| Ok((svm::margins(&x, &model)?, model)));
        teller.settle(fitted)
    };
    let (margins, model) = py.detach(fit)?;
    Ok((f64_out(model.weights), model.bias, f64_out(margins)))
}

#[pyfunction]
fn platt(py: Python<'_>, margins: Given, signs: Given, sample: Given) -> PyResult<(f64, f64)> {
    let (margins, signs, sample) = (
        f64s(margins, "margins")?,
        f64s(signs, "signs")?,
        f64s(sample, "sample")?,
    );
    py.detach(|| svm::platt(margins.values(), signs.values(), sample.values()))
        .map_err(to_py)
}

fn sets_out(sets: Itemsets) -> (Given, Given, Given) {
    (
        PyArrowType(Int64Array::from(sets.offsets).into_data()),
        PyArrowType(UInt32Array::from(sets.items).into_data()),
        u64_out(sets.counts),
    )
}

/// Frequent itemsets, and with `confidence` their rules: `((offsets, items, counts), rules or None)`.
#[pyfunction]
#[pyo3(signature = (offsets, items, size, min_count, max_length, max_sets, threads, confidence=None))]
#[allow(clippy::too_many_arguments, clippy::type_complexity)]
fn frequent_itemsets(
    py: Python<'_>,
    offsets: Given,
    items: Given,
    size: usize,
    min_count: u64,
    max_length: usize,
    max_sets: usize,
    threads: usize,
    confidence: Option<f64>,
) -> PyResult<(
    (Given, Given, Given),
    Option<((Given, Given, Given), (Given, Given, Given), Given, Given)>,
)> {
    let (offsets, items) = (i64s(offsets, "offsets")?, u32s(items, "items")?);
    let limits = Limits {
        min_count,
        max_length,
        max_sets,
    };
    let work = || {
        let sets = itemsets::mine(offsets.values(), items.values(), size, limits)?;
        let baskets = (offsets.len() - 1) as u64;
        let found = confidence
            .map(|least| rules::rules(&sets, baskets, least, max_sets))
            .transpose()?;
        Ok((sets, found))
    };
    let (sets, found) = on_pool(py, threads, work)?.map_err(to_py)?;
    let found = found.map(|r| {
        (
            sets_out(r.antecedents),
            sets_out(r.consequents),
            f64_out(r.confidence),
            f64_out(r.lift),
        )
    });
    Ok((sets_out(sets), found))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Logistic>()?;
    module.add_class::<KeyTable>()?;
    module.add_class::<online::Online>()?;
    module.add_function(wrap_pyfunction!(compact_keys, module)?)?;
    module.add_function(wrap_pyfunction!(fit_svm, module)?)?;
    module.add_function(wrap_pyfunction!(platt, module)?)?;
    module.add_function(wrap_pyfunction!(frequent_itemsets, module)?)
}
