//! The on-disk log from Python: batches in and out, faults with what belongs to them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_streams::{Ack, Fault, Limit, Log, Message, Options, Reader, partition_of};
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};

/// Readers that are kept a partition: whoever goes on reading does not search again.
const KEPT_READERS: usize = 4;
/// Between looks for new records, and between looks whether Python wants to stop.
const LOOK: Duration = Duration::from_millis(1);
const TURN: Duration = Duration::from_millis(50);

pyo3::create_exception!(
    penstock._native,
    PyLogFault,
    PyException,
    "A log: args are the kind of fault, the message, and a dict of what belongs to it."
);

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("LogFault", module.py().get_type::<PyLogFault>())?;
    module.add_class::<PyLog>()?;
    module.add_function(wrap_pyfunction!(key_partition, module)?)
}

/// The partition of a key, the same in every backend: XXH3-64 of it modulo their number.
#[pyfunction]
fn key_partition(key: &[u8], partitions: usize) -> usize {
    partition_of(key, partitions)
}

fn to_py(py: Python<'_>, fault: Fault) -> PyErr {
    let message = fault.to_string();
    let facts = PyDict::new(py);
    let set = |pairs: &[(&str, u64)]| {
        pairs
            .iter()
            .try_for_each(|(name, value)| facts.set_item(*name, *value))
    };
    let (kind, said) = match fault {
        Fault::Io { .. } => ("io", Ok(())),
        Fault::Full { .. } => ("full", Ok(())),
        Fault::NotSynced { .. } => ("not_synced", Ok(())),
        Fault::Damaged {
            at, first, next, ..
        } => (
            "damaged",
            set(&[("at", at), ("first", first), ("next", next)]),
        ),
        Fault::NotALog { .. } => ("not_a_log", Ok(())),
        Fault::Version { found, known, .. } => (
            "version",
            set(&[("found", found.into()), ("known", known.into())]),
        ),
        Fault::Trimmed { asked, start, .. } => {
            ("trimmed", set(&[("asked", asked), ("start", start)]))
        }
        Fault::Beyond { asked, end, .. } => ("beyond", set(&[("asked", asked), ("end", end)])),
        Fault::TooLarge { .. } => ("too_large", Ok(())),
        Fault::Locked { .. } => ("locked", Ok(())),
        Fault::Mismatch { found, .. } => ("mismatch", set(&[("found", found)])),
        Fault::NoPartition { partitions, .. } => {
            ("no_partition", set(&[("partitions", partitions as u64)]))
        }
        Fault::Setting(_) => ("setting", Ok(())),
        Fault::Missing(_) => ("missing", Ok(())),
    };
    match said {
        Ok(()) => PyLogFault::new_err((kind, message, facts.unbind())),
        Err(error) => error,
    }
}

#[derive(Default)]
struct Kept {
    readers: HashMap<usize, Vec<Reader>>,
    keyless: usize,
}

/// Records that were read, their bytes one after the other.
#[derive(Default)]
struct Found {
    bytes: Vec<u8>,
    /// Offset, time, length of the key (if there is one) and of the value.
    records: Vec<(u64, i64, Option<usize>, usize)>,
}

type Record<'py> = (u64, i64, Option<Bound<'py, PyBytes>>, Bound<'py, PyBytes>);

/// A topic on disk. Threads may share it.
#[pyclass(name = "Log", frozen, module = "penstock._native")]
struct PyLog {
    log: Mutex<Option<Arc<Log>>>,
    kept: Mutex<Kept>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PyLog {
    fn log(&self) -> PyResult<Arc<Log>> {
        let log = lock(&self.log).clone();
        log.ok_or_else(|| PyValueError::new_err("the log is closed"))
    }

    fn with<T: Send>(
        &self,
        py: Python<'_>,
        partition: usize,
        work: impl FnOnce(&penstock_streams::Partition) -> Result<T, Fault> + Send,
    ) -> PyResult<T> {
        let log = self.log()?;
        py.detach(|| work(log.partition(partition)?))
            .map_err(|fault| to_py(py, fault))
    }

    /// A reader that is there already, or as near as can be.
    fn reader(&self, log: &Log, partition: usize, offset: u64) -> Result<Reader, Fault> {
        let kept = &mut lock(&self.kept).readers;
        let kept = kept.entry(partition).or_default();
        if let Some(at) = kept.iter().position(|reader| reader.position() == offset) {
            return Ok(kept.remove(at));
        }
        if kept.len() < KEPT_READERS {
            return Ok(log.partition(partition)?.reader(offset));
        }
        let mut oldest = kept.remove(0);
        oldest.seek(offset);
        Ok(oldest)
    }
}

#[pymethods]
impl PyLog {
    /// Opens the topic; makes it where there is none and `create` says so. Raises `LogFault`.
    #[new]
    #[pyo3(signature = (path, *, partitions, create, segment_bytes, sync_ms, retention_ms, retention_bytes, lock_wait_ms))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        partitions: Option<usize>,
        create: bool,
        segment_bytes: u64,
        sync_ms: Option<u64>,
        retention_ms: Option<u64>,
        retention_bytes: Option<u64>,
        lock_wait_ms: u64,
    ) -> PyResult<Self> {
        let options = Options {
            segment_bytes,
            sync_every: sync_ms.map(Duration::from_millis),
            retention_ms,
            retention_bytes,
            lock_wait: Duration::from_millis(lock_wait_ms),
        };
        let log = py.detach(|| Log::open(&path, partitions, create, options));
        Ok(PyLog {
            log: Mutex::new(Some(Arc::new(log.map_err(|fault| to_py(py, fault))?))),
            kept: Mutex::default(),
        })
    }

    #[getter]
    fn partitions(&self) -> PyResult<usize> {
        Ok(self.log()?.partitions().len())
    }

    /// Appends, in order within a partition; partition, first offset and the one after the last, for each that got any.
    /// Without `partition`, a record's key chooses; those without key stay together, in another partition each call.
    fn append(
        &self,
        py: Python<'_>,
        values: Vec<PyBackedBytes>,
        keys: Option<Vec<Option<PyBackedBytes>>>,
        times_ms: Vec<i64>,
        partition: Option<usize>,
        synced: bool,
    ) -> PyResult<Vec<(usize, u64, u64)>> {
        if keys.as_ref().is_some_and(|keys| keys.len() != values.len())
            || times_ms.len() != values.len()
        {
            return Err(PyValueError::new_err(
                "keys and times must be as many as values",
            ));
        }
        let log = self.log()?;
        let count = log.partitions().len();
        let keyless = {
            let kept = &mut lock(&self.kept).keyless;
            *kept = (*kept + 1) % count;
            *kept
        };
        let ack = if synced { Ack::Synced } else { Ack::Written };
        let append = || {
            let mut parts: Vec<Vec<Message<'_>>> = vec![Vec::new(); count];
            if let Some(wrong) = partition.filter(|&partition| partition >= count) {
                log.partition(wrong)?;
            }
            for (number, value) in values.iter().enumerate() {
                let key = keys.as_ref().and_then(|keys| keys[number].as_deref());
                let by_key = || key.map_or(keyless, |key| partition_of(key, count));
                parts[partition.unwrap_or_else(by_key)].push(Message {
                    key,
                    value,
                    time_ms: times_ms[number],
                });
            }
            let mut done = Vec::new();
            for (partition, part) in parts
                .iter()
                .enumerate()
                .filter(|(_, part)| !part.is_empty())
            {
                let offsets = log.append(partition, part, ack)?;
                done.push((partition, offsets.start, offsets.end));
            }
            Ok(done)
        };
        py.detach(append).map_err(|fault| to_py(py, fault))
    }

    /// Records from `offset` on, and the offset to go on from; waits for one if there is none yet.
    fn read<'py>(
        &self,
        py: Python<'py>,
        partition: usize,
        offset: u64,
        records: usize,
        size_bytes: usize,
        wait_ms: u64,
    ) -> PyResult<(Vec<Record<'py>>, u64)> {
        let log = self.log()?;
        let limit = Limit {
            records,
            bytes: size_bytes,
        };
        let until = Instant::now() + Duration::from_millis(wait_ms);
        loop {
            let read = py.detach(|| {
                let mut reader = self.reader(&log, partition, offset)?;
                let mut found = Found::default();
                let turn = Instant::now() + TURN;
                loop {
                    let count = reader.read(limit, |record| {
                        found
                            .bytes
                            .extend_from_slice(record.key.unwrap_or_default());
                        found.bytes.extend_from_slice(record.value);
                        let (key, value) = (record.key.map(<[u8]>::len), record.value.len());
                        found
                            .records
                            .push((record.offset, record.time_ms, key, value));
                    })?;
                    let now = Instant::now();
                    if count > 0 || now >= until || now >= turn {
                        break;
                    }
                    std::thread::sleep(LOOK);
                }
                let next = reader.position();
                let kept = &mut lock(&self.kept).readers;
                kept.entry(partition).or_default().push(reader);
                Ok((found, next))
            });
            let (found, next) = read.map_err(|fault| to_py(py, fault))?;
            if found.records.is_empty() && Instant::now() < until {
                py.check_signals()?;
                continue;
            }
            let mut at = 0;
            let mut bytes = |length: usize| {
                at += length;
                PyBytes::new(py, &found.bytes[at - length..at])
            };
            let record = |(offset, time_ms, key, value): (u64, i64, Option<usize>, usize)| {
                let key = key.map(&mut bytes);
                (offset, time_ms, key, bytes(value))
            };
            return Ok((found.records.iter().copied().map(record).collect(), next));
        }
    }

    fn start(&self, py: Python<'_>, partition: usize) -> PyResult<u64> {
        self.with(py, partition, penstock_streams::Partition::start)
    }

    fn end(&self, py: Python<'_>, partition: usize) -> PyResult<u64> {
        self.with(py, partition, penstock_streams::Partition::end)
    }

    fn seek(&self, py: Python<'_>, partition: usize, time_ms: i64) -> PyResult<u64> {
        self.with(py, partition, |partition| partition.at_time(time_ms))
    }

    fn trim(&self, py: Python<'_>, partition: usize, before: u64) -> PyResult<usize> {
        self.with(py, partition, |partition| partition.trim(before))
    }

    /// Segments and their bytes.
    fn size(&self, py: Python<'_>, partition: usize) -> PyResult<(usize, u64)> {
        self.with(py, partition, penstock_streams::Partition::size)
    }

    fn commit(&self, py: Python<'_>, group: &str, partition: usize, offset: u64) -> PyResult<()> {
        self.with(py, partition, |partition| partition.commit(group, offset))
    }

    fn committed(&self, py: Python<'_>, group: &str, partition: usize) -> PyResult<Option<u64>> {
        self.with(py, partition, |partition| partition.committed(group))
    }

    fn groups(&self, py: Python<'_>, partition: usize) -> PyResult<Vec<String>> {
        self.with(py, partition, penstock_streams::Partition::groups)
    }

    fn forget(&self, py: Python<'_>, group: &str, partition: usize) -> PyResult<()> {
        self.with(py, partition, |partition| partition.forget(group))
    }

    /// Makes lasting what this process has appended.
    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        let log = self.log()?;
        py.detach(|| log.sync()).map_err(|fault| to_py(py, fault))
    }

    /// Syncs and closes; nothing happens where it is closed.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(log) = lock(&self.log).take() else {
            return Ok(());
        };
        lock(&self.kept).readers.clear();
        let synced = py.detach(|| {
            let synced = log.sync();
            drop(log);
            synced
        });
        synced.map_err(|fault| to_py(py, fault))
    }
}
