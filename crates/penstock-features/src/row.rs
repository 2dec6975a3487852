//! One row at a time: the same interpreter over blocks of one row, with memory that is kept between rows.

use crate::block::{Block, Kind};
use crate::error::{ApplyError, RowError};
use crate::eval::State;
use crate::plan::{Plan, Role};

/// A raw value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Null,
    Text(&'a str),
    Binary(&'a [u8]),
    Int(i64),
    UInt(u64),
    Float(f64),
    Bool(bool),
    /// Days since the epoch.
    Date(i32),
    /// Microseconds since the epoch.
    Time(i64),
    /// Elements of one kind, nulls among them; integers beside floats, or no one type could hold, count as floats.
    List(&'a [Value<'a>]),
}

impl Value<'_> {
    fn kind(&self) -> Kind {
        match self {
            Value::Null | Value::List(_) => Kind::Null,
            Value::Text(_) => Kind::Text,
            Value::Binary(_) => Kind::Binary,
            Value::Int(_) => Kind::Int,
            Value::UInt(_) => Kind::UInt,
            Value::Float(_) => Kind::Float,
            Value::Bool(_) => Kind::Bool,
            Value::Date(_) => Kind::Date,
            Value::Time(_) => Kind::Time,
        }
    }

    fn number(&self) -> f64 {
        match self {
            Value::Int(v) => *v as f64,
            Value::UInt(v) => *v as f64,
            Value::Float(v) => *v,
            _ => f64::NAN,
        }
    }
}

/// Working memory for rows, one a thread; made once, it stops allocating after the first rows.
#[derive(Default)]
pub struct Scratch {
    state: State<'static>,
    row: MappedRow,
}

/// One row's features. The vectors hold one entry a slot and one a dense, in file order.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct MappedRow {
    pub slots: Vec<MappedSlot>,
    pub dense: Vec<f32>,
}

/// A slot's keys; `weights` is empty where the slot is not weighted, else as long as `keys`.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct MappedSlot {
    pub keys: Vec<u64>,
    pub weights: Vec<f32>,
}

impl Plan {
    /// Map one row, given as a value a raw column in the order of `columns()`.
    pub fn apply_row<'s>(
        &self,
        row: &[Value<'_>],
        scratch: &'s mut Scratch,
    ) -> Result<&'s MappedRow, ApplyError> {
        let mut state: State<'_> = std::mem::take(&mut scratch.state);
        let run = self.evaluate_row(row, &mut state);
        let collected = run.map(|()| self.collect_row(&state, &mut scratch.row));
        scratch.state = state.forget_rows();
        collected.map(|()| &scratch.row)
    }

    pub(crate) fn evaluate_row<'a>(
        &self,
        row: &[Value<'a>],
        state: &mut State<'a>,
    ) -> Result<(), ApplyError> {
        if let Some(missing) = self.columns.get(row.len()) {
            return Err(ApplyError::MissingColumn(missing.clone()));
        }
        state.prepare(self);
        for ((value, block), column) in row.iter().zip(&mut state.blocks).zip(&self.columns) {
            load(value, block).map_err(|reason| ApplyError::Column {
                column: column.clone(),
                reason,
            })?;
        }
        state.run(self, 1)?;
        match state.errors.first() {
            Some(error) => Err(error.clone().into()),
            None => Ok(()),
        }
    }

    fn collect_row(&self, state: &State<'_>, row: &mut MappedRow) {
        let (mut slots, mut dense) = (0, 0);
        for (item, block) in self.items.iter().zip(&state.blocks[self.columns.len()..]) {
            match item.role {
                Role::Define => {}
                Role::Slot { .. } => {
                    if row.slots.len() == slots {
                        row.slots.push(MappedSlot::default());
                    }
                    let slot = &mut row.slots[slots];
                    slot.keys.clear();
                    slot.weights.clear();
                    for e in block.row(0).filter(|e| block.valid.bits[*e]) {
                        slot.keys.push(block.words[e]);
                        if block.weighted {
                            slot.weights.push(block.weights[e] as f32);
                        }
                    }
                    slots += 1;
                }
                Role::Dense { .. } => {
                    row.dense.truncate(dense);
                    row.dense.push(block.floats[0] as f32);
                    dense += 1;
                }
            }
        }
        row.slots.truncate(slots);
        row.dense.truncate(dense);
    }
}

/// A block of one row.
fn load<'a>(value: &Value<'a>, out: &mut Block<'a>) -> Result<(), String> {
    let Value::List(elements) = value else {
        out.reset(value.kind(), false);
        push(value, out);
        return Ok(());
    };
    // A value knows its own kind, an Arrow list has one for all: 3 beside 2^63 is of the unsigned kind.
    let negative = elements
        .iter()
        .any(|element| matches!(element, Value::Int(v) if *v < 0));
    let kind =
        elements
            .iter()
            .try_fold(Kind::Null, |kind, element| match (kind, element.kind()) {
                (kind, Kind::Null) if !matches!(element, Value::List(_)) => Ok(kind),
                (Kind::Null, Kind::Null) => Err("lists of lists cannot be mapped".to_string()),
                (Kind::Null, first) => Ok(first),
                (kind, same) if kind == same => Ok(kind),
                (Kind::Int, Kind::UInt) | (Kind::UInt, Kind::Int) if !negative => Ok(Kind::UInt),
                (Kind::Int | Kind::UInt | Kind::Float, Kind::Int | Kind::UInt | Kind::Float) => {
                    Ok(Kind::Float)
                }
                (kind, other) => Err(format!("a list holds {} and {}", kind.name(), other.name())),
            })?;
    out.reset(kind, true);
    for element in *elements {
        let alike = match (kind, *element) {
            (Kind::Float, element) => Value::Float(element.number()),
            (Kind::UInt, Value::Int(v)) => Value::UInt(v.cast_unsigned()),
            (_, element) => element,
        };
        push(&alike, out);
    }
    out.ends.push(elements.len());
    out.rows.push(true);
    Ok(())
}

/// Append one element; a null takes the place of whatever kind the block has.
fn push<'a>(value: &Value<'a>, out: &mut Block<'a>) {
    let mut present = true;
    match value {
        Value::Text(v) => out.bytes.push(v.as_bytes()),
        Value::Binary(v) => out.bytes.push(v),
        Value::Int(v) | Value::Time(v) => out.ints.push(*v),
        Value::Date(v) => out.ints.push(i64::from(*v)),
        Value::UInt(v) => out.words.push(*v),
        Value::Bool(v) => out.words.push(u64::from(*v)),
        Value::Float(v) => {
            present = !v.is_nan();
            out.floats.push(*v);
        }
        Value::Null | Value::List(_) => {
            present = false;
            match out.kind {
                Kind::Text | Kind::Binary => out.bytes.push(&[]),
                Kind::Int | Kind::Date | Kind::Time => out.ints.push(0),
                Kind::UInt | Kind::Bool => out.words.push(0),
                Kind::Float => out.floats.push(f64::NAN),
                Kind::Null => {}
            }
        }
    }
    out.valid.push(present);
}

/// The first error of a chunk: by row, then by item.
pub(crate) fn first_error(errors: &[RowError]) -> Option<&RowError> {
    errors.iter().min_by_key(|error| error.row)
}
