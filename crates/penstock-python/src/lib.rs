//! The only crate that knows Python exists: borrow, detach, call, map the error.

use pyo3::prelude::*;

mod data;
mod features;
mod rows;
mod serving;
mod streams;
mod tables;
mod training;
mod views;

/// Batches are mapped into columns of some hundred kilobytes, which the system's allocator would give back and fault
/// in again each time: a fifth of the whole on wide tables.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The vector instructions that the tables' kernels use: "baseline", "avx2" or "avx512".
#[pyfunction]
fn simd_level() -> &'static str {
    penstock_table::Level::detect().name()
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(simd_level, module)?)?;
    data::register(module)?;
    features::register(module)?;
    serving::register(module)?;
    streams::register(module)?;
    tables::register(module)?;
    training::register(module)?;
    views::register(module)
}
