//! Embedding rows by raw 64-bit keys: they appear when seen and leave when stale.
//!
//! In: keys, gradients and counts. Out: values, changes since an epoch, checkpoints, snapshots. No transport, no Python here.
//! Read `docs/adr/0030-embedding-table.md` first, then `table.rs`; `0032-checkpoints-and-snapshots.md` for what is on disk.

mod artefact;
mod batch;
mod changes;
mod checkpoint;
mod config;
mod cut;
pub mod delta;
mod epochs;
mod error;
mod found;
mod group;
pub mod half;
pub mod hash;
mod index;
mod init;
mod line;
mod lookup;
mod memory;
mod normal;
mod numbering;
mod optimizers;
mod parts;
mod places;
mod pool;
mod room;
mod rows;
mod shard;
mod simd;
mod sketch;
mod snapshot;
mod staged;
mod store;
mod sweep;
mod table;
mod threads;
mod update;
mod view;

pub use artefact::ArtefactError;
pub use batch::{Pulled, Update};
pub use checkpoint::{Checkpoint, CheckpointTable, Checkpoints, Committed, CutOptions, OpenCut};
pub use config::{
    Admission, Bounds, Engine, Eviction, GradientRules, MAX_DIM, Missing, Score, TableConfig,
};
pub use cut::PrepareWork;
pub use epochs::Change;
pub use error::{Result, TableError};
pub use found::Found;
pub use half::Dtype;
pub use init::Init;
pub use lookup::Extras;
pub use optimizers::user::{UserCall, UserContext, UserFunction};
pub use optimizers::{Column, Optimizer};
pub use parts::RowParts;
pub use penstock_disk as disk;
pub use places::Place;
pub use pool::{Bag, Layout, Pooling};
pub use room::Memory;
pub use shard::Work;
pub use simd::Level;
pub use snapshot::{Nearing, OpenSnapshot, Snapshot, SnapshotTable, prepare_snapshot};
pub use staged::Staged;
pub use store::{Keys, Slot, Store};
pub use sweep::{Cursor, Swept};
pub use table::{Clock, Table};
pub use update::Updated;
pub use view::View;
