//! A model that is served while it changes: deltas laid over the rows of a base, which others may have too.
//!
//! In: a base and deltas as `told.rs` says them. Out: margins. A row of zeros adds nothing to any margin, so that is how
//! a key of the base is gone; a key that the base does not have simply has no row.

use std::sync::Arc;

use penstock_table::Place;
use penstock_table::delta::{Block, Weight};
use penstock_table::hash::mix;

use super::columns::Columns;
use super::model::{Model, table_error};
use super::step::{FIRST, W};
use super::told::{BIAS, NUMBER_FACTORS, NUMBERS};
use crate::{Result, invalid};

pub struct Laid {
    base: Arc<Model>,
    over: Model,
    /// Rows that fit into `over`.
    most: u64,
}

/// Rows of the bias and the numbers.
#[derive(Clone)]
pub struct OwnRows(Box<[f32]>);

impl Laid {
    /// `bytes` is the most that rows laid over all fields take together; memory is taken as they come.
    pub fn new(base: Arc<Model>, bytes: u64) -> Result<Laid> {
        let mut over = base.without_rows()?;
        over.own.copy_from_slice(&base.own);
        // What a row takes beside its values: its side, and its part of the index.
        let row = 4 * base.width() as u64 + 44;
        Ok(Laid {
            base,
            over,
            most: (bytes / row).max(1),
        })
    }

    /// Rows laid over the base, and how many fit.
    pub fn laid(&self) -> (u64, u64) {
        (self.over.keys(), self.most)
    }

    /// The rows of bias and numbers with these weights put in; nothing is changed.
    pub fn with(&self, weights: &[Weight]) -> Result<OwnRows> {
        let (width, mut own) = (self.over.width(), self.over.own.clone());
        let known = self.over.own_weights();
        for weight in weights {
            let name = weight.name;
            let Some((_, shape, _)) = known.iter().find(|(known, ..)| *known == name) else {
                return invalid(format!("the model has no weight '{name}'"));
            };
            if *shape != weight.shape {
                return invalid(format!(
                    "weight '{name}' is of shape {shape:?}, in the delta {:?}",
                    weight.shape
                ));
            }
            let rank = self.over.settings.rank();
            let (values, _) = weight.values.as_chunks::<4>();
            // A delta's weight has no more values than its shape.
            for (at, value) in (weight.first..).zip(values) {
                let place = match name {
                    BIAS => W,
                    NUMBERS => (1 + at) * width + W,
                    NUMBER_FACTORS => (1 + at / rank) * width + FIRST + at % rank,
                    _ => continue,
                };
                own[place] = f32::from_le_bytes(*value);
            }
        }
        Ok(OwnRows(own))
    }

    pub fn own(&self) -> OwnRows {
        OwnRows(self.over.own.clone())
    }

    pub fn set(&mut self, own: OwnRows) {
        self.over.own = own.0;
    }

    /// Lays the rows of a delta over the base: all of them, or none and an error if they do not fit.
    pub fn lay(&mut self, blocks: &[Block]) -> Result<()> {
        self.check(blocks)?;
        let (rank, mut row) = (self.over.settings.rank(), vec![]);
        for block in blocks {
            row.resize(block.dim, 0.0);
            let mut gone: Vec<u64> = block.gone().collect();
            for (number, key) in block.keys().enumerate() {
                block.load(number, &mut row);
                if row.iter().all(|&value| value == 0.0) {
                    gone.push(key);
                    continue;
                }
                let table = &mut self.over.store.tables_mut()[block.table];
                let place = table.insert(key).map_err(table_error)?;
                let width = FIRST + rank;
                // SAFETY: a row of so many floats (`FIRST` only where there are factors), which nobody else uses while
                // this is borrowed for writing.
                unsafe {
                    *place.values().add(W) = row[0];
                    if rank > 0 {
                        std::slice::from_raw_parts_mut(place.values(), width)[FIRST..]
                            .copy_from_slice(&row[1..]);
                    }
                }
            }
            self.bury(block.table, &gone)?;
        }
        Ok(())
    }

    /// What the base has gets a row of zeros; what it does not have gets none.
    fn bury(&mut self, field: usize, keys: &[u64]) -> Result<()> {
        let width = self.over.width();
        let hashes: Vec<u64> = keys.iter().map(|&key| mix(key)).collect();
        let mut below = vec![Place::NONE; keys.len()];
        self.base.tables()[field].find_to_read(&hashes, &mut below);
        let table = &mut self.over.store.tables_mut()[field];
        let mut evicted = false;
        for (&key, below) in keys.iter().zip(&below) {
            if below.is_none() {
                evicted |= table.evict(key);
                continue;
            }
            let place = table.insert(key).map_err(table_error)?;
            // SAFETY: a row of `width` floats, which nobody else uses while this is borrowed for writing.
            unsafe { std::slice::from_raw_parts_mut(place.values(), width) }.fill(0.0);
        }
        if evicted {
            // Nobody asks this table what went.
            table.flip();
        }
        Ok(())
    }

    fn check(&self, blocks: &[Block]) -> Result<()> {
        let (fields, dim) = (self.over.tables().len(), self.over.scoring());
        let mut new = 0;
        let mut found = vec![];
        for block in blocks {
            if block.table >= fields {
                let field = block.table;
                return invalid(format!(
                    "the delta is of table {field}, the model has {fields}"
                ));
            }
            if block.dim != dim {
                let given = block.dim;
                return invalid(format!(
                    "rows of the delta have {given} values, the model's {dim}"
                ));
            }
            let hashes: Vec<u64> = block.keys().chain(block.gone()).map(mix).collect();
            found.clear();
            found.resize(hashes.len(), Place::NONE);
            self.over.tables()[block.table].find_to_read(&hashes, &mut found);
            let (rows, gone) = found.split_at(block.rows());
            new += rows.iter().filter(|place| place.is_none()).count();
            let mut below = vec![Place::NONE; gone.len()];
            self.base.tables()[block.table].find_to_read(&hashes[block.rows()..], &mut below);
            let laid = |(over, below): &(&Place, &Place)| over.is_none() && !below.is_none();
            new += gone.iter().zip(&below).filter(laid).count();
        }
        let (laid, most) = self.laid();
        if laid + new as u64 > most {
            return invalid(format!(
                "the overlay is full ({most} rows); open a newer base"
            ));
        }
        Ok(())
    }

    /// As `Model::margins`: the bits of a model that has these rows itself.
    pub fn margins(&self, columns: &Columns) -> Result<Vec<f64>> {
        self.base.margins_under(Some(&self.over), columns)
    }
}
