//! Bindings of `penstock-table`: a model's tables behind one lock; numpy's arrays in and out by the buffer protocol.

mod arrays;
mod config;
mod cuts;
mod delta;
mod fault;
mod rows;
mod snapshot;

pub(crate) use cuts::folder;
pub(crate) use delta::{Packed, packed};
pub(crate) use fault::to_py as artefact_error;

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arrays::{filled, held, maybe, words};
use penstock_table::{
    Bag, Found, Layout, Pooling, RowParts, Staged, Store, TableError, Update, Updated,
    delta as chain,
};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTables>()?;
    module.add_class::<PyFound>()?;
    fault::register(module)?;
    cuts::register(module)?;
    delta::register(module)?;
    snapshot::register(module)
}

fn to_py(error: TableError) -> PyErr {
    match error {
        TableError::MemoryLimit { .. } | TableError::OutOfMemory { .. } => {
            PyMemoryError::new_err(error.to_string())
        }
        other => PyValueError::new_err(other.to_string()),
    }
}

/// The embedding tables of one model, addressed by slot. Look-ups share, steps exclude.
///
/// Keys are int64 arrays, whose bits are taken as u64; values and gradients are float32. Arrays must be contiguous.
#[pyclass(name = "Tables", frozen, module = "penstock._native")]
struct PyTables {
    store: RwLock<Store>,
    staged: Mutex<Staged>,
    threads: usize,
    /// What the tables were declared by: to make them anew.
    config: config::Store,
}

/// The distinct keys of a batch that was pooled, and where their rows are: `stage` takes it.
#[pyclass(name = "Found", frozen, module = "penstock._native")]
struct PyFound(Found);

/// One slot's keys, row offsets and weights as Python gives them.
type GivenBag = (u32, PyBuffer<i64>, PyBuffer<i64>, Option<PyBuffer<f32>>);

#[pymethods]
impl PyTables {
    /// Tables and slots as JSON (see `config.rs`). Raises ValueError saying what in it means nothing.
    #[new]
    fn new(json: &str) -> PyResult<Self> {
        let config: config::Store =
            serde_json::from_str(json).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let threads = config.threads.max(1);
        let store = config.build().map_err(to_py)?;
        Ok(Self {
            store: RwLock::new(store),
            staged: Mutex::default(),
            threads,
            config,
        })
    }

    /// The rows of `keys` into `out` (keys x dim); returns how many keys have one. Changes nothing.
    fn lookup(
        &self,
        py: Python<'_>,
        slot: u32,
        keys: PyBuffer<i64>,
        out: PyBuffer<f32>,
    ) -> PyResult<usize> {
        let (keys, out) = (words(&keys, "keys")?, filled(&out, "out")?);
        py.detach(|| self.read().lookup(slot, keys, out))
            .map_err(to_py)
    }

    /// Sum the gradients (keys x dim) of each key and step its row; returns what was done.
    #[pyo3(signature = (slot, keys, grads, event_time_s, occurrences = None, shows = None, clicks = None))]
    #[allow(clippy::too_many_arguments)]
    fn update<'py>(
        &self,
        py: Python<'py>,
        slot: u32,
        keys: PyBuffer<i64>,
        grads: PyBuffer<f32>,
        event_time_s: i64,
        occurrences: Option<PyBuffer<u32>>,
        shows: Option<PyBuffer<f32>>,
        clicks: Option<PyBuffer<f32>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (keys, grads) = (words(&keys, "keys")?, held(&grads, "grads")?);
        let occurrences = maybe(occurrences.as_ref(), "occurrences")?;
        let shows = maybe(shows.as_ref(), "shows")?;
        let clicks = maybe(clicks.as_ref(), "clicks")?;
        let batch = Update {
            keys,
            grads,
            occurrences,
            shows,
            clicks,
            event_time_s,
            pulled: None,
        };
        let updated = py
            .detach(|| self.write().update(slot, &batch))
            .map_err(to_py)?;
        done(py, updated)
    }

    /// Each slot's bags pooled side by side into `out` (samples x the sum of the dims). Changes nothing.
    ///
    /// The first `lead` columns of each bag go to `leads` instead (samples x bags x lead), and a sample of `out` is then
    /// `stride` wide; what is behind the bags' columns is left as it is. Returns what was found if `keep` says so.
    #[pyo3(signature = (bags, pooling, out, lead = 0, leads = None, stride = None, keep = false))]
    #[allow(clippy::too_many_arguments)]
    fn pool(
        &self,
        py: Python<'_>,
        bags: Vec<GivenBag>,
        pooling: &str,
        out: PyBuffer<f32>,
        lead: usize,
        leads: Option<PyBuffer<f32>>,
        stride: Option<usize>,
        keep: bool,
    ) -> PyResult<Option<PyFound>> {
        let (bags, pooling) = (bags_of(&bags)?, pooling_of(pooling)?);
        let out = filled(&out, "out")?;
        let leads = leads.as_ref().map(|leads| filled(leads, "leads"));
        let leads = leads.transpose()?.unwrap_or_default();
        let (layout, threads) = (Layout { lead, stride }, self.threads);
        py.detach(|| {
            let store = self.read();
            if keep {
                let found = store.pool_found(&bags, pooling, threads, layout, leads, out);
                return found.map(|found| Some(PyFound(found)));
            }
            let pooled = store.pool_parted(&bags, pooling, threads, layout, leads, out);
            pooled.map(|()| None)
        })
        .map_err(to_py)
    }

    /// Keep the gradients of what `pool` gave until `step`; several uses of a key add up. `found`: what `pool` kept of
    /// these bags, so that nothing is looked for again.
    #[pyo3(signature = (bags, pooling, grads, lead = 0, leads = None, stride = None, found = None))]
    #[allow(clippy::too_many_arguments)]
    fn stage(
        &self,
        py: Python<'_>,
        bags: Vec<GivenBag>,
        pooling: &str,
        grads: PyBuffer<f32>,
        lead: usize,
        leads: Option<PyBuffer<f32>>,
        stride: Option<usize>,
        found: Option<Py<PyFound>>,
    ) -> PyResult<()> {
        let (bags, pooling) = (bags_of(&bags)?, pooling_of(pooling)?);
        let found = found.as_ref().map(|found| &found.get().0);
        let grads = held(&grads, "grads")?;
        let leads = maybe(leads.as_ref(), "leads")?.unwrap_or_default();
        let layout = Layout { lead, stride };
        py.detach(|| {
            let (store, mut staged) = (self.read(), self.waiting());
            store.stage_parted(&bags, pooling, layout, leads, grads, found, &mut staged)
        })
        .map_err(to_py)
    }

    /// Multiply what is staged: unscaling, averaging over accumulated batches, clipping.
    fn scale_staged(&self, py: Python<'_>, factor: f32) {
        py.detach(|| self.waiting().scale(factor));
    }

    fn staged_is_finite(&self, py: Python<'_>) -> bool {
        py.detach(|| self.waiting().is_finite())
    }

    /// The sum of the squares of all staged gradients, each key's summed first.
    fn staged_square_sum(&self, py: Python<'_>) -> f64 {
        py.detach(|| self.waiting().square_sum())
    }

    fn drop_staged(&self) {
        self.waiting().clear();
    }

    /// Apply what is staged. Raises ValueError, and changes nothing, where a gradient is not finite.
    fn step<'py>(&self, py: Python<'py>, event_time_s: i64) -> PyResult<Bound<'py, PyDict>> {
        let updated = py
            .detach(|| self.write().step(&mut self.waiting(), event_time_s))
            .map_err(to_py)?;
        done(py, updated)
    }

    fn set_learning_rate(&self, table: usize, rate: f32) -> PyResult<()> {
        match self.write().tables_mut().get_mut(table) {
            Some(table) => {
                table.set_learning_rate(rate);
                Ok(())
            }
            None => Err(no_table(table)),
        }
    }

    /// Visit `lines` index lines of each table and drop the rows that its eviction condemns; returns how many.
    fn sweep(&self, py: Python<'_>, lines: u64) -> u64 {
        py.detach(|| {
            let mut store = self.write();
            let tables = store.tables_mut().iter_mut();
            tables.map(|table| table.sweep(lines).evicted).sum()
        })
    }

    /// Rows of each table.
    #[getter]
    fn rows(&self) -> Vec<u64> {
        self.read()
            .tables()
            .iter()
            .map(penstock_table::Table::rows)
            .collect()
    }

    /// Bytes of each table.
    #[getter]
    fn bytes(&self) -> Vec<u64> {
        let store = self.read();
        store
            .tables()
            .iter()
            .map(|table| table.memory().total())
            .collect()
    }

    /// A table whole, bucket by bucket: keys, values (rows x dim), state (rows x its width), counts, last seen.
    fn export<'py>(&self, py: Python<'py>, table: usize) -> PyResult<Bound<'py, PyTuple>> {
        let columns = self.rows_in(py, table, 0, 4096)?.into_pyobject(py)?;
        columns
            .get_slice(0, 5)
            .into_pyobject(py)
            .map_err(PyErr::from)
    }

    /// The rows in these of the 4,096 buckets, as `export`, and their scores (zeros without one).
    fn rows_in(
        &self,
        py: Python<'_>,
        table: usize,
        first: usize,
        end: usize,
    ) -> PyResult<rows::Columns> {
        let exported = py.detach(|| {
            let mut columns = rows::Columns::default();
            let store = self.read();
            let table = store.tables().get(table)?;
            table.each_in(first..end, |key, parts| columns.add(key, &parts));
            Some(columns)
        });
        exported.ok_or_else(|| no_table(table))
    }

    /// Changes are kept for a consumer from here on.
    fn track_changes(&self, py: Python<'_>, consumer: &str) {
        py.detach(|| chain::track(&mut self.write(), consumer));
    }

    /// What changed since the consumer was told last, as bodies of at most about `most` bytes; and of table i the keys
    /// `named[i]` as they are. `tell_changes` what it gave once it is where it belongs.
    fn pack_changes(
        &self,
        py: Python<'_>,
        consumer: &str,
        named: Vec<PyBuffer<i64>>,
        half: bool,
        most: usize,
    ) -> PyResult<Packed> {
        packed(py, &named, half, most, |named, packer| {
            chain::pack(&mut self.write(), consumer, named, packer)
        })
    }

    /// The consumer has everything before these epochs, one a table.
    fn tell_changes(&self, py: Python<'_>, consumer: &str, epochs: Vec<u32>) {
        py.detach(|| chain::tell(&mut self.write(), consumer, &epochs));
    }

    /// The name of a table's optimizer, the columns of its state with their widths, and whether rows have scores.
    #[allow(clippy::type_complexity)]
    fn shape(&self, table: usize) -> PyResult<(&'static str, Vec<(&'static str, usize)>, bool)> {
        let store = self.read();
        let config = store.tables().get(table).ok_or_else(|| no_table(table))?;
        let config = config.config();
        let columns = config.optimizer.columns(config.dim).into_iter();
        Ok((
            config.optimizer.name(),
            columns.map(|column| (column.name, column.width)).collect(),
            config.eviction.score.is_some(),
        ))
    }

    /// Put rows into a table as `export` gave them; rows that are there are replaced. Without `state` (empty) the
    /// optimizer begins anew from the values.
    #[pyo3(signature = (table, keys, values, state, counts, last_seen_s, scores = None))]
    #[allow(clippy::too_many_arguments)]
    fn put(
        &self,
        py: Python<'_>,
        table: usize,
        keys: PyBuffer<i64>,
        values: PyBuffer<f32>,
        state: PyBuffer<f32>,
        counts: PyBuffer<u32>,
        last_seen_s: PyBuffer<u32>,
        scores: Option<PyBuffer<f32>>,
    ) -> PyResult<()> {
        let (keys, values) = (words(&keys, "keys")?, held(&values, "values")?);
        let (state, counts) = (held(&state, "state")?, held(&counts, "counts")?);
        let last_seen = held(&last_seen_s, "last_seen_s")?;
        let scores = maybe(scores.as_ref(), "scores")?;
        let n = keys.len();
        let whole = |length: usize| n == 0 && length == 0 || n > 0 && length.is_multiple_of(n);
        if !whole(values.len())
            || !whole(state.len())
            || [counts.len(), last_seen.len()] != [n, n]
            || scores.is_some_and(|scores| scores.len() != n)
        {
            return Err(PyValueError::new_err("the columns are not equally long"));
        }
        py.detach(|| {
            let mut store = self.write();
            let table = store.tables_mut().get_mut(table).ok_or(None)?;
            let (rate, optimizer) = (table.learning_rate(), table.config().optimizer);
            let fresh = if state.is_empty() {
                optimizer.state_len(table.config().dim)
            } else {
                0
            };
            for (i, key) in keys.iter().enumerate() {
                let of = |column: &[f32]| {
                    column[i * column.len() / n..(i + 1) * column.len() / n].to_vec()
                };
                let mut parts = RowParts {
                    values: of(values),
                    state: of(state),
                    count: counts[i],
                    last_seen_s: last_seen[i],
                    version: 0,
                    score: scores.map_or(0.0, |scores| scores[i]),
                };
                if fresh > 0 {
                    parts.state.resize(fresh, 0.0);
                    optimizer.begin(rate, &parts.values, &mut parts.state);
                }
                table.put(*key, &parts).map_err(Some)?;
            }
            Ok(())
        })
        .map_err(|error: Option<TableError>| error.map_or_else(|| no_table(table), to_py))
    }
}

impl PyTables {
    fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Staged> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_table(table: usize) -> PyErr {
    PyValueError::new_err(format!("there is no table number {table}"))
}

fn done(py: Python<'_>, updated: Updated) -> PyResult<Bound<'_, PyDict>> {
    let found = PyDict::new(py);
    found.set_item("distinct", updated.distinct)?;
    found.set_item("stepped", updated.stepped)?;
    found.set_item("created", updated.created)?;
    found.set_item("sightings", updated.sightings)?;
    Ok(found)
}

fn pooling_of(name: &str) -> PyResult<Pooling> {
    match name {
        "sum" => Ok(Pooling::Sum),
        "mean" => Ok(Pooling::Mean),
        "sqrtn" => Ok(Pooling::Sqrtn),
        other => Err(PyValueError::new_err(format!(
            "pooling is 'sum', 'mean' or 'sqrtn', not '{other}'"
        ))),
    }
}

fn bags_of(given: &[GivenBag]) -> PyResult<Vec<Bag<'_>>> {
    let mut bags = Vec::with_capacity(given.len());
    for (slot, keys, offsets, weights) in given {
        bags.push(Bag {
            slot: *slot,
            keys: words(keys, "keys")?,
            offsets: held(offsets, "offsets")?,
            weights: maybe(weights.as_ref(), "weights")?,
        });
    }
    Ok(bags)
}
