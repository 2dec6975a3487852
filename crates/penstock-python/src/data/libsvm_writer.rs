//! Batches of labels and keys as lines of libsvm.

use arrow_array::{Array, Float32Array, Int64Array, ListArray, RecordBatch};
use arrow_pyarrow::PyArrowType;
use penstock_data::libsvm::LibsvmWriter;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Turns batches of label f32, keys list<i64>, weights list<f32>, qid i64 into libsvm text.
#[pyclass(name = "LibsvmWriter")]
pub(super) struct PyLibsvmWriter(LibsvmWriter);

#[pymethods]
impl PyLibsvmWriter {
    #[new]
    fn new() -> Self {
        Self(LibsvmWriter::default())
    }

    /// The lines of `batch` (columns label, keys and, where there are any, weights, qid).
    fn lines<'py>(
        &mut self,
        py: Python<'py>,
        batch: PyArrowType<RecordBatch>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let batch = batch.0;
        let text = py
            .detach(|| {
                let labels: &Float32Array =
                    column(&batch, "label")?.ok_or("there is no column 'label'")?;
                let keys: &ListArray =
                    column(&batch, "keys")?.ok_or("there is no column 'keys'")?;
                let mut out = Vec::with_capacity(keys.values().len() * 16);
                self.0.write(
                    labels,
                    keys,
                    column(&batch, "weights")?,
                    column::<Int64Array>(&batch, "qid")?,
                    &mut out,
                )?;
                Ok(out)
            })
            .map_err(|reason: String| PyValueError::new_err(reason))?;
        Ok(PyBytes::new(py, &text))
    }
}

fn column<'a, A: Array + 'static>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<Option<&'a A>, String> {
    let Some(found) = batch.column_by_name(name) else {
        return Ok(None);
    };
    found
        .as_any()
        .downcast_ref::<A>()
        .map(Some)
        .ok_or_else(|| format!("column '{name}' is of type {}", found.data_type()))
}
