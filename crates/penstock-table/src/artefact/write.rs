//! A file written section by section under a name of its own, then renamed (ADR 0032).

use xxhash_rust::xxh3::xxh3_64;

use super::error::{Result, io};
use super::{Entry, Kind, Section, UNIT, header, sealed};
use crate::disk::{Disk, Unfinished};

/// Written together.
const BUFFER: usize = 1 << 20;

pub(crate) struct Writer {
    name: String,
    file: Box<dyn Unfinished>,
    buffer: Vec<u8>,
    at: u64,
    entries: Vec<Entry>,
}

fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

impl Writer {
    pub fn new(disk: &dyn Disk, name: &str, kind: Kind) -> Result<Writer> {
        let temporary = temporary(name);
        let file = disk
            .create(&temporary)
            .map_err(io(&temporary, "creating it"))?;
        Ok(Writer {
            name: name.into(),
            file,
            buffer: header(kind).to_vec(),
            at: UNIT,
            entries: Vec::new(),
        })
    }

    pub fn section(
        &mut self,
        section: Section,
        table: usize,
        number: usize,
        count: usize,
        bytes: &[u8],
    ) -> Result<()> {
        let from = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        self.buffer
            .resize(from + bytes.len().next_multiple_of(UNIT as usize), 0);
        let entry = Entry {
            section,
            table: table as u32,
            number: number as u32,
            count: count as u32,
            offset: self.at,
            bytes: bytes.len() as u64,
            checksum: xxh3_64(&self.buffer[from..]),
        };
        self.at += entry.padded();
        self.entries.push(entry);
        self.flush(BUFFER)
    }

    /// Writes contents and trailer and waits for the disk. Returns the file's identity.
    pub fn finish(&mut self) -> Result<u64> {
        let mut contents = Vec::new();
        self.entries
            .iter()
            .for_each(|entry| entry.write(&mut contents));
        contents.resize(contents.len().next_multiple_of(UNIT as usize), 0);
        let identity = xxh3_64(&contents);
        let mut trailer = [0; UNIT as usize];
        let bytes = self.at + contents.len() as u64 + UNIT;
        let words = [self.at, self.entries.len() as u64, identity, bytes];
        for (place, word) in trailer.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.buffer.extend(contents);
        self.buffer.extend(sealed(trailer));
        self.flush(0)?;
        self.file.sync().map_err(io(&self.name, "syncing it"))?;
        Ok(identity)
    }

    fn flush(&mut self, beyond: usize) -> Result<()> {
        if self.buffer.len() > beyond {
            self.file
                .append(&self.buffer)
                .map_err(io(&self.name, "writing it"))?;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// Gives a finished file its name, for good once this returns.
pub(crate) fn publish(disk: &dyn Disk, name: &str) -> Result<()> {
    disk.rename(&temporary(name), name)
        .map_err(io(name, "renaming to it"))?;
    disk.sync_folder().map_err(io(name, "syncing its folder"))
}

/// Takes an unfinished file away, if the disk lets it.
pub(crate) fn discard(disk: &dyn Disk, name: &str) {
    // What stays is overwritten by the next of its name and removed by the next prune.
    let _ = disk.remove(&temporary(name));
}
