//! Rows as Python has them, dicts of plain objects, in the kernel's values.

use penstock_features::Value;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDate, PyDateTime, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
    PyTzInfoAccess,
};

/// A Python row, holding on to what the kernel borrows.
pub(crate) struct Row<'py> {
    values: Vec<Held<'py>>,
}

enum Held<'py> {
    Scalar(Scalar<'py>),
    List(Vec<Scalar<'py>>),
}

/// A Python scalar; strings and bytes stay where Python has them.
enum Scalar<'py> {
    Null,
    Text(Bound<'py, PyString>),
    Binary(Bound<'py, PyBytes>),
    Int(i64),
    UInt(u64),
    Float(f64),
    Bool(bool),
    Date(i32),
    Time(i64),
}

impl<'py> Row<'py> {
    pub(crate) fn read(columns: &[Py<PyString>], row: &Bound<'py, PyDict>) -> PyResult<Self> {
        let value = |name: &Py<PyString>| match row.get_item(name)? {
            None => Ok(Held::Scalar(Scalar::Null)),
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
        fn list<'r>(held: &'r Held<'_>) -> Vec<Value<'r>> {
            match held {
                Held::List(elements) => elements.iter().map(Scalar::value).collect(),
                Held::Scalar(_) => Vec::new(),
            }
        }
        self.values.iter().map(list).collect()
    }

    pub(crate) fn values<'r>(&'r self, lists: &'r [Vec<Value<'r>>]) -> Vec<Value<'r>> {
        let value = |(held, list): (&'r Held<'py>, &'r Vec<Value<'r>>)| match held {
            Held::Scalar(scalar) => scalar.value(),
            Held::List(_) => Value::List(list),
        };
        self.values.iter().zip(lists).map(value).collect()
    }
}

impl Scalar<'_> {
    fn value(&self) -> Value<'_> {
        match self {
            Scalar::Null => Value::Null,
            // `scalar` saw to it that it has a UTF-8 form.
            Scalar::Text(text) => Value::Text(text.to_str().unwrap_or_default()),
            Scalar::Binary(bytes) => Value::Binary(bytes.as_bytes()),
            Scalar::Int(v) => Value::Int(*v),
            Scalar::UInt(v) => Value::UInt(*v),
            Scalar::Float(v) => Value::Float(*v),
            Scalar::Bool(v) => Value::Bool(*v),
            Scalar::Date(v) => Value::Date(*v),
            Scalar::Time(v) => Value::Time(*v),
        }
    }
}

fn held<'py>(value: &Bound<'py, PyAny>) -> PyResult<Held<'py>> {
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
fn scalar<'py>(value: &Bound<'py, PyAny>) -> PyResult<Scalar<'py>> {
    if value.is_none() {
        return Ok(Scalar::Null);
    }
    if let Ok(text) = value.cast::<PyString>() {
        text.to_str()?;
        return Ok(Scalar::Text(text.clone()));
    }
    if let Ok(v) = value.cast::<PyBool>() {
        return Ok(Scalar::Bool(v.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return integer(value);
    }
    if let Ok(v) = value.cast::<PyFloat>() {
        return Ok(Scalar::Float(v.value()));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Scalar::Binary(bytes.clone()));
    }
    if let Ok(moment) = value.cast::<PyDateTime>() {
        return micros(moment).map(Scalar::Time);
    }
    if let Ok(date) = value.cast::<PyDate>() {
        let ordinal: i32 = date.call_method0("toordinal")?.extract()?;
        // Python counts days from the year 1.
        return Ok(Scalar::Date(ordinal - 719_163));
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

fn integer<'py>(value: &Bound<'py, PyAny>) -> PyResult<Scalar<'py>> {
    if let Ok(v) = value.extract::<i64>() {
        return Ok(Scalar::Int(v));
    }
    match value.extract::<u64>() {
        Ok(v) => Ok(Scalar::UInt(v)),
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
