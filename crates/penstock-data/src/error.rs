//! What can be wrong with a file, and with a row.

use std::io;

/// What happens to a row with a bad field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    Fail,
    Drop,
    Keep,
}

impl OnError {
    /// Put a bad row with the others, or stop at it.
    pub(crate) fn note(
        self,
        file: usize,
        reject: Reject,
        rejects: &mut Vec<Reject>,
    ) -> Result<(), ReadError> {
        if self == OnError::Fail {
            return Err(ReadError::Bad { file, reject });
        }
        rejects.push(reject);
        Ok(())
    }
}

/// One rejected row: its line (1-based; of the record's first line), the column ("" = the whole row), why, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub line: u64,
    pub column: String,
    pub reason: String,
    pub text: String,
}

impl Reject {
    /// Longest text kept of a rejected row; the rest of a longer one helps nobody.
    pub const MAX_TEXT: usize = 4096;

    pub fn new(line: u64, column: &str, reason: String, raw: &[u8]) -> Self {
        let cut = &raw[..raw.len().min(Self::MAX_TEXT)];
        let text = String::from_utf8_lossy(cut)
            .trim_end_matches(['\n', '\r'])
            .to_owned();
        Self {
            line,
            column: column.to_owned(),
            reason,
            text,
        }
    }
}

/// Why reading a file stops. The file is named by its index; whoever opened it knows its name.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{error}")]
    Io { file: usize, error: io::Error },
    #[error("{reason}")]
    Damaged { file: usize, reason: String },
    #[error("line {line} is longer than {max} bytes")]
    TooLong { file: usize, line: u64, max: usize },
    #[error("{reason}")]
    Header { file: usize, reason: String },
    #[error("line {}: {}", reject.line, reject.reason)]
    Bad { file: usize, reject: Reject },
}
