//! What a function is given: the blocks of its inputs, what was derived of them, its weights, and where faults go.

use super::derived::Derived;
use crate::block::Block;
use crate::error::RowError;
use crate::plan::{Item, Plan, Role};

/// An item's inputs, with what was derived of them.
pub(crate) struct Inputs<'r, 'a> {
    pub plan: &'r Plan,
    pub item: &'r Item,
    pub rows: usize,
    pub blocks: &'r [Block<'a>],
    pub trace: bool,
    pub(super) derived: &'r Derived,
}

impl<'r, 'a> Inputs<'r, 'a> {
    pub(crate) fn block(&self, input: usize) -> &'r Block<'a> {
        &self.blocks[self.item.from[input]]
    }

    pub(crate) fn hashes(&self, input: usize) -> &'r [u64] {
        self.derived.hashes(self.item.from[input])
    }

    pub(crate) fn numbers(&self, input: usize) -> &'r [f64] {
        self.derived.numbers(self.item.from[input], self.blocks)
    }

    /// Whether each value becomes a key and nothing else does: no weights, no null keys, no trace.
    pub(crate) fn is_plain(&self) -> bool {
        self.item.weight.is_none() && !self.item.null_key() && !self.trace
    }

    /// Whether this input is a slot, whose elements are keys.
    pub(crate) fn is_slot(&self, input: usize) -> bool {
        let item = self.plan.item_of(self.item.from[input]);
        item.is_some_and(|item| matches!(item.role, Role::Slot { .. }))
    }

    pub(crate) fn weight(&self) -> Weight<'r> {
        match self.item.weight {
            None => Weight::One,
            Some(source) => {
                let numbers = self.derived.numbers(source, self.blocks);
                let block = &self.blocks[source];
                if block.lists {
                    Weight::List { block, numbers }
                } else {
                    Weight::Number(numbers)
                }
            }
        }
    }

    pub(crate) fn require_scalars(&self) -> Result<(), String> {
        match self
            .item
            .from
            .iter()
            .find(|source| self.blocks[**source].lists)
        {
            None => Ok(()),
            Some(source) => Err(format!(
                "'{}' is a list, and one value is wanted",
                self.plan.source_name(*source)
            )),
        }
    }
}

/// The weight of keys: none given, one a row, or one an element.
pub(crate) enum Weight<'r> {
    One,
    Number(&'r [f64]),
    List {
        block: &'r Block<'r>,
        numbers: &'r [f64],
    },
}

impl Weight<'_> {
    pub(crate) fn is_given(&self) -> bool {
        !matches!(self, Weight::One)
    }

    /// The weight of place `j` in row `i`; NaN drops the key.
    #[inline]
    pub(crate) fn of(&self, i: usize, j: usize) -> f64 {
        match self {
            Weight::One => 1.0,
            Weight::Number(numbers) => numbers[i],
            Weight::List { block, numbers } => {
                numbers[block.row(i)].get(j).copied().unwrap_or(f64::NAN)
            }
        }
    }

    /// The weight of row `i`'s null key. A list that is null drops it, as the null number does that a row without
    /// types holds in its place.
    pub(crate) fn of_null(&self, i: usize) -> f64 {
        match self {
            Weight::Number(numbers) => numbers[i],
            Weight::List { block, .. } if !block.rows.bits[i] => f64::NAN,
            _ => 1.0,
        }
    }

    /// A list of weights is as long as the list it weighs.
    pub(crate) fn check(&self, i: usize, length: usize) -> Result<(), String> {
        match self {
            Weight::List { block, .. } if block.rows.bits[i] && block.row(i).len() != length => {
                Err(format!(
                    "has {} weights for {length} elements",
                    block.row(i).len()
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Where row errors go.
pub(crate) struct Faults<'r> {
    pub item: &'r Item,
    pub errors: &'r mut Vec<RowError>,
}

impl Faults<'_> {
    pub(crate) fn add(&mut self, row: usize, reason: impl Into<String>) {
        self.errors.push(RowError {
            row,
            item: self.item.name.clone(),
            reason: reason.into(),
        });
    }

    /// A fault of element `e` of a block.
    pub(crate) fn add_at(&mut self, block: &Block<'_>, e: usize, reason: impl Into<String>) {
        let row = if block.lists {
            block.ends.partition_point(|end| *end <= e)
        } else {
            e
        };
        self.add(row, reason);
    }
}
