//! Progressive linear models and factorisation machines over raw keys: predict, then learn (ADR 0031).
//!
//! In: columns of keys and numbers, labels, sample weights. Out: margins, metrics, rows. Results are the same bits at any
//! number of threads and however the columns are cut into batches. Read `model.rs` first, then `trainer.rs`.

mod columns;
mod cuts;
mod distinct;
mod laid;
mod model;
mod owner;
mod part;
mod settings;
mod state;
mod step;
mod tally;
mod told;
mod trainer;

pub use columns::{Columns, Offsets, Slot};
pub use cuts::{Cuts, Sections};
pub use laid::{Laid, OwnRows};
pub use model::{Model, NUMBER_FIELD, RowOut};
pub use settings::{Factors, Optimizer, Rates, Settings};
pub use tally::Progress;
pub use told::Own;
pub use trainer::Trainer;
