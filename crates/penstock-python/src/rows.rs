//! Rows as Python has them, dicts of plain objects, in the kernel's values.

use penstock_features::Value;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDate, PyDateTime, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
    PyTzInfoAccess,
};

/// A Python row, holding on to what the kernel borrows.
pub(crate) struct Row {
    values: Vec<Held>,
}

enum Held {
    Scalar(Owned),
    List(Vec<Owned>),
}

/// A Python scalar, copied out so that the kernel can work without the interpreter's lock.
enum Owned {
    Null,
    Text(String),
    Binary(Vec<u8>),
    Int(i64),
    UInt(u64),
    Float(f64),
    Bool(bool),
    Date(i32),
    Time(i64),
}

impl Row {
    pub(crate) fn read(columns: &[Py<PyString>], row: &Bound<'_, PyDict>) -> PyResult<Self> {
        let value = |name: &Py<PyString>| match row.get_item(name)? {
            None => Ok(Held::Scalar(Owned::Null)),
            Some(value) => held(&value).map_err(|error| {
                PyValueError::new_err(format!("column '{name}': {}", error.value(row.py())))
            }),
        };
        Ok(Self {
            values: columns.iter().map(value).collect::<PyResult<_>>()?,
        })
    }

    /// The elements of the columns that are lists; no elements for the others.
    pub(crate) fn lists(&self) -> Vec<Vec<Value<'_>>> {
        fn list(held: &Held) -> Vec<Value<'_>> {
            match held {
                Held::List(elements) => elements.iter().map(Owned::value).collect(),
                Held::Scalar(_) => Vec::new(),
            }
        }
        self.values.iter().map(list).collect()
    }

    pub(crate) fn values<'r>(&'r self, lists: &'r [Vec<Value<'r>>]) -> Vec<Value<'r>> {
        let value = |(held, list): (&'r Held, &'r Vec<Value<'r>>)| match held {
            Held::Scalar(owned) => owned.value(),
            Held::List(_) => Value::List(list),
        };
        self.values.iter().zip(lists).map(value).collect()
    }
}

impl Owned {
    fn value(&self) -> Value<'_> {
        match self {
            Owned::Null => Value::Null,
            Owned::Text(text) => Value::Text(text),
            Owned::Binary(bytes) => Value::Binary(bytes),
            Owned::Int(v) => Value::Int(*v),
            Owned::UInt(v) => Value::UInt(*v),
            Owned::Float(v) => Value::Float(*v),
            Owned::Bool(v) => Value::Bool(*v),
            Owned::Date(v) => Value::Date(*v),
            Owned::Time(v) => Value::Time(*v),
        }
    }
}

fn held(value: &Bound<'_, PyAny>) -> PyResult<Held> {
    if let Ok(list) = value.cast::<PyList>() {
        return Ok(Held::List(
            list.iter()
                .map(|element| scalar(&element))
                .collect::<PyResult<_>>()?,
        ));
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return Ok(Held::List(
            tuple
                .iter()
                .map(|element| scalar(&element))
                .collect::<PyResult<_>>()?,
        ));
    }
    scalar(value).map(Held::Scalar)
}

/// bool before int and datetime before date, of which they are subclasses.
fn scalar(value: &Bound<'_, PyAny>) -> PyResult<Owned> {
    if value.is_none() {
        return Ok(Owned::Null);
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Owned::Text(text.to_str()?.to_owned()));
    }
    if let Ok(v) = value.cast::<PyBool>() {
        return Ok(Owned::Bool(v.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return integer(value);
    }
    if let Ok(v) = value.cast::<PyFloat>() {
        return Ok(Owned::Float(v.value()));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Owned::Binary(bytes.as_bytes().to_vec()));
    }
    if let Ok(moment) = value.cast::<PyDateTime>() {
        return micros(moment).map(Owned::Time);
    }
    if let Ok(date) = value.cast::<PyDate>() {
        let ordinal: i32 = date.call_method0("toordinal")?.extract()?;
        // Python counts days from the year 1.
        return Ok(Owned::Date(ordinal - 719_163));
    }
    // numpy's scalars and their like say what they are by these methods.
    if value.hasattr("__index__")? {
        return integer(value);
    }
    if value.hasattr("item")? {
        return scalar(&value.call_method0("item")?);
    }
    Err(PyValueError::new_err(format!(
        "a value of type {} cannot be mapped",
        value.get_type().name()?
    )))
}

fn integer(value: &Bound<'_, PyAny>) -> PyResult<Owned> {
    if let Ok(v) = value.extract::<i64>() {
        return Ok(Owned::Int(v));
    }
    match value.extract::<u64>() {
        Ok(v) => Ok(Owned::UInt(v)),
        Err(_) => Err(PyValueError::new_err(format!(
            "{value} does not fit in 64 bits"
        ))),
    }
}

/// Microseconds since the epoch; a datetime without a zone is UTC.
fn micros(moment: &Bound<'_, PyDateTime>) -> PyResult<i64> {
    let py = moment.py();
    let utc = pyo3::types::PyTzInfo::utc(py)?;
    let aware = if moment.get_tzinfo().is_some() {
        moment.clone().into_any()
    } else {
        let zone = PyDict::new(py);
        zone.set_item("tzinfo", utc)?;
        moment.call_method("replace", (), Some(&zone))?
    };
    let epoch = PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, Some(&utc))?;
    let since = aware.call_method1("__sub__", (epoch,))?;
    let days: i64 = since.getattr("days")?.extract()?;
    let seconds: i64 = since.getattr("seconds")?.extract()?;
    let micros: i64 = since.getattr("microseconds")?.extract()?;
    Ok((days * 86_400 + seconds) * 1_000_000 + micros)
}
