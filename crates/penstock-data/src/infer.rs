//! Types of CSV columns from the first rows of a file.
//!
//! A quoted field is a string, and so is a number with a leading zero or beyond 64 bits: an id must not lose a digit.
//! Otherwise the narrowest of int, float, bool, date, timestamp that every field has; mixtures and empty columns are str.

use crate::chunk::Chunker;
use crate::csv::header_names;
use crate::error::ReadError;
use crate::record::{self, Dialect, Ending};
use crate::scalar::{self, Kind};

/// Names and types of a CSV's columns.
pub type Sample = Vec<(String, Kind)>;

#[derive(Clone, Copy, Default)]
struct Seen {
    int: bool,
    float: bool,
    named_float: bool,
    boolean: bool,
    date: bool,
    timestamp: bool,
    other: bool,
}

impl Seen {
    fn add(&mut self, raw: &[u8], quoted: bool) {
        let text = scalar::trim(raw);
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        if quoted {
            self.other = true;
        } else if text.is_empty() {
        } else if scalar::date(text).is_some() {
            self.date = true;
        } else if scalar::timestamp(text).is_some() {
            self.timestamp = true;
        } else if digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit()
            || text[0] == b'+'
        {
            self.other = true;
        } else if scalar::int(text).is_some() {
            self.int = true;
        } else if digits.iter().all(u8::is_ascii_digit) {
            self.other = true;
        } else if scalar::float(text).is_some() {
            if digits.iter().any(u8::is_ascii_digit) {
                self.float = true
            } else {
                self.named_float = true
            }
        } else if scalar::boolean(text).is_some() {
            self.boolean = true;
        } else {
            self.other = true;
        }
    }

    fn kind(self) -> Kind {
        let number = self.int || self.float;
        let time = self.date || self.timestamp;
        if self.other || u8::from(number) + u8::from(self.boolean) + u8::from(time) != 1 {
            // A column of nothing but `nan` and `inf` is still one of numbers.
            return if self.named_float && !(self.other || self.boolean || time) {
                Kind::Float
            } else {
                Kind::Str
            };
        }
        if self.boolean {
            return if self.named_float {
                Kind::Str
            } else {
                Kind::Bool
            };
        }
        if time {
            return match (self.named_float, self.timestamp) {
                (true, _) => Kind::Str,
                (_, true) => Kind::Timestamp,
                _ => Kind::Date,
            };
        }
        if self.float || self.named_float {
            Kind::Float
        } else {
            Kind::Int
        }
    }
}

/// Look at the first `rows` rows. `names` stand in for a header; without either, columns are `column_1`, `column_2`, ...
pub fn sample(
    chunker: &mut Chunker,
    dialect: Dialect,
    header: bool,
    names: Option<&[String]>,
    nulls: &[Vec<u8>],
    rows: usize,
) -> Result<Sample, ReadError> {
    let (mut columns, mut known): (Vec<String>, bool) =
        (names.unwrap_or_default().to_vec(), names.is_some());
    let mut seen = vec![Seen::default(); columns.len()];
    let (mut fields, mut left) = (Vec::new(), rows);
    while left > 0 {
        let Some(chunk) = chunker.next_chunk()? else {
            break;
        };
        let mut at = 0;
        if chunk.first && header && !chunk.data.is_empty() {
            let (found, end) = header_names(&chunk.data, dialect)
                .or_else(|reason| {
                    if names.is_some() {
                        skip_header(&chunk.data, dialect)
                    } else {
                        Err(reason)
                    }
                })
                .map_err(|reason| ReadError::Header { file: 0, reason })?;
            at = end;
            if !known {
                (columns, known) = (found, true);
                seen = vec![Seen::default(); columns.len()];
            }
        }
        while at < chunk.data.len() && left > 0 {
            let (next, ending) = record::split(&chunk.data, at, dialect, &mut fields);
            at = next;
            left -= 1;
            if ending != Ending::Whole {
                continue;
            }
            if !known {
                columns = (1..=fields.len())
                    .map(|at| format!("column_{at}"))
                    .collect();
                seen = vec![Seen::default(); columns.len()];
                known = true;
            }
            for (seen, field) in seen.iter_mut().zip(&fields) {
                let raw = &chunk.data[field.start..field.end];
                if field.quoted || !nulls.iter().any(|null| null == scalar::trim(raw)) {
                    seen.add(raw, field.quoted);
                }
            }
        }
    }
    Ok(columns
        .into_iter()
        .zip(seen)
        .map(|(name, seen)| (name, seen.kind()))
        .collect())
}

fn skip_header(data: &[u8], dialect: Dialect) -> Result<(Vec<String>, usize), String> {
    let mut fields = Vec::new();
    Ok((Vec::new(), record::split(data, 0, dialect, &mut fields).0))
}
