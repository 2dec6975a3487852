//! JSON lines to Arrow: one object a line, nested lists and structs, a missing key is null.
//!
//! A line becomes a `value`, is made to `fit` the `shape`s of the columns, and is appended to `nested` columns.

mod fit;
mod nested;
mod shape;
mod value;

use std::sync::Arc;

use arrow_schema::Schema;

use self::fit::fit;
use self::nested::Column;
use self::shape::arrow_fields;
use self::value::{Json, lines, list, object};
use crate::chunk::Chunk;
use crate::error::{OnError, ReadError, Reject};
use crate::reader::{Format, Parsed};

pub use self::shape::{Shape, sample, shape_of};

/// Columns of JSON lines, and what is wanted of them.
#[derive(Clone, Debug)]
pub struct JsonFormat {
    pub columns: Vec<(String, Shape)>,
    pub wanted: Vec<bool>,
    pub on_error: OnError,
    /// Whether a column of lists takes a list that stands in a string, as JSON text, too.
    pub lists_in_text: bool,
}

impl JsonFormat {
    fn schema(&self) -> Arc<Schema> {
        let wanted: Vec<_> = self
            .columns
            .iter()
            .zip(&self.wanted)
            .filter(|(_, w)| **w)
            .map(|(column, _)| column.clone())
            .collect();
        Arc::new(Schema::new(arrow_fields(&wanted)))
    }
}

impl Format for JsonFormat {
    type Context = ();

    fn begin(&self, _first: &mut Chunk) -> Result<(), ReadError> {
        Ok(())
    }

    fn parse(&self, chunk: &Chunk, (): &()) -> Result<Parsed, ReadError> {
        let mut columns: Vec<Option<Column>> = self
            .columns
            .iter()
            .zip(&self.wanted)
            .map(|((_, shape), w)| w.then(|| Column::new(shape)))
            .collect();
        let (mut rejects, mut rows) = (Vec::new(), 0);
        for (raw, line) in lines(chunk) {
            let mut row = vec![Json::Null; self.columns.len()];
            let mut bad: Option<(String, String)> = None;
            let kept = match object(raw) {
                Err(reason) => {
                    bad = Some((String::new(), reason));
                    false
                }
                Ok(items) => {
                    for (key, value) in items {
                        let Some(at) = self.columns.iter().position(|(name, _)| *name == key)
                        else {
                            continue;
                        };
                        let mut path = key.into_owned();
                        let shape = &self.columns[at].1;
                        let given = match (shape, value) {
                            (Shape::List(_), Json::Str(text)) if self.lists_in_text => list(&text),
                            (_, value) => Ok(value),
                        };
                        match given.and_then(|value| fit(value, shape, &mut path)) {
                            Ok(value) => row[at] = value,
                            Err(reason) => {
                                row[at] = Json::Null;
                                bad.get_or_insert((path, reason));
                            }
                        }
                    }
                    true
                }
            };
            if let Some((column, reason)) = bad {
                let reject = Reject::new(line, &column, reason, raw);
                self.on_error.note(chunk.file, reject, &mut rejects)?;
                if !kept || self.on_error == OnError::Drop {
                    continue;
                }
            }
            rows += 1;
            for (column, value) in columns.iter_mut().zip(row) {
                if let Some(column) = column {
                    column.push(value);
                }
            }
        }
        let arrays = columns.into_iter().flatten().map(Column::finish).collect();
        Parsed::new(chunk.file, self.schema(), arrays, rows, rejects)
    }
}
