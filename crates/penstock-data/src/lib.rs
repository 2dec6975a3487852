//! Text formats in, Arrow batches out: CSV, JSON lines, plain text and libsvm, with a stream of rejected rows.
//!
//! `source` decompresses and decodes, `chunk` cuts whole records, a `Format` (`csv`, `json`, `text`, `libsvm`) parses
//! a chunk on any thread into a `column` a field, `reader` keeps the order. Start with `reader`. `parquet` reads the
//! columns that mapped samples have.

pub mod chunk;
mod column;
pub mod csv;
pub mod error;
pub mod infer;
pub mod json;
pub mod libsvm;
pub mod parquet;
pub mod reader;
pub mod record;
mod regular;
pub mod scalar;
pub mod source;
pub mod text;

pub use error::{OnError, ReadError, Reject};
pub use reader::{FileSpec, Format, Reader};
