//! The on-disk log: partitions of records with offsets, appended to by several processes and read while they write.
//!
//! In: messages (key, value, time). Out: the same in order, whatever was killed meanwhile. No Python here. Read
//! `docs/adr/0040-streams.md` first, then `frame.rs` and `segment.rs` for what is on disk, `writer.rs`, `reader.rs`.

mod appender;
mod cursor;
mod fault;
mod frame;
mod groups;
mod log;
mod options;
mod partition;
mod reader;
mod segment;
mod writer;

pub use appender::{Appended, Appender, Refused};
pub use fault::{Fault, Result};
pub use frame::{MOST_KEY, MOST_VALUE, Message, Record};
pub use log::{Log, MOST_PARTITIONS, partition_of};
pub use options::Options;
pub use partition::{Ack, Partition};
pub use reader::{Limit, Reader};
pub use segment::MOST_BATCH;
