//! What can go wrong, each with what to do about it.

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TableError {
    /// A configuration that means nothing.
    #[error("table '{table}': {what}")]
    Config { table: String, what: String },
    #[error("slot {slot} is not declared")]
    UnknownSlot { slot: u32 },
    #[error("{what} has {found} elements, {expected} are needed")]
    Length {
        what: &'static str,
        found: usize,
        expected: usize,
    },
    /// Keys that are not cut into bags as they should be.
    #[error("slot {slot}: {what}")]
    Bag { slot: u32, what: String },
    #[error("the gradient of element {position} (key {key}) is not finite")]
    NotFinite { position: usize, key: u64 },
    /// Nothing of the batch was applied.
    #[error(
        "table '{table}' may use {limit} bytes, and {needed} are needed; raise memory_limit or evict more"
    )]
    MemoryLimit {
        table: String,
        limit: u64,
        needed: u64,
    },
    /// The machine refused memory in mid-batch: existing rows were updated, `refused` keys got no row.
    #[error("table '{table}': the system gave no memory; {refused} new keys got no row")]
    OutOfMemory { table: String, refused: u64 },
    #[error(
        "changes since epoch {epoch} are no longer kept (oldest: {oldest}); take a full snapshot"
    )]
    FullSnapshotNeeded { epoch: u32, oldest: u32 },
}

pub type Result<T> = std::result::Result<T, TableError>;
