//! libsvm: `label [qid:N] index:value ... # comment`, read to sparse rows and written from them.
//!
//! Indices keep the file's order, and repeated ones stay: what they mean is the reader's affair. A dimension of 1e9
//! and more is ordinary, for nothing is ever made as wide as the data.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float32Array, Float32Builder, Int64Array, Int64Builder, ListArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::chunk::Chunk;
use crate::error::{OnError, ReadError, Reject};
use crate::reader::{Format, Parsed};
use crate::scalar;

#[derive(Clone, Debug)]
pub struct LibsvmFormat {
    /// What the file's first index is: 0 or 1.
    pub base: i64,
    pub on_error: OnError,
}

pub fn schema() -> Arc<Schema> {
    let list = |type_| DataType::List(Arc::new(Field::new("item", type_, true)));
    Arc::new(Schema::new(vec![
        Field::new("label", DataType::Float32, true),
        Field::new("indices", list(DataType::Int64), true),
        Field::new("values", list(DataType::Float32), true),
        Field::new("qid", DataType::Int64, true),
    ]))
}

#[derive(Default)]
struct Rows {
    labels: Float32Builder,
    indices: Vec<i64>,
    values: Vec<f32>,
    offsets: Vec<i32>,
    valid: Vec<bool>,
    qids: Int64Builder,
}

impl Rows {
    fn end(&mut self, label: Option<f32>, qid: Option<i64>, valid: bool) {
        self.labels.append_option(label);
        self.qids.append_option(qid);
        self.valid.push(valid);
        // A chunk holds at most 64 MB of text, so its pairs are far fewer than i32 can count.
        self.offsets.push(self.indices.len() as i32);
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        let item = |type_| Arc::new(Field::new("item", type_, true));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        let nulls = Some(NullBuffer::from(self.valid));
        let indices: ArrayRef = Arc::new(Int64Array::from(self.indices));
        let values: ArrayRef = Arc::new(Float32Array::from(self.values));
        vec![
            Arc::new(self.labels.finish()),
            Arc::new(ListArray::new(
                item(DataType::Int64),
                offsets.clone(),
                indices,
                nulls.clone(),
            )),
            Arc::new(ListArray::new(
                item(DataType::Float32),
                offsets,
                values,
                nulls,
            )),
            Arc::new(self.qids.finish()),
        ]
    }
}

/// What is wrong with a line: the column at fault, and why.
type Fault = (&'static str, String);

impl LibsvmFormat {
    /// Append the pairs of one line. Gives label and qid; a blank or comment line gives None.
    fn line(&self, raw: &[u8], rows: &mut Rows) -> Result<Option<(f32, Option<i64>)>, Fault> {
        let mut at = 0;
        let Some(label) = token(raw, &mut at) else {
            return Ok(None);
        };
        let label = scalar::float(label)
            .ok_or_else(|| ("label", format!("'{}' is no number", show(label))))?
            as f32;
        let mut qid = None;
        loop {
            while at < raw.len() && is_blank(raw[at]) {
                at += 1;
            }
            if at >= raw.len() || raw[at] == b'#' {
                return Ok(Some((label, qid)));
            }
            let start = at;
            let mut index = 0_u64;
            while at < raw.len() && raw[at].is_ascii_digit() && at - start < 19 {
                index = index * 10 + u64::from(raw[at] - b'0');
                at += 1;
            }
            if at == start || raw.get(at) != Some(&b':') {
                at = start;
                let pair = token(raw, &mut at).unwrap_or_default();
                let Some(number) = pair.strip_prefix(b"qid:") else {
                    return Err(("indices", format!("'{}' is not index:value", show(pair))));
                };
                let number = scalar::int(number)
                    .ok_or_else(|| ("qid", format!("'{}' is no qid", show(pair))))?;
                qid = Some(number);
                continue;
            }
            let Some(index) = i64::try_from(index)
                .ok()
                .map(|i| i - self.base)
                .filter(|i| *i >= 0)
            else {
                at = start;
                let pair = token(raw, &mut at).unwrap_or_default();
                let base = self.base;
                return Err((
                    "indices",
                    format!(
                        "the index of '{}' is below the base, {base}, or beyond 2^63",
                        show(pair)
                    ),
                ));
            };
            at += 1;
            let value = number(raw, &mut at).ok_or_else(|| {
                let mut from = start;
                (
                    "values",
                    format!(
                        "'{}' is not index:value",
                        show(token(raw, &mut from).unwrap_or_default())
                    ),
                )
            })?;
            rows.indices.push(index);
            rows.values.push(value);
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// The next run of non-blank bytes before a comment.
fn token<'a>(raw: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    while *at < raw.len() && is_blank(raw[*at]) {
        *at += 1;
    }
    let start = *at;
    while *at < raw.len() && !is_blank(raw[*at]) && raw[*at] != b'#' {
        *at += 1;
    }
    (*at > start).then(|| &raw[start..*at])
}

/// A value, in one pass where it is a short decimal (mantissa and power of ten exact in f64, so that one division
/// rounds once), then rounded to f32; anything else goes the long way.
fn number(raw: &[u8], at: &mut usize) -> Option<f32> {
    const POWERS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let start = *at;
    let negative = raw.get(start) == Some(&b'-');
    let mut here = start + usize::from(negative);
    let (mut mantissa, mut digits, mut decimals, mut point) = (0_u64, 0_usize, 0_usize, false);
    while let Some(&byte) = raw.get(here) {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 && digits < 15 {
            mantissa = mantissa * 10 + u64::from(digit);
            digits += 1;
            decimals += usize::from(point);
        } else if byte == b'.' && !point {
            point = true;
        } else {
            break;
        }
        here += 1;
    }
    if digits > 0 && raw.get(here).is_none_or(|b| is_blank(*b)) {
        *at = here;
        let value = mantissa as f64 / POWERS[decimals];
        return Some(if negative { -value } else { value } as f32);
    }
    if raw.get(start).is_none_or(|b| is_blank(*b)) {
        return None;
    }
    token(raw, at)
        .and_then(scalar::float)
        .map(|value| value as f32)
}

fn show(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(60).collect()
}

impl Format for LibsvmFormat {
    type Context = ();

    fn begin(&self, _first: &mut Chunk) -> Result<(), ReadError> {
        Ok(())
    }

    fn parse(&self, chunk: &Chunk, (): &()) -> Result<Parsed, ReadError> {
        let mut rows = Rows {
            offsets: vec![0],
            ..Rows::default()
        };
        let mut rejects = Vec::new();
        let (mut start, mut line) = (0, chunk.line);
        while start < chunk.data.len() {
            let end = memchr::memchr(b'\n', &chunk.data[start..])
                .map_or(chunk.data.len(), |at| start + at);
            let raw = &chunk.data[start..end];
            let before = rows.indices.len();
            match self.line(raw, &mut rows) {
                Ok(Some((label, qid))) => rows.end(Some(label), qid, true),
                Ok(None) => {}
                Err((column, reason)) => {
                    rows.indices.truncate(before);
                    rows.values.truncate(before);
                    let reject = Reject::new(line, column, reason, raw);
                    match self.on_error {
                        OnError::Fail => {
                            return Err(ReadError::Bad {
                                file: chunk.file,
                                reject,
                            });
                        }
                        OnError::Drop => {}
                        OnError::Keep => self.keep(raw, column, &mut rows),
                    }
                    rejects.push(reject);
                }
            }
            (start, line) = (end + 1, line + 1);
        }
        let batch =
            RecordBatch::try_new(schema(), rows.finish()).map_err(|error| ReadError::Damaged {
                file: chunk.file,
                reason: error.to_string(),
            })?;
        Ok(Parsed {
            file: chunk.file,
            batch,
            rejects,
        })
    }
}

impl LibsvmFormat {
    /// A row whose bad part becomes null: the label alone, or the pairs.
    fn keep(&self, raw: &[u8], column: &str, rows: &mut Rows) {
        let mut at = 0;
        let label = token(raw, &mut at)
            .and_then(scalar::float)
            .map(|v| v as f32);
        if column != "label" {
            rows.end(label, None, false);
            return;
        }
        let before = rows.indices.len();
        let rest = [b"0", &raw[at..]].concat();
        match self.line(&rest, rows) {
            Ok(Some((_, qid))) => rows.end(None, qid, true),
            _ => {
                rows.indices.truncate(before);
                rows.values.truncate(before);
                rows.end(None, None, false);
            }
        }
    }
}

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
    fn real(&mut self, value: f32, out: &mut Vec<u8>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str, on_error: OnError) -> Result<Parsed, ReadError> {
        let chunk = Chunk {
            file: 0,
            data: text.as_bytes().to_vec(),
            line: 1,
            first: true,
        };
        LibsvmFormat { base: 0, on_error }.parse(&chunk, &())
    }

    fn read(text: &[u8]) -> Option<f32> {
        let mut at = 0;
        number(text, &mut at).filter(|_| at == text.len())
    }

    proptest! {
        #[test]
        fn a_written_value_reads_back_the_same_bits(value in any::<f32>().prop_filter("finite", |v| v.is_finite())) {
            let mut out = Vec::new();
            LibsvmWriter::default().real(value, &mut out);
            prop_assert_eq!(read(&out).map(f32::to_bits), Some(value.to_bits()));
        }

        #[test]
        fn short_decimals_are_written_as_they_were(units in -99_999_999_i32..99_999_999) {
            let text = format!("{}", f64::from(units) / 1e4);
            let value = read(text.as_bytes()).unwrap();
            let mut out = Vec::new();
            LibsvmWriter::default().real(value, &mut out);
            prop_assert_eq!(read(&out), Some(value));
            prop_assert!(out.len() <= text.len());
        }

        #[test]
        fn no_text_panics(text in "[0-9:. #qid+e\n\r\t-]{0,80}") {
            for on_error in [OnError::Fail, OnError::Drop, OnError::Keep] {
                let _ = parse(&text, on_error);
            }
        }
    }

    #[test]
    fn odd_values_are_read_or_refused() {
        assert_eq!(read(b"1e-3"), Some(1e-3));
        assert_eq!(read(b"nan").map(f32::is_nan), Some(true));
        assert_eq!(read(b"123456789012345678"), Some(123_456_789_012_345_678.0));
        assert_eq!(
            (read(b"-"), read(b"."), read(b""), read(b"1x")),
            (None, None, None, None)
        );
    }
}
