//! The one interpreter: a plan's items over a chunk of rows, be it thousands from Arrow or a single one.
//!
//! Each item reads blocks of earlier sources and writes its own. Hashes and f64s of a source are derived once a
//! chunk and shared by all items that want them.

use crate::block::{Block, Kind, Mask};
use crate::canonical;
use crate::error::{ApplyError, RowError};
use crate::functions::{Family, Function};
use crate::plan::{Item, Plan, Role};

/// Everything an evaluation writes, kept between chunks and rows so that nothing is allocated twice.
#[derive(Default)]
pub(crate) struct State<'a> {
    /// A block a source: the raw columns, then the items.
    pub blocks: Vec<Block<'a>>,
    pub errors: Vec<RowError>,
    /// Record where each key of a list came from.
    pub trace: bool,
    derived: Derived,
    buffers: Buffers,
}

/// What many items want of one source.
#[derive(Default)]
pub(crate) struct Derived {
    hashes: Vec<Cached<u64>>,
    numbers: Vec<Cached<f64>>,
}

#[derive(Default)]
struct Cached<T> {
    ready: bool,
    values: Vec<T>,
}

/// Working memory of single functions.
#[derive(Default)]
pub(crate) struct Buffers {
    pub values: Vec<u64>,
    pub words: Vec<u64>,
    pub present: Mask,
    pub picks: Vec<usize>,
    pub pick_ends: Vec<usize>,
    pub parts: Vec<u8>,
    pub stack: Vec<Vec<f64>>,
    pub seen: std::collections::HashSet<u64, Prehashed>,
}

/// The elements of these sets are XXH3 hashes already.
#[derive(Default, Clone)]
pub(crate) struct Prehashed(u64);

impl std::hash::BuildHasher for Prehashed {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl std::hash::Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Derived {
    fn reset(&mut self, sources: usize) {
        self.hashes.resize_with(sources, Cached::default);
        self.numbers.resize_with(sources, Cached::default);
        self.hashes
            .iter_mut()
            .for_each(|cached| cached.ready = false);
        self.numbers
            .iter_mut()
            .for_each(|cached| cached.ready = false);
    }

    fn need_hashes(&mut self, source: usize, block: &Block<'_>, seed: u64) -> Result<(), String> {
        let cached = &mut self.hashes[source];
        if !cached.ready {
            canonical::hash_elements(block, seed, &mut cached.values)?;
            cached.ready = true;
        }
        Ok(())
    }

    /// A block of floats is its own numbers.
    fn need_numbers(&mut self, source: usize, block: &Block<'_>) -> Result<(), String> {
        if block.kind == Kind::Float {
            return Ok(());
        }
        let cached = &mut self.numbers[source];
        if !cached.ready {
            numbers(block, &mut cached.values)?;
            cached.ready = true;
        }
        Ok(())
    }

    fn numbers<'r>(&'r self, source: usize, blocks: &'r [Block<'_>]) -> &'r [f64] {
        let block = &blocks[source];
        if block.kind == Kind::Float {
            &block.floats
        } else {
            &self.numbers[source].values
        }
    }
}

/// f64s of the elements of a block of anything but floats, NaN for those without a value. Integers beyond 2^53 round to the nearest.
fn numbers(block: &Block<'_>, out: &mut Vec<f64>) -> Result<(), String> {
    out.clear();
    match block.kind {
        Kind::Float => {}
        Kind::Int => out.extend(block.ints.iter().map(|v| *v as f64)),
        Kind::UInt | Kind::Bool => out.extend(block.words.iter().map(|v| *v as f64)),
        Kind::Null => out.resize(block.len(), f64::NAN),
        Kind::Text | Kind::Binary => return Err("a string is not a number".into()),
        Kind::Date | Kind::Time => {
            return Err("a date is not a number: bucketize_time takes its parts".into());
        }
    }
    if block.valid.missing > 0 {
        for (number, valid) in out.iter_mut().zip(&block.valid.bits) {
            *number = if *valid { *number } else { f64::NAN };
        }
    }
    Ok(())
}

/// An item's inputs, with what was derived of them.
pub(crate) struct Inputs<'r, 'a> {
    pub plan: &'r Plan,
    pub item: &'r Item,
    pub rows: usize,
    pub blocks: &'r [Block<'a>],
    pub trace: bool,
    derived: &'r Derived,
}

impl<'r, 'a> Inputs<'r, 'a> {
    pub(crate) fn block(&self, input: usize) -> &'r Block<'a> {
        &self.blocks[self.item.from[input]]
    }

    pub(crate) fn hashes(&self, input: usize) -> &'r [u64] {
        &self.derived.hashes[self.item.from[input]].values
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

impl<'a> State<'a> {
    /// Make room for a plan's sources.
    pub(crate) fn prepare(&mut self, plan: &Plan) {
        self.blocks
            .resize_with(plan.columns.len() + plan.items.len(), Block::default);
        self.errors.clear();
    }

    /// The same memory, holding on to no row.
    pub(crate) fn forget_rows(mut self) -> State<'static> {
        self.blocks.iter_mut().for_each(|block| block.bytes.clear());
        // SAFETY: the lifetime is that of the slices in `bytes` and of nothing else, and no such slice is left. Only
        // the lifetime differs between the two types, so their layout is the same.
        unsafe { std::mem::transmute::<State<'a>, State<'static>>(self) }
    }

    /// Evaluate every item over `rows` rows; the blocks of the raw columns are already filled.
    ///
    /// Row errors are collected, by chunk row; the error returned is one of types, and the same for every row.
    pub(crate) fn run(&mut self, plan: &Plan, rows: usize) -> Result<(), ApplyError> {
        let sources = self.blocks.len();
        self.derived.reset(sources);
        for (index, item) in plan.items.iter().enumerate() {
            let (before, rest) = self.blocks.split_at_mut(plan.columns.len() + index);
            let mut step = Step {
                plan,
                item,
                rows,
                blocks: before,
                trace: self.trace,
                derived: &mut self.derived,
                buffers: &mut self.buffers,
                errors: &mut self.errors,
            };
            step.run(&mut rest[0]).map_err(|reason| ApplyError::Type {
                item: item.name.clone(),
                reason,
            })?;
        }
        Ok(())
    }
}

struct Step<'r, 'a> {
    plan: &'r Plan,
    item: &'r Item,
    rows: usize,
    blocks: &'r [Block<'a>],
    trace: bool,
    derived: &'r mut Derived,
    buffers: &'r mut Buffers,
    errors: &'r mut Vec<RowError>,
}

impl<'a> Step<'_, 'a> {
    fn run(&mut self, out: &mut Block<'a>) -> Result<(), String> {
        self.derive()?;
        let inputs = Inputs {
            plan: self.plan,
            item: self.item,
            rows: self.rows,
            blocks: self.blocks,
            trace: self.trace,
            derived: self.derived,
        };
        let mut faults = Faults {
            item: self.item,
            errors: self.errors,
        };
        match (self.item.function.family(), self.item.role) {
            (Family::Values, Role::Define) if matches!(self.item.function, Function::Identity) => {
                crate::select::all(inputs.block(0), out);
                Ok(())
            }
            (Family::Values, Role::Dense { default })
                if !matches!(self.item.function, Function::Identity) =>
            {
                inputs.require_scalars()?;
                crate::values::compute(&inputs, self.buffers, &mut faults)?;
                let Buffers {
                    values, present, ..
                } = &*self.buffers;
                crate::numeric::dense_of_values(values, present, default, out);
                Ok(())
            }
            (Family::Values, Role::Dense { .. }) | (Family::Numbers, _) => {
                inputs.require_scalars()?;
                crate::numeric::compute(&inputs, self.buffers, &mut faults, out)
            }
            (Family::Values, _) => {
                crate::values::compute(&inputs, self.buffers, &mut faults)?;
                crate::emit::values(&inputs, self.buffers, &mut faults, out);
                Ok(())
            }
            (Family::Crosses, _) => crate::cross::compute(&inputs, self.buffers, &mut faults, out),
            (Family::Selections, role) => {
                crate::select::compute(&inputs, self.buffers, &mut faults, role, out)
            }
        }
    }

    /// Bring up the hashes and numbers that this item reads.
    fn derive(&mut self) -> Result<(), String> {
        let (plan, seed) = (self.plan, self.plan.seed);
        let hashed: &[usize] = match &self.item.function {
            Function::Hash
            | Function::Combine
            | Function::Descartes { .. }
            | Function::Hit
            | Function::Overlap
            | Function::MultiHot => &self.item.from,
            // A define of it only moves elements.
            Function::Sequence { .. } if self.item.role != Role::Define => &self.item.from,
            _ => &[],
        };
        for source in hashed {
            let part = matches!(
                self.item.function,
                Function::Combine | Function::Descartes { .. }
            );
            let slot = plan
                .item_of(*source)
                .is_some_and(|item| matches!(item.role, Role::Slot { .. }));
            if !(part && slot) {
                self.derived
                    .need_hashes(*source, &self.blocks[*source], seed)
                    .map_err(|reason| self.at(*source, &reason))?;
            }
        }
        let moments = matches!(self.item.function, Function::Time { .. });
        if self.item.function.reads_numbers() && !moments && self.item.role != Role::Define
            || self.item.function.family() == Family::Numbers
            || matches!(self.item.function, Function::Piecewise { .. })
        {
            for source in &self.item.from {
                self.derived
                    .need_numbers(*source, &self.blocks[*source])
                    .map_err(|reason| self.at(*source, &reason))?;
            }
        }
        if let Some(source) = self.item.weight {
            self.derived
                .need_numbers(source, &self.blocks[source])
                .map_err(|reason| self.at(source, &reason))?;
        }
        Ok(())
    }

    fn at(&self, source: usize, reason: &str) -> String {
        format!("'{}': {reason}", self.plan.source_name(source))
    }
}
