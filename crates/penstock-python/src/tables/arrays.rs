//! numpy's arrays as slices.

use pyo3::buffer::{Element, PyBuffer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The elements of a contiguous array. They are read without the interpreter's lock: whoever writes to an array that
/// is in use gets what they asked for, as with numpy.
pub(super) fn held<'b, T: Element>(buffer: &'b PyBuffer<T>, what: &str) -> PyResult<&'b [T]> {
    if !buffer.is_c_contiguous() {
        return Err(PyValueError::new_err(format!("{what} must be contiguous")));
    }
    if buffer.item_count() == 0 {
        return Ok(&[]);
    }
    // SAFETY: the buffer is contiguous, of this type (PyBuffer checked its format), and held as long as the slice.
    Ok(unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.item_count()) })
}

pub(super) fn maybe<'b, T: Element>(
    buffer: Option<&'b PyBuffer<T>>,
    what: &str,
) -> PyResult<Option<&'b [T]>> {
    buffer.map(|buffer| held(buffer, what)).transpose()
}

pub(super) fn words<'b>(buffer: &'b PyBuffer<i64>, what: &str) -> PyResult<&'b [u64]> {
    let signed = held(buffer, what)?;
    // SAFETY: i64 and u64 have one layout, and every value of one is a value of the other.
    Ok(unsafe { std::slice::from_raw_parts(signed.as_ptr().cast(), signed.len()) })
}

#[allow(clippy::mut_from_ref)]
pub(super) fn filled<'b>(buffer: &'b PyBuffer<f32>, what: &str) -> PyResult<&'b mut [f32]> {
    if buffer.readonly() || !buffer.is_c_contiguous() {
        return Err(PyValueError::new_err(format!(
            "{what} must be contiguous and writable"
        )));
    }
    if buffer.item_count() == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as `held`; the array was handed over to be filled, and is made for it by our own Python side.
    Ok(unsafe { std::slice::from_raw_parts_mut(buffer.buf_ptr().cast(), buffer.item_count()) })
}
