//! Sparse rows to lines of libsvm, every number as short as it can be and still be read back.

use arrow_array::{Array, Float32Array, Int64Array, ListArray};

/// Writes rows with base 0: indices sorted, the values of repeated ones summed. A null label is an error.
#[derive(Default)]
pub struct LibsvmWriter {
    pairs: Vec<(u64, f32)>,
    integer: itoa::Buffer,
    real: ryu::Buffer,
}

impl LibsvmWriter {
    /// Append `rows` to `out`. Keys are the bits of i64 or u64; `values` None means 1 for each.
    pub fn write(
        &mut self,
        labels: &Float32Array,
        indices: &ListArray,
        values: Option<&ListArray>,
        qids: Option<&Int64Array>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let keys = indices
            .values()
            .as_any()
            .downcast_ref::<Int64Array>()
            .ok_or("keys must be list<i64>")?;
        let weights = match values {
            Some(list) => Some(
                list.values()
                    .as_any()
                    .downcast_ref::<Float32Array>()
                    .ok_or("weights must be list<f32>")?,
            ),
            None => None,
        };
        for row in 0..labels.len() {
            if labels.is_null(row) || !labels.value(row).is_finite() {
                return Err(format!("row {row} has no label"));
            }
            self.real(labels.value(row), out);
            if let Some(qid) = qids.filter(|q| q.is_valid(row)) {
                out.extend_from_slice(b" qid:");
                out.extend_from_slice(self.integer.format(qid.value(row)).as_bytes());
            }
            self.pairs.clear();
            if indices.is_valid(row) {
                let offsets = indices.value_offsets();
                let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
                let first = match values {
                    Some(list) => {
                        let offsets = list.value_offsets();
                        if list.is_null(row)
                            || (offsets[row + 1] - offsets[row]) as usize != to - from
                        {
                            return Err(format!(
                                "row {row} has {} keys but not as many weights",
                                to - from
                            ));
                        }
                        offsets[row] as usize
                    }
                    None => 0,
                };
                // No null anywhere is the rule: then nothing is asked a pair.
                if keys.null_count() == 0 && weights.is_none_or(|w| w.null_count() == 0) {
                    let keys = keys.values()[from..to].iter().map(|key| *key as u64);
                    match weights {
                        Some(w) => self
                            .pairs
                            .extend(keys.zip(w.values()[first..first + to - from].iter().copied())),
                        None => self.pairs.extend(keys.map(|key| (key, 1.0))),
                    }
                    self.row(out);
                    continue;
                }
                for at in from..to {
                    let weight = weights.map_or(Some(1.0), |w| {
                        let at = first + at - from;
                        w.is_valid(at).then(|| w.value(at))
                    });
                    if let (true, Some(weight)) = (keys.is_valid(at), weight) {
                        self.pairs.push((keys.value(at) as u64, weight));
                    }
                }
            }
            self.row(out);
        }
        Ok(())
    }

    fn row(&mut self, out: &mut Vec<u8>) {
        if !self.pairs.is_sorted_by_key(|pair| pair.0) {
            self.pairs.sort_by_key(|pair| pair.0);
        }
        let mut at = 0;
        while at < self.pairs.len() {
            let (key, mut value) = self.pairs[at];
            at += 1;
            while at < self.pairs.len() && self.pairs[at].0 == key {
                value += self.pairs[at].1;
                at += 1;
            }
            out.push(b' ');
            out.extend_from_slice(self.integer.format(key).as_bytes());
            out.push(b':');
            self.real(value, out);
        }
        out.push(b'\n');
    }

    /// Text that reads back the same f32: whole numbers without a point, up to four decimals where those are enough,
    /// else the shortest.
    pub(super) fn real(&mut self, value: f32, out: &mut Vec<u8>) {
        let size = value.abs();
        // Below 1,000 four decimals are within f32's precision, so rounding to them finds the text that was read.
        if size < 1e3 && (value != 0.0 || value.is_sign_positive()) {
            let scaled = (f64::from(size) * 1e4 + 0.5) as u32;
            if (f64::from(scaled) / 1e4) as f32 == size {
                if value < 0.0 {
                    out.push(b'-');
                }
                let (whole, mut decimals) = (scaled / 10_000, scaled % 10_000);
                out.extend_from_slice(self.integer.format(whole).as_bytes());
                if decimals > 0 {
                    out.push(b'.');
                    let mut place = 1000;
                    while decimals > 0 {
                        out.push(b'0' + (decimals / place) as u8);
                        decimals %= place;
                        place /= 10;
                    }
                }
                return;
            }
        }
        out.extend_from_slice(self.real.format(value).as_bytes());
    }
}
