//! Cuts of a model in training: into a folder while it learns on, and back to the bit (ADR 0032).

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_table::disk::Disk;
use penstock_table::{ArtefactError, Checkpoints, Committed, CutOptions, OpenCut};

use super::trainer::Trainer;

type Result<T> = std::result::Result<T, ArtefactError>;
/// The caller's bytes by name.
pub type Sections = BTreeMap<String, Vec<u8>>;

/// The section of what a trainer has beside its tables' rows.
const TRAINER: &str = "trainer";

/// A folder of cuts of one trainer, and the one that is open.
pub struct Cuts {
    checkpoints: Checkpoints,
    /// The open cut, and of how many tables it is.
    open: Option<(OpenCut, usize)>,
    /// Tables of the newest cut: with more of them the next one is full, and also where increments outweigh the last full one.
    tables: Option<usize>,
}

impl Cuts {
    /// `plan` is recorded and compared: the fingerprint of whatever gives keys their meaning.
    pub fn open(disk: Arc<dyn Disk>, plan: impl Into<String>) -> Result<Cuts> {
        Ok(Cuts {
            checkpoints: Checkpoints::open(disk, plan)?,
            open: None,
            tables: None,
        })
    }

    /// Cuts here, between two calls of `learn`; nothing is written yet. Rows that wait for their micro-batch are not in it:
    /// whoever resumes gives those after `Progress::rows` again.
    pub fn prepare(&mut self, trainer: &mut Trainer, sections: Sections) -> Result<()> {
        let store = &mut trainer.model.store;
        let tables = store.tables().len();
        let options = CutOptions {
            full: self.tables != Some(tables) || self.checkpoints.outweighed(),
            ..CutOptions::default()
        };
        let mut open = self.checkpoints.prepare(store, "", options)?;
        for (name, bytes) in sections {
            open.section(name, bytes);
        }
        open.section(TRAINER, trainer.state());
        self.open = Some((open, tables));
        Ok(())
    }

    /// Writes about `rows` rows more of the open cut. What it lasts as, once all is written; None before, and where no cut is
    /// open. After an error the cut is over and nothing was changed.
    pub fn write(&mut self, trainer: &mut Trainer, rows: u64) -> Result<Option<Committed>> {
        let Some((mut open, tables)) = self.open.take() else {
            return Ok(None);
        };
        let store = &mut trainer.model.store;
        if open.step(store, rows)? {
            let committed = self.checkpoints.commit(open, store)?;
            self.tables = Some(tables);
            self.checkpoints.prune()?;
            return Ok(Some(committed));
        }
        self.open = Some((open, tables));
        Ok(None)
    }

    /// The newest cut into a trainer that has learnt nothing yet; returns the caller's sections, None where there is no cut.
    /// After an error the trainer is as it was.
    pub fn resume(&mut self, trainer: &mut Trainer) -> Result<Option<Sections>> {
        let Some(newest) = self.checkpoints.newest()? else {
            return Ok(None);
        };
        let damaged = |what: &str| ArtefactError::Damaged {
            file: format!("cut {}", newest.sequence()),
            section: TRAINER.into(),
            what: what.into(),
        };
        let mut sections = newest.sections()?;
        let state = sections.remove(TRAINER);
        let state = state.ok_or_else(|| damaged("it is not there"))?;
        let tables = newest.tables()?.len();
        let empty = trainer.model.empty_store(tables)?;
        let filled = self.checkpoints.resume(&newest, empty)?;
        if !trainer.restore(&state) {
            return Err(damaged("it is of another model"));
        }
        self.tables = Some(tables);
        trainer.model.store = filled;
        Ok(Some(sections))
    }
}
