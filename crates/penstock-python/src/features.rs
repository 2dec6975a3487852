//! Bindings of `penstock-features`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arrow_array::{Array, RecordBatch, make_array};
use arrow_data::ArrayData;
use arrow_pyarrow::{FromPyArrow, FromPyArrowUnchecked, ToPyArrow};
use penstock_features::{
    ApplyError, Attachments, Dictionary, DictionaryError, Form, OnError, Options, Plan, PlanError,
    RowError, Scratch,
};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::rows::Row;

pyo3::create_exception!(
    penstock._native,
    PyRowError,
    PyValueError,
    "A row has no meaning under the plan: `row` (0-based, in the batch), `item`, `reason`."
);

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyDictionary>()?;
    module.add_class::<PyPlan>()?;
    module.add("RowError", module.py().get_type::<PyRowError>())?;
    module.add_function(wrap_pyfunction!(hash_column, module)?)
}

fn plan_error(error: PlanError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn dictionary_error(error: DictionaryError) -> PyErr {
    match error {
        // The operating system's number keeps FileNotFoundError and its kin apart.
        DictionaryError::Io { path, error } => match error.raw_os_error() {
            Some(number) => PyOSError::new_err((number, error.to_string(), path.into_os_string())),
            None => PyOSError::new_err(format!("{}: {error}", path.display())),
        },
        other => PyValueError::new_err(other.to_string()),
    }
}

fn row_error(py: Python<'_>, error: &RowError) -> PyErr {
    let raised = PyRowError::new_err(error.to_string());
    let value = raised.value(py);
    let set = value
        .setattr("row", error.row)
        .and_then(|()| value.setattr("item", &error.item))
        .and_then(|()| value.setattr("reason", &error.reason));
    match set {
        Ok(()) => raised,
        Err(failed) => failed,
    }
}

pub(crate) fn apply_error(py: Python<'_>, error: ApplyError) -> PyErr {
    match error {
        ApplyError::Row(row) => row_error(py, &row),
        other => PyValueError::new_err(other.to_string()),
    }
}

/// A compiled dictionary: an immutable map from strings to 1-based indices, shared through the page cache.
#[pyclass(name = "Dictionary", frozen, module = "penstock._native")]
struct PyDictionary(Arc<Dictionary>);

#[pymethods]
impl PyDictionary {
    /// Read a text file, a value a line (`.gz` by suffix), and write the compiled dictionary to `target`.
    #[staticmethod]
    fn compile(py: Python<'_>, source: PathBuf, target: PathBuf) -> PyResult<()> {
        py.detach(|| Dictionary::compile(&source, &target))
            .map(|_| ())
            .map_err(dictionary_error)
    }

    /// Compile values in order (the first gets index 1) and write them to `target`.
    #[staticmethod]
    fn build(py: Python<'_>, values: Vec<String>, target: PathBuf) -> PyResult<()> {
        py.detach(|| Dictionary::from_values(&values)?.save(&target))
            .map_err(dictionary_error)
    }

    /// Map a compiled dictionary; ready at once, whatever its size.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| Dictionary::open(&path))
            .map(|found| Self(Arc::new(found)))
            .map_err(dictionary_error)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }

    fn __contains__(&self, value: &str) -> bool {
        self.0.get(value.as_bytes()).is_some()
    }

    /// The 1-based index of a value, None if it is not here.
    fn get(&self, value: &str) -> Option<u32> {
        self.0.get(value.as_bytes())
    }

    /// All values in order of their indices.
    fn values(&self) -> Vec<String> {
        self.0
            .values()
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    /// Whether the file is, byte for byte, what was compiled: reads all of it.
    fn verify(&self, py: Python<'_>) -> bool {
        py.detach(|| self.0.verify())
    }

    /// SHA-256 of the values in order, in hex: the same for the same values, whatever file they came from.
    #[getter]
    fn sha256(&self) -> String {
        self.0.sha256()
    }

    #[getter]
    fn entries(&self) -> usize {
        self.0.len()
    }

    #[getter]
    fn size_bytes(&self) -> usize {
        self.0.size_bytes()
    }
}

/// A compiled feature plan. Immutable and safe to use from several threads; the GIL is released while it works.
#[pyclass(name = "Plan", frozen, module = "penstock._native")]
pub(crate) struct PyPlan {
    pub(crate) plan: Plan,
    /// Working memory for single rows; callers on other threads bring their own when it is taken.
    scratch: Mutex<Scratch>,
    /// The names that rows are read and written by, as Python objects made once.
    names: Names,
}

struct Names {
    columns: Vec<Py<PyString>>,
    /// Whether each slot is weighted.
    weighted: Vec<bool>,
}

impl Names {
    fn of(py: Python<'_>, plan: &Plan) -> Self {
        let name = |text: &str| PyString::intern(py, text).unbind();
        Self {
            columns: plan.columns().iter().map(|column| name(column)).collect(),
            weighted: plan.slots().map(|slot| plan.is_weighted(slot)).collect(),
        }
    }
}

#[pymethods]
impl PyPlan {
    #[new]
    #[pyo3(signature = (json, dictionaries = None, functions = None))]
    fn new(
        py: Python<'_>,
        json: &str,
        dictionaries: Option<HashMap<String, PyRef<'_, PyDictionary>>>,
        functions: Option<HashMap<String, usize>>,
    ) -> PyResult<Self> {
        let dictionaries = dictionaries.unwrap_or_default();
        let dictionaries = dictionaries
            .iter()
            .map(|(name, found)| (name.clone(), Arc::clone(&found.0)))
            .collect();
        let attachments = Attachments {
            dictionaries,
            functions: functions.unwrap_or_default(),
        };
        let plan = Plan::compile(json, &attachments).map_err(plan_error)?;
        let names = Names::of(py, &plan);
        Ok(Self {
            plan,
            scratch: Mutex::default(),
            names,
        })
    }

    /// The raw columns it reads, in order of first use.
    #[getter]
    fn columns(&self) -> Vec<String> {
        self.plan.columns().to_vec()
    }

    /// Map a batch: kept columns, then slots, then dense. `threads` 0 means every core.
    ///
    /// Raises RowError for the first row that has no meaning; with on_error="drop" such rows are left out and the
    /// result is (batch, [(row, item, reason)]).
    #[pyo3(signature = (batch, keep = Vec::new(), form = "slots", threads = 0, on_error = "fail"))]
    fn apply(
        &self,
        py: Python<'_>,
        batch: &Bound<'_, PyAny>,
        keep: Vec<String>,
        form: &str,
        threads: usize,
        on_error: &str,
    ) -> PyResult<Py<PyAny>> {
        let on_error = match on_error {
            "fail" => OnError::Fail,
            "drop" => OnError::Drop,
            other => {
                return Err(PyValueError::new_err(format!(
                    "on_error is 'fail' or 'drop', not '{other}'"
                )));
            }
        };
        let options = Options {
            keep,
            form: form_of(form)?,
            threads,
            on_error,
        };
        let batch = borrowed(batch)?;
        let result = py.detach(|| self.plan.apply(&batch, &options));
        let (mapped, errors) = result.map_err(|error| apply_error(py, error))?;
        let mapped = mapped.to_pyarrow(py)?;
        if on_error == OnError::Fail {
            return Ok(mapped.unbind());
        }
        let rejected: Vec<_> = errors
            .into_iter()
            .map(|error| (error.row, error.item, error.reason))
            .collect();
        Ok((mapped, rejected).into_pyobject(py)?.into_any().unbind())
    }

    /// As `apply`, but what each run of rows gave stays a batch of its own.
    fn apply_in_runs<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'_, PyAny>,
        form: &str,
        threads: usize,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let options = Options {
            form: form_of(form)?,
            threads,
            ..Options::default()
        };
        let batch = borrowed(batch)?;
        let result = py.detach(|| self.plan.apply_in_runs(&batch, &options));
        let (runs, _) = result.map_err(|error| apply_error(py, error))?;
        runs.into_iter().map(|run| run.to_pyarrow(py)).collect()
    }

    /// The values of the named items (defines, say) over a batch, before keys or f32 are made of them.
    fn values<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'_, PyAny>,
        names: Vec<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batch = borrowed(batch)?;
        let values = py
            .detach(|| self.plan.values(&batch, &names))
            .map_err(|error| apply_error(py, error))?;
        values.to_pyarrow(py)
    }

    /// Map one row: (keys, weights, dense), the first two with an entry a slot, the last with one a dense, in file order.
    ///
    /// A column that the row lacks is null. The weights of a slot that is not weighted are None.
    fn apply_row<'py>(
        &self,
        py: Python<'py>,
        row: &Bound<'py, PyDict>,
    ) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>)> {
        let row = Row::read(&self.names.columns, row)?;
        let arena = row.lists();
        let values = row.values(&arena);
        let mut own = Scratch::default();
        let mut kept = self.scratch.try_lock();
        let scratch = kept.as_deref_mut().unwrap_or(&mut own);
        let mapped = self
            .plan
            .apply_row(&values, scratch)
            .map_err(|error| apply_error(py, error))?;
        let (keys, weights) = (PyList::empty(py), PyList::empty(py));
        for (weighted, slot) in self.names.weighted.iter().zip(&mapped.slots) {
            keys.append(PyList::new(py, &slot.keys)?)?;
            if *weighted {
                weights.append(PyList::new(py, &slot.weights)?)?;
            } else {
                weights.append(py.None())?;
            }
        }
        Ok((keys, weights, PyList::new(py, &mapped.dense)?))
    }

    /// What each key of a row means: (slot, key, text, weight) a key, in file order.
    fn explain_row(
        &self,
        py: Python<'_>,
        row: &Bound<'_, PyDict>,
    ) -> PyResult<Vec<(String, u64, String, f32)>> {
        let row = Row::read(&self.names.columns, row)?;
        let arena = row.lists();
        let found = self
            .plan
            .explain_row(&row.values(&arena))
            .map_err(|error| apply_error(py, error))?;
        Ok(found
            .into_iter()
            .map(|key| (key.item, key.key, key.text, key.weight))
            .collect())
    }
}

/// A `pyarrow.RecordBatch`, without a copy and without looking at its values: to verify that every string is UTF-8
/// took a third of the whole.
fn borrowed(batch: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    // SAFETY: the C data interface has the producer (Polars, pyarrow) answer for the layout. That strings are UTF-8,
    // which pyarrow does not verify when it reads Parquet, is relied on nowhere: the kernel takes them as bytes.
    unsafe { RecordBatch::from_pyarrow_bound_unchecked(batch) }
}

pub(crate) fn form_of(name: &str) -> PyResult<Form> {
    match name {
        "slots" => Ok(Form::Slots),
        "flat" => Ok(Form::Flat),
        other => Err(PyValueError::new_err(format!(
            "form is 'slots' or 'flat', not '{other}'"
        ))),
    }
}

/// XXH3-64 with `seed` of each value's canonical bytes, as a uint64 array; nulls stay null.
#[pyfunction]
#[pyo3(signature = (array, seed = 0))]
fn hash_column<'py>(
    py: Python<'py>,
    array: &Bound<'py, PyAny>,
    seed: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let array = make_array(ArrayData::from_pyarrow_bound(array)?);
    let hashes = py
        .detach(|| penstock_features::hash_column(&array, seed))
        .map_err(|error| apply_error(py, error))?;
    hashes.to_data().to_pyarrow(py)
}
