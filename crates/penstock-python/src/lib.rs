//! The only crate that knows Python exists: borrow, detach, call, map the error.

use pyo3::prelude::*;

mod data;
mod features;
mod training;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    data::register(module)?;
    features::register(module)?;
    training::register(module)
}
