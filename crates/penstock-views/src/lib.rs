//! Feature views: what is known of an entity at a time, from its events. The same code adds events offline and online.
//!
//! In: a declared `View` and events. Out: a row of values an entity and time, by a point-in-time join (`join`), or from a
//! store of packed blobs (`store`). Read `view.rs` and `state.rs` first.

mod cell;
mod columns;
mod join;
mod keys;
mod lmdb;
mod packed;
mod redis;
mod redis_place;
mod resp;
mod state;
mod store;
mod view;

pub use cell::{Cell, Seen};
pub use columns::{Events, batch_of};
pub use join::{Joined, Joiner};
pub use keys::{Keys, Wanted, identity};
pub use lmdb::Lmdb;
pub use packed::Reader;
pub use redis::Redis;
pub use state::State;
pub use store::{About, Found, Store, Told, add, open, read};
pub use view::{Aggregate, Column, Function, Kind, View, Window};

/// What goes wrong here; the control side has the codes.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the declaration cannot be read: {0}")]
    Declared(String),
    #[error("what is stored for it cannot be read")]
    Damaged,
    #[error("view '{0}' was declared otherwise when this was written")]
    Redeclared(String),
    #[error("the store has no view '{0}'")]
    Unknown(String),
    #[error("view '{view}' is at {found} and not at {expected}: somebody else writes it")]
    Moved {
        view: String,
        expected: String,
        found: String,
    },
    #[error("{0}")]
    Rows(String),
    #[error("{0}")]
    Store(String),
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
}
