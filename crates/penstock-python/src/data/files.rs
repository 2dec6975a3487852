//! Files as Python names them: local paths, and file objects of filesystems that only Python knows.

use std::fs::File;
use std::io::{self, Read};

use penstock_data::chunk::Chunker;
use penstock_data::record::Dialect;
use penstock_data::source::{self, Encoding};
use penstock_data::{FileSpec, ReadError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A file as Python names it: (name, None) for a local path, or (name, function that opens a binary file object).
pub(super) type PyFile = (String, Option<Py<PyAny>>);

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

pub(super) fn open(file: PyFile) -> FileSpec {
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

pub(super) fn chunker(
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

pub(super) fn encoding(name: &str) -> PyResult<Encoding> {
    match name {
        "utf-8" => Ok(Encoding::Utf8),
        "gbk" => Ok(Encoding::Gbk),
        "latin-1" => Ok(Encoding::Latin1),
        _ => Err(PyValueError::new_err(format!(
            "encoding '{name}' is not known"
        ))),
    }
}
