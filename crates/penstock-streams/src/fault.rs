//! What can go wrong with a log, each with what belongs to it.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{file}: {doing}: {error}")]
    Io {
        file: String,
        doing: &'static str,
        error: io::Error,
    },
    /// What was to be appended is not acknowledged; what was acknowledged before is there.
    #[error("{file}: the disk is full while {doing}")]
    Full { file: String, doing: &'static str },
    /// The system could not make the records last; those of this append are in doubt.
    #[error("{file}: not made lasting: {error}")]
    NotSynced { file: String, error: io::Error },
    /// Records `first..next` cannot be read; those from `next` on can.
    #[error(
        "{file}: damaged at byte {at}: the records from offset {first} to before {next} are lost"
    )]
    Damaged {
        file: String,
        at: u64,
        first: u64,
        next: u64,
    },
    #[error("{file}: {what}")]
    NotALog { file: String, what: &'static str },
    #[error("{file}: format {found}, while this Penstock knows format {known}")]
    Version {
        file: String,
        found: u32,
        known: u32,
    },
    /// Retention or a trim took it away.
    #[error("{file}: offset {asked} is no longer kept; the oldest is {start}")]
    Trimmed {
        file: String,
        asked: u64,
        start: u64,
    },
    #[error("{file}: offset {asked} is beyond the end, {end}")]
    Beyond { file: String, asked: u64, end: u64 },
    #[error("{what} is {size} bytes; at most {most} are taken")]
    TooLarge {
        what: String,
        size: usize,
        most: usize,
    },
    #[error("{file}: held by another process for more than {waited_ms} ms")]
    Locked { file: String, waited_ms: u64 },
    #[error("{file}: {what} is {found}, not {asked}")]
    Mismatch {
        file: String,
        what: &'static str,
        found: u64,
        asked: u64,
    },
    #[error("partition {partition}: there are {partitions}")]
    NoPartition { partition: usize, partitions: usize },
    #[error("{0}")]
    Setting(String),
    #[error("{0}: there is no log")]
    Missing(String),
}

pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    pub(crate) fn io(file: impl Into<String>, doing: &'static str, error: io::Error) -> Fault {
        let file = file.into();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Fault::Full { file, doing }
            }
            _ => Fault::Io { file, doing, error },
        }
    }
}
