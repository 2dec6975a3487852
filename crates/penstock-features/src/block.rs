//! A chunk of rows of one column in the kernel's own form: what every function reads and writes.
//!
//! Arrow columns of any accepted type, single rows and the results of functions all become `Block`s, so that
//! each function is written once and a batch and a row cannot differ.

use std::ops::Range;

/// What the elements of a block are, and in which of its vectors they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// No element has a value.
    #[default]
    Null,
    /// UTF-8, in `bytes`.
    Text,
    /// In `bytes`.
    Binary,
    /// In `ints`.
    Int,
    /// In `words`: unsigned integers, slot keys among them.
    UInt,
    /// 0 or 1 in `words`.
    Bool,
    /// Days since the epoch in `ints`.
    Date,
    /// Microseconds since the epoch in `ints`.
    Time,
    /// In `floats`.
    Float,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Text => "string",
            Kind::Binary => "binary",
            Kind::Int | Kind::UInt => "integer",
            Kind::Bool => "bool",
            Kind::Date => "date",
            Kind::Time => "timestamp",
            Kind::Float => "float",
        }
    }
}

/// One flag an element, and how many are false.
#[derive(Debug, Default)]
pub(crate) struct Mask {
    pub bits: Vec<bool>,
    pub missing: usize,
}

impl Mask {
    pub(crate) fn clear(&mut self) {
        self.bits.clear();
        self.missing = 0;
    }

    #[inline]
    pub(crate) fn push(&mut self, present: bool) {
        self.bits.push(present);
        self.missing += usize::from(!present);
    }

    pub(crate) fn fill(&mut self, n: usize, present: bool) {
        self.bits.resize(self.bits.len() + n, present);
        self.missing += if present { 0 } else { n };
    }

    pub(crate) fn copy_from(&mut self, other: &Mask) {
        self.bits.clone_from(&other.bits);
        self.missing = other.missing;
    }

    #[inline]
    pub(crate) fn set(&mut self, i: usize, present: bool) {
        if self.bits[i] != present {
            self.bits[i] = present;
            self.missing = if present {
                self.missing - 1
            } else {
                self.missing + 1
            };
        }
    }
}

/// The elements of one column over a chunk of rows.
///
/// Scalar (`lists` false): element `i` is row `i`'s. List-shaped: row `i` has the elements `ends[i - 1]..ends[i]`,
/// and `rows` says which rows hold a list at all. `valid` is about elements; an invalid element's value is arbitrary
/// (a float's is NaN). Slots hold keys in `words`; those that are list-shaped hold valid elements only.
#[derive(Debug, Default)]
pub(crate) struct Block<'a> {
    pub kind: Kind,
    pub bytes: Vec<&'a [u8]>,
    pub ints: Vec<i64>,
    pub words: Vec<u64>,
    pub floats: Vec<f64>,
    pub valid: Mask,
    pub lists: bool,
    pub ends: Vec<usize>,
    pub rows: Mask,
    /// A weight a key, where the slot is weighted.
    pub weighted: bool,
    pub weights: Vec<f64>,
    /// Under `explain`: which input element (or combination) each key of a list-shaped slot came from.
    pub origins: Vec<usize>,
}

impl Block<'_> {
    pub(crate) fn reset(&mut self, kind: Kind, lists: bool) {
        self.kind = kind;
        self.lists = lists;
        self.bytes.clear();
        self.ints.clear();
        self.words.clear();
        self.floats.clear();
        self.valid.clear();
        self.ends.clear();
        self.rows.clear();
        self.weighted = false;
        self.weights.clear();
        self.origins.clear();
    }

    /// The number of elements.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.valid.bits.len()
    }

    /// Where row `i`'s elements stand.
    #[inline]
    pub(crate) fn row(&self, i: usize) -> Range<usize> {
        if !self.lists {
            return i..i + 1;
        }
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        start..self.ends[i]
    }
}
