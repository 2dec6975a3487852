//! The design matrix of the logistic regression, one field at a time.
//!
//! A field is a set of columns. Most fields hold at most one key a row (a tree's leaf, a hashed slot): their columns
//! are orthogonal, so all of them can take their coordinate step at once and the result is that of taking them in turn.

use rayon::prelude::*;

use crate::{Result, invalid};

/// Row order is cut into chunks of this many rows whatever the thread count: partial sums are added in chunk order.
pub const CHUNK: usize = 1 << 14;

/// A column's number in its field; the greatest value says that the row has none.
pub trait Code: Copy + Ord + Sync {
    const NONE: Self;
    fn index(self) -> usize;
}

impl Code for u16 {
    const NONE: u16 = u16::MAX;
    fn index(self) -> usize {
        usize::from(self)
    }
}

impl Code for u32 {
    const NONE: u32 = u32::MAX;
    fn index(self) -> usize {
        self as usize
    }
}

/// Columns with more keys than this are summed column by column rather than in one table a chunk.
const TABLE: usize = 4096;

/// Non-zero entries by column: column `j` is in `rows[starts[j]..starts[j + 1]]`, rows ascending.
pub struct Columns {
    pub starts: Vec<usize>,
    pub rows: Vec<u32>,
    pub values: Option<Vec<f32>>,
}

pub enum Entries {
    /// At most one entry a row, of value 1, among few columns: the leaves of a tree.
    Codes(Vec<u16>),
    /// At most one entry a row: `codes[row]` is its column or none; `values[row]` its value (1 without).
    Single {
        codes: Vec<u32>,
        values: Option<Vec<f32>>,
        by_column: Option<Columns>,
    },
    /// Any number of entries a row.
    Many(Columns),
}

pub struct Field {
    pub entries: Entries,
    /// Number of columns.
    pub size: usize,
    /// The key of each column, ascending; empty where columns are plain codes.
    pub keys: Vec<u64>,
}

impl Field {
    /// One code in `0..size` a row, or `u16::MAX` for none.
    pub fn codes(codes: Vec<u16>, size: usize) -> Result<Field> {
        if let Some(bad) = codes.iter().find(|&&c| c.index() >= size && c != u16::NONE) {
            return invalid(format!("code {bad} is outside 0..{size}"));
        }
        Ok(Field {
            entries: Entries::Codes(codes),
            size,
            keys: Vec::new(),
        })
    }

    /// Lists of keys: row `i` holds `keys[offsets[i]..offsets[i + 1]]`. A key named twice in a row counts twice.
    pub fn keys(offsets: &[i64], keys: &[u64], values: Option<&[f32]>) -> Result<Field> {
        let rows = check_lists(offsets, keys.len(), values)?;
        let mut order: Vec<(u64, u32, u32)> = Vec::with_capacity(keys.len());
        for row in 0..rows {
            let span = offsets[row] as usize..offsets[row + 1] as usize;
            order.extend(span.map(|at| (keys[at], row as u32, at as u32)));
        }
        order.par_sort_unstable();
        let single = (0..rows).all(|row| offsets[row + 1] - offsets[row] <= 1);
        let mut distinct = Vec::new();
        let mut columns = Columns {
            starts: Vec::new(),
            rows: Vec::with_capacity(order.len()),
            values: values.map(|_| Vec::with_capacity(order.len())),
        };
        for &(key, row, at) in &order {
            if distinct.last() != Some(&key) {
                distinct.push(key);
                columns.starts.push(columns.rows.len());
            }
            columns.rows.push(row);
            if let (Some(stored), Some(given)) = (&mut columns.values, values) {
                stored.push(given[at as usize]);
            }
        }
        columns.starts.push(columns.rows.len());
        let size = distinct.len();
        let entries = if single {
            single_of(columns, rows, size)
        } else {
            Entries::Many(columns)
        };
        Ok(Field {
            entries,
            size,
            keys: distinct,
        })
    }

    /// `sums[j] = sum over column j's entries of x^power * rows[row]`.
    pub fn column_sums(&self, rows: &[f64], power: Power) -> Vec<f64> {
        match &self.entries {
            Entries::Single {
                by_column: Some(columns),
                ..
            }
            | Entries::Many(columns) => columns.sums(rows, self.size, power),
            Entries::Single { codes, values, .. } => {
                summed(codes, values.as_deref(), rows, self.size, power)
            }
            Entries::Codes(codes) => summed(codes, None, rows, self.size, power),
        }
    }

    /// `target[row] += scale[row] * sum over the row's entries of x * steps[column]` (scale 1 where not given).
    pub fn add_rows(&self, steps: &[f64], scale: Option<&[f64]>, target: &mut [f64]) {
        match &self.entries {
            Entries::Codes(codes) => spread(codes, None, steps, scale, target),
            Entries::Single { codes, values, .. } => {
                spread(codes, values.as_deref(), steps, scale, target)
            }
            Entries::Many(columns) => {
                for (j, &step) in steps.iter().enumerate() {
                    if step != 0.0 {
                        columns.add(j, step, scale, target);
                    }
                }
            }
        }
    }
}

/// Whether a sum weighs entries by their value or its square.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Power {
    One,
    Two,
}

impl Power {
    fn of(self, x: f32) -> f64 {
        let x = f64::from(x);
        if self == Power::One { x } else { x * x }
    }
}

impl Columns {
    pub fn sum(&self, j: usize, rows: &[f64], power: Power) -> f64 {
        let span = self.starts[j]..self.starts[j + 1];
        match &self.values {
            None => self.rows[span].iter().map(|&r| rows[r as usize]).sum(),
            Some(values) => self.rows[span.clone()]
                .iter()
                .zip(&values[span])
                .map(|(&r, &x)| power.of(x) * rows[r as usize])
                .sum(),
        }
    }

    /// `target[row] += scale[row] * x * step` over column `j`.
    pub fn add(&self, j: usize, step: f64, scale: Option<&[f64]>, target: &mut [f64]) {
        for at in self.starts[j]..self.starts[j + 1] {
            let row = self.rows[at] as usize;
            let x = self.values.as_ref().map_or(1.0, |v| f64::from(v[at]));
            target[row] += scale.map_or(1.0, |s| s[row]) * x * step;
        }
    }

    fn sums(&self, rows: &[f64], size: usize, power: Power) -> Vec<f64> {
        (0..size)
            .into_par_iter()
            .with_min_len(256)
            .map(|j| self.sum(j, rows, power))
            .collect()
    }
}

fn summed<C: Code>(
    codes: &[C],
    values: Option<&[f32]>,
    rows: &[f64],
    size: usize,
    power: Power,
) -> Vec<f64> {
    let partials: Vec<Vec<f64>> = codes
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(chunk, codes)| {
            let span = chunk * CHUNK..chunk * CHUNK + codes.len();
            table_sums(
                codes,
                values.map(|v| &v[span.clone()]),
                &rows[span.clone()],
                size,
                power,
            )
        })
        .collect();
    add_up(partials, size)
}

fn table_sums<C: Code>(
    codes: &[C],
    values: Option<&[f32]>,
    rows: &[f64],
    size: usize,
    power: Power,
) -> Vec<f64> {
    let mut sums = vec![0.0; size];
    match values {
        None => {
            for (&code, &row) in codes.iter().zip(rows) {
                if code != C::NONE {
                    sums[code.index()] += row;
                }
            }
        }
        Some(values) => {
            for ((&code, &row), &x) in codes.iter().zip(rows).zip(values) {
                if code != C::NONE {
                    sums[code.index()] += power.of(x) * row;
                }
            }
        }
    }
    sums
}

/// `target[row] += scale[row] * x * steps[code]` for rows that have a code.
fn spread<C: Code>(
    codes: &[C],
    values: Option<&[f32]>,
    steps: &[f64],
    scale: Option<&[f64]>,
    target: &mut [f64],
) {
    target
        .par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(chunk, target)| {
            let start = chunk * CHUNK;
            for (k, (t, &code)) in target.iter_mut().zip(&codes[start..]).enumerate() {
                if code != C::NONE {
                    let x = values.map_or(1.0, |v| f64::from(v[start + k]));
                    *t += scale.map_or(1.0, |s| s[start + k]) * x * steps[code.index()];
                }
            }
        });
}

fn add_up(partials: Vec<Vec<f64>>, size: usize) -> Vec<f64> {
    let mut total = vec![0.0; size];
    for partial in partials {
        for (t, p) in total.iter_mut().zip(partial) {
            *t += p;
        }
    }
    total
}

fn single_of(columns: Columns, rows: usize, size: usize) -> Entries {
    let mut codes = vec![u32::NONE; rows];
    let mut values = columns.values.as_ref().map(|_| vec![0.0_f32; rows]);
    for j in 0..size {
        for at in columns.starts[j]..columns.starts[j + 1] {
            let row = columns.rows[at] as usize;
            codes[row] = j as u32;
            if let (Some(by_row), Some(given)) = (&mut values, &columns.values) {
                by_row[row] = given[at];
            }
        }
    }
    let by_column = (size > TABLE).then_some(columns);
    Entries::Single {
        codes,
        values,
        by_column,
    }
}

/// The number of rows that `offsets` cuts the list into.
pub fn check_lists(offsets: &[i64], keys: usize, values: Option<&[f32]>) -> Result<usize> {
    let Some((&first, &last)) = offsets.first().zip(offsets.last()) else {
        return invalid("offsets are empty");
    };
    if first < 0 || last as usize > keys || offsets.windows(2).any(|w| w[0] > w[1]) {
        return invalid("offsets do not cut the keys into lists");
    }
    if keys >= u32::MAX as usize {
        return invalid(format!(
            "one field holds {keys} keys; at most {} fit",
            u32::MAX - 1
        ));
    }
    if values.is_some_and(|v| v.len() != keys) {
        return invalid("there must be as many weights as keys");
    }
    Ok(offsets.len() - 1)
}
