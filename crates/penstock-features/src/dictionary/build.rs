//! Building the compiled form in memory, and writing it whole.

use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64;

use super::PREFETCH_DISTANCE;
use super::format::{self, Entry, Header};

pub(super) enum Fault {
    Duplicate {
        index: usize,
        first: usize,
        value: Vec<u8>,
    },
    TooMany,
}

/// Collects values, then lays out the file.
#[derive(Default)]
pub(super) struct Builder {
    blob: Vec<u8>,
    hashes: Vec<u64>,
}

impl Builder {
    pub(super) fn with_room_for(bytes: usize) -> Self {
        // A line's newline makes room for the length byte of all but long values.
        Self {
            blob: Vec::with_capacity(bytes + bytes / 64 + 16),
            hashes: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, value: &[u8]) {
        self.hashes.push(xxh3_64(value));
        format::store(&mut self.blob, value);
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Fault> {
        let Self { blob, hashes } = self;
        if hashes.len() > format::MAX_ENTRIES {
            return Err(Fault::TooMany);
        }
        let mut header = Header::plan(hashes.len(), blob.len(), Sha256::digest(&blob).into());
        let mut image = vec![0; header.blob.end];
        image[header.blob.clone()].copy_from_slice(&blob);
        fill(&mut image[header.table.clone()], &blob, &hashes)?;
        header.table_checksum = xxh3_64(&image[header.table.clone()]);
        header.write(&mut image);
        Ok(image)
    }
}

fn fill(table: &mut [u8], blob: &[u8], hashes: &[u64]) -> Result<(), Fault> {
    let capacity = table.len() / Entry::SIZE;
    let mut offset = 0;
    for (i, hash) in hashes.iter().enumerate() {
        if let Some(next) = hashes.get(i + PREFETCH_DISTANCE) {
            format::prefetch(table, format::home(*next, capacity) * Entry::SIZE);
        }
        let value = format::value_at(blob, offset).unwrap_or_default();
        let mut slot = format::home(*hash, capacity);
        loop {
            let taken = Entry::read(table, slot);
            if taken.index == 0 {
                break;
            }
            if taken.fingerprint == *hash as u32
                && format::value_is(blob, taken.offset as usize, value)
            {
                return Err(Fault::Duplicate {
                    index: i + 1,
                    first: taken.index as usize,
                    value: value.to_vec(),
                });
            }
            slot = if slot + 1 == capacity { 0 } else { slot + 1 };
        }
        Entry {
            offset: offset as u64,
            fingerprint: *hash as u32,
            index: (i + 1) as u32,
        }
        .write(table, slot);
        offset += format::stored_size(value.len());
    }
    Ok(())
}

/// Temporary file beside the target, synced, then renamed over it.
pub(super) fn write_whole(bytes: &[u8], target: &Path) -> std::io::Result<()> {
    let folder = target
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut name = std::ffi::OsString::from(".");
    name.push(
        target
            .file_name()
            .ok_or_else(|| std::io::Error::other("not a file name"))?,
    );
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let written = (|| {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, target)?;
        std::fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // The first error is what matters; the temporary may never have come to be.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}
