//! Dictionaries of strings at industrial size: a file that is mapped into memory and looked up as it lies.
//!
//! In: lines of text or values. Out: an immutable table from each value to its index, from 1, shared by all threads
//! and, through the page cache, by all processes. Read `format` first; ADR 0020 says why it looks as it does.

mod build;
mod format;
mod source;

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use xxhash_rust::xxh3::xxh3_64;

pub use crate::error::DictionaryError;
use format::{Entry, Header};

/// How far ahead `lookup_many` asks for table lines: enough to hide a miss behind the probes between.
const PREFETCH_DISTANCE: usize = 16;

enum Memory {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl std::ops::Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Memory::Mapped(map) => map,
            Memory::Owned(bytes) => bytes,
        }
    }
}

/// An immutable map from strings to 1-based indices.
///
/// No content of the file can make a look-up crash or run on: every offset is checked, every probe is bounded.
pub struct Dictionary {
    memory: Memory,
    header: Header,
}

impl Dictionary {
    /// The values in order; the first has index 1. A value that comes twice is an error naming both places.
    pub fn from_values<V: AsRef<[u8]>>(
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, DictionaryError> {
        let mut builder = build::Builder::default();
        for value in values {
            builder.push(value.as_ref());
        }
        let image = builder.finish().map_err(|fault| match fault {
            build::Fault::Duplicate {
                index,
                first,
                value,
            } => DictionaryError::DuplicateValue {
                index,
                first,
                value: show(&value),
            },
            build::Fault::TooMany => DictionaryError::TooMany {
                max: format::MAX_ENTRIES,
            },
        })?;
        Self::from_memory(Memory::Owned(image), Path::new("<memory>"))
    }

    /// Read a text file, a value a line (`.gz` by suffix), and write the compiled dictionary to `target`,
    /// which is replaced whole or not at all.
    pub fn compile(source: &Path, target: &Path) -> Result<Self, DictionaryError> {
        let text = source::read(source)?;
        let mut builder = build::Builder::with_room_for(text.len());
        for line in source::lines(&text) {
            builder.push(line);
        }
        drop(text);
        let image = builder.finish().map_err(|fault| match fault {
            build::Fault::Duplicate {
                index,
                first,
                value,
            } => DictionaryError::Duplicate {
                path: source.into(),
                line: index,
                first,
                value: show(&value),
            },
            build::Fault::TooMany => DictionaryError::TooMany {
                max: format::MAX_ENTRIES,
            },
        })?;
        let dictionary = Self::from_memory(Memory::Owned(image), target)?;
        dictionary.save(target)?;
        Ok(dictionary)
    }

    /// Write the compiled form to `target`, which is replaced whole or not at all.
    pub fn save(&self, target: &Path) -> Result<(), DictionaryError> {
        build::write_whole(&self.memory, target).map_err(|error| DictionaryError::Io {
            path: target.into(),
            error,
        })
    }

    /// Map a compiled dictionary. The header is verified; the rest is read when looked up (`verify` reads it all).
    pub fn open(path: &Path) -> Result<Self, DictionaryError> {
        let io = |error| DictionaryError::Io {
            path: path.into(),
            error,
        };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only and private. Compiled dictionaries are only ever replaced by rename, never
        // written in place, so the mapped pages do not change; should somebody do so all the same, every read is
        // bounds-checked and no byte of the content is trusted.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Self::from_memory(Memory::Mapped(map), path)
    }

    fn from_memory(memory: Memory, path: &Path) -> Result<Self, DictionaryError> {
        let header = Header::read(&memory).map_err(|reason| DictionaryError::Broken {
            path: path.into(),
            reason: reason.into(),
        })?;
        Ok(Self { memory, header })
    }

    /// Whether table and values are the bytes that were compiled: reads the whole file.
    pub fn verify(&self) -> bool {
        use sha2::Digest;
        xxh3_64(self.table()) == self.header.table_checksum
            && <[u8; 32]>::from(sha2::Sha256::digest(self.blob())) == self.header.sha256
    }

    pub fn len(&self) -> usize {
        self.header.entries
    }

    pub fn is_empty(&self) -> bool {
        self.header.entries == 0
    }

    /// SHA-256 of the values in order, each as its LEB128 length and its bytes; in hex.
    pub fn sha256(&self) -> String {
        self.header
            .sha256
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The size of the compiled form.
    pub fn size_bytes(&self) -> usize {
        self.memory.len()
    }

    /// The values in order of their indices.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let value = format::value_at(self.blob(), at)?;
            at += format::stored_size(value.len());
            Some(value)
        })
        .take(self.len())
    }

    /// The 1-based index of a value.
    pub fn get(&self, value: &[u8]) -> Option<u32> {
        self.find(self.table(), self.blob(), value, xxh3_64(value))
    }

    /// For each value its index, appended to `out`; 0 for those that are not here. `hashes` is working memory.
    ///
    /// Several times as fast as `get` on a dictionary larger than the caches: the misses of neighbours overlap.
    pub fn get_many(&self, values: &[&[u8]], hashes: &mut Vec<u64>, out: &mut Vec<u64>) {
        let (table, blob) = (self.table(), self.blob());
        hashes.clear();
        hashes.extend(values.iter().map(|value| xxh3_64(value)));
        for (i, value) in values.iter().enumerate() {
            if let Some(next) = hashes.get(i + PREFETCH_DISTANCE) {
                format::prefetch(
                    table,
                    format::home(*next, self.header.capacity) * Entry::SIZE,
                );
            }
            if let Some(next) = hashes.get(i + PREFETCH_DISTANCE / 2) {
                // By now the line has come: ask for the value it most likely leads to.
                let entry = Entry::read(table, format::home(*next, self.header.capacity));
                format::prefetch(blob, entry.offset as usize);
            }
            out.push(
                self.find(table, blob, value, hashes[i])
                    .map_or(0, u64::from),
            );
        }
    }

    #[inline]
    fn find(&self, table: &[u8], blob: &[u8], value: &[u8], hash: u64) -> Option<u32> {
        let capacity = self.header.capacity;
        let mut slot = format::home(hash, capacity);
        for _ in 0..capacity {
            let entry = Entry::read(table, slot);
            if entry.index == 0 {
                return None;
            }
            if entry.fingerprint == hash as u32
                && format::value_is(blob, entry.offset as usize, value)
            {
                return Some(entry.index);
            }
            slot = if slot + 1 == capacity { 0 } else { slot + 1 };
        }
        None
    }

    fn table(&self) -> &[u8] {
        &self.memory[self.header.table.clone()]
    }

    fn blob(&self) -> &[u8] {
        &self.memory[self.header.blob.clone()]
    }
}

impl std::fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dictionary({} values)", self.len())
    }
}

/// A value in a message: short, and readable whatever its bytes.
fn show(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    if text.chars().count() <= 60 {
        text.into_owned()
    } else {
        text.chars().take(60).chain(['…']).collect()
    }
}
