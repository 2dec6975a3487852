//! The tables of a cut one by one, without a store: what they are, and their rows.

use std::ops::Range;

use super::Checkpoint;
use super::facts::{Moving, SAME, compared};
use crate::artefact::{Result, Section, damaged};
use crate::cut::Records;
use crate::half::Dtype;
use crate::hash::{BUCKETS, unmix};
use crate::parts::RowParts;
use crate::rows::Layout;

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
        let link = self.newest();
        let names = compared(&link.facts);
        let tables = names
            .under("table ")
            .enumerate()
            .map(|(number, (_, table))| {
                let pairs = link.frame.pairs(&*link.source, Section::Table, number)?;
                let (file, section) = (&*link.frame.name, format!("table facts {number}"));
                let moving = Moving::read(file, number, &pairs)?;
                let shape = compared(&pairs);
                let state = shape.under("state ").map(|(column, width)| {
                    let width = width.parse().ok();
                    let width = width.ok_or_else(|| {
                        damaged(file, &*section, "a width of its state is not one")
                    })?;
                    Ok((column.to_owned(), width))
                });
                let text = |name| shape.get(name).unwrap_or_default().to_owned();
                let dtype = Dtype::named(&text("values"));
                let dtype = dtype
                    .ok_or_else(|| damaged(file, &*section, "its values are of no known type"))?;
                Ok(CheckpointTable {
                    number,
                    versions: shape.get("versions") == Some("true"),
                    score: shape.get("score") == Some("true"),
                    name: table.into(),
                    dim: shape.number(file, &section, "dim")?,
                    dtype,
                    optimizer: text("optimizer"),
                    state: state.collect::<Result<_>>()?,
                    rows: moving.rows,
                    now_s: moving.clock.now_s,
                    update: moving.clock.update,
                })
            });
        tables.collect()
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
