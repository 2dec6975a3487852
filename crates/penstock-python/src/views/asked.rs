//! What a request asks for: a view's keys, as Python has them.

use std::sync::Arc;

use arrow_array::builder::LargeStringBuilder;
use arrow_array::{ArrayRef, Int64Array};
use arrow_pyarrow::ToPyArrow;
use arrow_schema::DataType;
use penstock_views::{Fault, Keys};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList, PyString};

/// A key column: whether it is of integers, and its values as an Arrow array or anything that pyarrow makes one of.
pub type Column<'py> = (bool, Bound<'py, PyAny>);

pub fn keys(columns: Vec<Column<'_>>) -> PyResult<Keys> {
    let columns = columns.into_iter().map(|(int, given)| {
        let listed = given.cast::<PyList>().ok();
        let known = listed.and_then(|given| if int { integers(given) } else { strings(given) });
        known.map_or_else(|| converted(&given, int), Ok)
    });
    let columns = columns.collect::<PyResult<_>>()?;
    Keys::new(columns).map_err(super::to_py)
}

fn converted(given: &Bound<'_, PyAny>, int: bool) -> PyResult<ArrayRef> {
    let py = given.py();
    let kind = if int {
        DataType::Int64
    } else {
        DataType::LargeUtf8
    };
    let pyarrow = py.import("pyarrow")?;
    match pyarrow.call_method1("array", (given, kind.to_pyarrow(py)?)) {
        Ok(column) => super::array(&column),
        Err(error) => {
            let said = Fault::Rows(format!("a column of keys: {}", error.value(py)));
            Err(super::to_py(said))
        }
    }
}

/// A list of what can only mean integers: pyarrow takes twice as long, and knows the others.
fn integers(given: &Bound<'_, PyList>) -> Option<ArrayRef> {
    let value = |one: Bound<'_, PyAny>| match one.is_none() {
        true => Some(None),
        false => one
            .cast_exact::<PyInt>()
            .ok()?
            .extract::<i64>()
            .ok()
            .map(Some),
    };
    let values = given.iter().map(value).collect::<Option<Vec<_>>>()?;
    Some(Arc::new(Int64Array::from(values)))
}

fn strings(given: &Bound<'_, PyList>) -> Option<ArrayRef> {
    let mut built = LargeStringBuilder::with_capacity(given.len(), 16 * given.len());
    for one in given.iter() {
        match one.is_none() {
            true => built.append_null(),
            false => built.append_value(one.cast_exact::<PyString>().ok()?.to_str().ok()?),
        }
    }
    Some(Arc::new(built.finish()))
}
