//! The batches of a reader as Python iterates over them, and what stops it as an exception.

use std::collections::VecDeque;
use std::sync::Mutex;

use arrow_array::RecordBatch;
use arrow_pyarrow::PyArrowType;
use penstock_data::reader::Parsed;
use penstock_data::source::Encoding;
use penstock_data::{Format, ReadError, Reader};
use penstock_features::{ApplyError, Options};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::files::{PyFile, open};
use crate::features::{PyPlan, apply_error, form_of};

/// A row as it was rejected: line, column, reason, text.
type Rejected = (u64, String, String, String);

type Batches = Box<dyn Iterator<Item = Result<Parsed, ReadError>> + Send>;

/// The file's index, its rows, and the rows left out.
type Given = (usize, PyArrowType<RecordBatch>, Vec<Rejected>);

/// Iterates over (file index, batch, rejected rows), in the files' order.
#[pyclass(frozen)]
pub(super) struct BatchReader(Mutex<Reading>);

struct Reading {
    batches: Batches,
    mapping: Option<(Py<PyPlan>, Options)>,
    /// What one chunk was mapped to, beyond its first batch.
    waiting: VecDeque<Parsed>,
}

enum Fault {
    Reading(ReadError),
    Mapping(ApplyError),
}

impl Reading {
    fn next(&mut self) -> Result<Option<Parsed>, Fault> {
        if let Some(waiting) = self.waiting.pop_front() {
            return Ok(Some(waiting));
        }
        let next = self.batches.next().transpose().map_err(Fault::Reading)?;
        let (Some(parsed), Some((plan, options))) = (&next, &self.mapping) else {
            return Ok(next);
        };
        let mapped = plan.get().plan.apply_in_runs(&parsed.batch, options);
        let (runs, _) = mapped.map_err(Fault::Mapping)?;
        let file = parsed.file;
        let mut rejects = next.map_or(vec![], |parsed| parsed.rejects);
        self.waiting.extend(runs.into_iter().map(|batch| Parsed {
            file,
            batch,
            rejects: std::mem::take(&mut rejects),
        }));
        Ok(self.waiting.pop_front())
    }
}

impl BatchReader {
    /// Read `files` one after another.
    pub(super) fn open<F: Format>(
        format: F,
        files: Vec<PyFile>,
        encoding: Encoding,
        threads: usize,
    ) -> Self {
        let files = files.into_iter().map(open).collect();
        Self(Mutex::new(Reading {
            batches: Box::new(Reader::new(format, files, encoding, threads)),
            mapping: None,
            waiting: VecDeque::new(),
        }))
    }
}

#[pymethods]
impl BatchReader {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    /// From here on rows come as a feature plan maps them: `keep`, then features.
    fn map(&self, plan: Py<PyPlan>, keep: Vec<String>, form: &str, threads: usize) -> PyResult<()> {
        let options = Options {
            keep,
            form: form_of(form)?,
            threads,
            ..Options::default()
        };
        let mut reading = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        reading.mapping = Some((plan, options));
        Ok(())
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Given>> {
        let next = py.detach(|| {
            self.0
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .next()
        });
        let parsed = next.map_err(|fault| match fault {
            Fault::Reading(error) => to_py(error),
            Fault::Mapping(error) => apply_error(py, error),
        })?;
        Ok(parsed.map(|p| {
            let rejects = p
                .rejects
                .into_iter()
                .map(|r| (r.line, r.column, r.reason, r.text))
                .collect();
            (p.file, PyArrowType(p.batch), rejects)
        }))
    }
}

pub(super) fn to_py(error: ReadError) -> PyErr {
    let none = String::new;
    match error {
        ReadError::Io { file, error } => {
            let number = error.raw_os_error().unwrap_or(0);
            PyValueError::new_err(("io", file, number, none(), error.to_string(), none()))
        }
        ReadError::Damaged { file, reason } => {
            PyValueError::new_err(("damaged", file, 0, none(), reason, none()))
        }
        ReadError::TooLong { file, line, max } => {
            PyValueError::new_err(("long", file, line, none(), max.to_string(), none()))
        }
        ReadError::Header { file, reason } => {
            PyValueError::new_err(("header", file, 1, none(), reason, none()))
        }
        ReadError::Bad { file, reject } => PyValueError::new_err((
            "bad",
            file,
            reject.line,
            reject.column,
            reject.reason,
            reject.text,
        )),
    }
}
