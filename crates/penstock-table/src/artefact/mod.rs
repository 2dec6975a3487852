//! The frame of checkpoints and snapshots: header, sections, contents, trailer, every byte under a checksum (ADR 0032).

mod error;
mod pairs;
mod read;
mod write;

pub use error::{ArtefactError, Result};
pub(crate) use error::{damaged, io};
pub(crate) use pairs::Pairs;
pub(crate) use read::Frame;
pub(crate) use write::{Writer, discard, publish};

use xxhash_rust::xxh3::xxh3_64;

// Rows and hashes are written as they lie in memory.
#[cfg(target_endian = "big")]
compile_error!("artefacts are little-endian, and so must the machine be");

/// Newer files are refused, older ones too: there are none.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"PENSTOCK";
/// Header, trailer, and what sections are padded to.
pub(crate) const UNIT: u64 = 64;
const ENTRY: u64 = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Checkpoint,
    Snapshot,
}

impl Kind {
    const fn code(self) -> [u8; 4] {
        match self {
            Kind::Checkpoint => *b"CKPT",
            Kind::Snapshot => *b"SNAP",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Kind::Checkpoint => "training checkpoint",
            Kind::Snapshot => "serving snapshot",
        }
    }
}

/// What a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Section {
    Facts = 1,
    Table = 2,
    Lines = 3,
    Sketch = 4,
    Rows = 5,
    Gone = 6,
    Opaque = 7,
    Block = 8,
}

impl Section {
    fn of(code: u32) -> Option<Section> {
        use Section::{Block, Facts, Gone, Lines, Opaque, Rows, Sketch, Table};
        [Facts, Table, Lines, Sketch, Rows, Gone, Opaque, Block]
            .into_iter()
            .find(|&section| section as u32 == code)
    }

    const fn name(self) -> &'static str {
        match self {
            Section::Facts => "facts",
            Section::Table => "table facts",
            Section::Lines => "index sizes",
            Section::Sketch => "sketch",
            Section::Rows => "rows",
            Section::Gone => "tombstones",
            Section::Opaque => "opaque section",
            Section::Block => "row block",
        }
    }
}

/// One line of the table of contents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub section: Section,
    pub table: u32,
    pub number: u32,
    pub count: u32,
    pub offset: u64,
    /// Without padding.
    pub bytes: u64,
    /// With padding.
    pub checksum: u64,
}

impl Entry {
    pub fn padded(&self) -> u64 {
        self.bytes.next_multiple_of(UNIT)
    }

    /// How a message calls it.
    pub fn name(&self) -> String {
        format!(
            "{} {} of table {}",
            self.section.name(),
            self.number,
            self.table
        )
    }

    fn write(&self, out: &mut Vec<u8>) {
        for word in [self.section as u32, self.table, self.number, self.count] {
            out.extend(word.to_le_bytes());
        }
        for word in [self.offset, self.bytes, self.checksum, 0] {
            out.extend(word.to_le_bytes());
        }
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// A unit whose last 8 bytes are the checksum of the first 56.
fn sealed(mut unit: [u8; UNIT as usize]) -> [u8; UNIT as usize] {
    let sum = xxh3_64(&unit[..56]);
    unit[56..].copy_from_slice(&sum.to_le_bytes());
    unit
}

fn is_sealed(unit: &[u8]) -> bool {
    unit.len() == UNIT as usize && xxh3_64(&unit[..56]) == long(unit, 56)
}

fn header(kind: Kind) -> [u8; UNIT as usize] {
    let mut unit = [0; UNIT as usize];
    unit[..8].copy_from_slice(&MAGIC);
    unit[8..12].copy_from_slice(&kind.code());
    unit[12..16].copy_from_slice(&VERSION.to_le_bytes());
    sealed(unit)
}
