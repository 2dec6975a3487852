//! Header, contents and trailer of a file that may be anything.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use super::error::{ArtefactError, Result, damaged, io};
use super::{ENTRY, Entry, Kind, MAGIC, Pairs, Section, UNIT, VERSION, is_sealed, long, word};
use crate::disk::Source;

/// A file whose frame is sound; its sections are verified as they are read.
pub(crate) struct Frame {
    pub name: String,
    /// The checksum of the contents.
    pub identity: u64,
    pub entries: Vec<Entry>,
    places: HashMap<(Section, u32, u32), usize>,
}

impl Frame {
    pub fn open(name: &str, kind: Kind, source: &dyn Source) -> Result<Frame> {
        let bad = |section: &str, what: &str| damaged(name, section, what);
        let bytes = source.bytes();
        if bytes < 2 * UNIT {
            return Err(bad(
                "header",
                &format!("{bytes} bytes are too few for any artefact"),
            ));
        }
        let mut unit = [0; UNIT as usize];
        source.read(0, &mut unit).map_err(io(name, "reading it"))?;
        if unit[..8] != MAGIC {
            return Err(bad(
                "header",
                "it is not an artefact of Penstock, or its first bytes are wrong",
            ));
        }
        if !is_sealed(&unit) {
            return Err(bad("header", "its checksum is wrong"));
        }
        let found = word(&unit, 12);
        if found != VERSION {
            let hint = if found < VERSION {
                "write it again with this version"
            } else {
                "update Penstock"
            };
            return Err(ArtefactError::Version {
                file: name.into(),
                found,
                known: VERSION,
                hint,
            });
        }
        if unit[8..12] != kind.code() {
            return Err(ArtefactError::Mismatch {
                file: name.into(),
                what: "the file".into(),
                found: "another kind of artefact".into(),
                expected: format!("to be a {}", kind.name()),
            });
        }
        if unit[16..56].iter().any(|&byte| byte != 0) {
            return Err(bad("header", "its padding is not zero"));
        }
        source
            .read(bytes - UNIT, &mut unit)
            .map_err(io(name, "reading it"))?;
        if !is_sealed(&unit) {
            return Err(bad(
                "trailer",
                "its checksum is wrong, or the file was cut short",
            ));
        }
        let [offset, count, identity, length] = [0, 8, 16, 24].map(|at| long(&unit, at));
        let padded = count
            .checked_mul(ENTRY)
            .and_then(|bytes| bytes.checked_next_multiple_of(UNIT))
            .filter(|padded| {
                length == bytes
                    && offset >= UNIT
                    && offset.checked_add(*padded) == Some(bytes - UNIT)
            })
            .ok_or_else(|| bad("trailer", "its lengths are not the file's"))?;
        // Allocated only now: as long as the file says *and* is.
        let mut contents = vec![0; padded as usize];
        source
            .read(offset, &mut contents)
            .map_err(io(name, "reading it"))?;
        if xxh3_64(&contents) != identity {
            return Err(bad("contents", "their checksum is wrong"));
        }
        let entries = entries(&contents, count, offset)
            .ok_or_else(|| bad("contents", "sections do not tile the file"))?;
        let places = (0..)
            .zip(&entries)
            .map(|(at, entry)| ((entry.section, entry.table, entry.number), at));
        Ok(Frame {
            name: name.into(),
            identity,
            places: places.collect(),
            entries,
        })
    }

    pub fn find(&self, section: Section, table: usize, number: usize) -> Option<&Entry> {
        let at = self.places.get(&(section, table as u32, number as u32))?;
        Some(&self.entries[*at])
    }

    /// A section's bytes, verified.
    pub fn read(&self, source: &dyn Source, entry: &Entry) -> Result<Vec<u8>> {
        let mut bytes = vec![0; entry.padded() as usize];
        source
            .read(entry.offset, &mut bytes)
            .map_err(io(&self.name, "reading it"))?;
        self.verify(entry, &bytes)?;
        bytes.truncate(entry.bytes as usize);
        Ok(bytes)
    }

    /// Whether these are a section's bytes, padding included.
    pub fn verify(&self, entry: &Entry, padded: &[u8]) -> Result<()> {
        if xxh3_64(padded) == entry.checksum {
            Ok(())
        } else {
            Err(damaged(&self.name, entry.name(), "its checksum is wrong"))
        }
    }

    pub fn pairs(&self, source: &dyn Source, section: Section, table: usize) -> Result<Pairs> {
        let entry = self.find(section, table, 0).ok_or_else(|| {
            damaged(
                &self.name,
                "contents",
                format!("no {} of table {table}", section.name()),
            )
        })?;
        Pairs::read(&self.read(source, entry)?)
            .ok_or_else(|| damaged(&self.name, entry.name(), "it is not pairs of text"))
    }
}

/// The entries, if they follow one another from the header to the contents.
fn entries(contents: &[u8], count: u64, end: u64) -> Option<Vec<Entry>> {
    let mut entries = Vec::with_capacity(count as usize);
    let mut at = UNIT;
    let (listed, padding) = contents.split_at((count * ENTRY) as usize);
    for line in listed.chunks_exact(ENTRY as usize) {
        let entry = Entry {
            section: Section::of(word(line, 0))?,
            table: word(line, 4),
            number: word(line, 8),
            count: word(line, 12),
            offset: long(line, 16),
            bytes: long(line, 24),
            checksum: long(line, 32),
        };
        if entry.offset != at || entry.bytes > end - at || long(line, 40) != 0 {
            return None;
        }
        at = at.checked_add(entry.bytes.checked_next_multiple_of(UNIT)?)?;
        if at > end {
            return None;
        }
        entries.push(entry);
    }
    (at == end && padding.iter().all(|&byte| byte == 0)).then_some(entries)
}
