//! Bindings of `penstock-data`: readers that give (file, batch, rejects), samples for inference, the libsvm writer.
//!
//! `files` opens what Python names, `readers` has a function a format, `batches` gives what they read.
//! Errors are `ValueError((kind, file, line, column, reason, text))`; `penstock.data.text_files` makes sentences of them.

mod batches;
mod files;
mod libsvm_writer;
mod parquet;
mod readers;

use pyo3::prelude::*;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<batches::BatchReader>()?;
    module.add_class::<parquet::ParquetColumns>()?;
    module.add_class::<libsvm_writer::PyLibsvmWriter>()?;
    module.add_function(wrap_pyfunction!(readers::csv_reader, module)?)?;
    module.add_function(wrap_pyfunction!(readers::csv_sample, module)?)?;
    module.add_function(wrap_pyfunction!(readers::json_reader, module)?)?;
    module.add_function(wrap_pyfunction!(readers::json_sample, module)?)?;
    module.add_function(wrap_pyfunction!(readers::text_reader, module)?)?;
    module.add_function(wrap_pyfunction!(readers::libsvm_reader, module)?)
}
