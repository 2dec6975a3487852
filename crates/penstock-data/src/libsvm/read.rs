//! Lines of libsvm to sparse rows.

use std::sync::Arc;

use arrow_array::builder::{Float32Builder, Int64Builder};
use arrow_array::{ArrayRef, Float32Array, Int64Array, ListArray};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Schema};

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

fn schema() -> Arc<Schema> {
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
pub(super) fn number(raw: &[u8], at: &mut usize) -> Option<f32> {
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
                    self.on_error.note(chunk.file, reject, &mut rejects)?;
                    if self.on_error == OnError::Keep {
                        self.keep(raw, column, &mut rows);
                    }
                }
            }
            (start, line) = (end + 1, line + 1);
        }
        let count = rows.valid.len();
        Parsed::new(chunk.file, schema(), rows.finish(), count, rejects)
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
