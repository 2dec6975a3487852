//! Many rows as columns of bytes, which numpy takes as they are.

use penstock_table::RowParts;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

/// Keys (u64), values and state (f32, each row's after the other's), counts, last seen (u32), scores (f32).
#[derive(Default)]
pub(super) struct Columns {
    keys: Vec<u8>,
    values: Vec<u8>,
    state: Vec<u8>,
    counts: Vec<u8>,
    last_seen_s: Vec<u8>,
    scores: Vec<u8>,
}

impl Columns {
    pub(super) fn add(&mut self, key: u64, parts: &RowParts) {
        self.add_values(key, &parts.values);
        floats(&mut self.state, &parts.state);
        self.counts.extend_from_slice(&parts.count.to_le_bytes());
        self.last_seen_s
            .extend_from_slice(&parts.last_seen_s.to_le_bytes());
        self.scores.extend_from_slice(&parts.score.to_le_bytes());
    }

    /// A row of a snapshot, which has nothing else.
    pub(super) fn add_values(&mut self, key: u64, values: &[f32]) {
        self.keys.extend_from_slice(&key.to_le_bytes());
        floats(&mut self.values, values);
    }
}

fn floats(column: &mut Vec<u8>, values: &[f32]) {
    for value in values {
        column.extend_from_slice(&value.to_le_bytes());
    }
}

impl<'py> IntoPyObject<'py> for Columns {
    type Target = PyTuple;
    type Output = Bound<'py, PyTuple>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let columns = [
            self.keys,
            self.values,
            self.state,
            self.counts,
            self.last_seen_s,
            self.scores,
        ];
        PyTuple::new(py, columns.map(|column| PyBytes::new(py, &column)))
    }
}
