//! What a batch is made of: columns of key lists and of numbers, borrowed from the caller.

use std::ops::Range;

use crate::{Result, invalid};

#[derive(Clone, Copy)]
pub enum Offsets<'a> {
    Narrow(&'a [i32]),
    Wide(&'a [i64]),
}

impl Offsets<'_> {
    #[inline(always)]
    pub fn at(&self, row: usize) -> usize {
        match self {
            Offsets::Narrow(offsets) => offsets[row] as usize,
            Offsets::Wide(offsets) => offsets[row] as usize,
        }
    }

    fn rows(&self) -> usize {
        match self {
            Offsets::Narrow(offsets) => offsets.len().saturating_sub(1),
            Offsets::Wide(offsets) => offsets.len().saturating_sub(1),
        }
    }

    fn sound(&self, keys: usize) -> bool {
        match self {
            Offsets::Narrow(o) => {
                !o.is_empty() && o[0] >= 0 && o.is_sorted() && o[o.len() - 1] as usize <= keys
            }
            Offsets::Wide(o) => {
                !o.is_empty() && o[0] >= 0 && o.is_sorted() && o[o.len() - 1] as usize <= keys
            }
        }
    }
}

/// A column of key lists. Row `i` holds `keys[offsets[i]..offsets[i + 1]]`, each with a value (1 where None).
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    pub offsets: Offsets<'a>,
    pub keys: &'a [u64],
    pub values: Option<&'a [f32]>,
}

#[derive(Clone, Copy)]
pub struct Columns<'a> {
    pub rows: usize,
    pub slots: &'a [Slot<'a>],
    /// Row by row, standardised; a zero says nothing.
    pub numbers: &'a [f32],
}

impl Columns<'_> {
    pub(crate) fn check(&self, slots: usize, numbers: usize) -> Result<()> {
        if self.slots.len() != slots || self.numbers.len() != self.rows * numbers {
            return invalid("the columns are not those of the model");
        }
        for slot in self.slots {
            if slot.offsets.rows() != self.rows || !slot.offsets.sound(slot.keys.len()) {
                return invalid("a column's offsets do not fit its rows or its keys");
            }
            if let Some(values) = slot.values {
                let used = slot.offsets.at(0)..slot.offsets.at(self.rows);
                if values.len() != slot.keys.len() || values[used].iter().any(|x| !x.is_finite()) {
                    return invalid("a key's weight is missing or not finite");
                }
            }
        }
        if self.numbers.iter().any(|x| !x.is_finite()) {
            return invalid("a number is not finite");
        }
        Ok(())
    }

    /// The most keys that any of `rows` has in any slot.
    pub(crate) fn longest(&self, rows: Range<usize>) -> usize {
        let lengths = |slot: &Slot| {
            let length = |row: usize| slot.offsets.at(row + 1) - slot.offsets.at(row);
            rows.clone().map(length).max().unwrap_or(0)
        };
        self.slots.iter().map(lengths).max().unwrap_or(0)
    }
}
