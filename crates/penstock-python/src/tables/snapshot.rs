//! Serving snapshots: one file of a model's rows, written from live tables, mapped to read.

use std::path::PathBuf;
use std::sync::Arc;

use penstock_table::disk::{Disk, Folder};
use penstock_table::{ArtefactError, Keys, Snapshot, prepare_snapshot};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

use super::fault::to_py;
use super::rows::Columns;
use super::{GivenBag, PyTables, bags_of, filled, no_table, pooling_of, words};

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PySnapshot>()?;
    module.add_function(wrap_pyfunction!(write_snapshot, module)?)
}

/// Rows that are written before whoever waits for the tables gets a turn.
const TURN: u64 = 1 << 16;

/// The tables' values as file `name` of a folder, in place of any of that name. Returns its rows.
#[pyfunction]
fn write_snapshot(
    py: Python<'_>,
    folder: PathBuf,
    name: &str,
    tables: Py<PyTables>,
    plan: &str,
    copy_limit_bytes: u64,
) -> PyResult<u64> {
    let tables = tables.get();
    py.detach(|| {
        let made = Folder::new(&folder).map_err(|error| ArtefactError::Io {
            file: folder.display().to_string(),
            doing: "making the folder",
            error,
        });
        let disk: Arc<dyn Disk> = Arc::new(made?);
        let mut open = prepare_snapshot(&disk, name, plan, &mut tables.write(), copy_limit_bytes)?;
        while !open.step(&tables.read(), TURN)? {}
        open.commit(&mut tables.write())
    })
    .map_err(|error| to_py(py, error))
}

/// A mapped snapshot; readers share it.
#[pyclass(name = "Snapshot", frozen, module = "penstock._native")]
struct PySnapshot {
    snapshot: Snapshot,
    threads: usize,
}

#[pymethods]
impl PySnapshot {
    /// Maps the file; header, contents and facts are verified now, blocks of rows as they are touched.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, threads: usize) -> PyResult<Self> {
        let snapshot = py
            .detach(|| Snapshot::open(&path, None))
            .map_err(|error| to_py(py, error))?;
        Ok(Self { snapshot, threads })
    }

    /// What was recorded as the plan.
    #[getter]
    fn plan(&self) -> &str {
        self.snapshot.plan()
    }

    /// Each table's name, dim, type of values and rows.
    #[getter]
    fn tables(&self) -> Vec<(String, usize, String, u64)> {
        let tables = self.snapshot.tables().iter();
        tables
            .map(|table| {
                let dtype = format!("{:?}", table.dtype).to_lowercase();
                (table.name.clone(), table.dim, dtype, table.rows)
            })
            .collect()
    }

    /// Each slot's number, its table's, and whether its keys are a feature plan's.
    #[getter]
    fn slots(&self) -> Vec<(u32, usize, bool)> {
        self.snapshot
            .slots()
            .map(|(slot, table, keys)| (slot, table, keys == Keys::Mapped))
            .collect()
    }

    /// The rows of `keys` into `out` (keys x dim); returns how many keys have one.
    fn lookup(
        &self,
        py: Python<'_>,
        slot: u32,
        keys: PyBuffer<i64>,
        out: PyBuffer<f32>,
    ) -> PyResult<usize> {
        let (keys, out) = (words(&keys, "keys")?, filled(&out, "out")?);
        py.detach(|| self.snapshot.lookup(slot, keys, out))
            .map_err(|error| to_py(py, error))
    }

    /// Each slot's bags pooled side by side into `out` (samples x the sum of the dims).
    fn pool(
        &self,
        py: Python<'_>,
        bags: Vec<GivenBag>,
        pooling: &str,
        out: PyBuffer<f32>,
    ) -> PyResult<()> {
        let (bags, pooling) = (bags_of(&bags)?, pooling_of(pooling)?);
        let out = filled(&out, "out")?;
        py.detach(|| self.snapshot.pool(&bags, pooling, self.threads, out))
            .map_err(|error| to_py(py, error))
    }

    /// Keys and values of a table in these of the 4,096 buckets, as `Tables.rows_in`; the rest is empty.
    fn rows_in(&self, py: Python<'_>, table: usize, first: usize, end: usize) -> PyResult<Columns> {
        if table >= self.snapshot.tables().len() {
            return Err(no_table(table));
        }
        py.detach(|| {
            let mut columns = Columns::default();
            let add = |key, values: &[f32]| columns.add_values(key, values);
            self.snapshot.each_in(table, first..end, add)?;
            Ok(columns)
        })
        .map_err(|error| to_py(py, error))
    }

    /// Verifies every section now.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.snapshot.verify())
            .map_err(|error| to_py(py, error))
    }
}
