//! The mapped batch in the making: chunk after chunk of rows is appended to the columns, which then become Arrow's.
//!
//! A slot with one key in every row so far needs no list offsets of its own; all such slots share one list of them.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Float32Array, LargeListArray, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{Field, FieldRef, Schema};

use crate::block::Block;
use crate::error::ApplyError;
use crate::eval::State;
use crate::plan::{Plan, Role};

/// The shape of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A list of keys a slot (and its weights), an f32 a dense.
    Slots,
    /// Three lists: `keys`, `weights`, `dense`.
    Flat,
}

/// The columns of a run of rows.
pub(crate) struct Output<'p> {
    plan: &'p Plan,
    rows: usize,
    columns: Columns<'p>,
}

enum Columns<'p> {
    Slots(Vec<(&'p str, Source)>),
    Flat { keys: Keys, dense: Vec<f32> },
}

/// The block of an item, and what it becomes.
enum Source {
    Slot(usize, Keys),
    Dense(usize, Vec<f32>),
}

/// Lists of keys, and of weights where the slot has them.
struct Keys {
    keys: Vec<u64>,
    weights: Option<Vec<f32>>,
    /// The list offsets (with the leading 0), or none as long as each row has one key.
    offsets: Option<Vec<i64>>,
}

impl<'p> Output<'p> {
    /// Columns with room for `rows` rows; `probe` holds the plan's blocks over no rows.
    pub(crate) fn new(plan: &'p Plan, probe: &State<'_>, form: Form, rows: usize) -> Self {
        let denses = |role| matches!(role, Role::Dense { .. });
        let columns = if form == Form::Flat {
            let width = plan.items.iter().filter(|item| denses(item.role)).count();
            Columns::Flat {
                keys: Keys::new(true, true, rows),
                dense: Vec::with_capacity(rows * width),
            }
        } else {
            let slot = |(index, item): (usize, &'p crate::plan::Item)| {
                let lists = probe.blocks[plan.columns.len() + index].lists;
                let keys = Keys::new(plan.weighted(item), lists, rows);
                matches!(item.role, Role::Slot { .. })
                    .then(|| (item.name.as_str(), Source::Slot(index, keys)))
            };
            let dense = |(index, item): (usize, &'p crate::plan::Item)| {
                denses(item.role).then(|| {
                    let values = Vec::with_capacity(rows);
                    (item.name.as_str(), Source::Dense(index, values))
                })
            };
            let items = || plan.items.iter().enumerate();
            Columns::Slots(
                items()
                    .filter_map(slot)
                    .chain(items().filter_map(dense))
                    .collect(),
            )
        };
        Self {
            plan,
            rows: 0,
            columns,
        }
    }

    /// Take over the results of a run over `rows` rows.
    pub(crate) fn append(&mut self, state: &State<'_>, rows: usize) {
        let blocks = &state.blocks[self.plan.columns.len()..];
        match &mut self.columns {
            Columns::Slots(columns) => {
                for (_, source) in columns {
                    match source {
                        Source::Slot(index, keys) => keys.append(&blocks[*index], self.rows),
                        Source::Dense(index, values) => {
                            values.extend(blocks[*index].floats.iter().map(|float| *float as f32));
                        }
                    }
                }
            }
            Columns::Flat { keys, dense } => {
                append_flat(self.plan, blocks, rows, keys, dense);
            }
        }
        self.rows += rows;
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The batch: kept columns first.
    pub(crate) fn finish<'k>(
        self,
        kept: impl Iterator<Item = (&'k str, ArrayRef)>,
        one_each: &OffsetBuffer<i64>,
    ) -> Result<RecordBatch, ApplyError> {
        let rows = self.rows;
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        let mut add = |name: String, array: ArrayRef| {
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        };
        kept.for_each(|(name, array)| add(name.into(), array));
        match self.columns {
            Columns::Slots(columns) => {
                for (name, source) in columns {
                    match source {
                        Source::Slot(_, keys) => {
                            keys.finish(name, &format!("{name}__weight"), one_each, &mut add);
                        }
                        Source::Dense(_, values) => {
                            add(name.into(), Arc::new(Float32Array::from(values)));
                        }
                    }
                }
            }
            Columns::Flat { keys, dense } => {
                keys.finish("keys", "weights", one_each, &mut add);
                let width = dense.len().checked_div(rows).unwrap_or(0) as i64;
                let offsets = ScalarBuffer::from_iter((0..=rows as i64).map(|row| row * width));
                let values = Arc::new(Float32Array::from(dense));
                add("dense".into(), lists(OffsetBuffer::new(offsets), values));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(
            Arc::new(Schema::new(fields)),
            arrays,
            &options,
        )?)
    }
}

impl Keys {
    fn new(weighted: bool, lists: bool, rows: usize) -> Self {
        let start = || {
            let mut offsets = Vec::with_capacity(rows + 1);
            offsets.push(0);
            offsets
        };
        Self {
            keys: Vec::with_capacity(rows),
            weights: weighted.then(|| Vec::with_capacity(rows)),
            offsets: lists.then(start),
        }
    }

    /// Add a block's keys; `before` rows are here already.
    fn append(&mut self, block: &Block<'_>, before: usize) {
        if block.lists {
            let base = self.keys.len();
            let offsets = own_offsets(&mut self.offsets, before, before);
            offsets.extend(block.ends.iter().map(|end| (base + end) as i64));
            self.keys.extend_from_slice(&block.words);
            if let Some(weights) = &mut self.weights {
                weights.extend(block.weights.iter().map(|weight| *weight as f32));
            }
        } else if block.valid.missing == 0 && self.offsets.is_none() {
            self.keys.extend_from_slice(&block.words);
            if let Some(weights) = &mut self.weights {
                weights.extend(block.weights.iter().map(|weight| *weight as f32));
            }
        } else {
            self.append_present(block, before);
        }
    }

    /// The keys of those rows that have one.
    fn append_present(&mut self, block: &Block<'_>, before: usize) {
        let rows = block.words.len();
        let offsets = own_offsets(&mut self.offsets, before, self.keys.capacity());
        let start = self.keys.len();
        self.keys.resize(start + rows, 0);
        let keys = &mut self.keys[start..];
        let mut count = 0;
        let place = |(word, present): (&u64, &bool)| {
            // Written always and kept only if present: no branch to mispredict. `count` never passes the row.
            keys[count] = *word;
            count += usize::from(*present);
            (start + count) as i64
        };
        offsets.extend(block.words.iter().zip(&block.valid.bits).map(place));
        self.keys.truncate(start + count);
        if let Some(weights) = &mut self.weights {
            let present = block.weights.iter().zip(&block.valid.bits);
            weights.extend(
                present
                    .filter(|(_, present)| **present)
                    .map(|(weight, _)| *weight as f32),
            );
        }
    }

    fn finish(
        mut self,
        name: &str,
        weight_name: &str,
        one_each: &OffsetBuffer<i64>,
        add: &mut impl FnMut(String, ArrayRef),
    ) {
        // Mostly empty slots do not hold on to the room they never filled.
        if self.keys.len() < self.keys.capacity() / 2 {
            self.keys.shrink_to_fit();
        }
        let offsets = match self.offsets {
            // SAFETY: they start at 0 and only ever grow.
            Some(offsets) => unsafe { OffsetBuffer::new_unchecked(offsets.into()) },
            None => one_each.slice(0, self.keys.len()),
        };
        let keys = Arc::new(UInt64Array::from(self.keys));
        add(name.into(), lists(offsets.clone(), keys));
        if let Some(weights) = self.weights {
            let weights = Arc::new(Float32Array::from(weights));
            add(weight_name.into(), lists(offsets, weights));
        }
    }
}

/// The offsets to add to; where there were none, the `before` rows so far have a key each.
fn own_offsets(offsets: &mut Option<Vec<i64>>, before: usize, room: usize) -> &mut Vec<i64> {
    offsets.get_or_insert_with(|| {
        let mut offsets = Vec::with_capacity(room + 1);
        offsets.extend(0..=before as i64);
        offsets
    })
}

fn lists(offsets: OffsetBuffer<i64>, values: ArrayRef) -> ArrayRef {
    let item: FieldRef = Arc::new(Field::new("item", values.data_type().clone(), true));
    Arc::new(LargeListArray::new(item, offsets, values, None))
}

fn append_flat(
    plan: &Plan,
    blocks: &[Block<'_>],
    rows: usize,
    keys: &mut Keys,
    dense: &mut Vec<f32>,
) {
    let of_role = |slot: bool| {
        plan.items
            .iter()
            .zip(blocks)
            .filter_map(move |(item, block)| match item.role {
                Role::Slot { .. } if slot => Some(block),
                Role::Dense { .. } if !slot => Some(block),
                _ => None,
            })
    };
    let slots: Vec<&Block<'_>> = of_role(true).collect();
    let denses: Vec<&Block<'_>> = of_role(false).collect();
    let weights = keys.weights.get_or_insert_default();
    let offsets = keys.offsets.get_or_insert_default();
    for row in 0..rows {
        for block in &slots {
            for e in block.row(row).filter(|e| block.valid.bits[*e]) {
                keys.keys.push(block.words[e]);
                weights.push(if block.weighted {
                    block.weights[e] as f32
                } else {
                    1.0
                });
            }
        }
        offsets.push(keys.keys.len() as i64);
        dense.extend(denses.iter().map(|block| block.floats[row] as f32));
    }
}
