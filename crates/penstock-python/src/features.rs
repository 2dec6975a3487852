//! Bindings of `penstock-features`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayData, RecordBatch, make_array};
use arrow::pyarrow::{FromPyArrow, PyArrowType, ToPyArrow};
use penstock_features::{
    ApplyError, Attachments, Dictionary, DictionaryError, Form, OnError, Options, Plan, PlanError,
    RowError, Scratch, Value,
};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDate, PyDateTime, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
    PyTzInfoAccess,
};

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

fn apply_error(py: Python<'_>, error: ApplyError) -> PyErr {
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
struct PyPlan {
    plan: Plan,
    /// Working memory for single rows; callers on other threads bring their own when it is taken.
    scratch: Mutex<Scratch>,
    /// The names that rows are read and written by, as Python objects made once.
    names: Names,
}

struct Names {
    columns: Vec<Py<PyString>>,
    /// Each slot, and whether it is weighted.
    slots: Vec<(Py<PyString>, bool)>,
    dense: Vec<Py<PyString>>,
}

impl Names {
    fn of(py: Python<'_>, plan: &Plan) -> Self {
        let name = |text: &str| PyString::intern(py, text).unbind();
        Self {
            columns: plan.columns().iter().map(|column| name(column)).collect(),
            slots: plan
                .slots()
                .map(|slot| (name(slot), plan.is_weighted(slot)))
                .collect(),
            dense: plan.dense().map(name).collect(),
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
        batch: PyArrowType<RecordBatch>,
        keep: Vec<String>,
        form: &str,
        threads: usize,
        on_error: &str,
    ) -> PyResult<Py<PyAny>> {
        let form = match form {
            "slots" => Form::Slots,
            "flat" => Form::Flat,
            other => {
                return Err(PyValueError::new_err(format!(
                    "form is 'slots' or 'flat', not '{other}'"
                )));
            }
        };
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
            form,
            threads,
            on_error,
        };
        let batch = batch.0;
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

    /// The values of the named items (defines, say) over a batch, before keys or f32 are made of them.
    fn values<'py>(
        &self,
        py: Python<'py>,
        batch: PyArrowType<RecordBatch>,
        names: Vec<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let values = py
            .detach(|| self.plan.values(&batch.0, &names))
            .map_err(|error| apply_error(py, error))?;
        values.to_pyarrow(py)
    }

    /// Map one row: a tuple (name, keys, weights, dense) a slot and a dense, in file order, slots first.
    ///
    /// A column that the row lacks is null. Slots: keys is a list, weights a list or None (not weighted), dense None;
    /// dense: the number, keys and weights None.
    fn apply_row<'py>(
        &self,
        py: Python<'py>,
        row: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyList>> {
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
        let found = PyList::empty(py);
        let none = || py.None();
        for ((name, weighted), slot) in self.names.slots.iter().zip(&mapped.slots) {
            let keys = PyList::new(py, &slot.keys)?;
            let weights = if *weighted {
                PyList::new(py, &slot.weights)?.into_any().unbind()
            } else {
                none()
            };
            found.append((name, keys, weights, none()))?;
        }
        for (name, number) in self.names.dense.iter().zip(&mapped.dense) {
            found.append((name, none(), none(), number))?;
        }
        Ok(found)
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

/// A Python row, holding on to what the kernel borrows.
struct Row {
    values: Vec<Held>,
}

enum Held {
    Scalar(Owned),
    List(Vec<Owned>),
}

/// A Python scalar, copied out so that the kernel can work without the interpreter's lock.
enum Owned {
    Null,
    Text(String),
    Binary(Vec<u8>),
    Int(i64),
    UInt(u64),
    Float(f64),
    Bool(bool),
    Date(i32),
    Time(i64),
}

impl Row {
    fn read(columns: &[Py<PyString>], row: &Bound<'_, PyDict>) -> PyResult<Self> {
        let value = |name: &Py<PyString>| match row.get_item(name)? {
            None => Ok(Held::Scalar(Owned::Null)),
            Some(value) => held(&value).map_err(|error| {
                PyValueError::new_err(format!("column '{name}': {}", error.value(row.py())))
            }),
        };
        Ok(Self {
            values: columns.iter().map(value).collect::<PyResult<_>>()?,
        })
    }

    /// The elements of the columns that are lists; no elements for the others.
    fn lists(&self) -> Vec<Vec<Value<'_>>> {
        fn list(held: &Held) -> Vec<Value<'_>> {
            match held {
                Held::List(elements) => elements.iter().map(Owned::value).collect(),
                Held::Scalar(_) => Vec::new(),
            }
        }
        self.values.iter().map(list).collect()
    }

    fn values<'r>(&'r self, lists: &'r [Vec<Value<'r>>]) -> Vec<Value<'r>> {
        let value = |(held, list): (&'r Held, &'r Vec<Value<'r>>)| match held {
            Held::Scalar(owned) => owned.value(),
            Held::List(_) => Value::List(list),
        };
        self.values.iter().zip(lists).map(value).collect()
    }
}

impl Owned {
    fn value(&self) -> Value<'_> {
        match self {
            Owned::Null => Value::Null,
            Owned::Text(text) => Value::Text(text),
            Owned::Binary(bytes) => Value::Binary(bytes),
            Owned::Int(v) => Value::Int(*v),
            Owned::UInt(v) => Value::UInt(*v),
            Owned::Float(v) => Value::Float(*v),
            Owned::Bool(v) => Value::Bool(*v),
            Owned::Date(v) => Value::Date(*v),
            Owned::Time(v) => Value::Time(*v),
        }
    }
}

fn held(value: &Bound<'_, PyAny>) -> PyResult<Held> {
    if let Ok(list) = value.cast::<PyList>() {
        return Ok(Held::List(
            list.iter()
                .map(|element| scalar(&element))
                .collect::<PyResult<_>>()?,
        ));
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return Ok(Held::List(
            tuple
                .iter()
                .map(|element| scalar(&element))
                .collect::<PyResult<_>>()?,
        ));
    }
    scalar(value).map(Held::Scalar)
}

/// bool before int and datetime before date, of which they are subclasses.
fn scalar(value: &Bound<'_, PyAny>) -> PyResult<Owned> {
    if value.is_none() {
        return Ok(Owned::Null);
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Owned::Text(text.to_str()?.to_owned()));
    }
    if let Ok(v) = value.cast::<PyBool>() {
        return Ok(Owned::Bool(v.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return integer(value);
    }
    if let Ok(v) = value.cast::<PyFloat>() {
        return Ok(Owned::Float(v.value()));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Owned::Binary(bytes.as_bytes().to_vec()));
    }
    if let Ok(moment) = value.cast::<PyDateTime>() {
        return micros(moment).map(Owned::Time);
    }
    if let Ok(date) = value.cast::<PyDate>() {
        let ordinal: i32 = date.call_method0("toordinal")?.extract()?;
        // Python counts days from the year 1.
        return Ok(Owned::Date(ordinal - 719_163));
    }
    // numpy's scalars and their like say what they are by these methods.
    if value.hasattr("__index__")? {
        return integer(value);
    }
    if value.hasattr("item")? {
        return scalar(&value.call_method0("item")?);
    }
    Err(PyValueError::new_err(format!(
        "a value of type {} cannot be mapped",
        value.get_type().name()?
    )))
}

fn integer(value: &Bound<'_, PyAny>) -> PyResult<Owned> {
    if let Ok(v) = value.extract::<i64>() {
        return Ok(Owned::Int(v));
    }
    match value.extract::<u64>() {
        Ok(v) => Ok(Owned::UInt(v)),
        Err(_) => Err(PyValueError::new_err(format!(
            "{value} does not fit in 64 bits"
        ))),
    }
}

/// Microseconds since the epoch; a datetime without a zone is UTC.
fn micros(moment: &Bound<'_, PyDateTime>) -> PyResult<i64> {
    let py = moment.py();
    let utc = pyo3::types::PyTzInfo::utc(py)?;
    let aware = if moment.get_tzinfo().is_some() {
        moment.clone().into_any()
    } else {
        let zone = PyDict::new(py);
        zone.set_item("tzinfo", utc)?;
        moment.call_method("replace", (), Some(&zone))?
    };
    let epoch = PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&utc))?;
    let since = aware.call_method1("__sub__", (epoch,))?;
    let days: i64 = since.getattr("days")?.extract()?;
    let seconds: i64 = since.getattr("seconds")?.extract()?;
    let micros: i64 = since.getattr("microseconds")?.extract()?;
    Ok((days * 86_400 + seconds) * 1_000_000 + micros)
}
