//! A stream cut into chunks of whole records, so that each can be parsed alone and on any thread.

use std::io::{self, Read};

use crate::error::ReadError;
use crate::record::{self, Dialect};
use crate::source::start_of_text;

/// Bytes that a chunk aims at.
pub const CHUNK_BYTES: usize = 1 << 20;
/// The longest line that is read; beyond it the file is surely something else.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// Whole records of one file. `line`: the 1-based line of its first byte. `first`: the file begins here.
#[derive(Debug)]
pub struct Chunk {
    pub file: usize,
    pub data: Vec<u8>,
    pub line: u64,
    pub first: bool,
}

/// Cuts one file. `dialect` None: a record is a line.
pub struct Chunker {
    input: Box<dyn Read + Send>,
    file: usize,
    dialect: Option<Dialect>,
    pending: Vec<u8>,
    line: u64,
    ended: bool,
    started: bool,
    max_line: usize,
}

impl Chunker {
    pub fn new(input: Box<dyn Read + Send>, file: usize, dialect: Option<Dialect>) -> Self {
        Self {
            input,
            file,
            dialect,
            pending: Vec::new(),
            line: 1,
            ended: false,
            started: false,
            max_line: MAX_LINE_BYTES,
        }
    }

    /// The same with another limit: what the tests use.
    pub fn with_max_line(mut self, bytes: usize) -> Self {
        self.max_line = bytes;
        self
    }

    fn fill(&mut self, until: usize) -> Result<(), ReadError> {
        while !self.ended && self.pending.len() < until {
            let missing = (until - self.pending.len()) as u64;
            let before = self.pending.len();
            self.pending.reserve(missing as usize);
            match (&mut self.input)
                .take(missing)
                .read_to_end(&mut self.pending)
            {
                Ok(_) => self.ended = self.pending.len() == before,
                Err(error) => return Err(broken(self.file, error)),
            }
        }
        Ok(())
    }

    fn cut(&mut self, at: usize) -> Chunk {
        let rest = self.pending.split_off(at);
        let data = std::mem::replace(&mut self.pending, rest);
        let (line, first) = (self.line, !self.started);
        self.line += memchr::memchr_iter(b'\n', &data).count() as u64;
        self.started = true;
        Chunk {
            file: self.file,
            data,
            line,
            first,
        }
    }

    /// The next chunk; None at the end. An empty file gives one empty chunk.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, ReadError> {
        let mut target = CHUNK_BYTES;
        loop {
            self.fill(target)?;
            if !self.started && target == CHUNK_BYTES {
                let skip = start_of_text(&self.pending).map_err(|reason| ReadError::Damaged {
                    file: self.file,
                    reason: reason.to_owned(),
                })?;
                self.pending.drain(..skip);
            }
            if self.ended {
                let whole = self.pending.len();
                return Ok((whole > 0 || !self.started).then(|| self.cut(whole)));
            }
            let end = match self.dialect {
                Some(dialect) => record::last_end(&self.pending, dialect),
                None => memchr::memrchr(b'\n', &self.pending).map_or(0, |at| at + 1),
            };
            if end > 0 {
                return Ok(Some(self.cut(end)));
            }
            if target >= self.max_line {
                // A quote opened long ago and never closed: cut at a line, the parser gives up that quote.
                return match memchr::memrchr(b'\n', &self.pending) {
                    Some(at) => Ok(Some(self.cut(at + 1))),
                    None => Err(ReadError::TooLong {
                        file: self.file,
                        line: self.line,
                        max: self.max_line,
                    }),
                };
            }
            target = (target * 2).min(self.max_line.max(CHUNK_BYTES));
        }
    }
}

/// A stream that ends too early or does not decompress is a damaged file; anything else is the system's.
pub fn broken(file: usize, error: io::Error) -> ReadError {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    let damaged = matches!(error.kind(), UnexpectedEof | InvalidData | InvalidInput)
        || (error.kind() == io::ErrorKind::Other && error.raw_os_error().is_none());
    if !damaged {
        return ReadError::Io { file, error };
    }
    let reason = if error.kind() == UnexpectedEof || error.to_string().contains("incomplete frame")
    {
        "its compressed data ends in the middle".to_owned()
    } else {
        format!("its data cannot be read ({error})")
    };
    ReadError::Damaged { file, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(
        data: Vec<u8>,
        dialect: Option<Dialect>,
        max: usize,
    ) -> Result<Vec<Chunk>, ReadError> {
        let mut chunker =
            Chunker::new(Box::new(io::Cursor::new(data)), 0, dialect).with_max_line(max);
        let mut out = Vec::new();
        while let Some(chunk) = chunker.next_chunk()? {
            out.push(chunk);
        }
        Ok(out)
    }

    #[test]
    fn chunks_put_together_are_the_file_and_know_their_lines() {
        let data: Vec<u8> = (0..400_000)
            .flat_map(|i| format!("{i}\n").into_bytes())
            .collect();
        let cut = chunks(data.clone(), None, MAX_LINE_BYTES).unwrap();
        assert!(cut.len() > 1);
        assert_eq!(
            cut.iter().flat_map(|c| c.data.clone()).collect::<Vec<_>>(),
            data
        );
        let second = String::from_utf8_lossy(&cut[1].data[..8]).into_owned();
        assert!(second.starts_with(&format!("{}\n", cut[1].line - 1)));
    }

    #[test]
    fn a_line_beyond_the_limit_is_an_error_that_names_it() {
        let mut data = b"a\n".to_vec();
        data.extend(vec![b'x'; 3 << 20]);
        let failure = chunks(data, None, 2 << 20).unwrap_err();
        assert!(
            matches!(failure, ReadError::TooLong { line: 2, .. }),
            "{failure:?}"
        );
    }
}
