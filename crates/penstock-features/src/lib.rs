//! The feature kernel: a plan is compiled once, then runs over Arrow columns and over single rows with the same code.
//!
//! In: the resolved plan's JSON, compiled dictionaries, user functions; record batches or rows of raw columns.
//! Out: 64-bit keys a slot, f32s a dense. Read `plan`, then `eval`; CONTRACT §2 says what every function means.

mod apply;
mod block;
mod canonical;
mod civil;
mod cross;
mod defined;
pub mod dictionary;
mod emit;
mod error;
mod eval;
mod explain;
mod formula;
mod functions;
mod keys;
mod load;
mod logarithm;
mod numeric;
mod output;
mod plan;
mod row;
mod select;
mod spec;
mod time;
mod udf;
mod values;
mod wide;

pub use apply::{Mapped, OnError, Options};
pub use canonical::hash_column;
pub use dictionary::Dictionary;
pub use error::{ApplyError, DictionaryError, PlanError, RowError};
pub use explain::Explained;
pub use keys::{MAX_SLOT, NULL_VALUE, VALUE_BITS, hashed_value};
pub use output::Form;
pub use plan::{Attachments, Plan};
pub use row::{MappedRow, MappedSlot, Scratch, Value};
