//! One column: pages become values, values become rows.

use std::fs::File;
use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt64Type,
};
use arrow_array::{ArrayRef, BooleanArray, LargeListArray, PrimitiveArray};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field};

use super::levels::Runs;
use super::page::{Header, Kind, PLAIN, PLAIN_DICTIONARY, Pages, RLE_DICTIONARY};
use super::{Chunk, Result, Unreadable};

/// How a column is stored: its greatest levels, by the file's schema.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    pub definition: u8,
    pub repetition: u8,
    /// The definition level of an empty list.
    pub empty: u8,
}

const DAMAGED: Unreadable = Unreadable::Damaged("a page holds less than its header says");
const NULLS: Unreadable = Unreadable::Unknown("nulls");

pub(super) fn is_known(data_type: &DataType) -> bool {
    let number = |t: &DataType| {
        use DataType::{Boolean, Float32, Float64, Int8, Int16, Int32, Int64, UInt64};
        matches!(
            t,
            Int8 | Int16 | Int32 | Int64 | UInt64 | Float32 | Float64 | Boolean
        )
    };
    match data_type {
        DataType::LargeList(item) => {
            number(item.data_type()) && *item.data_type() != DataType::Boolean
        }
        other => number(other),
    }
}

/// A value as Parquet stores it plainly.
trait Stored: ArrowPrimitiveType {
    const BYTES: usize;
    /// Whole values from bytes.
    fn read(bytes: &[u8], into: &mut Vec<Self::Native>);
}

macro_rules! stored {
    ($($arrow:ty, $physical:ty);*) => {$(
        impl Stored for $arrow {
            const BYTES: usize = size_of::<$physical>();
            fn read(bytes: &[u8], into: &mut Vec<Self::Native>) {
                let (each, _) = bytes.as_chunks::<{ size_of::<$physical>() }>();
                into.extend(each.iter().map(|&own| <$physical>::from_le_bytes(own) as Self::Native));
            }
        }
    )*};
}
stored!(Int8Type, i32; Int16Type, i32; Int32Type, i32; Int64Type, i64; UInt64Type, u64; Float32Type, f32; Float64Type, f64);

pub(super) struct Column {
    leaf: Leaf,
    item: Option<Arc<Field>>,
    /// The chunks that are still to come, last first.
    chunks: Vec<Chunk>,
    pages: Option<Pages>,
    values: Values,
    /// Of a list: where each row begins among `values`. What is before `rows[0]` was given out.
    rows: Vec<i64>,
}

/// Values that were read and not yet given out, and the dictionary of the present chunk.
enum Values {
    Int8(Held<Int8Type>),
    Int16(Held<Int16Type>),
    Int32(Held<Int32Type>),
    Int64(Held<Int64Type>),
    UInt64(Held<UInt64Type>),
    Float32(Held<Float32Type>),
    Float64(Held<Float64Type>),
    Boolean(Vec<bool>),
}

struct Held<T: Stored> {
    values: Vec<T::Native>,
    dictionary: Vec<T::Native>,
}

macro_rules! each_kind {
    ($values:expr, $held:ident => $numbers:expr, $bools:ident => $booleans:expr) => {
        match $values {
            Values::Int8($held) => $numbers,
            Values::Int16($held) => $numbers,
            Values::Int32($held) => $numbers,
            Values::Int64($held) => $numbers,
            Values::UInt64($held) => $numbers,
            Values::Float32($held) => $numbers,
            Values::Float64($held) => $numbers,
            Values::Boolean($bools) => $booleans,
        }
    };
}

impl<T: Stored> Held<T> {
    fn new() -> Held<T> {
        Held {
            values: Vec::new(),
            dictionary: Vec::new(),
        }
    }

    fn take_in(&mut self, header: &Header, body: &[u8], count: usize) -> Result<()> {
        let plain = |body: &[u8], count: usize, into: &mut Vec<T::Native>| {
            let bytes = body.get(..count * T::BYTES).ok_or(DAMAGED)?;
            T::read(bytes, into);
            Ok(())
        };
        match (header.kind, header.encoding) {
            (Kind::Dictionary, PLAIN | PLAIN_DICTIONARY) => {
                self.dictionary.clear();
                plain(body, header.values, &mut self.dictionary)
            }
            (Kind::Data, PLAIN) => plain(body, count, &mut self.values),
            (Kind::Data, PLAIN_DICTIONARY | RLE_DICTIONARY) => {
                let (&width, indices) = body.split_first().ok_or(DAMAGED)?;
                if width > 32 {
                    return Err(DAMAGED);
                }
                let mut beyond = false;
                Runs::new(indices, usize::from(width), count).each(|index| {
                    match self.dictionary.get(index as usize) {
                        Some(&value) => self.values.push(value),
                        None => beyond = true,
                    }
                })?;
                if beyond { Err(DAMAGED) } else { Ok(()) }
            }
            _ => Err(Unreadable::Unknown("an encoding")),
        }
    }

    /// The first `count`, taken out.
    fn give(&mut self, count: usize) -> PrimitiveArray<T> {
        let mut rest = Vec::with_capacity(self.values.capacity());
        rest.extend_from_slice(&self.values[count..]);
        self.values.truncate(count);
        PrimitiveArray::new(
            ScalarBuffer::from(std::mem::replace(&mut self.values, rest)),
            None,
        )
    }
}

impl Column {
    pub fn new(data_type: &DataType, leaf: Leaf, mut chunks: Vec<Chunk>) -> Result<Column> {
        let (item, number) = match data_type {
            DataType::LargeList(item) => (Some(item.clone()), item.data_type()),
            other => (None, other),
        };
        if usize::from(leaf.repetition) != usize::from(item.is_some()) || leaf.definition > 3 {
            return Err(Unreadable::Unknown("nested lists"));
        }
        let values = match number {
            DataType::Int8 => Values::Int8(Held::new()),
            DataType::Int16 => Values::Int16(Held::new()),
            DataType::Int32 => Values::Int32(Held::new()),
            DataType::Int64 => Values::Int64(Held::new()),
            DataType::UInt64 => Values::UInt64(Held::new()),
            DataType::Float32 => Values::Float32(Held::new()),
            DataType::Float64 => Values::Float64(Held::new()),
            DataType::Boolean if item.is_none() => Values::Boolean(Vec::new()),
            _ => return Err(Unreadable::Unknown("a type")),
        };
        chunks.reverse();
        Ok(Column {
            leaf,
            item,
            chunks,
            pages: None,
            values,
            rows: Vec::new(),
        })
    }

    fn values_held(&self) -> usize {
        each_kind!(&self.values, held => held.values.len(), bools => bools.len())
    }

    /// The next `rows` rows, all of which there must be.
    pub fn take(&mut self, file: &File, rows: usize) -> Result<ArrayRef> {
        // A row's end is known by the next one's beginning, or by the end of all.
        let wanted = rows + usize::from(self.item.is_some());
        loop {
            let there = if self.item.is_some() {
                self.rows.len()
            } else {
                self.values_held()
            };
            if there >= wanted {
                break;
            }
            if !self.next_page(file)? {
                if self.item.is_some() && there == rows {
                    break;
                }
                return Err(DAMAGED);
            }
        }
        if self.item.is_none() {
            return Ok(self.give(rows));
        }
        let end = match self.rows.get(rows) {
            Some(&end) => end as usize,
            None => self.values_held(),
        };
        let rest: Vec<i64> = self.rows[rows..]
            .iter()
            .map(|start| start - end as i64)
            .collect();
        let mut offsets = std::mem::replace(&mut self.rows, rest);
        offsets.truncate(rows);
        offsets.push(end as i64);
        let values = self.give(end);
        let item = self.item.clone().ok_or(NULLS)?;
        Ok(Arc::new(LargeListArray::new(
            item,
            OffsetBuffer::new(ScalarBuffer::from(offsets)),
            values,
            None,
        )))
    }

    fn give(&mut self, count: usize) -> ArrayRef {
        each_kind!(&mut self.values, held => Arc::new(held.give(count)), bools => {
            let rest = bools.split_off(count);
            Arc::new(BooleanArray::from(std::mem::replace(bools, rest)))
        })
    }

    /// Takes a page in. Whether there was one.
    fn next_page(&mut self, file: &File) -> Result<bool> {
        let first = self.values_held();
        loop {
            let Some(pages) = &mut self.pages else {
                match self.chunks.pop() {
                    Some(chunk) => self.pages = Some(Pages::new(chunk)),
                    None => return Ok(false),
                }
                continue;
            };
            let Some((header, body)) = pages.next(file)? else {
                match self.chunks.pop() {
                    Some(chunk) => pages.turn_to(chunk),
                    None => return Ok(false),
                }
                continue;
            };
            if header.kind == Kind::Dictionary {
                each_kind!(&mut self.values, held => held.take_in(&header, body, 0)?, _bools => return Err(DAMAGED));
                continue;
            }
            let count = header.values;
            let (repetition, body) = levels(body, self.leaf.repetition)?;
            let (definition, body) = levels(body, self.leaf.definition)?;
            let present = rows_of(
                self.leaf,
                Runs::new(repetition, 1, count),
                |width| Runs::new(definition, width, count),
                first,
                &mut self.rows,
                count,
            )?;
            each_kind!(&mut self.values, held => held.take_in(&header, body, present)?, bools => {
                if header.encoding != PLAIN {
                    return Err(Unreadable::Unknown("an encoding"));
                }
                let bits = body.get(..present.div_ceil(8)).ok_or(DAMAGED)?;
                bools.extend((0..present).map(|at| bits[at / 8] >> (at % 8) & 1 == 1));
            });
            return Ok(true);
        }
    }
}

/// A page's levels, which stand after their length, and what follows them. A column without such levels has no bytes of them.
fn levels(body: &[u8], greatest: u8) -> Result<(&[u8], &[u8])> {
    if greatest == 0 {
        return Ok((&[], body));
    }
    let (length, rest) = body.split_first_chunk::<4>().ok_or(DAMAGED)?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
        .ok_or(DAMAGED)
}

/// Notes where rows begin, the page's values being those from `first` on. Returns how many of the page's `count` entries are values.
fn rows_of<'a>(
    leaf: Leaf,
    repetition: Runs<'a>,
    definition: impl Fn(usize) -> Runs<'a>,
    first: usize,
    rows: &mut Vec<i64>,
    count: usize,
) -> Result<usize> {
    let width = (8 - leaf.definition.leading_zeros()) as usize;
    let full = leaf.definition == 0 || definition(width).all(u32::from(leaf.definition))?;
    if leaf.repetition == 0 {
        return if full { Ok(count) } else { Err(NULLS) };
    }
    if full {
        repetition.each_zero(|at| rows.push((first + at) as i64))?;
        return Ok(count);
    }
    // Entries that are no values: empty lists (one level below an entry of the list), or nulls, which are another reader's.
    let mut begins = Vec::with_capacity(count);
    repetition.each(|level| begins.push(level == 0))?;
    let (mut at, mut value, mut nulls) = (0, first, false);
    definition(width).each(|level| {
        if begins[at] {
            rows.push(value as i64);
        }
        at += 1;
        if level == u32::from(leaf.definition) {
            value += 1;
        } else if level != u32::from(leaf.empty) {
            nulls = true;
        }
    })?;
    if nulls { Err(NULLS) } else { Ok(value - first) }
}
