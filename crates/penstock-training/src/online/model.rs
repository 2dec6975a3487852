//! A model as it stands: rows by field and key, and rows of its own for the bias and the numbers.

use penstock_table::{
    Admission, Init, Optimizer as TableOptimizer, Place, Result as TableResult, Store, Table,
    TableConfig,
};
use rayon::prelude::*;

use super::columns::Columns;
use super::part::Part;
use super::settings::Settings;
use super::step::{FIRST, SEEN, width};
use crate::{Result, TrainError, invalid};

/// Rows that are scored at a time.
const SCORED: usize = 256;
/// The sketch of keys that are not yet rows, and the sightings after which it is halved.
const SKETCH_BYTES: usize = 16 << 20;
const HALVE_EVERY: u64 = 32 << 20;
/// The field of the bias (key 0) and the numbers (key 1 + place) among the rows that go out.
pub const NUMBER_FIELD: i32 = -1;

pub struct Model {
    pub(crate) settings: Settings,
    /// A table a field, without slots: what is read from where is the model's own to know.
    pub(crate) store: Store,
    slots: usize,
    /// Keys say themselves which slot they are of: one table holds all.
    shared: bool,
    /// The place of a key in its list is its field.
    positions: bool,
    pub(crate) numbers: usize,
    pub(crate) own: Box<[f32]>,
}

/// Rows as they lie: `values` are `Model::width` floats each (see `step.rs`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowOut {
    pub fields: Vec<i32>,
    pub keys: Vec<u64>,
    pub values: Vec<f32>,
}

impl Model {
    /// `slots` columns of keys, whose keys lie in one table if `shared`; or one, whose places in the list are fields.
    pub fn new(
        settings: Settings,
        slots: usize,
        numbers: usize,
        shared: bool,
        positions: bool,
    ) -> Result<Model> {
        settings.check()?;
        if positions && slots != 1 {
            return invalid("places are fields of one list of keys");
        }
        let width = width(settings.rank());
        let mut own = vec![0.0; (1 + numbers) * width].into_boxed_slice();
        if let Some(factors) = &settings.factors {
            let init = spread(factors.spread);
            for (number, row) in (0u64..).zip(own.chunks_mut(width)).skip(1) {
                // Far from any key's: a hash of its own.
                let hash = penstock_table::hash::mix(u64::MAX - number);
                init.fill(hash, factors.seed, &mut row[FIRST..][..factors.rank]);
            }
        }
        let mut model = Model {
            settings,
            store: Store::default(),
            slots,
            shared,
            positions,
            numbers,
            own,
        };
        let fields = if positions {
            0
        } else if shared {
            slots.min(1)
        } else {
            slots
        };
        model.grow(fields)?;
        Ok(model)
    }

    pub(crate) fn tables(&self) -> &[Table] {
        self.store.tables()
    }

    pub fn width(&self) -> usize {
        width(self.settings.rank())
    }

    pub fn slots(&self) -> usize {
        self.slots
    }

    pub(crate) fn positions(&self) -> bool {
        self.positions
    }

    /// The table of a slot, or of a place in the list.
    #[inline(always)]
    pub(crate) fn table_of(&self, slot: usize) -> usize {
        if self.shared { 0 } else { slot }
    }

    /// Tables for so many fields.
    pub(crate) fn grow(&mut self, fields: usize) -> Result<()> {
        while self.tables().len() < fields {
            let table = self.empty_table(self.tables().len());
            self.store.add(table.map_err(table_error)?);
        }
        Ok(())
    }

    /// Tables for so many fields, without rows.
    pub(crate) fn empty_store(&self, fields: usize) -> TableResult<Store> {
        let mut store = Store::default();
        for field in 0..fields.max(self.tables().len()) {
            store.add(self.empty_table(field)?);
        }
        Ok(store)
    }

    fn empty_table(&self, field: usize) -> TableResult<Table> {
        let name = format!("field {field}");
        let mut config = TableConfig::new(name, self.width(), TableOptimizer::Sgd, 0.0);
        config.init = Init::Constant(0.0);
        if self.settings.least > 1 {
            config.admission = Admission::Count {
                least: self.settings.least,
                sketch_bytes: if self.shared {
                    SKETCH_BYTES
                } else {
                    SKETCH_BYTES / 16
                },
                halve_every: HALVE_EVERY,
            };
        }
        Table::in_place(config)
    }

    /// The row of the bias (0) or of a number (1 + its place). Read only.
    #[inline(always)]
    pub(crate) fn own_row(&self, number: usize) -> &[f32] {
        let width = self.width();
        &self.own[number * width..][..width]
    }

    /// The same as a place, for a caller that holds the model for writing.
    pub(crate) fn own_place(&mut self, number: usize) -> Place {
        let width = self.width();
        Place::at(self.own[number * width..][..width].as_mut_ptr())
    }

    /// A sighting of a key, by its mixed hash; where it becomes a row, its factors are drawn. `absent`: it has no row.
    pub(crate) fn sight(&mut self, table: usize, hash: u64, absent: bool) -> Result<Place> {
        let table = &mut self.store.tables_mut()[table];
        let place = if absent {
            table.sight_absent(hash)
        } else {
            table.sight(hash)
        };
        let place = place.map_err(table_error)?;
        if let (Some(factors), false) = (&self.settings.factors, place.is_none()) {
            // SAFETY: a row of `width` floats, which nobody else uses while the model is borrowed for writing.
            let row =
                unsafe { std::slice::from_raw_parts_mut(place.values(), width(factors.rank)) };
            if row.iter().all(|&x| x == 0.0) {
                spread(factors.spread).fill(hash, factors.seed, &mut row[FIRST..][..factors.rank]);
            }
        }
        Ok(place)
    }

    /// Visits the next part of every table, so that all of it has been visited four times in `evict_after` samples, of which
    /// `rows` have just come and `now` came before; drops keys that were not seen in so many. Places are void afterwards.
    pub(crate) fn sweep(&mut self, rows: usize, now: u32) {
        let after = self.settings.evict_after;
        for table in self.store.tables_mut() {
            let lines = table.lines() * 4 * rows as u64 / u64::from(after) + 1;
            table.sweep_places(lines, |row| {
                // SAFETY: a row of four floats or more, which nobody uses while the model is borrowed for writing.
                let seen = unsafe { *row.add(SEEN).cast::<u32>() };
                now.wrapping_sub(seen) > after
            });
        }
    }

    /// The same model, without rows of keys; bias and numbers as they were at first.
    pub(crate) fn without_rows(&self) -> Result<Model> {
        let (slots, numbers) = (self.slots, self.numbers);
        let mut empty = Model::new(self.settings, slots, numbers, self.shared, self.positions)?;
        empty.grow(self.tables().len())?;
        Ok(empty)
    }

    /// The margin of every row, the same bits in any batch and at any number of threads. Keys without a row add nothing.
    pub fn margins(&self, columns: &Columns) -> Result<Vec<f64>> {
        self.margins_under(None, columns)
    }

    /// The same where the rows of `over`, a model of this shape, take the place of those here; bias and numbers are its own.
    pub(crate) fn margins_under(
        &self,
        over: Option<&Model>,
        columns: &Columns,
    ) -> Result<Vec<f64>> {
        columns.check(self.slots, self.numbers)?;
        let mut out = vec![0.0; columns.rows];
        out.par_chunks_mut(SCORED).enumerate().for_each_init(
            Part::default,
            |part, (chunk, out)| {
                let from = chunk * SCORED;
                part.clear(self);
                part.fill(self, columns, None, from..from + out.len());
                part.find(self, false);
                if let Some(over) = over {
                    part.find_over(over);
                }
                part.score(over.unwrap_or(self));
                out.copy_from_slice(&part.margins);
            },
        );
        Ok(out)
    }

    /// Every row, by field and key.
    pub fn rows(&self) -> RowOut {
        let width = self.width();
        let mut out = RowOut::default();
        for number in 0..=self.numbers {
            out.push(NUMBER_FIELD, number as u64, self.own_row(number));
        }
        for (field, table) in self.tables().iter().enumerate() {
            let mut rows: Vec<(u64, Vec<f32>)> = vec![];
            table.each(|key, row| rows.push((key, row.values)));
            rows.par_sort_unstable_by_key(|(key, _)| *key);
            for (key, values) in rows {
                out.push(field as i32, key, &values[..width]);
            }
        }
        out
    }

    /// Put rows in, over what is there.
    pub fn put(&mut self, rows: &RowOut) -> Result<()> {
        let width = self.width();
        if rows.fields.len() != rows.keys.len() || rows.values.len() != width * rows.keys.len() {
            return invalid("rows do not have a field, a key and values each");
        }
        if rows.values.iter().any(|x| !x.is_finite()) {
            return invalid("a row holds a number that is not finite");
        }
        let fields = rows.fields.iter().max().map_or(0, |&f| (f + 1) as usize);
        if self.positions {
            self.grow(fields)?;
        }
        for ((&field, &key), values) in rows
            .fields
            .iter()
            .zip(&rows.keys)
            .zip(rows.values.chunks(width))
        {
            if field == NUMBER_FIELD && key <= self.numbers as u64 {
                self.own[key as usize * width..][..width].copy_from_slice(values);
            } else if let Some(table) = usize::try_from(field)
                .ok()
                .and_then(|field| self.store.tables_mut().get_mut(field))
            {
                let place = table.insert(key).map_err(table_error)?;
                // SAFETY: a row of `width` floats, which nobody else uses while the model is borrowed for writing.
                unsafe { std::slice::from_raw_parts_mut(place.values(), width) }
                    .copy_from_slice(values);
            } else {
                return invalid(format!("the model has no field {field}"));
            }
        }
        Ok(())
    }

    /// Rows of keys.
    pub fn keys(&self) -> u64 {
        self.tables().iter().map(Table::rows).sum()
    }
}

impl RowOut {
    fn push(&mut self, field: i32, key: u64, values: &[f32]) {
        self.fields.push(field);
        self.keys.push(key);
        self.values.extend_from_slice(values);
        // When it was seen is a trainer's own.
        let row = self.values.len() - values.len();
        self.values[row + SEEN] = 0.0;
    }
}

fn spread(deviation: f64) -> Init {
    Init::Normal {
        mean: 0.0,
        deviation: deviation as f32,
    }
}

pub(crate) fn table_error(error: penstock_table::TableError) -> TrainError {
    TrainError::Invalid(error.to_string())
}
