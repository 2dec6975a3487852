//! The one interpreter: a plan's items over a chunk of rows, be it thousands from Arrow or a single one.
//!
//! Each item reads blocks of earlier sources and writes its own. Hashes and f64s of a source are derived once a
//! chunk and shared by all items that want them (`derived`); a function sees its `inputs`, and works in `buffers`.

mod buffers;
mod derived;
mod inputs;

use self::derived::Derived;
use crate::block::Block;
use crate::error::{ApplyError, RowError};
use crate::functions::{Family, Function};
use crate::plan::{Item, Plan, Role};

pub(crate) use self::buffers::Buffers;
pub(crate) use self::inputs::{Faults, Inputs, Weight};

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
