//! The mapped batch: buffers of the final size that chunks fill in place, then Arrow columns over them.
//!
//! A slot with one key a row at most has its keys written where they will stay; only where some rows have none are
//! they moved together afterwards. Slots of one key in every row share one list of offsets.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Array, LargeListArray, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};

use crate::apply::{CHUNK_ROWS, threads};
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

/// The columns in the making.
pub(crate) struct Output<'p> {
    rows: usize,
    columns: Vec<Column<'p>>,
}

struct Column<'p> {
    name: &'p str,
    source: Source,
    buffer: Buffer,
}

/// What a column is made of.
#[derive(Clone, Copy)]
enum Source {
    /// The block of an item.
    Item(usize),
    /// All slots, all dense: the flat form.
    Flat,
}

enum Buffer {
    /// A key a row at most; in each chunk's part the keys stand at its start.
    Single {
        keys: Vec<u64>,
        weights: Option<Vec<f32>>,
        chunks: Vec<Held>,
    },
    Lists {
        chunks: Vec<ListChunk>,
        weighted: bool,
    },
    Dense(Vec<f32>),
    FlatDense {
        values: Vec<f32>,
        width: usize,
    },
}

/// Which rows of a chunk have a key.
#[derive(Default)]
pub(crate) struct Held {
    count: usize,
    /// Empty where all have.
    bits: Vec<bool>,
}

#[derive(Default)]
pub(crate) struct ListChunk {
    keys: Vec<u64>,
    weights: Vec<f32>,
    /// The number of keys up to and with each row.
    ends: Vec<usize>,
}

impl<'p> Output<'p> {
    /// Columns for `rows` rows; `probe` holds the plan's blocks over no rows.
    pub(crate) fn new(plan: &'p Plan, probe: &State<'_>, form: Form, rows: usize) -> Self {
        let chunks = rows.div_ceil(CHUNK_ROWS);
        let items = plan.items.iter().enumerate();
        let is_slot = |role| matches!(role, Role::Slot { .. });
        let lists = |weighted| {
            let chunks = (0..chunks).map(|_| ListChunk::default()).collect();
            Buffer::Lists { chunks, weighted }
        };
        if form == Form::Flat {
            let width = items
                .filter(|(_, item)| matches!(item.role, Role::Dense { .. }))
                .count();
            let dense = Buffer::FlatDense {
                values: vec![0.0; rows * width],
                width,
            };
            let columns = vec![
                Column {
                    name: "keys",
                    source: Source::Flat,
                    buffer: lists(true),
                },
                Column {
                    name: "dense",
                    source: Source::Flat,
                    buffer: dense,
                },
            ];
            return Self { rows, columns };
        }
        let slots = items
            .clone()
            .filter(|(_, item)| is_slot(item.role))
            .map(|(index, item)| {
                let weighted = plan.weighted(item);
                let buffer = if probe.blocks[plan.columns.len() + index].lists {
                    lists(weighted)
                } else {
                    let chunks = (0..chunks).map(|_| Held::default()).collect();
                    Buffer::Single {
                        keys: vec![0; rows],
                        weights: weighted.then(|| vec![0.0; rows]),
                        chunks,
                    }
                };
                Column {
                    name: &item.name,
                    source: Source::Item(index),
                    buffer,
                }
            });
        let dense = items
            .clone()
            .filter(|(_, item)| matches!(item.role, Role::Dense { .. }))
            .map(|(index, item)| Column {
                name: &item.name,
                source: Source::Item(index),
                buffer: Buffer::Dense(vec![0.0; rows]),
            });
        let columns = slots.chain(dense).collect();
        Self { rows, columns }
    }

    /// The parts that chunks of `size` rows write, in order.
    pub(crate) fn parts(&mut self, size: usize) -> Vec<Part<'_>> {
        let rows = self.rows;
        let mut parts: Vec<Part<'_>> = (0..rows.div_ceil(size))
            .map(|chunk| Part {
                rows: size.min(rows - chunk * size),
                columns: Vec::with_capacity(self.columns.len()),
            })
            .collect();
        for column in &mut self.columns {
            let source = column.source;
            let mut add = |chunk: usize, slice| parts[chunk].columns.push((source, slice));
            match &mut column.buffer {
                Buffer::Single {
                    keys,
                    weights,
                    chunks,
                } => {
                    let mut weights = weights.as_mut().map(|weights| weights.chunks_mut(size));
                    for (chunk, (keys, held)) in keys.chunks_mut(size).zip(chunks).enumerate() {
                        let weights = weights.as_mut().and_then(Iterator::next);
                        add(
                            chunk,
                            Slice::Single {
                                keys,
                                weights,
                                held,
                            },
                        );
                    }
                }
                Buffer::Lists { chunks, .. } => {
                    chunks
                        .iter_mut()
                        .enumerate()
                        .for_each(|(chunk, lists)| add(chunk, Slice::Lists(lists)));
                }
                Buffer::Dense(values) => {
                    values
                        .chunks_mut(size)
                        .enumerate()
                        .for_each(|(chunk, values)| add(chunk, Slice::Dense(values)));
                }
                Buffer::FlatDense { width: 0, .. } => {}
                Buffer::FlatDense { values, width } => {
                    let values = values.chunks_mut(size * *width);
                    values
                        .enumerate()
                        .for_each(|(chunk, values)| add(chunk, Slice::Dense(values)));
                }
            }
        }
        parts
    }

    /// The batch: kept columns first.
    pub(crate) fn finish<'k>(
        self,
        kept: impl Iterator<Item = (&'k str, ArrayRef)>,
        rows: usize,
        asked_threads: usize,
    ) -> Result<RecordBatch, ApplyError> {
        let one_each = OffsetBuffer::new(ScalarBuffer::from_iter(0..=rows as i64));
        let built = built(self.columns, &one_each, rows, threads(asked_threads));
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for (name, array) in kept
            .map(|(name, array)| (name.to_string(), array))
            .chain(built.into_iter().flatten())
        {
            fields.push(Field::new(name, array.data_type().clone(), true));
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(
            Arc::new(Schema::new(fields)),
            arrays,
            &options,
        )?)
    }
}

type Named = (String, ArrayRef);

fn built(
    columns: Vec<Column<'_>>,
    one_each: &OffsetBuffer<i64>,
    rows: usize,
    threads: usize,
) -> Vec<Vec<Named>> {
    use rayon::prelude::*;
    // Below this the hand-over to other threads costs more than the copying.
    const WORTH_SHARING: usize = 64 * 1024;
    if threads > 1 && rows > WORTH_SHARING {
        columns
            .into_par_iter()
            .map(|column| column.build(one_each, rows))
            .collect()
    } else {
        columns
            .into_iter()
            .map(|column| column.build(one_each, rows))
            .collect()
    }
}

impl Column<'_> {
    fn build(self, one_each: &OffsetBuffer<i64>, rows: usize) -> Vec<Named> {
        let name = self.name;
        let flat = matches!(self.source, Source::Flat);
        match self.buffer {
            Buffer::Dense(values) => vec![(name.into(), Arc::new(Float32Array::from(values)))],
            Buffer::FlatDense { values, width } => {
                let offsets =
                    ScalarBuffer::from_iter((0..=rows as i64).map(|row| row * width as i64));
                let values = Arc::new(Float32Array::from(values));
                vec![(name.into(), lists(OffsetBuffer::new(offsets), values))]
            }
            Buffer::Single {
                mut keys,
                mut weights,
                chunks,
            } => {
                let offsets = if chunks.iter().all(|held| held.bits.is_empty()) {
                    one_each.clone()
                } else {
                    let offsets = close_gaps(&mut keys, weights.as_mut(), &chunks, rows);
                    OffsetBuffer::new(offsets.into())
                };
                slot_columns(name, flat, offsets, keys, weights)
            }
            Buffer::Lists { chunks, weighted } => {
                let total = chunks.iter().map(|chunk| chunk.keys.len()).sum();
                let mut keys = Vec::with_capacity(total);
                let mut weights = Vec::with_capacity(if weighted { total } else { 0 });
                let mut offsets = Vec::with_capacity(rows + 1);
                offsets.push(0);
                for chunk in chunks {
                    let base = keys.len();
                    offsets.extend(chunk.ends.iter().map(|end| (base + end) as i64));
                    keys.extend_from_slice(&chunk.keys);
                    weights.extend_from_slice(&chunk.weights);
                }
                slot_columns(
                    name,
                    flat,
                    OffsetBuffer::new(offsets.into()),
                    keys,
                    weighted.then_some(weights),
                )
            }
        }
    }
}

/// Move the keys of all chunks together; returns the list offsets.
fn close_gaps(
    keys: &mut Vec<u64>,
    mut weights: Option<&mut Vec<f32>>,
    chunks: &[Held],
    rows: usize,
) -> Vec<i64> {
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0);
    let mut end = 0;
    for (chunk, held) in chunks.iter().enumerate() {
        let start = chunk * CHUNK_ROWS;
        keys.copy_within(start..start + held.count, end);
        if let Some(weights) = weights.as_mut() {
            weights.copy_within(start..start + held.count, end);
        }
        if held.bits.is_empty() {
            offsets.extend((1..=held.count).map(|row| (end + row) as i64));
        } else {
            let mut here = end as i64;
            offsets.extend(held.bits.iter().map(|present| {
                here += i64::from(*present);
                here
            }));
        }
        end += held.count;
    }
    keys.truncate(end);
    if let Some(weights) = weights {
        weights.truncate(end);
    }
    offsets
}

fn slot_columns(
    name: &str,
    flat: bool,
    offsets: OffsetBuffer<i64>,
    keys: Vec<u64>,
    weights: Option<Vec<f32>>,
) -> Vec<Named> {
    let weights = weights.map(|weights| {
        let name = if flat {
            "weights".to_string()
        } else {
            format!("{name}__weight")
        };
        (
            name,
            lists(offsets.clone(), Arc::new(Float32Array::from(weights))),
        )
    });
    std::iter::once((
        name.to_string(),
        lists(offsets, Arc::new(UInt64Array::from(keys))),
    ))
    .chain(weights)
    .collect()
}

fn lists(offsets: OffsetBuffer<i64>, values: ArrayRef) -> ArrayRef {
    let item: FieldRef = Arc::new(Field::new("item", values.data_type().clone(), true));
    debug_assert!(matches!(
        values.data_type(),
        DataType::UInt64 | DataType::Float32
    ));
    Arc::new(LargeListArray::new(item, offsets, values, None))
}

/// What one chunk of rows writes: its own part of every column.
pub(crate) struct Part<'o> {
    rows: usize,
    columns: Vec<(Source, Slice<'o>)>,
}

enum Slice<'o> {
    Single {
        keys: &'o mut [u64],
        weights: Option<&'o mut [f32]>,
        held: &'o mut Held,
    },
    Lists(&'o mut ListChunk),
    Dense(&'o mut [f32]),
}

impl Part<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Take over the results of a run over this part's rows.
    pub(crate) fn write(&mut self, plan: &Plan, state: &State<'_>) {
        let items = &state.blocks[plan.columns.len()..];
        let rows = self.rows;
        for (source, slice) in &mut self.columns {
            match (source, slice) {
                (
                    Source::Item(index),
                    Slice::Single {
                        keys,
                        weights,
                        held,
                    },
                ) => {
                    single(&items[*index], keys, weights.as_deref_mut(), held);
                }
                (Source::Item(index), Slice::Lists(chunk)) => {
                    let block = &items[*index];
                    chunk.keys.extend_from_slice(&block.words);
                    chunk
                        .weights
                        .extend(block.weights.iter().map(|w| *w as f32));
                    chunk.ends.extend_from_slice(&block.ends);
                }
                (Source::Item(index), Slice::Dense(values)) => {
                    let floats = items[*index].floats.iter();
                    values
                        .iter_mut()
                        .zip(floats)
                        .for_each(|(value, float)| *value = *float as f32);
                }
                (Source::Flat, Slice::Lists(chunk)) => flat_keys(plan, items, rows, chunk),
                (Source::Flat, Slice::Dense(values)) => flat_dense(plan, items, rows, values),
                (Source::Flat, Slice::Single { .. }) => {}
            }
        }
    }
}

fn single(block: &Block<'_>, keys: &mut [u64], weights: Option<&mut [f32]>, held: &mut Held) {
    if block.valid.missing == 0 {
        keys.copy_from_slice(&block.words);
        if let Some(weights) = weights {
            weights
                .iter_mut()
                .zip(&block.weights)
                .for_each(|(to, from)| *to = *from as f32);
        }
        held.count = keys.len();
        return;
    }
    let valid = &block.valid.bits;
    let mut count = 0;
    for (word, present) in block.words.iter().zip(valid) {
        // Written always and kept only if present: no branch to mispredict. `count` never passes the row.
        keys[count] = *word;
        count += usize::from(*present);
    }
    if let Some(weights) = weights {
        let present = block
            .weights
            .iter()
            .zip(valid)
            .filter(|(_, present)| **present);
        weights
            .iter_mut()
            .zip(present)
            .for_each(|(to, (from, _))| *to = *from as f32);
    }
    held.count = count;
    held.bits.extend_from_slice(valid);
}

fn flat_keys(plan: &Plan, items: &[Block<'_>], rows: usize, chunk: &mut ListChunk) {
    let slots = || {
        plan.items
            .iter()
            .zip(items)
            .filter(|(item, _)| matches!(item.role, Role::Slot { .. }))
    };
    for row in 0..rows {
        for (_, block) in slots() {
            for e in block.row(row).filter(|e| block.valid.bits[*e]) {
                chunk.keys.push(block.words[e]);
                chunk.weights.push(if block.weighted {
                    block.weights[e] as f32
                } else {
                    1.0
                });
            }
        }
        chunk.ends.push(chunk.keys.len());
    }
}

fn flat_dense(plan: &Plan, items: &[Block<'_>], rows: usize, values: &mut [f32]) {
    let dense: Vec<&Block<'_>> = plan
        .items
        .iter()
        .zip(items)
        .filter_map(|(item, block)| matches!(item.role, Role::Dense { .. }).then_some(block))
        .collect();
    for row in 0..rows {
        for (place, block) in dense.iter().enumerate() {
            values[row * dense.len() + place] = block.floats[row] as f32;
        }
    }
}
