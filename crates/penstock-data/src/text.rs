//! Lines of text as one column, `value`. An empty line is the empty string.

use std::sync::Arc;

use arrow_array::Array;
use arrow_array::builder::StringViewBuilder;
use arrow_schema::{DataType, Field, Schema};

use crate::chunk::Chunk;
use crate::error::{OnError, ReadError, Reject};
use crate::reader::{Format, Parsed};

#[derive(Clone, Debug)]
pub struct TextFormat {
    pub on_error: OnError,
}

impl Format for TextFormat {
    type Context = ();

    fn begin(&self, _first: &mut Chunk) -> Result<(), ReadError> {
        Ok(())
    }

    fn parse(&self, chunk: &Chunk, (): &()) -> Result<Parsed, ReadError> {
        let mut values = StringViewBuilder::new();
        let mut rejects = Vec::new();
        let data = chunk.data.strip_suffix(b"\n").unwrap_or(&chunk.data);
        let lines = (!chunk.data.is_empty()).then(|| data.split(|&b| b == b'\n'));
        for (raw, line) in lines.into_iter().flatten().zip(chunk.line..) {
            let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
            match std::str::from_utf8(raw) {
                Ok(text) => values.append_value(text),
                Err(_) => {
                    let reason = "the line is not valid in the file's encoding".to_owned();
                    let reject = Reject::new(line, "value", reason, raw);
                    self.on_error.note(chunk.file, reject, &mut rejects)?;
                    if self.on_error == OnError::Keep {
                        values.append_null();
                    }
                }
            }
        }
        let schema = Schema::new(vec![Field::new("value", DataType::Utf8View, true)]);
        let column = values.finish();
        let rows = column.len();
        Parsed::new(
            chunk.file,
            Arc::new(schema),
            vec![Arc::new(column)],
            rows,
            rejects,
        )
    }
}
