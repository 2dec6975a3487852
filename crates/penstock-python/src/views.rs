//! Feature views from Python: the point-in-time join, and the online store.

mod asked;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::ffi::FFI_ArrowArray;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StructArray, make_array};
use arrow_data::ArrayData;
use arrow_pyarrow::{FromPyArrow, ToPyArrow};
use penstock_views::{Fault, Joined, Joiner, Keys, Store, View};
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;

use asked::Column;

pyo3::create_exception!(
    penstock._native,
    PyViewFault,
    PyException,
    "A view or its store: args are the kind of fault and the message."
);

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ViewFault", module.py().get_type::<PyViewFault>())?;
    module.add_class::<PyView>()?;
    module.add_class::<PyJoiner>()?;
    module.add_class::<PyJoined>()?;
    module.add_class::<PyAsOf>()?;
    module.add_class::<PyStore>()
}

fn to_py(fault: Fault) -> PyErr {
    let kind = match fault {
        Fault::Declared(_) => "declared",
        Fault::Damaged => "damaged",
        Fault::Redeclared(_) => "redeclared",
        Fault::Unknown(_) => "unknown",
        Fault::Moved { .. } => "moved",
        Fault::Rows(_) => "rows",
        Fault::Store(_) => "store",
        Fault::Io(..) => "io",
    };
    PyViewFault::new_err((kind, fault.to_string()))
}

fn array(from: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    Ok(make_array(ArrayData::from_pyarrow_bound(from)?))
}

fn batch(from: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    RecordBatch::from_pyarrow_bound(from)
}

/// A declared view, from its JSON.
#[pyclass(name = "View", frozen, module = "penstock._native")]
struct PyView {
    view: View,
    json: String,
    /// pyarrow's schema of its rows: made once, as that takes longer than to read a row.
    schema: Py<PyAny>,
}

#[pymethods]
impl PyView {
    #[new]
    fn new(py: Python<'_>, json: String) -> PyResult<Self> {
        let view = View::parse(&json).map_err(to_py)?;
        Ok(PyView {
            schema: view.schema().to_pyarrow(py)?.unbind(),
            view,
            json,
        })
    }
}

#[pyclass(name = "ViewJoiner", frozen, module = "penstock._native")]
struct PyJoiner(Mutex<Option<Joiner>>);

impl PyJoiner {
    fn with<T>(&self, work: impl FnOnce(&mut Joiner) -> Result<T, Fault>) -> PyResult<T> {
        let mut joiner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = || PyValueError::new_err("it has joined already");
        work(joiner.as_mut().ok_or_else(ended)?).map_err(to_py)
    }
}

#[pymethods]
impl PyJoiner {
    /// `folder`: of its own; it is removed with the result.
    #[new]
    fn new(view: &PyView, folder: PathBuf) -> PyResult<Self> {
        let joiner = Joiner::new(view.view.clone(), &folder).map_err(to_py)?;
        Ok(PyJoiner(Mutex::new(Some(joiner))))
    }

    /// Key columns, time (int64), inputs; with `offsets`, an int64 each.
    #[pyo3(signature = (rows, offsets=None))]
    fn events(
        &self,
        py: Python<'_>,
        rows: &Bound<'_, PyAny>,
        offsets: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (rows, offsets) = (batch(rows)?, offsets.map(array).transpose()?);
        py.detach(|| self.with(|joiner| joiner.events(&rows, offsets.as_ref())))
    }

    /// Key columns, time (int64); with `upto`, the last offset that each may know.
    #[pyo3(signature = (rows, upto=None))]
    fn samples(
        &self,
        py: Python<'_>,
        rows: &Bound<'_, PyAny>,
        upto: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (rows, upto) = (batch(rows)?, upto.map(array).transpose()?);
        let (columns, last) = (rows.columns(), rows.num_columns().saturating_sub(1));
        py.detach(|| {
            let keys = Keys::new(columns[..last].to_vec()).map_err(to_py)?;
            self.with(|joiner| joiner.samples(&keys, &columns[last], upto.as_ref()))
        })
    }

    #[getter]
    fn rejected(&self) -> PyResult<u64> {
        self.with(|joiner| Ok(joiner.rejected()))
    }

    fn join(&self, py: Python<'_>) -> PyResult<PyJoined> {
        let joiner = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let joiner = joiner.ok_or_else(|| PyValueError::new_err("it has joined already"))?;
        let joined = py.detach(|| joiner.join()).map_err(to_py)?;
        Ok(PyJoined(Mutex::new(joined)))
    }
}

/// Record batches of the view's outputs, in the order of the samples.
#[pyclass(name = "ViewRows", frozen, module = "penstock._native")]
struct PyJoined(Mutex<Joined>);

#[pymethods]
impl PyJoined {
    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = py.detach(|| {
            let mut joined = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            joined.next_batch()
        });
        next.map_err(to_py)?
            .map(|batch| batch.to_pyarrow(py))
            .transpose()
    }
}

/// Rows as pyarrow's `class` of a schema that it knows already.
fn given<'py>(
    class: &Bound<'py, PyAny>,
    array: &StructArray,
    of: &Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // pyarrow takes what it points to over, and leaves it marked as released.
    let mut array = FFI_ArrowArray::new(&array.to_data());
    let place = &raw mut array as usize;
    class.call_method1("_import_from_c", (place, of))
}

/// As of when each row of a view is, microseconds: rarely asked for, and so made into an Arrow array when it is.
#[pyclass(name = "AsOf", frozen, module = "penstock._native")]
struct PyAsOf(Int64Array);

#[pymethods]
impl PyAsOf {
    fn array<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.to_data().to_pyarrow(py)
    }
}

type Found<'py> = (Bound<'py, PyAny>, String, PyAsOf);

/// An online store. Threads may share it.
#[pyclass(name = "ViewStore", frozen, module = "penstock._native")]
struct PyStore(Arc<dyn Store>);

#[pymethods]
impl PyStore {
    #[new]
    fn new(py: Python<'_>, address: &str, create: bool, size_bytes: usize) -> PyResult<Self> {
        let store = py.detach(|| penstock_views::open(address, create, size_bytes));
        store.map(PyStore).map_err(to_py)
    }

    fn declare(&self, py: Python<'_>, view: &PyView, anew: bool) -> PyResult<()> {
        py.detach(|| self.0.declare(&view.view, &view.json, anew))
            .map_err(to_py)
    }

    /// Name, declaration and position of each view.
    fn views(&self, py: Python<'_>) -> PyResult<Vec<(String, String, String)>> {
        let views = py.detach(|| self.0.views()).map_err(to_py)?;
        Ok(views
            .into_iter()
            .map(|(name, about)| (name, about.declared, about.position))
            .collect())
    }

    /// Adds events and moves the position from `expected`, in one transaction; events without entity or time.
    fn add(
        &self,
        py: Python<'_>,
        view: &PyView,
        rows: &Bound<'_, PyAny>,
        expected: &str,
        position: &str,
    ) -> PyResult<u64> {
        let rows = batch(rows)?;
        let added =
            py.detach(|| penstock_views::add(&*self.0, &view.view, &rows, expected, position));
        added.map_err(to_py)
    }

    /// Of each entity its key columns; of each view which entity's it is. For each view: its values for those keys, its
    /// position, and as of when each row is.
    fn read<'py>(
        &self,
        py: Python<'py>,
        entities: Vec<Vec<Column<'py>>>,
        asked: Vec<(PyRef<'py, PyView>, usize)>,
        at_us: i64,
    ) -> PyResult<Vec<Found<'py>>> {
        let entities = entities.into_iter().map(asked::keys);
        let entities = entities.collect::<PyResult<Vec<Keys>>>()?;
        let mut by_view: Vec<(&View, &Keys)> = Vec::with_capacity(asked.len());
        for (view, entity) in &asked {
            let unknown = || PyValueError::new_err("a view of no entity");
            by_view.push((&view.view, entities.get(*entity).ok_or_else(unknown)?));
        }
        let found = py.detach(|| penstock_views::read(&*self.0, &by_view, at_us));
        let rows = py.import("pyarrow")?.getattr("RecordBatch")?;
        let each = found.map_err(to_py)?.into_iter().zip(&asked);
        let each = each.map(|(found, (view, _))| {
            Ok((
                given(&rows, &StructArray::from(found.values), &view.schema)?,
                found.position,
                PyAsOf(found.as_of_us.into()),
            ))
        });
        each.collect()
    }
}
