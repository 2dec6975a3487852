//! One raw column of a request: a tensor read as the column's kind, with what is missing marked.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, LargeListArray, NullArray,
    StringArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::Field;
use penstock_features::Value;

use super::kinds::Kind;
use super::lists;
use crate::error::{Fault, Result};
use crate::tensor::{Data, Tensor, Texts};

/// Values as the feature kernel knows them.
#[derive(Clone, Debug)]
pub(super) enum Values<'a> {
    /// Null in every row.
    None,
    Text(Cow<'a, Texts>),
    Int(Cow<'a, [i64]>),
    UInt(Cow<'a, [u64]>),
    Float(Cow<'a, [f64]>),
    Bool(Cow<'a, [bool]>),
    Date(Vec<i32>),
    Time(Cow<'a, [i64]>),
    List(List),
}

/// Row `i` holds `elements[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub offsets: Vec<i64>,
    pub elements: Box<Cells<'static>>,
}

#[derive(Clone, Debug)]
pub(super) struct Cells<'a> {
    pub values: Values<'a>,
    /// A value each: whether it is missing. None: none is.
    pub nulls: Option<Vec<bool>>,
}

pub(super) const ABSENT: Cells<'static> = Cells {
    values: Values::None,
    nulls: None,
};

impl<'a> Cells<'a> {
    /// Reads a tensor of shape [rows] or [rows, 1] as a column of `kind`. `marks`: the tensor that says what is null.
    pub fn read(tensor: &'a Tensor, kind: &Kind, marks: Option<&'a Tensor>) -> Result<Cells<'a>> {
        if !matches!(tensor.shape.as_slice(), [_] | [_, 1]) {
            return Err(Fault::invalid(format!(
                "input '{}' has the shape {:?}; a column is [rows] or [rows, 1]",
                tensor.name, tensor.shape
            )));
        }
        let mut nulls = tensor.nulls.clone();
        if let Some(marks) = marks {
            let Data::Bool(marked) = &marks.data else {
                return Err(Fault::invalid(format!(
                    "input '{}' marks what is null and must be BOOL, not {}",
                    marks.name,
                    marks.data.datatype()
                )));
            };
            if marks.shape != tensor.shape {
                return Err(Fault::invalid(format!(
                    "input '{}' has the shape {:?}, and '{}' has {:?}",
                    marks.name, marks.shape, tensor.name, tensor.shape
                )));
            }
            match &mut nulls {
                Some(nulls) => nulls.iter_mut().zip(marked).for_each(|(n, m)| *n |= m),
                None => nulls = Some(marked.clone()),
            }
        }
        let values = Values::read(tensor, kind, nulls.as_deref())?;
        Ok(Cells { values, nulls })
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls[row])
            || match &self.values {
                Values::None => true,
                Values::Float(values) => values[row].is_nan(),
                _ => false,
            }
    }

    /// A row's value, for the row at a time; lists go by column only.
    pub fn value(&self, row: usize) -> Value<'_> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls[row]) {
            return Value::Null;
        }
        match &self.values {
            Values::None | Values::List(_) => Value::Null,
            // SAFETY: every text was found to be UTF-8 when it was read.
            Values::Text(texts) => {
                Value::Text(unsafe { std::str::from_utf8_unchecked(texts.get(row)) })
            }
            Values::Int(values) => Value::Int(values[row]),
            Values::UInt(values) => Value::UInt(values[row]),
            Values::Float(values) => Value::Float(values[row]),
            Values::Bool(values) => Value::Bool(values[row]),
            Values::Date(values) => Value::Date(values[row]),
            Values::Time(values) => Value::Time(values[row]),
        }
    }

    /// A number, NaN where there is none.
    pub fn number(&self, row: usize) -> f64 {
        if self.is_null(row) {
            return f64::NAN;
        }
        match &self.values {
            Values::Int(values) | Values::Time(values) => values[row] as f64,
            Values::UInt(values) => values[row] as f64,
            Values::Float(values) => values[row],
            Values::Bool(values) => f64::from(u8::from(values[row])),
            Values::None | Values::Text(_) | Values::Date(_) | Values::List(_) => f64::NAN,
        }
    }

    /// The column as Arrow has it, `rows` long; a broadcast one is repeated.
    pub fn array(&self, rows: usize, broadcast: bool) -> ArrayRef {
        let one = self.own_array(if broadcast { 1 } else { rows });
        if !broadcast || rows == 1 {
            return one;
        }
        let zeros = arrow_array::UInt32Array::from(vec![0; rows]);
        arrow_select::take::take(&one, &zeros, None).unwrap_or(one)
    }

    fn own_array(&self, rows: usize) -> ArrayRef {
        let nulls = self
            .nulls
            .as_ref()
            .map(|nulls| NullBuffer::from_iter(nulls.iter().map(|null| !null)));
        match &self.values {
            Values::None => Arc::new(NullArray::new(rows)),
            Values::Text(texts) => {
                let (bytes, offsets) = texts.parts();
                let offsets = OffsetBuffer::new(offsets.to_vec().into());
                // SAFETY: every text was found to be UTF-8 when it was read, and offsets are where texts begin.
                Arc::new(unsafe {
                    StringArray::new_unchecked(offsets, bytes.to_vec().into(), nulls)
                })
            }
            Values::Int(values) => Arc::new(Int64Array::new(values.to_vec().into(), nulls)),
            Values::UInt(values) => Arc::new(UInt64Array::new(values.to_vec().into(), nulls)),
            Values::Float(values) => Arc::new(Float64Array::new(values.to_vec().into(), nulls)),
            Values::Bool(values) => Arc::new(BooleanArray::new(values.to_vec().into(), nulls)),
            Values::Date(values) => Arc::new(Date32Array::new(values.clone().into(), nulls)),
            Values::Time(values) => Arc::new(TimestampMicrosecondArray::new(
                values.to_vec().into(),
                nulls,
            )),
            Values::List(list) => {
                let last = list.offsets.last().copied().unwrap_or(0) as usize;
                let elements = list.elements.own_array(last);
                let field = Field::new("item", elements.data_type().clone(), true);
                let offsets = OffsetBuffer::new(list.offsets.clone().into());
                Arc::new(LargeListArray::new(
                    Arc::new(field),
                    offsets,
                    elements,
                    nulls,
                ))
            }
        }
    }
}

impl<'a> Values<'a> {
    fn read(tensor: &'a Tensor, kind: &Kind, nulls: Option<&[bool]>) -> Result<Values<'a>> {
        let refused = || {
            Err(Fault::invalid(format!(
                "input '{}' is {}, not {}",
                tensor.name,
                tensor.data.datatype(),
                kind.datatype()
            )))
        };
        Ok(match (kind, &tensor.data) {
            (Kind::Text | Kind::Any, Data::Bytes(texts)) => {
                utf8(tensor, texts)?;
                Values::Text(Cow::Borrowed(texts))
            }
            (Kind::Date, Data::Bytes(texts)) => Values::Date(dates(tensor, texts, nulls)?),
            (Kind::List(inner), Data::Bytes(texts)) => {
                Values::List(lists::read(&tensor.name, texts, inner, nulls)?)
            }
            (Kind::Bool | Kind::Any, Data::Bool(values)) => Values::Bool(Cow::Borrowed(values)),
            (Kind::UInt | Kind::Any, Data::U64(values)) => Values::UInt(Cow::Borrowed(values)),
            (Kind::UInt, data) => match whole(tensor, data, false)? {
                Some(values) => Values::UInt(values.iter().map(|v| v.cast_unsigned()).collect()),
                None => return refused(),
            },
            (Kind::Int | Kind::Time | Kind::Any, data) => {
                match (whole(tensor, data, true)?, kind) {
                    (Some(values), Kind::Time) => Values::Time(values),
                    (Some(values), _) => Values::Int(values),
                    (None, Kind::Any) => match floats(data) {
                        Some(values) => Values::Float(values),
                        None => return refused(),
                    },
                    (None, _) => return refused(),
                }
            }
            (Kind::F32, data) => match floats(data) {
                // What training saw was rounded to f32; a client's double is too.
                Some(values) => {
                    Values::Float(values.iter().map(|v| f64::from(*v as f32)).collect())
                }
                None => return refused(),
            },
            (Kind::F64, data) => match floats(data) {
                Some(values) => Values::Float(values),
                None => return refused(),
            },
            _ => return refused(),
        })
    }
}

/// Integers as i64. None: no integers. `signed`: negative ones have a meaning.
fn whole<'a>(tensor: &Tensor, data: &'a Data, signed: bool) -> Result<Option<Cow<'a, [i64]>>> {
    fn wide<'a, T: Copy + Into<i64>>(values: &[T]) -> Cow<'a, [i64]> {
        values.iter().map(|&v| v.into()).collect()
    }
    let values = match data {
        Data::I64(values) => Cow::Borrowed(&values[..]),
        Data::I32(values) => wide(values),
        Data::I16(values) => wide(values),
        Data::I8(values) => wide(values),
        Data::U32(values) => wide(values),
        Data::U16(values) => wide(values),
        Data::U8(values) => wide(values),
        Data::U64(values) => {
            let fits = |&v: &u64| {
                i64::try_from(v).map_err(|_| {
                    Fault::invalid(format!(
                        "input '{}' holds {v}, which INT64 cannot",
                        tensor.name
                    ))
                })
            };
            values.iter().map(fits).collect::<Result<Vec<_>>>()?.into()
        }
        _ => return Ok(None),
    };
    if !signed && let Some(negative) = values.iter().find(|v| **v < 0) {
        return Err(Fault::invalid(format!(
            "input '{}' holds {negative}, which UINT64 cannot",
            tensor.name
        )));
    }
    Ok(Some(values))
}

/// Any number as f64. None: no numbers.
pub(super) fn floats(data: &Data) -> Option<Cow<'_, [f64]>> {
    Some(match data {
        Data::F64(values) => Cow::Borrowed(&values[..]),
        Data::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Data::I64(values) => values.iter().map(|&v| v as f64).collect(),
        Data::U64(values) => values.iter().map(|&v| v as f64).collect(),
        Data::I32(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Data::I16(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Data::I8(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Data::U32(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Data::U16(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Data::U8(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Data::Bool(_) | Data::Bytes(_) => return None,
    })
}

fn utf8(tensor: &Tensor, texts: &Texts) -> Result<()> {
    match texts.first_not_utf8() {
        None => Ok(()),
        Some(row) => Err(Fault::invalid(format!(
            "input '{}', row {row}: the bytes are not UTF-8",
            tensor.name
        ))),
    }
}

fn dates(tensor: &Tensor, texts: &Texts, nulls: Option<&[bool]>) -> Result<Vec<i32>> {
    let each = texts.iter().enumerate().map(|(row, text)| {
        if nulls.is_some_and(|nulls| nulls[row]) {
            return Ok(0);
        }
        std::str::from_utf8(text)
            .ok()
            .and_then(lists::day)
            .ok_or_else(|| {
                Fault::invalid(format!(
                    "input '{}', row {row}: a date is text like 2026-11-22",
                    tensor.name
                ))
            })
    });
    each.collect()
}
