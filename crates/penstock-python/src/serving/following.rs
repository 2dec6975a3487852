//! A loaded model that follows a chain: bytes of deltas come in from Python, and are applied without its lock.

use std::path::PathBuf;
use std::sync::Arc;

use penstock_serve::model::{Model, Position};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::raised;

/// A loaded version, for whoever follows its chain.
#[pyclass(name = "Following", frozen, module = "penstock._native")]
pub struct PyFollowing {
    model: Arc<Model>,
}

impl PyFollowing {
    pub fn of(model: Arc<Model>) -> PyFollowing {
        PyFollowing { model }
    }
}

#[pymethods]
impl PyFollowing {
    /// Whether it is the very version that `other` is.
    fn is_same(&self, other: PyRef<'_, PyFollowing>) -> bool {
        Arc::ptr_eq(&self.model, &other.model)
    }

    /// Generation and sequence number that are shown, and seconds since it had all that the chain had.
    fn progress(&self) -> Option<(u64, u64, f64)> {
        let found = self.model.progress()?;
        let at = found.position;
        Some((at.generation, at.sequence, found.lag_s))
    }

    /// Applies a delta's parts, which lead to (generation, sequence): all of them, or none and ValueError.
    fn apply(
        &self,
        py: Python<'_>,
        records: Vec<Bound<'_, PyBytes>>,
        generation: u64,
        sequence: u64,
    ) -> PyResult<()> {
        let records: Vec<&[u8]> = records.iter().map(|record| record.as_bytes()).collect();
        let to = Position {
            generation,
            sequence,
        };
        py.detach(|| self.model.apply_delta(&records, to))
            .map_err(raised)
    }

    /// Says where the bundle that was opened stands in its chain.
    fn stands_at(&self, generation: u64, sequence: u64) -> PyResult<()> {
        let at = Position {
            generation,
            sequence,
        };
        self.model.stands_at(at).map_err(raised)
    }

    /// Opens the base in a folder beside what is shown; deltas go there until `show`.
    fn stage(
        &self,
        py: Python<'_>,
        folder: PathBuf,
        generation: u64,
        sequence: u64,
    ) -> PyResult<()> {
        let at = Position {
            generation,
            sequence,
        };
        py.detach(|| self.model.stage_base(&folder, at))
            .map_err(raised)
    }

    /// Shows the staged base; nothing happens where none is.
    fn show(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.model.show_base()).map_err(raised)
    }

    /// Everything that the chain had at this time, in milliseconds since the epoch, was applied.
    fn is_current(&self, at_ms: u64) -> PyResult<()> {
        self.model.is_current(at_ms).map_err(raised)
    }
}
