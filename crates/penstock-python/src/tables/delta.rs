//! Deltas of a chain: packed from tables, written as records, read back.

use std::collections::HashSet;

use penstock_table::delta::{
    Content, DeltaError, Mark, Pack, PackError, Packer, Record, announcement, beginning, commit,
    dense_parts, part,
};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::{held, words};

pyo3::create_exception!(
    penstock._native,
    PyDeltaFault,
    PyException,
    "A delta that cannot be made or read: args are the kind of fault and the message."
);

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("DeltaFault", module.py().get_type::<PyDeltaFault>())?;
    module.add_class::<PyRecord>()?;
    module.add_function(wrap_pyfunction!(delta_records, module)?)?;
    module.add_function(wrap_pyfunction!(chain_note, module)?)
}

/// With the kind by which Python tells them apart.
fn fault(error: &DeltaError) -> PyErr {
    let kind = match error {
        DeltaError::Foreign => "foreign",
        DeltaError::Version { .. } => "version",
        DeltaError::Damaged(_) => "damaged",
        DeltaError::NotFinite { .. } | DeltaError::WeightNotFinite(_) => "not_finite",
    };
    PyDeltaFault::new_err((kind, error.to_string()))
}

fn not_packed(error: PackError) -> PyErr {
    match error {
        PackError::Delta(error) => fault(&error),
        PackError::Untracked { .. } => PyDeltaFault::new_err(("untracked", error.to_string())),
        PackError::Table(error @ penstock_table::TableError::FullSnapshotNeeded { .. }) => {
            PyDeltaFault::new_err(("forgotten", error.to_string()))
        }
        PackError::Table(error) => super::to_py(error),
    }
}

/// Generation, from, to, writer.
type GivenMark = (u64, u64, u64, u64);

fn mark((generation, from, to, writer): GivenMark) -> Mark {
    Mark {
        generation,
        from,
        to,
        writer,
    }
}

/// What `pack_changes` packed: bodies, the epochs for `tell_changes`, rows, gone keys, rows that were looked at.
pub(crate) type Packed = (Vec<Py<PyBytes>>, Vec<u32>, u64, u64, u64);

/// `pack` with what Python gave it: the keys to be told whether they changed or not, f16 or not, bytes of a body at most.
pub(crate) fn packed(
    py: Python<'_>,
    named: &[PyBuffer<i64>],
    half: bool,
    most: usize,
    pack: impl FnOnce(Vec<HashSet<u64>>, Packer) -> Result<(Pack, Vec<u32>), PackError> + Send,
) -> PyResult<Packed> {
    let named = named.iter().map(|keys| words(keys, "keys"));
    let named = named.collect::<PyResult<Vec<_>>>()?;
    let packed = py.detach(|| {
        let named = named.into_iter().map(|keys| keys.iter().copied().collect());
        pack(named.collect(), Packer::new(half, most))
    });
    let (pack, epochs) = packed.map_err(not_packed)?;
    let bodies = pack.bodies.iter();
    let bodies = bodies.map(|body| PyBytes::new(py, body).unbind()).collect();
    Ok((bodies, epochs, pack.rows, pack.gone, pack.visited))
}

/// The records of a whole delta: its bodies, dense weights (name, shape, values), and what commits it. `about`: model,
/// plan, base and what the caller adds.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn delta_records(
    py: Python<'_>,
    given: GivenMark,
    bodies: Vec<Bound<'_, PyBytes>>,
    dense: Vec<(String, Vec<u64>, PyBuffer<f32>)>,
    rows: u64,
    gone: u64,
    about: [String; 4],
    most: usize,
) -> PyResult<Vec<Py<PyBytes>>> {
    let mark = mark(given);
    let weights = dense.iter().map(|(name, shape, values)| {
        let values = held(values, name)?;
        let count = shape
            .iter()
            .try_fold(1_u64, |count, &n| count.checked_mul(n));
        if count != Some(values.len() as u64) {
            return Err(PyValueError::new_err(format!(
                "weight '{name}' is not of its shape"
            )));
        }
        Ok((name.as_str(), shape.as_slice(), values))
    });
    let weights = weights.collect::<PyResult<Vec<_>>>()?;
    let bodies: Vec<&[u8]> = bodies.iter().map(|body| body.as_bytes()).collect();
    let records = py.detach(|| {
        let numbered = (0..).zip(bodies);
        let mut records: Vec<_> = numbered.map(|(n, body)| part(mark, n, body)).collect();
        records.extend(dense_parts(mark, records.len() as u32, most, weights)?);
        records.push(commit(
            mark,
            &records,
            rows,
            gone,
            about.each_ref().map(String::as_str),
        ));
        Ok(records)
    });
    let records = records.map_err(|error: DeltaError| fault(&error))?;
    Ok(records
        .iter()
        .map(|record| PyBytes::new(py, record).unbind())
        .collect())
}

/// A record beside the deltas: "base" (a materialised base as of the mark) or "begin" (this generation counts from here).
#[pyfunction]
fn chain_note<'py>(
    py: Python<'py>,
    kind: &str,
    given: GivenMark,
    about: [String; 4],
) -> PyResult<Bound<'py, PyBytes>> {
    let about = about.each_ref().map(String::as_str);
    let record = match kind {
        "base" => announcement(mark(given), about),
        "begin" => beginning(mark(given), about),
        other => {
            let said = format!("a note is 'base' or 'begin', not '{other}'");
            return Err(PyValueError::new_err(said));
        }
    };
    Ok(PyBytes::new(py, &record))
}

/// A record of a chain, read and found sound.
#[pyclass(name = "ChainRecord", frozen, get_all, module = "penstock._native")]
struct PyRecord {
    /// "rows", "dense", "commit", "base", "begin".
    kind: &'static str,
    generation: u64,
    from_: u64,
    to: u64,
    writer: u64,
    /// Of rows and dense its number; of a commit record how many there are.
    part: u32,
    /// What a commit record sums up.
    sum: u64,
    /// Rows and gone keys: of the record, and of a commit record of its delta.
    rows: u64,
    gone: u64,
    /// Model, plan, base, and what the writer added; None of parts.
    about: Option<[String; 4]>,
    record: Py<PyBytes>,
}

/// Table, dim, keys (u64), values (f32), gone keys (u64), as bytes.
type BlockColumns<'py> = (
    usize,
    usize,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
);

#[pymethods]
impl PyRecord {
    /// Raises DeltaFault for what is no record, of another format, damaged, or holds a number that is none.
    #[new]
    fn new(py: Python<'_>, record: Bound<'_, PyBytes>) -> PyResult<Self> {
        let bytes = record.as_bytes();
        let read = py.detach(|| Record::read(bytes));
        let read = read.map_err(|error| fault(&error))?;
        let texts = |about: [&str; 4]| Some(about.map(str::to_owned));
        let (kind, part, rows, gone, about) = match &read.content {
            Content::Rows { part, blocks } => {
                let rows = blocks.iter().map(|block| block.rows() as u64).sum();
                let gone = blocks.iter().map(|block| block.gone().len() as u64).sum();
                ("rows", *part, rows, gone, None)
            }
            Content::Dense { part, .. } => ("dense", *part, 0, 0, None),
            Content::Commit(said) => {
                let about = texts([said.model, said.plan, said.base, said.more]);
                ("commit", said.parts, said.rows, said.gone, about)
            }
            Content::Base(about) => ("base", 0, 0, 0, texts(*about)),
            Content::Begin(about) => ("begin", 0, 0, 0, texts(*about)),
        };
        let mark = read.mark;
        Ok(Self {
            kind,
            generation: mark.generation,
            from_: mark.from,
            to: mark.to,
            writer: mark.writer,
            part,
            sum: read.sum,
            rows,
            gone,
            about,
            record: record.unbind(),
        })
    }

    /// Of a commit record: whether these sums, in the order of their parts, are those of its delta.
    fn covers(&self, py: Python<'_>, sums: Vec<u64>) -> bool {
        match Record::read(self.record.as_bytes(py)).map(|read| read.content) {
            Ok(Content::Commit(commit)) => commit.covers(&sums),
            _ => false,
        }
    }

    /// Of rows: block by block table, dim, keys (u64), values (f32, keys x dim), gone keys (u64).
    fn blocks<'py>(&self, py: Python<'py>) -> Vec<BlockColumns<'py>> {
        let Ok(Content::Rows { blocks, .. }) =
            Record::read(self.record.as_bytes(py)).map(|r| r.content)
        else {
            return vec![];
        };
        let columns = blocks.iter().map(|block| {
            let mut row = vec![0.0; block.dim];
            let mut values = Vec::with_capacity(4 * block.dim * block.rows());
            for number in 0..block.rows() {
                block.load(number, &mut row);
                values.extend(row.iter().flat_map(|value| value.to_le_bytes()));
            }
            let keys: Vec<u8> = block.keys().flat_map(u64::to_le_bytes).collect();
            let gone: Vec<u8> = block.gone().flat_map(u64::to_le_bytes).collect();
            let [keys, values, gone] = [keys, values, gone].map(|bytes| PyBytes::new(py, &bytes));
            (block.table, block.dim, keys, values, gone)
        });
        columns.collect()
    }

    /// Of dense: name, shape, place of the first value, values (f32).
    fn weights<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let Ok(Content::Dense { weights, .. }) =
            Record::read(self.record.as_bytes(py)).map(|r| r.content)
        else {
            return Ok(vec![]);
        };
        let each = weights.iter().map(|weight| {
            let values = PyBytes::new(py, weight.values);
            (weight.name, weight.shape.clone(), weight.first, values).into_pyobject(py)
        });
        each.collect()
    }
}
