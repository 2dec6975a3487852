//! Checkpoints of tables: cuts into a folder, and back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_table::disk::{Disk, Folder};
use penstock_table::{
    ArtefactError, Checkpoint, CheckpointTable, Checkpoints, CutOptions, OpenCut, Table,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::fault::{raise, to_py};
use super::rows::Columns;
use super::{PyTables, no_table};

/// Rows that are written before whoever waits for the tables gets a turn.
const TURN: u64 = 1 << 16;

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyCheckpoints>()?;
    module.add_class::<PyOpenCut>()?;
    module.add_class::<PyCheckpoint>()?;
    module.add_function(wrap_pyfunction!(carry, module)?)
}

/// Sequence, file, parent, rows.
type Committed = (u64, String, Option<u64>, u64);

/// A folder of checkpoints of one model's tables, written by this process alone.
///
/// Locks are taken in the order cut, checkpoints, tables, and never while the interpreter is held.
#[pyclass(name = "Checkpoints", frozen, module = "penstock._native")]
struct PyCheckpoints {
    held: Mutex<Checkpoints>,
    tables: Py<PyTables>,
}

/// A cut that is being written while training goes on. Dropped, it is as if it had not been.
#[pyclass(name = "OpenCut", frozen, module = "penstock._native")]
struct PyOpenCut {
    cut: Mutex<Option<OpenCut>>,
    checkpoints: Py<PyCheckpoints>,
}

pub(crate) fn folder(path: PathBuf) -> Result<Arc<dyn Disk>, ArtefactError> {
    let name = path.display().to_string();
    let folder = Folder::new(path).map_err(|error| ArtefactError::Io {
        file: name,
        doing: "making the folder",
        error,
    })?;
    Ok(Arc::new(folder))
}

fn is_empty(table: &Table) -> bool {
    table.rows() == 0 && table.clock().update == 0
}

fn not_empty(py: Python<'_>, table: &str) -> PyErr {
    let message = format!("table '{table}' has rows already; a checkpoint fills empty tables");
    raise(py, "not_empty", message, &[("table", table)])
}

#[pymethods]
impl PyCheckpoints {
    /// Opens the folder, made if it is not there. `plan` is recorded, and compared by `resume`.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, tables: Py<PyTables>, plan: String) -> PyResult<Self> {
        let held = py
            .detach(|| Checkpoints::open(folder(path)?, plan))
            .map_err(|error| to_py(py, error))?;
        Ok(Self {
            held: Mutex::new(held),
            tables,
        })
    }

    /// Cuts the tables here, between two batches; nothing is written yet.
    fn prepare(
        slf: &Bound<'_, Self>,
        name: &str,
        sections: Vec<(String, Bound<'_, PyBytes>)>,
        full: bool,
        copy_limit_bytes: u64,
    ) -> PyResult<PyOpenCut> {
        let (py, this) = (slf.py(), slf.get());
        let options = CutOptions {
            full,
            copy_limit_bytes,
        };
        let tables = this.tables.get();
        let mut cut = py
            .detach(|| this.lock().prepare(&mut tables.write(), name, options))
            .map_err(|error| to_py(py, error))?;
        for (name, bytes) in sections {
            cut.section(name, bytes.as_bytes());
        }
        Ok(PyOpenCut {
            cut: Mutex::new(Some(cut)),
            checkpoints: slf.clone().unbind(),
        })
    }

    /// The newest cut's rows into the tables, which must be empty and alike; its sections. None where there is no cut.
    /// After an error the tables are as they were.
    fn resume<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let tables = self.tables.get();
        let found = py.detach(|| {
            let mut checkpoints = self.lock();
            let Some(newest) = checkpoints.newest().map_err(Fault::Artefact)? else {
                return Ok(None);
            };
            let mut store = tables.write();
            if let Some(table) = store.tables().iter().find(|table| !is_empty(table)) {
                return Err(Fault::NotEmpty(table.config().name.clone()));
            }
            let sections = newest.sections().map_err(Fault::Artefact)?;
            let empty = tables
                .config
                .build()
                .map_err(|error| Fault::Artefact(error.into()))?;
            *store = checkpoints
                .resume(&newest, empty)
                .map_err(Fault::Artefact)?;
            tables.waiting().clear();
            Ok(Some(sections))
        });
        let sections = found.map_err(|fault| fault.raised(py))?;
        sections.map(|found| as_dict(py, &found)).transpose()
    }

    /// Removes what neither the newest cut nor the one before it needs; returns how many files.
    fn prune(&self, py: Python<'_>) -> PyResult<usize> {
        py.detach(|| self.lock().prune())
            .map_err(|error| to_py(py, error))
    }

    /// Whether what builds on the last full cut weighs more than that.
    #[getter]
    fn outweighed(&self) -> bool {
        self.lock().outweighed()
    }

    /// The cuts in the folder, oldest first.
    fn sequences(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        py.detach(|| self.lock().sequences())
            .map_err(|error| to_py(py, error))
    }
}

impl PyCheckpoints {
    fn lock(&self) -> MutexGuard<'_, Checkpoints> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl PyOpenCut {
    /// Writes about so many rows more; whether all is written. Look-ups go on meanwhile, steps wait for it.
    fn write(&self, py: Python<'_>, rows: u64) -> PyResult<bool> {
        let tables = self.checkpoints.get().tables.get();
        py.detach(|| {
            let mut held = self.lock();
            let cut = held.as_mut().ok_or_else(over)?;
            let done = cut.step(&tables.read(), rows);
            if done.is_err() {
                *held = None;
            }
            done
        })
        .map_err(|error| to_py(py, error))
    }

    /// Writes what is left, in turns with whoever steps the tables, and makes the cut last.
    fn commit(&self, py: Python<'_>) -> PyResult<Committed> {
        let checkpoints = self.checkpoints.get();
        let tables = checkpoints.tables.get();
        let committed = py
            .detach(|| {
                let mut cut = self.lock().take().ok_or_else(over)?;
                while !cut.step(&tables.read(), TURN)? {}
                checkpoints.lock().commit(cut, &mut tables.write())
            })
            .map_err(|error| to_py(py, error))?;
        Ok((
            committed.sequence,
            committed.file,
            committed.parent,
            committed.rows,
        ))
    }

    /// Leaves folder and tables as if the cut had not been. Nothing happens where it is over already.
    fn abort(&self, py: Python<'_>) {
        let tables = self.checkpoints.get().tables.get();
        py.detach(|| {
            if let Some(cut) = self.lock().take() {
                cut.abort(&mut tables.write());
            }
        });
    }
}

impl PyOpenCut {
    fn lock(&self) -> MutexGuard<'_, Option<OpenCut>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn over() -> ArtefactError {
    ArtefactError::CutOver {
        cut: "that was committed or aborted".into(),
    }
}

enum Fault {
    Artefact(ArtefactError),
    NotEmpty(String),
    NoTable(usize),
}

impl Fault {
    fn raised(self, py: Python<'_>) -> PyErr {
        match self {
            Fault::Artefact(error) => to_py(py, error),
            Fault::NotEmpty(table) => not_empty(py, &table),
            Fault::NoTable(number) => no_table(number),
        }
    }
}

fn as_dict<'py>(
    py: Python<'py>,
    sections: &BTreeMap<String, Vec<u8>>,
) -> PyResult<Bound<'py, PyDict>> {
    let found = PyDict::new(py);
    for (name, bytes) in sections {
        found.set_item(name, PyBytes::new(py, bytes))?;
    }
    Ok(found)
}

fn newest(path: PathBuf) -> Result<Checkpoint, ArtefactError> {
    let file = path.display().to_string();
    if path.is_dir()
        && let Some(newest) = Checkpoints::open(folder(path)?, "")?.newest()?
    {
        return Ok(newest);
    }
    Err(ArtefactError::Io {
        file,
        doing: "looking for a checkpoint in it",
        error: std::io::ErrorKind::NotFound.into(),
    })
}

/// Rows and state of tables of the newest cut in a folder into empty tables of another set: (number there, number here)
/// each. Returns the rows of each. After an error the tables are as they were.
#[pyfunction]
fn carry(
    py: Python<'_>,
    path: PathBuf,
    tables: Py<PyTables>,
    numbers: Vec<(usize, usize)>,
) -> PyResult<Vec<u64>> {
    let tables = tables.get();
    let carried = py.detach(|| {
        let checkpoint = newest(path).map_err(Fault::Artefact)?;
        let mut store = tables.write();
        let mut made = tables
            .config
            .build()
            .map_err(|error| Fault::Artefact(error.into()))?;
        let mut rows = Vec::with_capacity(numbers.len());
        for &(there, here) in &numbers {
            let table = made.tables_mut().get_mut(here);
            let table = table.ok_or(Fault::NoTable(here))?;
            let held = &store.tables()[here];
            if !is_empty(held) || !is_empty(table) {
                return Err(Fault::NotEmpty(held.config().name.clone()));
            }
            table.stand_in_for(held);
            rows.push(checkpoint.carry(there, table).map_err(Fault::Artefact)?);
        }
        for (_, here) in numbers {
            std::mem::swap(&mut made.tables_mut()[here], &mut store.tables_mut()[here]);
        }
        Ok(rows)
    });
    carried.map_err(|fault| fault.raised(py))
}

/// The newest cut in a folder, table by table: facts are read when it is opened, rows when they are asked for.
#[pyclass(name = "Checkpoint", frozen, module = "penstock._native")]
struct PyCheckpoint {
    checkpoint: Checkpoint,
    tables: Vec<CheckpointTable>,
}

#[pymethods]
impl PyCheckpoint {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let open = || {
            let checkpoint = newest(path)?;
            let tables = checkpoint.tables()?;
            Ok(Self { checkpoint, tables })
        };
        py.detach(open).map_err(|error| to_py(py, error))
    }

    /// Its number, the name it was given, and the numbers of the cuts it consists of.
    #[getter]
    fn facts(&self) -> (u64, &str, Vec<u64>) {
        let held = &self.checkpoint;
        (held.sequence(), held.cut_id(), held.chain())
    }

    /// What was recorded as the plan.
    #[getter]
    fn plan(&self) -> &str {
        self.checkpoint.plan()
    }

    /// Each slot's number, its table's, and whether its keys are a feature plan's.
    #[getter]
    fn slots(&self) -> PyResult<Vec<(u32, usize, bool)>> {
        let slot = |(slot, said): (&str, &str)| {
            let (table, keys) = said.strip_prefix("table ")?.split_once(", ")?;
            let (slot, table) = (slot.parse().ok()?, table.parse().ok()?);
            Some((slot, table, keys == "mapped keys"))
        };
        let slots: Option<_> = self.checkpoint.slots().map(slot).collect();
        slots.ok_or_else(|| PyValueError::new_err("a slot of the checkpoint is not one"))
    }

    /// Each table's name, dim, type of values, rows, optimizer, columns of state with their widths, whether it has
    /// scores, updates, and latest event time.
    #[getter]
    #[allow(clippy::type_complexity)]
    fn tables(
        &self,
    ) -> Vec<(
        String,
        usize,
        String,
        u64,
        String,
        Vec<(String, usize)>,
        bool,
        u64,
        u32,
    )> {
        let tables = self.tables.iter().cloned();
        tables
            .map(|table| {
                let dtype = format!("{:?}", table.dtype).to_lowercase();
                let CheckpointTable {
                    name,
                    dim,
                    rows,
                    optimizer,
                    state,
                    score,
                    update,
                    now_s,
                    ..
                } = table;
                (
                    name, dim, dtype, rows, optimizer, state, score, update, now_s,
                )
            })
            .collect()
    }

    /// The rows of a table in these of the 4,096 buckets, as `Tables.rows_in`.
    fn rows_in(&self, py: Python<'_>, table: usize, first: usize, end: usize) -> PyResult<Columns> {
        let held = self.tables.get(table).ok_or_else(|| no_table(table))?;
        py.detach(|| {
            let mut columns = Columns::default();
            let add = |key, parts| columns.add(key, &parts);
            self.checkpoint.each_in(held, first..end, add)?;
            Ok(columns)
        })
        .map_err(|error| to_py(py, error))
    }
}
