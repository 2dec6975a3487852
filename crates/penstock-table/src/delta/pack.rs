//! Rows and tombstones into the bodies of rows records.

use std::ops::Range;

use super::{DeltaError, F16, F32};
use crate::half::Dtype;

/// What a delta is to hold.
#[derive(Debug, Default)]
pub struct Pack {
    pub bodies: Vec<Vec<u8>>,
    pub rows: u64,
    pub gone: u64,
    /// Rows that were looked at for it.
    pub visited: u64,
}

/// Fills bodies of at most about `most` bytes, a block a table and body.
pub struct Packer {
    half: bool,
    most: usize,
    /// Of each row's values only these, side by side; None: all.
    only: Option<Vec<Range<usize>>>,
    columns: Vec<Range<usize>>,
    pack: Pack,
    body: Vec<u8>,
    table: u32,
    dim: u32,
    keys: Vec<u64>,
    values: Vec<u8>,
    gone: Vec<u64>,
}

impl Packer {
    /// `half`: values are rounded to fp16, to the nearest.
    pub fn new(half: bool, most: usize) -> Packer {
        Packer {
            half,
            most,
            only: None,
            columns: vec![],
            pack: Pack::default(),
            body: vec![],
            table: 0,
            dim: 0,
            keys: vec![],
            values: vec![],
            gone: vec![],
        }
    }

    /// Tells these parts of each row alone: what else a row has is the trainer's own.
    pub fn only(self, columns: Vec<Range<usize>>) -> Packer {
        let only = Some(columns);
        Packer { only, ..self }
    }

    /// What follows is of this table, whose rows have `dim` values.
    pub fn table(&mut self, table: u32, dim: usize) {
        self.close_block();
        let all = || std::iter::once(0..dim).collect();
        self.columns = self.only.clone().unwrap_or_else(all);
        let told = self.columns.iter().map(Range::len).sum::<usize>();
        (self.table, self.dim) = (table, told as u32);
    }

    /// `values` are as many as the table's dim.
    pub fn row(&mut self, key: u64, values: &[f32]) -> Result<(), DeltaError> {
        let told = || self.columns.iter().flat_map(|at| &values[at.clone()]);
        if told().any(|value| !value.is_finite()) {
            let table = self.table;
            return Err(DeltaError::NotFinite { table, key });
        }
        self.keys.push(key);
        if self.half {
            let nearest = |&value| Dtype::F16.narrow(value, 0x8000_0000).to_le_bytes();
            self.values.extend(told().flat_map(nearest));
        } else {
            self.values.extend(told().flat_map(|v| v.to_le_bytes()));
        }
        self.pack.rows += 1;
        self.break_off();
        Ok(())
    }

    pub fn gone(&mut self, key: u64) {
        self.gone.push(key);
        self.pack.gone += 1;
        self.break_off();
    }

    /// Counts rows that were looked at.
    pub fn visited(&mut self, rows: u64) {
        self.pack.visited += rows;
    }

    pub fn finish(mut self) -> Pack {
        self.close_block();
        self.close_body();
        self.pack
    }

    fn break_off(&mut self) {
        let open = 8 * (self.keys.len() + self.gone.len()) + self.values.len();
        if self.body.len() + open >= self.most {
            self.close_block();
            self.close_body();
        }
    }

    fn close_block(&mut self) {
        if self.keys.is_empty() && self.gone.is_empty() {
            return;
        }
        let kind = if self.half { F16 } else { F32 };
        let counts = [self.keys.len() as u32, self.gone.len() as u32];
        for word in [self.table, self.dim, kind, counts[0], counts[1], 0] {
            self.body.extend(word.to_le_bytes());
        }
        let keys = |keys: &mut Vec<u64>| keys.drain(..).flat_map(u64::to_le_bytes).collect();
        let (rows, gone): (Vec<u8>, Vec<u8>) = (keys(&mut self.keys), keys(&mut self.gone));
        self.body
            .reserve(rows.len() + self.values.len() + gone.len());
        self.body.extend(rows);
        self.body.append(&mut self.values);
        self.body.extend(gone);
    }

    fn close_body(&mut self) {
        if !self.body.is_empty() {
            self.pack.bodies.push(std::mem::take(&mut self.body));
        }
    }
}
