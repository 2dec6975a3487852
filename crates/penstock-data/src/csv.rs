//! CSV to Arrow: a type a column, every field checked whether or not it is wanted, so that which rows are rejected never
//! depends on what a flow reads of them.

use std::sync::Arc;

use arrow_schema::{Field as ArrowField, Schema};

use crate::chunk::Chunk;
use crate::column::{Column, Value, arrow_type};
use crate::error::{OnError, ReadError, Reject};
use crate::reader::{Format, Parsed};
use crate::record::{self, Dialect, Ending, Field};
use crate::regular;
use crate::scalar::{self, Kind};

#[derive(Clone, Debug)]
pub struct CsvColumn {
    pub name: String,
    pub kind: Kind,
}

/// How a CSV is written, and what is wanted of it.
#[derive(Clone, Debug)]
pub struct CsvFormat {
    pub dialect: Dialect,
    pub header: bool,
    /// Columns were named by the user: the header, if any, is skipped and fields count by position.
    pub named: bool,
    pub nulls: Vec<Vec<u8>>,
    pub columns: Vec<CsvColumn>,
    /// Which columns to build.
    pub wanted: Vec<bool>,
    pub on_error: OnError,
}

/// The text of the header's fields.
pub fn header_names(data: &[u8], dialect: Dialect) -> Result<(Vec<String>, usize), String> {
    let mut fields = Vec::new();
    let (end, ending) = record::split(data, 0, dialect, &mut fields);
    if ending != Ending::Whole {
        return Err("the header has a quote that is never closed".to_owned());
    }
    let mut scratch = Vec::new();
    let mut names = Vec::with_capacity(fields.len());
    for (at, &field) in fields.iter().enumerate() {
        let name = std::str::from_utf8(record::text(data, field, dialect.quote, &mut scratch))
            .map_err(|_| "the header is not valid text in this encoding".to_owned())?;
        names.push(if name.is_empty() {
            format!("column_{}", at + 1)
        } else {
            name.to_owned()
        });
    }
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(format!("the header names column '{name}' twice"));
        }
    }
    Ok((names, end))
}

impl CsvFormat {
    pub fn schema(&self) -> Arc<Schema> {
        let wanted = self
            .columns
            .iter()
            .zip(&self.wanted)
            .filter(|(_, wanted)| **wanted);
        Arc::new(Schema::new(
            wanted
                .map(|(c, _)| ArrowField::new(&c.name, arrow_type(c.kind), true))
                .collect::<Vec<_>>(),
        ))
    }

    pub(crate) fn value<'a>(
        &self,
        kind: Kind,
        raw: &'a [u8],
        quoted: bool,
        valid: bool,
    ) -> Result<Held<'a>, Reason> {
        if !quoted && (raw.is_empty() || self.is_null(raw)) {
            return Ok(Held::NULL);
        }
        if kind == Kind::Str {
            return match std::str::from_utf8(if valid { b"" } else { raw }) {
                Ok(_) => Ok(Held::Text(raw)),
                Err(_) => Err(Reason::Encoding),
            };
        }
        let text = scalar::trim(raw);
        if text.is_empty() {
            return Ok(Held::NULL);
        }
        match kind {
            Kind::Int => scalar::int(text).map(Value::Int),
            Kind::UInt => scalar::uint(text).map(Value::UInt),
            Kind::Float => scalar::float(text).map(Value::Float),
            Kind::Bool => scalar::boolean(text).map(Value::Bool),
            Kind::Date => scalar::date(text).map(|days| Value::Int(days.into())),
            Kind::Timestamp => scalar::timestamp(text).map(Value::Int),
            Kind::Str => None,
        }
        .map(Held::Value)
        .ok_or(Reason::Type(kind))
    }

    pub(crate) fn is_null(&self, raw: &[u8]) -> bool {
        !self.nulls.is_empty() && {
            let trimmed = scalar::trim(raw);
            self.nulls.iter().any(|null| null == trimmed)
        }
    }
}

/// A parsed field, held until its whole row is known to be good.
#[derive(Clone, Copy)]
pub(crate) enum Held<'a> {
    Value(Value<'a>),
    Text(&'a [u8]),
    /// A string whose doubled quotes must still be undone.
    Doubled(Field),
}

impl Held<'_> {
    const NULL: Self = Held::Value(Value::Null);
}

pub(crate) enum Reason {
    Type(Kind),
    Encoding,
}

impl Reason {
    fn sentence(&self, raw: &[u8]) -> String {
        let shown: String = String::from_utf8_lossy(raw).chars().take(60).collect();
        match self {
            Reason::Encoding => format!("'{shown}' is not valid in the file's encoding"),
            Reason::Type(Kind::Int)
                if scalar::float(scalar::trim(raw)).is_some_and(|f| f.abs() >= 9e18) =>
            {
                format!("'{shown}' does not fit 64 bits")
            }
            Reason::Type(kind) => format!("'{shown}' is not of type {}", kind.name()),
        }
    }
}

/// Append a field to its column.
fn push(
    column: &mut Column,
    held: Held<'_>,
    data: &[u8],
    quote: Option<u8>,
    scratch: &mut Vec<u8>,
) {
    match held {
        Held::Value(value) => column.push(value),
        Held::Text(raw) => column.push(Value::Str(&String::from_utf8_lossy(raw))),
        Held::Doubled(field) => {
            let raw = record::text(data, field, quote, scratch);
            column.push(Value::Str(&String::from_utf8_lossy(raw)));
        }
    }
}

/// Where each field of one file goes: column indexes, in the order of the file's own header.
pub type Mapping = Vec<usize>;

impl Format for CsvFormat {
    type Context = Mapping;

    fn dialect(&self) -> Option<Dialect> {
        Some(self.dialect)
    }

    fn begin(&self, first: &mut Chunk) -> Result<Mapping, ReadError> {
        let by_position = (0..self.columns.len()).collect();
        if !self.header || first.data.is_empty() {
            return Ok(by_position);
        }
        let fault = |reason| ReadError::Header {
            file: first.file,
            reason,
        };
        if self.named {
            let mut fields = Vec::new();
            let (end, _) = record::split(&first.data, 0, self.dialect, &mut fields);
            skip(first, end);
            return Ok(by_position);
        }
        let (names, end) = header_names(&first.data, self.dialect).map_err(fault)?;
        let mapping = names
            .iter()
            .map(|name| {
                self.columns
                    .iter()
                    .position(|c| c.name == *name)
                    .ok_or(name)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|name| {
                fault(format!(
                    "its header has a column '{name}' that the first file lacks"
                ))
            })?;
        skip(first, end);
        Ok(mapping)
    }

    fn parse(&self, chunk: &Chunk, mapping: &Mapping) -> Result<Parsed, ReadError> {
        let data = &chunk.data[..];
        if let Some((columns, rows)) = regular::columns(self, data, mapping) {
            return Parsed::new(chunk.file, self.schema(), columns, rows, Vec::new());
        }
        let valid = std::str::from_utf8(data).is_ok();
        let mut columns: Vec<Option<Column>> = self
            .columns
            .iter()
            .zip(&self.wanted)
            .map(|(c, wanted)| wanted.then(|| Column::new(c.kind)))
            .collect();
        let mut row = vec![Held::NULL; self.columns.len()];
        let (mut fields, mut scratch, mut rejects) = (Vec::new(), Vec::new(), Vec::new());
        let (mut at, mut rows, mut line, mut counted) = (0, 0_usize, chunk.line, 0);
        while at < data.len() {
            let start = at;
            let (next, ending) = record::split(data, at, self.dialect, &mut fields);
            at = next;
            let blank = fields.len() == 1 && !fields[0].quoted && fields[0].start == fields[0].end;
            if blank && mapping.len() > 1 && ending == Ending::Whole {
                continue;
            }
            let mut bad: Option<(String, String)> = None;
            let whole_row = match ending {
                Ending::Unclosed => Some("a quote is opened and never closed".to_owned()),
                Ending::AfterQuote => Some("text follows a closing quote".to_owned()),
                Ending::Whole if fields.len() != mapping.len() => Some(format!(
                    "{} field(s) where {} are expected",
                    fields.len(),
                    mapping.len()
                )),
                Ending::Whole => None,
            };
            let kept =
                ending == Ending::Whole && (whole_row.is_none() || self.on_error == OnError::Keep);
            if kept {
                if mapping.len() != row.len() || fields.len() < mapping.len() {
                    row.fill(Held::NULL);
                }
                for (&field, &column) in fields.iter().zip(mapping) {
                    let kind = self.columns[column].kind;
                    let raw = if field.doubled && kind != Kind::Str {
                        Err(Reason::Type(kind))
                    } else {
                        self.value(kind, &data[field.start..field.end], field.quoted, valid)
                    };
                    row[column] = match raw {
                        Ok(Held::Text(_)) if field.doubled => Held::Doubled(field),
                        Ok(value) => value,
                        Err(reason) => {
                            let said = reason.sentence(&data[field.start..field.end]);
                            bad.get_or_insert((self.columns[column].name.clone(), said));
                            Held::NULL
                        }
                    };
                }
            }
            let fault = whole_row.map(|reason| (String::new(), reason)).or(bad);
            if let Some((column, reason)) = fault {
                line += memchr::memchr_iter(b'\n', &data[counted..start]).count() as u64;
                counted = start;
                let reject = Reject::new(line, &column, reason, &data[start..next]);
                self.on_error.note(chunk.file, reject, &mut rejects)?;
                if !kept || self.on_error == OnError::Drop {
                    continue;
                }
            }
            rows += 1;
            for (column, value) in columns.iter_mut().zip(&row) {
                if let Some(column) = column {
                    push(column, *value, data, self.dialect.quote, &mut scratch);
                }
            }
        }
        let arrays = columns.into_iter().flatten().map(Column::finish).collect();
        Parsed::new(chunk.file, self.schema(), arrays, rows, rejects)
    }
}

fn skip(chunk: &mut Chunk, bytes: usize) {
    chunk.line += memchr::memchr_iter(b'\n', &chunk.data[..bytes]).count() as u64;
    chunk.data.drain(..bytes);
}
