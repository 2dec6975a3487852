//! Slots to tables: which table a slot's keys live in, and which of their bits count.

use std::collections::BTreeMap;

use crate::batch::Update;
use crate::config::{Engine, TableConfig};
use crate::error::{Result, TableError};
use crate::lookup::Extras;
use crate::table::Table;
use crate::update::Updated;

/// How a slot's keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// By a feature plan: the slot id in the high bits, 52 bits of value below. Slots of one table share values.
    Mapped,
    /// All 64 bits are the key.
    Raw,
}

impl Keys {
    pub(crate) const fn mask(self) -> u64 {
        match self {
            Keys::Mapped => (1 << 52) - 1,
            Keys::Raw => u64::MAX,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub table: usize,
    pub keys: Keys,
}

/// A model's tables and the slots that read them.
#[derive(Default)]
pub struct Store {
    tables: Vec<Table>,
    slots: BTreeMap<u32, Slot>,
}

impl Store {
    /// A new table; returns its number.
    pub fn add_table(&mut self, config: TableConfig, engine: Engine) -> Result<usize> {
        Ok(self.add(Table::new(config, engine)?))
    }

    /// A table that was made elsewhere; returns its number.
    pub fn add(&mut self, table: Table) -> usize {
        self.tables.push(table);
        self.tables.len() - 1
    }

    /// Declares a slot, which may share a table with others.
    pub fn add_slot(&mut self, slot: u32, table: usize, keys: Keys) -> Result<()> {
        let refuse = |what: String| {
            Err(TableError::Config {
                table: format!("number {table}"),
                what,
            })
        };
        if table >= self.tables.len() {
            return refuse(format!(
                "slot {slot} names it, and there are {} tables",
                self.tables.len()
            ));
        }
        if self.slots.insert(slot, Slot { table, keys }).is_some() {
            return refuse(format!("slot {slot} is declared twice"));
        }
        Ok(())
    }

    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    pub fn tables_mut(&mut self) -> &mut [Table] {
        &mut self.tables
    }

    /// The slots in order of their number.
    pub fn slots(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        self.slots.iter().map(|(&id, &slot)| (id, slot))
    }

    pub fn slot(&self, slot: u32) -> Result<Slot> {
        self.slots
            .get(&slot)
            .copied()
            .ok_or(TableError::UnknownSlot { slot })
    }

    pub fn lookup(&self, slot: u32, keys: &[u64], out: &mut [f32]) -> Result<usize> {
        let slot = self.slot(slot)?;
        self.tables[slot.table].lookup_masked(keys, slot.keys.mask(), out)
    }

    pub fn lookup_extras(&self, slot: u32, keys: &[u64], extras: Extras) -> Result<()> {
        let slot = self.slot(slot)?;
        self.tables[slot.table].extras_masked(keys, slot.keys.mask(), extras)
    }

    pub fn update(&mut self, slot: u32, batch: &Update) -> Result<Updated> {
        let slot = self.slot(slot)?;
        self.tables[slot.table].update_masked(batch, slot.keys.mask())
    }
}
