//! What goes wrong, and where: in the plan, in the types that arrive, in a row, in a dictionary.

use std::path::PathBuf;

/// The plan itself is wrong; it cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the plan is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the plan says '{0}', and this kernel reads 'plan/1'")]
    Version(String),
    #[error("the seed '{0}' is not an unsigned 64-bit integer")]
    Seed(String),
    #[error("item '{item}': {reason}")]
    Item { item: String, reason: String },
    #[error("dictionary '{name}': {reason}")]
    Dictionary { name: String, reason: String },
    #[error("function '{0}' is named by the plan but was not given to it")]
    MissingFunction(String),
}

/// A row has no meaning under the plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: '{item}' {reason}")]
pub struct RowError {
    /// 0-based, in the batch.
    pub row: usize,
    pub item: String,
    pub reason: String,
}

/// A batch cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("column '{0}' is not in the batch")]
    MissingColumn(String),
    #[error("'{item}': {reason}")]
    Type { item: String, reason: String },
    #[error("column '{column}': {reason}")]
    Column { column: String, reason: String },
    #[error("{0}")]
    Unhashable(String),
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
}

/// A dictionary's source or its compiled file is wrong.
#[derive(Debug, thiserror::Error)]
pub enum DictionaryError {
    #[error("{path}: {error}")]
    Io {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{path}:{line}: not UTF-8")]
    NotUtf8 { path: PathBuf, line: usize },
    #[error("{path}:{line}: {value:?} is already on line {first}")]
    Duplicate {
        path: PathBuf,
        line: usize,
        first: usize,
        value: String,
    },
    #[error("value {index} ({value:?}) is already value {first}")]
    DuplicateValue {
        index: usize,
        first: usize,
        value: String,
    },
    #[error("{path}: not a compiled dictionary: {reason}")]
    Broken { path: PathBuf, reason: String },
    #[error("a dictionary holds at most {max} values")]
    TooMany { max: usize },
}
