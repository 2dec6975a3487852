//! Parquet columns of numbers, and of lists of numbers, straight into Arrow: what mapped samples are stored as.
//!
//! A general reader takes repetition levels value by value; here a page's rows are told by its runs, and its values are
//! copied. What this reader does not know (strings, nested lists, other encodings and codecs) is `Unreadable::Unknown`,
//! and the caller reads such a file, or the rest of it, by its general reader. Read `column.rs` first.

mod column;
mod levels;
mod page;

use std::fs::File;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema};

use column::Column;
pub use column::Leaf;

/// Why a file is not read further.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It may be sound: this reader does not know the feature.
    #[error("{0}")]
    Unknown(&'static str),
    #[error("{0}")]
    Damaged(&'static str),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

pub(crate) type Result<T> = std::result::Result<T, Unreadable>;

/// Where one row group's part of a column lies, as the file's footer says.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    pub offset: u64,
    pub bytes: u64,
    pub codec: Codec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    None,
    Zstd,
}

/// Reads columns of one file, batch by batch.
pub struct Columns {
    file: Arc<File>,
    schema: Arc<Schema>,
    columns: Vec<Column>,
    left: u64,
}

impl Columns {
    /// `columns`: each with its type in Arrow, how it is stored, and its chunks in the file's order; together `rows` rows.
    pub fn open(
        file: File,
        schema: Arc<Schema>,
        columns: Vec<(Leaf, Vec<Chunk>)>,
        rows: u64,
    ) -> Result<Columns> {
        let file = Arc::new(file);
        let columns = schema
            .fields()
            .iter()
            .zip(columns)
            .map(|(field, (leaf, chunks))| Column::new(field.data_type(), leaf, chunks))
            .collect::<Result<Vec<_>>>()?;
        Ok(Columns {
            file,
            schema,
            columns,
            left: rows,
        })
    }

    /// The next rows, at most `rows` and no more; None after the last.
    pub fn next(&mut self, rows: usize) -> Result<Option<RecordBatch>> {
        let rows = self.left.min(rows as u64) as usize;
        if rows == 0 {
            return Ok(None);
        }
        let arrays = self
            .columns
            .iter_mut()
            .map(|column| column.take(&self.file, rows))
            .collect::<Result<Vec<_>>>()?;
        self.left -= rows as u64;
        RecordBatch::try_new(self.schema.clone(), arrays)
            .map(Some)
            .map_err(|_| Unreadable::Unknown("a null in a column that has none"))
    }
}

/// Whether `Columns` gives this type.
pub fn is_known(data_type: &DataType) -> bool {
    column::is_known(data_type)
}
