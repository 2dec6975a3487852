//! The tables of a cut one by one, without a store: what they are, and their rows.

use std::ops::Range;

use super::Checkpoint;
use super::facts::{Moving, SAME, compared};
use crate::artefact::{Result, Section, damaged};
use crate::config::MAX_DIM;
use crate::cut::Records;
use crate::half::Dtype;
use crate::hash::{BUCKETS, unmix};
use crate::parts::RowParts;
use crate::rows::Layout;

/// More floats of state than any optimizer keeps a row.
const MAX_STATE: usize = 1 << 16;

/// One table of a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointTable {
    pub name: String,
    pub dim: usize,
    pub dtype: Dtype,
    pub optimizer: String,
    /// Columns of a row's state and how many floats each has.
    pub state: Vec<(String, usize)>,
    pub rows: u64,
    /// The latest event time that it was told.
    pub now_s: u32,
    pub update: u64,
    /// Whether rows have a decayed score.
    pub score: bool,
    number: usize,
    versions: bool,
}

impl Checkpoint {
    /// What was recorded as the plan when the cut was taken.
    pub fn plan(&self) -> &str {
        let facts = &self.newest().facts;
        facts.get(&format!("{SAME}plan")).unwrap_or_default()
    }

    /// Slots and what they read: `table N, raw keys`.
    pub fn slots(&self) -> impl Iterator<Item = (&str, &str)> {
        let facts = &self.newest().facts;
        facts
            .under(SAME)
            .filter_map(|(name, said)| Some((name.strip_prefix("slot ")?, said)))
    }

    pub fn tables(&self) -> Result<Vec<CheckpointTable>> {
        let names = compared(&self.newest().facts);
        let tables = names.under("table ").enumerate();
        tables
            .map(|(number, (place, name))| {
                if place != number.to_string() {
                    let file = &self.newest().frame.name;
                    return Err(damaged(file, "facts", "its tables are out of order"));
                }
                self.table(number, name)
            })
            .collect()
    }

    fn table(&self, number: usize, name: &str) -> Result<CheckpointTable> {
        let link = self.newest();
        let pairs = link.frame.pairs(&*link.source, Section::Table, number)?;
        let (file, section) = (&*link.frame.name, format!("table facts {number}"));
        let bad = |what: &str| damaged(file, &*section, what);
        let moving = Moving::read(file, number, &pairs)?;
        let shape = compared(&pairs);
        let dim = shape.number(file, &section, "dim")?;
        let dtype = shape.get("values").and_then(Dtype::named);
        let state = shape.under("state ").map(|(column, width)| {
            // A width that no file's rows could have is not allocated for.
            let width = width.parse().ok().filter(|width| *width <= MAX_STATE);
            Some((column.to_owned(), width?))
        });
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(bad("its dim is out of range"));
        }
        Ok(CheckpointTable {
            number,
            versions: shape.get("versions") == Some("true"),
            score: shape.get("score") == Some("true"),
            name: name.into(),
            dim,
            dtype: dtype.ok_or_else(|| bad("its values are of no known type"))?,
            optimizer: shape.get("optimizer").unwrap_or_default().into(),
            state: state
                .collect::<Option<_>>()
                .ok_or_else(|| bad("a width of its state is not one"))?,
            rows: moving.rows,
            now_s: moving.clock.now_s,
            update: moving.clock.update,
        })
    }

    /// The rows of one of its tables in these of the 4,096 buckets, in order of hash within each.
    pub fn each_in(
        &self,
        table: &CheckpointTable,
        buckets: Range<usize>,
        mut each: impl FnMut(u64, RowParts),
    ) -> Result<()> {
        let state = table.state.iter().map(|(_, width)| width).sum();
        let layout = Layout::new(table.dim, table.dtype, state, table.versions, table.score);
        let records = Records::of(&layout);
        for bucket in buckets.start..buckets.end.min(BUCKETS) {
            let merged = self.merged(table.number, bucket, &records)?;
            for record in merged.rows.chunks_exact(records.size()) {
                each(unmix(records.hash(record)), records.parts(record));
            }
        }
        Ok(())
    }
}
