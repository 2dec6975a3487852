//! Bindings of `penstock-data`: readers that give (file, batch, rejects), samples for inference, the libsvm writer.
//!
//! Errors are `ValueError((kind, file, line, column, reason, text))`; `penstock.data.text_files` makes sentences of them.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Mutex;

use arrow::array::{Array, Float32Array, Int64Array, ListArray, RecordBatch};
use arrow::datatypes::Schema;
use arrow::pyarrow::PyArrowType;
use penstock_data::chunk::Chunker;
use penstock_data::csv::{CsvColumn, CsvFormat};
use penstock_data::json::{self, JsonFormat};
use penstock_data::libsvm::{LibsvmFormat, LibsvmWriter};
use penstock_data::reader::Parsed;
use penstock_data::record::Dialect;
use penstock_data::scalar::Kind;
use penstock_data::source::{self, Encoding};
use penstock_data::text::TextFormat;
use penstock_data::{FileSpec, OnError, ReadError, Reader, infer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<BatchReader>()?;
    module.add_class::<PyLibsvmWriter>()?;
    module.add_function(wrap_pyfunction!(csv_reader, module)?)?;
    module.add_function(wrap_pyfunction!(csv_sample, module)?)?;
    module.add_function(wrap_pyfunction!(json_reader, module)?)?;
    module.add_function(wrap_pyfunction!(json_sample, module)?)?;
    module.add_function(wrap_pyfunction!(text_reader, module)?)?;
    module.add_function(wrap_pyfunction!(libsvm_reader, module)?)
}

/// A file as Python names it: (name, None) for a local path, or (name, function that opens a binary file object).
type PyFile = (String, Option<Py<PyAny>>);

/// A row as it was rejected: line, column, reason, text.
type Rejected = (u64, String, String, String);

/// Reads a Python file object; used for filesystems that only Python knows.
struct PyStream(Py<PyAny>);

impl Read for PyStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Python::attach(|py| {
            let got = self
                .0
                .call_method1(py, "read", (out.len(),))
                .map_err(io::Error::other)?;
            let bytes: &[u8] = got
                .extract(py)
                .map_err(|e| io::Error::other(format!("{e:?}")))?;
            let n = bytes.len().min(out.len());
            out[..n].copy_from_slice(&bytes[..n]);
            Ok(n)
        })
    }
}

fn open(file: PyFile) -> FileSpec {
    let (name, opener) = file;
    let path = name.clone();
    let open = move || -> io::Result<Box<dyn Read + Send>> {
        match opener {
            None => Ok(Box::new(File::open(path)?)),
            Some(opener) => {
                let stream = Python::attach(|py| opener.call0(py)).map_err(io::Error::other)?;
                Ok(Box::new(PyStream(stream)))
            }
        }
    };
    FileSpec {
        name,
        open: Box::new(open),
    }
}

fn encoding(name: &str) -> PyResult<Encoding> {
    match name {
        "utf-8" => Ok(Encoding::Utf8),
        "gbk" => Ok(Encoding::Gbk),
        "latin-1" => Ok(Encoding::Latin1),
        _ => Err(PyValueError::new_err(format!(
            "encoding '{name}' is not known"
        ))),
    }
}

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

fn to_py(error: ReadError) -> PyErr {
    let none = String::new;
    match error {
        ReadError::Io { file, error } => {
            let number = error.raw_os_error().unwrap_or(0);
            PyValueError::new_err(("io", file, number, none(), error.to_string(), none()))
        }
        ReadError::Damaged { file, reason } => {
            PyValueError::new_err(("damaged", file, 0, none(), reason, none()))
        }
        ReadError::TooLong { file, line, max } => {
            PyValueError::new_err(("long", file, line, none(), max.to_string(), none()))
        }
        ReadError::Header { file, reason } => {
            PyValueError::new_err(("header", file, 1, none(), reason, none()))
        }
        ReadError::Bad { file, reject } => PyValueError::new_err((
            "bad",
            file,
            reject.line,
            reject.column,
            reject.reason,
            reject.text,
        )),
    }
}

type Batches = Box<dyn Iterator<Item = Result<Parsed, ReadError>> + Send>;

/// The file's index, its rows, and the rows left out.
type Given = (usize, PyArrowType<RecordBatch>, Vec<Rejected>);

/// Iterates over (file index, batch, rejected rows), in the files' order.
#[pyclass(frozen)]
struct BatchReader(Mutex<Batches>);

#[pymethods]
impl BatchReader {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Given>> {
        let next = py.detach(|| {
            self.0
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .next()
        });
        let parsed = next.transpose().map_err(to_py)?;
        Ok(parsed.map(|p| {
            let rejects = p
                .rejects
                .into_iter()
                .map(|r| (r.line, r.column, r.reason, r.text))
                .collect();
            (p.file, PyArrowType(p.batch), rejects)
        }))
    }
}

fn batches(
    reader: impl Iterator<Item = Result<Parsed, ReadError>> + Send + 'static,
) -> BatchReader {
    BatchReader(Mutex::new(Box::new(reader)))
}

/// How a CSV is written.
#[derive(FromPyObject)]
struct CsvOptions {
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
fn csv_reader(
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
    let files = files.into_iter().map(open).collect();
    Ok(batches(Reader::new(
        format,
        files,
        encoding(&options.encoding)?,
        threads,
    )))
}

fn chunker(
    file: PyFile,
    encoding: Encoding,
    dialect: Option<Dialect>,
) -> Result<Chunker, ReadError> {
    let io_error = |error| ReadError::Io { file: 0, error };
    let spec = open(file);
    let raw = (spec.open)().map_err(io_error)?;
    Ok(Chunker::new(
        source::open(raw, &spec.name, encoding).map_err(io_error)?,
        0,
        dialect,
    ))
}

/// Names and types of a CSV's columns from its first rows.
#[pyfunction]
fn csv_sample(
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

#[pyfunction]
fn json_reader(
    files: Vec<PyFile>,
    schema: PyArrowType<Schema>,
    wanted: Vec<bool>,
    on_error_: &str,
    encoding_: &str,
    threads: usize,
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
    };
    let files = files.into_iter().map(open).collect();
    Ok(batches(Reader::new(
        format,
        files,
        encoding(encoding_)?,
        threads,
    )))
}

/// Columns of JSON lines from the first rows.
#[pyfunction]
fn json_sample(
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
        .map(|(name, shape)| arrow::datatypes::Field::new(name, shape.arrow(), true))
        .collect();
    Ok(PyArrowType(Schema::new(fields)))
}

#[pyfunction]
fn text_reader(
    files: Vec<PyFile>,
    on_error_: &str,
    encoding_: &str,
    threads: usize,
) -> PyResult<BatchReader> {
    let format = TextFormat {
        on_error: on_error(on_error_)?,
    };
    let files = files.into_iter().map(open).collect();
    Ok(batches(Reader::new(
        format,
        files,
        encoding(encoding_)?,
        threads,
    )))
}

#[pyfunction]
fn libsvm_reader(
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
    let files = files.into_iter().map(open).collect();
    Ok(batches(Reader::new(format, files, Encoding::Utf8, threads)))
}

/// Turns batches of label f32, keys list<i64>, weights list<f32>, qid i64 into libsvm text.
#[pyclass(name = "LibsvmWriter")]
struct PyLibsvmWriter(LibsvmWriter);

#[pymethods]
impl PyLibsvmWriter {
    #[new]
    fn new() -> Self {
        Self(LibsvmWriter::default())
    }

    /// The lines of `batch` (columns label, keys and, where there are any, weights, qid).
    fn lines<'py>(
        &mut self,
        py: Python<'py>,
        batch: PyArrowType<RecordBatch>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let batch = batch.0;
        let text = py
            .detach(|| {
                let labels: &Float32Array =
                    column(&batch, "label")?.ok_or("there is no column 'label'")?;
                let keys: &ListArray =
                    column(&batch, "keys")?.ok_or("there is no column 'keys'")?;
                let mut out = Vec::with_capacity(keys.values().len() * 16);
                self.0.write(
                    labels,
                    keys,
                    column(&batch, "weights")?,
                    column::<Int64Array>(&batch, "qid")?,
                    &mut out,
                )?;
                Ok(out)
            })
            .map_err(|reason: String| PyValueError::new_err(reason))?;
        Ok(PyBytes::new(py, &text))
    }
}

fn column<'a, A: Array + 'static>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<Option<&'a A>, String> {
    let Some(found) = batch.column_by_name(name) else {
        return Ok(None);
    };
    found
        .as_any()
        .downcast_ref::<A>()
        .map(Some)
        .ok_or_else(|| format!("column '{name}' is of type {}", found.data_type()))
}
