//! A reader a format, and the samples that types are inferred from.

use arrow_pyarrow::PyArrowType;
use arrow_schema::{Field, Schema};
use penstock_data::csv::{CsvColumn, CsvFormat};
use penstock_data::json::{self, JsonFormat};
use penstock_data::libsvm::LibsvmFormat;
use penstock_data::record::Dialect;
use penstock_data::scalar::Kind;
use penstock_data::source::Encoding;
use penstock_data::text::TextFormat;
use penstock_data::{OnError, infer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::batches::{BatchReader, to_py};
use super::files::{PyFile, chunker, encoding};

fn on_error(name: &str) -> PyResult<OnError> {
    match name {
        "fail" => Ok(OnError::Fail),
        "drop" => Ok(OnError::Drop),
        "keep" => Ok(OnError::Keep),
        _ => Err(PyValueError::new_err(format!(
            "on_error '{name}' is not known"
        ))),
    }
}

fn dialect(sep: u8, quote: Option<u8>) -> PyResult<Dialect> {
    if !sep.is_ascii() || quote.is_some_and(|q| !q.is_ascii() || q == sep) {
        return Err(PyValueError::new_err(
            "separator and quote must be two different ASCII characters",
        ));
    }
    Ok(Dialect { sep, quote })
}

/// How a CSV is written.
#[derive(FromPyObject)]
pub(super) struct CsvOptions {
    #[pyo3(item)]
    sep: u8,
    #[pyo3(item)]
    quote: Option<u8>,
    #[pyo3(item)]
    header: bool,
    #[pyo3(item)]
    encoding: String,
    #[pyo3(item)]
    nulls: Vec<Vec<u8>>,
    #[pyo3(item)]
    names: Option<Vec<String>>,
}

#[pyfunction]
pub(super) fn csv_reader(
    files: Vec<PyFile>,
    options: CsvOptions,
    columns: Vec<(String, String)>,
    wanted: Vec<bool>,
    on_error_: &str,
    threads: usize,
) -> PyResult<BatchReader> {
    let columns = columns
        .into_iter()
        .map(|(name, kind)| {
            let kind = Kind::named(&kind)
                .ok_or_else(|| PyValueError::new_err(format!("type '{kind}' is not known")))?;
            Ok(CsvColumn { name, kind })
        })
        .collect::<PyResult<Vec<_>>>()?;
    let format = CsvFormat {
        dialect: dialect(options.sep, options.quote)?,
        header: options.header,
        named: options.names.is_some(),
        nulls: options.nulls,
        columns,
        wanted,
        on_error: on_error(on_error_)?,
    };
    let encoding = encoding(&options.encoding)?;
    Ok(BatchReader::open(format, files, encoding, threads))
}

/// Names and types of a CSV's columns from its first rows.
#[pyfunction]
pub(super) fn csv_sample(
    py: Python<'_>,
    file: PyFile,
    options: CsvOptions,
    rows: usize,
) -> PyResult<Vec<(String, &'static str)>> {
    let dialect = dialect(options.sep, options.quote)?;
    let encoding = encoding(&options.encoding)?;
    let columns = py
        .detach(|| {
            let mut chunker = chunker(file, encoding, Some(dialect))?;
            infer::sample(
                &mut chunker,
                dialect,
                options.header,
                options.names.as_deref(),
                &options.nulls,
                rows,
            )
        })
        .map_err(to_py)?;
    Ok(columns
        .into_iter()
        .map(|(name, kind)| (name, kind.name()))
        .collect())
}

/// `lists_in_text`: a column of lists takes a list as JSON text, too.
#[pyfunction]
#[pyo3(signature = (files, schema, wanted, on_error_, encoding_, threads, lists_in_text=false))]
pub(super) fn json_reader(
    files: Vec<PyFile>,
    schema: PyArrowType<Schema>,
    wanted: Vec<bool>,
    on_error_: &str,
    encoding_: &str,
    threads: usize,
    lists_in_text: bool,
) -> PyResult<BatchReader> {
    let columns = schema
        .0
        .fields()
        .iter()
        .map(|field| Ok((field.name().clone(), json::shape_of(field.data_type())?)))
        .collect::<Result<Vec<_>, String>>()
        .map_err(PyValueError::new_err)?;
    let format = JsonFormat {
        columns,
        wanted,
        on_error: on_error(on_error_)?,
        lists_in_text,
    };
    let encoding = encoding(encoding_)?;
    Ok(BatchReader::open(format, files, encoding, threads))
}

/// Columns of JSON lines from the first rows.
#[pyfunction]
pub(super) fn json_sample(
    py: Python<'_>,
    file: PyFile,
    encoding_: &str,
    rows: usize,
) -> PyResult<PyArrowType<Schema>> {
    let encoding = encoding(encoding_)?;
    let columns = py
        .detach(|| json::sample(&mut chunker(file, encoding, None)?, rows))
        .map_err(to_py)?;
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, shape)| Field::new(name, shape.arrow(), true))
        .collect();
    Ok(PyArrowType(Schema::new(fields)))
}

#[pyfunction]
pub(super) fn text_reader(
    files: Vec<PyFile>,
    on_error_: &str,
    encoding_: &str,
    threads: usize,
) -> PyResult<BatchReader> {
    let format = TextFormat {
        on_error: on_error(on_error_)?,
    };
    let encoding = encoding(encoding_)?;
    Ok(BatchReader::open(format, files, encoding, threads))
}

#[pyfunction]
pub(super) fn libsvm_reader(
    files: Vec<PyFile>,
    base: i64,
    on_error_: &str,
    threads: usize,
) -> PyResult<BatchReader> {
    if !(0..=1).contains(&base) {
        return Err(PyValueError::new_err("base is 0 or 1"));
    }
    let format = LibsvmFormat {
        base,
        on_error: on_error(on_error_)?,
    };
    Ok(BatchReader::open(format, files, Encoding::Utf8, threads))
}
