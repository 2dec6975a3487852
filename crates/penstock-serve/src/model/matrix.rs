//! What scorers read: numbers row by row, and lists of keys field by field. Calls are appended to one another.

/// Row `i` holds `keys[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub offsets: Vec<i64>,
    pub keys: Vec<u64>,
    /// A value a key; None: all are 1.
    pub values: Option<Vec<f32>>,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys {
            offsets: vec![0],
            keys: vec![],
            values: None,
        }
    }
}

impl Keys {
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn clear(&mut self) {
        self.offsets.truncate(1);
        self.keys.clear();
        self.values = None;
    }

    /// The next row; keys whose value is NaN drop out.
    pub fn push(&mut self, keys: &[u64], values: Option<&[f32]>) {
        match values {
            None => {
                self.keys.extend_from_slice(keys);
                if let Some(own) = &mut self.values {
                    own.resize(self.keys.len(), 1.0);
                }
            }
            Some(values) => {
                let before = self.keys.len();
                let own = self.values.get_or_insert_with(|| vec![1.0; before]);
                for (key, value) in keys.iter().zip(values).filter(|(_, v)| !v.is_nan()) {
                    self.keys.push(*key);
                    own.push(*value);
                }
            }
        }
        self.offsets.push(self.keys.len() as i64);
    }

    /// All rows of another, below these.
    pub fn append(&mut self, other: &Keys) {
        let base = self.keys.len() as i64;
        if other.values.is_some() && self.values.is_none() {
            self.values = Some(vec![1.0; self.keys.len()]);
        }
        self.keys.extend_from_slice(&other.keys);
        if let Some(own) = &mut self.values {
            match &other.values {
                Some(values) => own.extend_from_slice(values),
                None => own.resize(self.keys.len(), 1.0),
            }
        }
        let ends = other.offsets[1..].iter().map(|end| base + end);
        self.offsets.extend(ends);
    }

    /// One row of another, `rows` times.
    pub fn repeat(&mut self, one: &Keys, rows: usize) {
        for _ in 0..rows {
            self.append(one);
        }
    }

    pub fn row(&self, row: usize) -> (&[u64], Option<&[f32]>) {
        let range = self.offsets[row] as usize..self.offsets[row + 1] as usize;
        (
            &self.keys[range.clone()],
            self.values.as_ref().map(|values| &values[range]),
        )
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Matrix {
    pub rows: usize,
    /// Numbers a row.
    pub width: usize,
    /// [rows, width]; missing is NaN.
    pub numbers: Vec<f64>,
    pub fields: Vec<Keys>,
}

impl Matrix {
    pub fn new(width: usize, fields: usize) -> Matrix {
        Matrix {
            rows: 0,
            width,
            numbers: vec![],
            fields: vec![Keys::default(); fields],
        }
    }

    pub fn clear(&mut self) {
        self.rows = 0;
        self.numbers.clear();
        self.fields.iter_mut().for_each(Keys::clear);
    }

    pub fn row(&self, row: usize) -> &[f64] {
        &self.numbers[row * self.width..][..self.width]
    }
}
