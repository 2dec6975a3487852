//! Binding of `penstock_data::parquet`: batches of one file's columns of numbers and lists of numbers.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arrow_array::RecordBatch;
use arrow_pyarrow::PyArrowType;
use arrow_schema::Schema;
use penstock_data::parquet::{Chunk, Codec, Columns, Leaf, Unreadable};
use pyo3::exceptions::{PyNotImplementedError, PyOSError, PyValueError};
use pyo3::prelude::*;

/// Iterates over batches. `NotImplementedError`: what is read so far stands, the rest is another reader's.
#[pyclass(frozen)]
pub(super) struct ParquetColumns {
    columns: Mutex<Columns>,
    rows: usize,
}

/// Greatest definition and repetition level, the definition level of an empty list, and the chunks: offset, bytes, whether zstd.
type Stored = ((u8, u8, u8), Vec<(u64, u64, bool)>);

fn to_py(error: Unreadable) -> PyErr {
    match error {
        Unreadable::Unknown(what) => PyNotImplementedError::new_err(what),
        Unreadable::Damaged(what) => PyValueError::new_err(what),
        Unreadable::Io(error) => PyOSError::new_err((error.raw_os_error(), error.to_string())),
    }
}

#[pymethods]
impl ParquetColumns {
    /// `schema`: the columns as they will be given; `stored`: how each lies in the file; `batch`: rows at a time.
    #[new]
    fn new(
        path: PathBuf,
        schema: PyArrowType<Schema>,
        stored: Vec<Stored>,
        rows: u64,
        batch: usize,
    ) -> PyResult<Self> {
        let columns = stored
            .into_iter()
            .map(|((definition, repetition, empty), chunks)| {
                let chunk = |(offset, bytes, zstd)| Chunk {
                    offset,
                    bytes,
                    codec: if zstd { Codec::Zstd } else { Codec::None },
                };
                let leaf = Leaf {
                    definition,
                    repetition,
                    empty,
                };
                (leaf, chunks.into_iter().map(chunk).collect())
            });
        let file = File::open(path).map_err(|error| to_py(error.into()))?;
        let columns =
            Columns::open(file, Arc::new(schema.0), columns.collect(), rows).map_err(to_py)?;
        Ok(Self {
            columns: Mutex::new(columns),
            rows: batch,
        })
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<PyArrowType<RecordBatch>>> {
        let next = py.detach(|| {
            let mut columns = self
                .columns
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            columns.next(self.rows)
        });
        Ok(next.map_err(to_py)?.map(PyArrowType))
    }
}
