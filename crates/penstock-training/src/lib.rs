//! Algorithms that never touch Python per row: sparse logistic regression, linear SVM, FP-growth.
//!
//! In: plain slices. Out: weights, itemsets, rules. Every result is the same bits at any thread count.
//! Read `logistic` first.

pub mod fields;
pub mod fptree;
pub mod itemsets;
pub mod key_table;
pub mod logistic;
pub mod online;
pub mod rules;
pub mod svm;

/// What the caller's data got wrong.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("{0}")]
    Invalid(String),
    /// The caller's progress function asked to stop.
    #[error("stopped")]
    Stopped,
}

pub type Result<T> = std::result::Result<T, TrainError>;

pub(crate) fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(TrainError::Invalid(message.into()))
}
