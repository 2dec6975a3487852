//! A sample as JSON objects: a row each, with its own value of every input.

use std::io::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Sample;
use crate::service::{Request, ViewNote};
use crate::tensor::{Data, Tensor};

/// Adds a line for each row. `deny`: inputs that are left out.
pub fn write_lines(buffer: &mut Vec<u8>, sample: &Sample, deny: &[String]) {
    write_rows(buffer, sample, deny, |buffer| buffer.push(b'\n'));
}

/// What tells a row from all others.
pub fn id(request: &Request, row: usize) -> String {
    format!("{}/{row}", request.trace.request)
}

/// Adds an object for each row, and calls `ended` behind each.
pub fn write_rows(
    buffer: &mut Vec<u8>,
    sample: &Sample,
    deny: &[String],
    mut ended: impl FnMut(&mut Vec<u8>),
) {
    let request = &sample.request;
    let ago = Instant::now().saturating_duration_since(request.arrived);
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(ago);
    let (time, time_ms) = (time.as_secs_f64(), time.as_millis());
    let head = [
        ("model", request.model.as_str()),
        ("version", &sample.version),
        ("bundle", &sample.bundle),
        ("request", &request.trace.request),
    ];
    let fetched = request.fetched.as_deref();
    let aside = fetched.map_or(&[][..], |fetched| &fetched.aside);
    let mut columns = columns(&request.tensors, deny);
    columns.extend(self::columns(aside, deny));
    for row in 0..sample.rows {
        let _ = write!(buffer, "{{\"id\":");
        text(buffer, &id(request, row));
        let _ = write!(buffer, ",\"time\":{time:.6},\"time_ms\":{time_ms}");
        for (key, value) in head {
            let _ = write!(buffer, ",\"{key}\":");
            text(buffer, value);
        }
        let _ = write!(
            buffer,
            ",\"row\":{row},\"shadow\":{},\"features\":{{",
            sample.shadow
        );
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                buffer.push(b',');
            }
            text(buffer, &column.tensor.name);
            buffer.push(b':');
            column.write(buffer, row);
        }
        buffer.push(b'}');
        if let Some(fetched) = fetched {
            views(buffer, &fetched.notes, row);
        }
        buffer.extend_from_slice(b",\"score\":");
        match sample.scores.get(row) {
            Some(score) => number(buffer, f64::from(*score), &score.to_string()),
            None => buffer.extend_from_slice(b"null"),
        }
        buffer.push(b'}');
        ended(buffer);
    }
}

/// What was read of each view: how far into its source the store was, and as of when the row is.
fn views(buffer: &mut Vec<u8>, notes: &[ViewNote], row: usize) {
    buffer.extend_from_slice(b",\"views\":{");
    for (number, note) in notes.iter().enumerate() {
        if number > 0 {
            buffer.push(b',');
        }
        text(buffer, &note.view);
        let _ = write!(
            buffer,
            ":{{\"at\":{},\"as_of_us\":{}}}",
            note.at,
            note.as_of_us(row)
        );
    }
    buffer.push(b'}');
}

struct Column<'a> {
    tensor: &'a Tensor,
    /// Its companion `NAME.null`.
    nulls: Option<&'a [bool]>,
    width: usize,
}

fn columns<'a>(tensors: &'a [Tensor], deny: &[String]) -> Vec<Column<'a>> {
    let of = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
    let kept = tensors.iter().filter(|tensor| {
        let column = tensor
            .name
            .strip_suffix(".null")
            .filter(|column| of(column).is_some());
        column.is_none() && !deny.contains(&tensor.name)
    });
    let each = kept.map(|tensor| {
        let companion = of(&format!("{}.null", tensor.name));
        let nulls = companion.and_then(|companion| match &companion.data {
            Data::Bool(nulls) => Some(nulls.as_slice()),
            _ => None,
        });
        let width = tensor.data.len() / tensor.rows().max(1);
        Column {
            tensor,
            nulls,
            width,
        }
    });
    each.collect()
}

impl Column<'_> {
    /// The row's value: a list where a row has several. An input of one row stands for all.
    fn write(&self, buffer: &mut Vec<u8>, row: usize) {
        let row = if self.tensor.rows() == 1 { 0 } else { row };
        if self.width == 1 {
            return self.element(buffer, row);
        }
        buffer.push(b'[');
        for at in row * self.width..(row + 1) * self.width {
            if at > row * self.width {
                buffer.push(b',');
            }
            self.element(buffer, at);
        }
        buffer.push(b']');
    }

    fn element(&self, buffer: &mut Vec<u8>, at: usize) {
        let told = |nulls: &[bool]| nulls.get(at) == Some(&true);
        if self.nulls.is_some_and(told) || self.tensor.nulls.as_deref().is_some_and(told) {
            return buffer.extend_from_slice(b"null");
        }
        let written = match &self.tensor.data {
            Data::Bytes(v) if at < v.len() => {
                return text(buffer, &String::from_utf8_lossy(v.get(at)));
            }
            Data::F32(v) => {
                return v
                    .get(at)
                    .map_or((), |x| number(buffer, f64::from(*x), &x.to_string()));
            }
            Data::F64(v) => return v.get(at).map_or((), |x| number(buffer, *x, &x.to_string())),
            Data::Bool(v) => v.get(at).map(bool::to_string),
            Data::U8(v) => v.get(at).map(u8::to_string),
            Data::U16(v) => v.get(at).map(u16::to_string),
            Data::U32(v) => v.get(at).map(u32::to_string),
            Data::U64(v) => v.get(at).map(u64::to_string),
            Data::I8(v) => v.get(at).map(i8::to_string),
            Data::I16(v) => v.get(at).map(i16::to_string),
            Data::I32(v) => v.get(at).map(i32::to_string),
            Data::I64(v) => v.get(at).map(i64::to_string),
            Data::Bytes(_) => None,
        };
        buffer.extend_from_slice(written.as_deref().unwrap_or("null").as_bytes());
    }
}

fn text(buffer: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(buffer, text);
}

/// JSON has no NaN and no infinity: they are null.
fn number(buffer: &mut Vec<u8>, value: f64, shortest: &str) {
    let text = if value.is_finite() { shortest } else { "null" };
    buffer.extend_from_slice(text.as_bytes());
}
