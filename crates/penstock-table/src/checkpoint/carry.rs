//! Rows of one table of a cut for a table of another store.

use super::Checkpoint;
use super::facts::{Moving, compared, shape};
use crate::artefact::{Pairs, Result, Section, damaged};
use crate::config::Admission;
use crate::cut::{Records, take};
use crate::table::Table;

/// Of a table's facts, those that a row's record is made by.
fn of_rows(shape: &Pairs) -> Pairs {
    let mut rows = Pairs::default();
    for (name, value) in shape.under("") {
        if ["dim", "values", "optimizer", "versions", "score"].contains(&name)
            || name.starts_with("state ")
        {
            rows.add(name, value);
        }
    }
    rows
}

impl Checkpoint {
    /// Puts the rows of table `number`, with their state, into an empty table of any store whose rows are made alike:
    /// dim, type of values, optimizer. Init, admission, eviction, slots and plan may differ; where both count sightings
    /// by an equal sketch, it comes along. The update number goes on, since some optimizers count by it; everything
    /// is a change of the table's current epoch. Returns how many rows. After an error the table is of no use.
    pub fn carry(&self, number: usize, table: &mut Table) -> Result<u64> {
        let link = self.newest();
        let name = &link.frame.name;
        let facts = link.frame.pairs(&*link.source, Section::Table, number)?;
        let (theirs, ours) = (compared(&facts), shape(table.config()));
        let whose = format!("table '{}': ", table.config().name);
        of_rows(&theirs).compare(name, &whose, &of_rows(&ours))?;
        let moving = Moving::read(name, number, &facts)?;
        let records = Records::of(&table.shared.layout);
        for bucket in self.said(number)? {
            let merged = self.merged(number, bucket, &records)?;
            take(table, merged.rows.chunks_exact(records.size()))?;
        }
        if table.rows() != moving.rows {
            let what = format!(
                "{} rows of table {number} were read, {} were written",
                table.rows(),
                moving.rows
            );
            return Err(damaged(name, "rows", what));
        }
        let sketch = ["sketch bytes", "sketch halved every"];
        if let Admission::Count { halve_every, .. } = table.config().admission
            && sketch.iter().all(|fact| theirs.get(fact) == ours.get(fact))
        {
            table.clock.sightings = moving.clock.sightings;
            self.fill_sketch(number, table, (moving.clock.sightings / halve_every) as u32)?;
        }
        table.clock.update = moving.clock.update;
        table.clock.now_s = moving.clock.now_s;
        Ok(moving.rows)
    }
}
