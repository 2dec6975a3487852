//! The design matrix of the logistic regression, one field at a time.
//!
//! A field is a set of columns. Most fields hold at most one key a row (a tree's leaf, a hashed slot): their columns
//! are orthogonal, so all of them can take their coordinate step at once and the result is that of taking them in turn.

use rayon::prelude::*;

use crate::{Result, invalid};

/// Row order is cut into chunks of this many rows whatever the thread count: partial sums are added in chunk order.
pub const CHUNK: usize = 1 << 16;

/// No key in this row.
pub const NONE: u32 = u32::MAX;

/// Columns with more keys than this are summed column by column rather than in one table a chunk.
const TABLE: usize = 4096;

/// Non-zero entries by column: column `j` is in `rows[starts[j]..starts[j + 1]]`, rows ascending.
pub struct Columns {
    pub starts: Vec<usize>,
    pub rows: Vec<u32>,
    pub values: Option<Vec<f32>>,
}

pub enum Entries {
    /// At most one entry a row: `codes[row]` is its column or `NONE`; `values[row]` its value (1 without).
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
    /// One code in `0..size` for every row.
    pub fn codes(codes: &[u16], size: usize) -> Result<Field> {
        if let Some(bad) = codes.iter().find(|&&c| c as usize >= size) {
            return invalid(format!("code {bad} is outside 0..{size}"));
        }
        let codes: Vec<u32> = codes.iter().map(|&c| u32::from(c)).collect();
        let by_column = (size > TABLE).then(|| columns_of(&codes, None, size));
        Ok(Field {
            entries: Entries::Single {
                codes,
                values: None,
                by_column,
            },
            size,
            keys: Vec::new(),
        })
    }

    /// Lists of keys: row `i` holds `keys[offsets[i]..offsets[i + 1]]`. A key named twice in a row counts twice.
    pub fn keys(offsets: &[i64], keys: &[u64], values: Option<&[f32]>) -> Result<Field> {
        let rows = check_lists(offsets, keys.len(), values)?;
        let mut order: Vec<(u64, u32, u32)> = Vec::with_capacity(keys.len());
        for row in 0..rows {
            for at in offsets[row] as usize..offsets[row + 1] as usize {
                order.push((keys[at], row as u32, at as u32));
            }
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
            Entries::Single {
                codes,
                values,
                by_column: None,
            } => {
                let partials: Vec<Vec<f64>> = codes
                    .par_chunks(CHUNK)
                    .enumerate()
                    .map(|(chunk, codes)| {
                        let start = chunk * CHUNK;
                        let rows = &rows[start..start + codes.len()];
                        let values = values.as_ref().map(|v| &v[start..start + codes.len()]);
                        table_sums(codes, values, rows, self.size, power)
                    })
                    .collect();
                add_up(partials, self.size)
            }
        }
    }

    /// `target[row] += scale[row] * sum over the row's entries of x * steps[column]` (scale 1 where not given).
    pub fn add_rows(&self, steps: &[f64], scale: Option<&[f64]>, target: &mut [f64]) {
        match &self.entries {
            Entries::Single { codes, values, .. } => {
                target
                    .par_chunks_mut(CHUNK)
                    .enumerate()
                    .for_each(|(chunk, target)| {
                        let start = chunk * CHUNK;
                        for (k, t) in target.iter_mut().enumerate() {
                            let code = codes[start + k];
                            if code != NONE {
                                let x = values.as_ref().map_or(1.0, |v| f64::from(v[start + k]));
                                *t +=
                                    scale.map_or(1.0, |s| s[start + k]) * x * steps[code as usize];
                            }
                        }
                    });
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

fn table_sums(
    codes: &[u32],
    values: Option<&[f32]>,
    rows: &[f64],
    size: usize,
    power: Power,
) -> Vec<f64> {
    let mut sums = vec![0.0; size];
    match values {
        None => {
            for (&code, &row) in codes.iter().zip(rows) {
                if code != NONE {
                    sums[code as usize] += row;
                }
            }
        }
        Some(values) => {
            for ((&code, &row), &x) in codes.iter().zip(rows).zip(values) {
                if code != NONE {
                    sums[code as usize] += power.of(x) * row;
                }
            }
        }
    }
    sums
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
    let mut codes = vec![NONE; rows];
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

fn columns_of(codes: &[u32], values: Option<&[f32]>, size: usize) -> Columns {
    let mut starts = vec![0_usize; size + 1];
    for &code in codes {
        starts[code as usize + 1] += 1;
    }
    for j in 0..size {
        starts[j + 1] += starts[j];
    }
    let mut next = starts.clone();
    let mut rows = vec![0_u32; codes.len()];
    let mut sorted = values.map(|v| vec![0.0_f32; v.len()]);
    for (row, &code) in codes.iter().enumerate() {
        let at = next[code as usize];
        next[code as usize] += 1;
        rows[at] = row as u32;
        if let (Some(sorted), Some(values)) = (&mut sorted, values) {
            sorted[at] = values[row];
        }
    }
    Columns {
        starts,
        rows,
        values: sorted,
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
