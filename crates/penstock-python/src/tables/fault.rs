//! What goes wrong with a checkpoint or snapshot, as Python is told: a kind and what belongs to it.

use penstock_table::ArtefactError;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyDict;

pyo3::create_exception!(
    penstock._native,
    PyArtefactError,
    PyException,
    "A checkpoint or snapshot: args are the kind of fault, the message, and a dict of what belongs to it."
);

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ArtefactError", module.py().get_type::<PyArtefactError>())
}

/// `kind` and its facts as texts.
pub(super) fn raise(py: Python<'_>, kind: &str, message: String, facts: &[(&str, &str)]) -> PyErr {
    let held = PyDict::new(py);
    for (name, value) in facts {
        if let Err(error) = held.set_item(name, value) {
            return error;
        }
    }
    PyArtefactError::new_err((kind.to_owned(), message, held.unbind()))
}

pub(crate) fn to_py(py: Python<'_>, error: ArtefactError) -> PyErr {
    let message = error.to_string();
    let (kind, facts): (&str, Vec<(&str, String)>) = match error {
        ArtefactError::Io { file, doing, error } => {
            let cause = ("cause", error.to_string());
            ("io", vec![("file", file), ("doing", doing.into()), cause])
        }
        ArtefactError::Damaged {
            file,
            section,
            what,
        } => (
            "damaged",
            vec![("file", file), ("section", section), ("what", what)],
        ),
        ArtefactError::Version {
            file,
            found,
            known,
            hint,
        } => {
            let versions = [("found", found.to_string()), ("known", known.to_string())];
            let mut facts = vec![("file", file), ("hint", hint.into())];
            facts.extend(versions);
            ("version", facts)
        }
        ArtefactError::Mismatch {
            file,
            what,
            found,
            expected,
        } => (
            "mismatch",
            vec![
                ("file", file),
                ("what", what),
                ("found", found),
                ("expected", expected),
            ],
        ),
        ArtefactError::ParentMissing { file, parent } => {
            ("parent", vec![("file", file), ("parent", parent)])
        }
        ArtefactError::CutOpen { open } => ("open", vec![("cut", open)]),
        ArtefactError::CutOver { cut } => ("over", vec![("cut", cut)]),
        ArtefactError::CopyLimit { cut, limit } => {
            ("copies", vec![("cut", cut), ("limit", limit.to_string())])
        }
        ArtefactError::Table(error) => return super::to_py(error),
        full @ ArtefactError::OverlayFull { .. } => ("overlay", vec![("what", full.to_string())]),
    };
    let facts: Vec<(&str, &str)> = facts
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    raise(py, kind, message, &facts)
}
