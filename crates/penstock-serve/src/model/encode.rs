//! From mapped features and raw columns to the matrix that a scorer reads: what training's `Encoder` does.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::cells::{Cells, Values};
use super::inputs::{Column, Given};
use super::manifest::{EncoderSpec, broken, text};
use super::mapping::{Mapped, Mapper};
use super::matrix::{Keys, Matrix};
use crate::error::{Fault, Result};

const CATEGORIES: &str = "categories.json";

pub(super) struct Encoder {
    numeric: Vec<Number>,
    vectors: Vec<Vector>,
    categorical: Vec<Category>,
    slots: Vec<Slot>,
    /// Each place of the one key list is a field; how many places.
    positions: Option<usize>,
}

enum Number {
    Dense(usize),
    Raw(usize),
}

enum Vector {
    /// All of the plan's dense features.
    Flat(usize),
    Raw(usize, usize),
}

enum Slot {
    Mapped {
        slot: usize,
        weighted: bool,
    },
    /// All slots' keys in one list, with weights.
    Flat,
    Raw {
        keys: usize,
        weights: Option<usize>,
    },
}

struct Category {
    source: Source,
    codes: Codes,
}

enum Source {
    Dense(usize),
    /// A slot's first key.
    Slot(usize),
    Raw(usize),
}

enum Codes {
    Texts(HashMap<Box<[u8]>, u32>),
    Whole(HashMap<i64, u32>),
    Keys(HashMap<u64, u32>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Texts(Vec<String>),
    Whole(Vec<i64>),
    Keys(Vec<u64>),
}

impl Encoder {
    pub fn open(
        folder: &Path,
        spec: &EncoderSpec,
        mapper: Option<&Mapper>,
        raw: &[Column],
    ) -> Result<Encoder> {
        let layout = &spec.layout;
        let mut stored: HashMap<String, Stored> = serde_json::from_str(&text(folder, CATEGORIES)?)
            .map_err(|error| broken(folder, format!("{CATEGORIES}: {error}")))?;
        let of = |names: Option<&Vec<String>>, name: &str| {
            names.and_then(|names| names.iter().position(|known| known == name))
        };
        let dense = |name: &str| of(mapper.map(|m| &m.dense), name);
        let slot = |name: &str| of(mapper.map(|m| &m.slots), name);
        let column = |name: &str| {
            let found = raw.iter().position(|column| column.name == name);
            found.ok_or_else(|| broken(folder, format!("its signature lacks the column {name}")))
        };
        // A flat mapping has three columns, whatever the plan's features are called.
        let flat = mapper.is_some() && !layout.vectors.is_empty();
        let numeric = layout.numeric.iter().map(|name| match dense(name) {
            Some(at) if !flat => Ok(Number::Dense(at)),
            _ => column(name).map(Number::Raw),
        });
        let vectors = layout
            .vectors
            .iter()
            .zip(&spec.widths)
            .map(|(name, &width)| {
                if flat && name == "dense" {
                    Ok(Vector::Flat(width))
                } else {
                    column(name).map(|at| Vector::Raw(at, width))
                }
            });
        let mut category = |name: &String| {
            let source = match (dense(name), slot(name)) {
                (Some(at), _) if !flat => Source::Dense(at),
                (_, Some(at)) if !flat => Source::Slot(at),
                _ => Source::Raw(column(name)?),
            };
            let values = stored
                .remove(name)
                .ok_or_else(|| broken(folder, format!("{CATEGORIES} lacks {name}")))?;
            Ok(Category {
                codes: Codes::of(values, &source),
                source,
            })
        };
        let slots = layout.slots.iter().map(|(keys, weights)| {
            if flat && keys == "keys" {
                return Ok(Slot::Flat);
            }
            match slot(keys) {
                Some(slot) if !flat => Ok(Slot::Mapped {
                    slot,
                    weighted: !weights.is_empty(),
                }),
                _ => Ok(Slot::Raw {
                    keys: column(keys)?,
                    weights: match weights.as_str() {
                        "" => None,
                        name => Some(column(name)?),
                    },
                }),
            }
        });
        Ok(Encoder {
            numeric: numeric.collect::<Result<_>>()?,
            vectors: vectors.collect::<Result<_>>()?,
            categorical: layout
                .categorical
                .iter()
                .map(&mut category)
                .collect::<Result<_>>()?,
            slots: slots.collect::<Result<_>>()?,
            positions: layout.positions.then_some(spec.places),
        })
    }

    pub fn width(&self) -> usize {
        let vectors = self.vectors.iter().map(|vector| match vector {
            Vector::Flat(width) | Vector::Raw(_, width) => *width,
        });
        self.numeric.len() + vectors.sum::<usize>() + self.categorical.len()
    }

    pub fn fields(&self) -> usize {
        self.positions.unwrap_or(self.slots.len())
    }

    /// Appends a call to the matrix; on a fault the matrix is as it was.
    pub fn append(&self, given: &Given, mapped: &Mapped, matrix: &mut Matrix) -> Result<()> {
        let rows = given.rows;
        let keys = self
            .slots
            .iter()
            .map(|slot| slot.keys(given, mapped))
            .collect::<Result<Vec<_>>>()?;
        let start = matrix.numbers.len();
        matrix.numbers.resize(start + rows * self.width(), f64::NAN);
        let filled = self.numbers(given, mapped, &mut matrix.numbers[start..]);
        if let Err(fault) = filled {
            matrix.numbers.truncate(start);
            return Err(fault);
        }
        match self.positions {
            Some(places) => {
                for (place, field) in matrix.fields.iter_mut().enumerate().take(places) {
                    for row in 0..rows {
                        let (own, values) = keys[0].row(row);
                        let at = if place < own.len() {
                            place..place + 1
                        } else {
                            0..0
                        };
                        field.push(&own[at.clone()], values.map(|values| &values[at]));
                    }
                }
            }
            None => {
                for (field, keys) in matrix.fields.iter_mut().zip(&keys) {
                    field.append(keys);
                }
            }
        }
        matrix.rows += rows;
        Ok(())
    }

    fn numbers(&self, given: &Given, mapped: &Mapped, out: &mut [f64]) -> Result<()> {
        let (width, rows) = (self.width(), given.rows);
        let mut at = 0;
        let mut fill = |values: &mut dyn FnMut(usize) -> f64| {
            for row in 0..rows {
                out[row * width + at] = values(row);
            }
            at += 1;
        };
        for number in &self.numeric {
            match number {
                Number::Dense(dense) => fill(&mut |row| f64::from(mapped.dense[*dense][row])),
                Number::Raw(column) => {
                    let cells = &given.cells[*column];
                    fill(&mut |row| cells.number(given.row(*column, row)));
                }
            }
        }
        for vector in &self.vectors {
            match vector {
                Vector::Flat(_) => {
                    for dense in &mapped.dense {
                        fill(&mut |row| f64::from(dense[row]));
                    }
                }
                Vector::Raw(column, length) => {
                    let lists = given.list(*column)?;
                    for row in 0..rows {
                        let found = lists.len(given.row(*column, row));
                        if found != *length {
                            return Err(Fault::invalid(format!(
                                "row {row}: a list of {found} numbers where the model reads {length}"
                            )));
                        }
                    }
                    for place in 0..*length {
                        fill(&mut |row| lists.number(given.row(*column, row), place));
                    }
                }
            }
        }
        for category in &self.categorical {
            fill(&mut |row| {
                category
                    .code(given, mapped, row)
                    .map_or(f64::NAN, f64::from)
            });
        }
        Ok(())
    }
}

impl Codes {
    fn of(values: Stored, source: &Source) -> Codes {
        fn counted<T: std::hash::Hash + Eq>(values: impl Iterator<Item = T>) -> HashMap<T, u32> {
            values.zip(0..).collect()
        }
        match (values, source) {
            (Stored::Texts(texts), _) => {
                Codes::Texts(counted(texts.into_iter().map(|t| t.into_bytes().into())))
            }
            (Stored::Whole(values), Source::Slot(_)) => {
                Codes::Keys(counted(values.into_iter().map(i64::cast_unsigned)))
            }
            (Stored::Whole(values), _) => Codes::Whole(counted(values.into_iter())),
            (Stored::Keys(values), _) => Codes::Keys(counted(values.into_iter())),
        }
    }
}

impl Category {
    /// The category's number; None for one that training never saw.
    fn code(&self, given: &Given, mapped: &Mapped, row: usize) -> Option<u32> {
        let whole = |number: f64| {
            // As NumPy casts: towards zero, and out of range is nothing that was seen.
            number.is_finite().then_some(number as i64)
        };
        match (&self.source, &self.codes) {
            (Source::Dense(at), Codes::Whole(codes)) => codes
                .get(&whole(f64::from(mapped.dense[*at][row]))?)
                .copied(),
            (Source::Slot(at), Codes::Keys(codes)) => {
                codes.get(mapped.slots[*at].row(row).0.first()?).copied()
            }
            (Source::Raw(column), codes) => {
                let (cells, row) = (&given.cells[*column], given.row(*column, row));
                if cells.is_null(row) {
                    return None;
                }
                match (&cells.values, codes) {
                    (Values::Text(texts), Codes::Texts(codes)) => {
                        codes.get(texts.get(row)).copied()
                    }
                    (Values::Int(values), Codes::Whole(codes)) => codes.get(&values[row]).copied(),
                    (Values::UInt(values), Codes::Whole(codes)) => {
                        codes.get(&i64::try_from(values[row]).ok()?).copied()
                    }
                    (Values::UInt(values), Codes::Keys(codes)) => codes.get(&values[row]).copied(),
                    (Values::Bool(values), Codes::Whole(codes)) => {
                        codes.get(&i64::from(values[row])).copied()
                    }
                    (Values::Float(values), Codes::Whole(codes)) => {
                        codes.get(&whole(values[row])?).copied()
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl Slot {
    fn keys<'m>(&self, given: &Given, mapped: &'m Mapped) -> Result<Cow<'m, Keys>> {
        let made = match self {
            Slot::Mapped { slot, weighted } => {
                let own = &mapped.slots[*slot];
                if *weighted || own.values.is_none() {
                    return Ok(Cow::Borrowed(own));
                }
                Keys {
                    values: None,
                    ..own.clone()
                }
            }
            Slot::Flat => {
                let mut keys = Keys::default();
                for row in 0..given.rows {
                    let (mut all, mut values) = (vec![], vec![]);
                    for slot in &mapped.slots {
                        let (own, weights) = slot.row(row);
                        all.extend_from_slice(own);
                        match weights {
                            Some(weights) => values.extend_from_slice(weights),
                            None => values.resize(all.len(), 1.0),
                        }
                    }
                    keys.push(&all, Some(&values));
                }
                keys
            }
            Slot::Raw { keys, weights } => {
                let lists = given.list(*keys)?;
                let weights = match weights {
                    None => None,
                    Some(column) => Some((*column, given.list(*column)?)),
                };
                let mut out = Keys::default();
                for row in 0..given.rows {
                    let (own, mut kept) = lists.keys(given.row(*keys, row));
                    let Some((column, weights)) = &weights else {
                        out.push(&kept_only(&own, &kept), None);
                        continue;
                    };
                    let row_of = given.row(*column, row);
                    if weights.len(row_of) != own.len() {
                        return Err(Fault::invalid(format!(
                            "row {row}: {} keys and {} weights",
                            own.len(),
                            weights.len(row_of)
                        )));
                    }
                    let values: Vec<f32> = (0..own.len())
                        .map(|place| weights.number(row_of, place) as f32)
                        .collect();
                    let values: Vec<f32> = (values.iter().zip(&mut kept))
                        .filter(|(_, kept)| **kept)
                        .map(|(value, _)| *value)
                        .collect();
                    out.push(&kept_only(&own, &kept), Some(&values));
                }
                out
            }
        };
        Ok(Cow::Owned(made))
    }
}

fn kept_only(keys: &[u64], kept: &[bool]) -> Vec<u64> {
    let each = keys.iter().zip(kept);
    each.filter(|(_, kept)| **kept)
        .map(|(key, _)| *key)
        .collect()
}

/// A column of lists, or of nulls.
struct Lists<'g, 'a> {
    cells: &'g Cells<'a>,
}

impl<'a> Given<'a> {
    /// Where a row of the call is in a column.
    pub fn row(&self, column: usize, row: usize) -> usize {
        if self.broadcast[column] { 0 } else { row }
    }

    fn list<'g>(&'g self, column: usize) -> Result<Lists<'g, 'a>> {
        match &self.cells[column].values {
            Values::List(_) | Values::None => Ok(Lists {
                cells: &self.cells[column],
            }),
            _ => Err(Fault::invalid("a column of lists is JSON arrays in BYTES")),
        }
    }
}

impl Lists<'_, '_> {
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        match &self.cells.values {
            Values::List(list) if !self.cells.is_null(row) => {
                list.offsets[row] as usize..list.offsets[row + 1] as usize
            }
            _ => 0..0,
        }
    }

    fn len(&self, row: usize) -> usize {
        self.range(row).len()
    }

    fn number(&self, row: usize, place: usize) -> f64 {
        match &self.cells.values {
            // A vector's numbers are f32, as training read them.
            Values::List(list) => {
                let number = list.elements.number(self.range(row).start + place);
                f64::from(number as f32)
            }
            _ => f64::NAN,
        }
    }

    /// The keys of a row as 64 bits, and which of them are there.
    fn keys(&self, row: usize) -> (Vec<u64>, Vec<bool>) {
        let Values::List(list) = &self.cells.values else {
            return (vec![], vec![]);
        };
        let range = self.range(row);
        let key = |at: usize| match &list.elements.values {
            Values::Int(values) => values[at].cast_unsigned(),
            Values::UInt(values) => values[at],
            _ => 0,
        };
        (
            range.clone().map(key).collect(),
            range.map(|at| !list.elements.is_null(at)).collect(),
        )
    }
}
