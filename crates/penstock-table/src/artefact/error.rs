//! What can go wrong with an artefact: the file, the place in it, and what to do.

use std::io;

use crate::error::TableError;

#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    #[error("{file}: {doing} failed: {error}")]
    Io {
        file: String,
        doing: &'static str,
        error: io::Error,
    },
    #[error(
        "{file}: {section} is damaged: {what}; restore the file from a copy, or use an older one"
    )]
    Damaged {
        file: String,
        section: String,
        what: String,
    },
    #[error("{file} has format {found}, this version reads {known}; {hint}")]
    Version {
        file: String,
        found: u32,
        known: u32,
        hint: &'static str,
    },
    #[error(
        "{file}: {what} is {found}, here it is {expected}; use what it was written with, or start anew"
    )]
    Mismatch {
        file: String,
        what: String,
        found: String,
        expected: String,
    },
    #[error(
        "{file} builds on {parent}, which is not there or was replaced; open another checkpoint"
    )]
    ParentMissing { file: String, parent: String },
    #[error("cut '{open}' is open; commit or abort it first")]
    CutOpen { open: String },
    #[error(
        "cut '{cut}': rows changed while it was open took more than {limit} bytes of copies, so it was given up; \
         nothing was written; raise copy_limit_bytes or take more steps between batches"
    )]
    CopyLimit { cut: String, limit: u64 },
    #[error("cut '{cut}' is no longer open")]
    CutOver { cut: String },
    #[error("the overlay of table '{table}' is full ({rows} rows); open a newer snapshot")]
    OverlayFull { table: String, rows: u64 },
    #[error(transparent)]
    Table(#[from] TableError),
}

pub type Result<T> = std::result::Result<T, ArtefactError>;

/// Says which file, and what was done to it.
pub(crate) fn io<'a>(
    file: &'a str,
    doing: &'static str,
) -> impl FnOnce(io::Error) -> ArtefactError + 'a {
    move |error| ArtefactError::Io {
        file: file.into(),
        doing,
        error,
    }
}

pub(crate) fn damaged(
    file: &str,
    section: impl Into<String>,
    what: impl Into<String>,
) -> ArtefactError {
    ArtefactError::Damaged {
        file: file.into(),
        section: section.into(),
        what: what.into(),
    }
}
