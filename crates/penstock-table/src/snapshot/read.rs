//! A mapped snapshot: opened, verified as it is touched, read through.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use super::bytes::{Bytes, Map};
use super::lookups::Lookups;
use super::table::SnapshotTable;
use super::values_at;
use crate::artefact::{
    ArtefactError, Entry, Frame, Kind, Pairs, Result, Section, damaged, io, long,
};
use crate::checkpoint::{compared, identity};
use crate::hash::{BUCKETS, unmix};
use crate::store::{Keys, Store};

const UNKNOWN: u8 = 0;
const SOUND: u8 = 1;
const BAD: u8 = 2;

/// An open snapshot. Readers share it.
pub struct Snapshot {
    pub(super) bytes: Bytes,
    pub(super) frame: Frame,
    /// Of each entry.
    states: Vec<AtomicU8>,
    pub(super) tables: Vec<SnapshotTable>,
    slots: BTreeMap<u32, (usize, Keys)>,
    plan: String,
    pub(crate) lookups: Lookups,
}

impl Snapshot {
    /// Maps the file, which may be replaced by a rename only. With a store and a plan, those must be the ones it was taken from.
    pub fn open(path: &Path, store: Option<(&Store, &str)>) -> Result<Snapshot> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(io(&name, "opening it"))?;
        // SAFETY: the file is one that `commit` renamed into place and that nobody writes to (ADR 0032).
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io(&name, "mapping it"))?;
        Snapshot::of(&name, Bytes::of(Map::Mapped(map)), store)
    }

    pub(super) fn of(name: &str, bytes: Bytes, store: Option<(&Store, &str)>) -> Result<Snapshot> {
        let frame = Frame::open(name, Kind::Snapshot, &bytes)?;
        let facts = compared(&frame.pairs(&bytes, Section::Facts, 0)?);
        if let Some((store, plan)) = store {
            facts.compare(name, "", &identity(store, plan))?;
        }
        let mut tables = Vec::new();
        for (number, (place, table)) in facts.under("table ").enumerate() {
            if place != number.to_string() {
                return Err(damaged(name, "facts", "its tables are out of order"));
            }
            let pairs = frame.pairs(&bytes, Section::Table, number)?;
            tables.push(SnapshotTable::read(&frame, number, table, &pairs)?);
            if let Some((store, _)) = store {
                let config = store.tables()[number].config();
                let mut shape = Pairs::default();
                shape.add("dim", config.dim);
                shape.add("values", format!("{:?}", config.dtype));
                compared(&pairs).compare(name, &format!("table '{table}': "), &shape)?;
            }
        }
        let blocks = frame.entries.iter().filter(|e| e.section == Section::Block);
        for entry in blocks {
            if entry.table as usize >= tables.len() {
                return Err(damaged(name, entry.name(), "there is no such table"));
            }
        }
        let mut slots = BTreeMap::new();
        for (slot, said) in facts.under("slot ") {
            let slot = slot
                .parse()
                .ok()
                .zip(slot_of(said))
                .filter(|(_, (table, _))| *table < tables.len());
            let (id, slot) = slot.ok_or_else(|| damaged(name, "facts", "a slot is not one"))?;
            slots.insert(id, slot);
        }
        let states = frame
            .entries
            .iter()
            .map(|_| AtomicU8::new(UNKNOWN))
            .collect();
        Ok(Snapshot {
            bytes,
            frame,
            states,
            tables,
            slots,
            plan: facts.get("plan").unwrap_or_default().into(),
            lookups: Lookups::default(),
        })
    }

    pub fn tables(&self) -> &[SnapshotTable] {
        &self.tables
    }

    /// A slot's table and how its keys are written.
    pub fn slot(&self, slot: u32) -> Result<(usize, Keys)> {
        let found = self.slots.get(&slot).copied();
        found.ok_or(ArtefactError::Table(crate::TableError::UnknownSlot {
            slot,
        }))
    }

    /// The slots in order of their number, each with its table's.
    pub fn slots(&self) -> impl Iterator<Item = (u32, usize, Keys)> + '_ {
        let slots = self.slots.iter();
        slots.map(|(&slot, &(table, keys))| (slot, table, keys))
    }

    /// Keys that were looked up and had a row, and those that had none, since it was opened.
    pub fn lookups(&self) -> (u64, u64) {
        self.lookups.so_far()
    }

    /// What was recorded as the plan when it was taken.
    pub fn plan(&self) -> &str {
        &self.plan
    }

    /// The rows of table `table` in these of the 4,096 buckets, in order of hash within each.
    pub fn each_in(
        &self,
        table: usize,
        buckets: Range<usize>,
        mut each: impl FnMut(u64, &[f32]),
    ) -> Result<()> {
        let held = &self.tables[table];
        let mut values = vec![0.0; held.dim];
        let end = buckets.end.min(BUCKETS);
        for block in buckets.start << held.bits..end << held.bits {
            let Some(place) = held.blocks[block].entry() else {
                continue;
            };
            self.touch(place)?;
            let entry = &self.frame.entries[place];
            let (section, rows) = (self.section(entry), entry.count as usize);
            let stored = section[values_at(rows)..].chunks_exact(held.row_bytes());
            for (row, stored) in stored.take(rows).enumerate() {
                held.widen(stored, &mut values);
                each(unmix(long(section, row * 8)), &values);
            }
        }
        Ok(())
    }

    /// Verifies every section now.
    pub fn verify(&self) -> Result<()> {
        (0..self.states.len()).try_for_each(|place| self.check(place))
    }

    /// Verifies the section at `cursor` again, though it was sound before, and moves on: call it now and then from a thread
    /// of its own. Whether that was the last one and the cursor is at the first again.
    pub fn scrub(&self, cursor: &mut usize) -> Result<bool> {
        let place = *cursor % self.states.len().max(1);
        *cursor = (place + 1) % self.states.len().max(1);
        self.check(place)?;
        if self.bytes.near.get().is_some() {
            self.check_file(place)?;
        }
        Ok(*cursor == 0)
    }

    /// Verifies a section where it was mapped, though look-ups read it elsewhere: who opens the file next would meet it.
    fn check_file(&self, place: usize) -> Result<()> {
        let entry = &self.frame.entries[place];
        let section = &self.bytes.map[entry.offset as usize..][..entry.padded() as usize];
        let verdict = self.frame.verify(entry, section);
        if place + 1 == self.states.len() {
            self.bytes.map.let_go();
        }
        verdict
    }

    fn check(&self, place: usize) -> Result<()> {
        let entry = &self.frame.entries[place];
        let verdict = self.frame.verify(entry, self.section(entry));
        // A section that was bad once stays so: a reader may have had it.
        let state = &self.states[place];
        if verdict.is_err() {
            state.store(BAD, Ordering::Relaxed);
        } else if state.load(Ordering::Relaxed) == UNKNOWN {
            state.store(SOUND, Ordering::Relaxed);
        }
        if entry.section == Section::Block {
            let table = &self.tables[entry.table as usize];
            let block = &table.blocks[entry.number as usize];
            if state.load(Ordering::Relaxed) == BAD {
                block.set_damaged();
            } else if !block.is_sound() {
                block.set_sound(self.section(entry), table.bits);
            }
        }
        verdict
    }

    /// A section with its padding: within the file, since sections tile it.
    pub(super) fn section(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.offset as usize..][..entry.padded() as usize]
    }

    #[cold]
    pub(super) fn touch(&self, place: usize) -> Result<()> {
        if self.states[place].load(Ordering::Relaxed) == BAD {
            let entry = &self.frame.entries[place];
            return Err(damaged(
                &self.frame.name,
                entry.name(),
                "its checksum was wrong before",
            ));
        }
        self.check(place)
    }
}

fn slot_of(said: &str) -> Option<(usize, Keys)> {
    let (table, keys) = said.strip_prefix("table ")?.split_once(", ")?;
    let keys = match keys {
        "mapped keys" => Keys::Mapped,
        "raw keys" => Keys::Raw,
        _ => return None,
    };
    Some((table.parse().ok()?, keys))
}
