//! What the fleet asks of a model: the few things that `model::Model` and `model::Lane` do, so that tests bring their own.

use std::path::Path;
use std::sync::Arc;

use penstock_table::Nearing;

use crate::error::{Fault, Result};
use crate::model::{Call, Lane, Model, Options, Position, Progress, Signature, Stopper};
use crate::service::Timings;
use crate::tensor::Tensor;

/// An open bundle, shared by its lanes.
pub trait Engine: Send + Sync + Sized + 'static {
    type Lane: Runner;

    fn open(folder: &Path, options: &Options) -> Result<Self>;

    /// What the bundle in a folder will hold in memory of its own, before it is opened.
    fn estimate_bytes(folder: &Path) -> u64;

    fn signature(&self) -> &Signature;

    /// Whether rows of several requests may be scored in one run.
    fn batches(&self) -> bool;

    /// The rows of a call; `Invalid` names the inputs that do not agree.
    fn rows(&self, call: Call) -> Result<usize>;

    /// What it holds in memory of its own.
    fn memory_bytes(&self) -> u64;

    fn lane(self: &Arc<Self>) -> Result<Self::Lane>;

    /// Verifies some more of what is mapped, from a cursor that begins at 0: true at its end, where the cursor is at 0 again.
    /// None where nothing is mapped. Fails for what is damaged.
    fn scrub(&self, _cursor: &mut usize) -> Result<Option<bool>> {
        Ok(None)
    }

    /// Its mapped rows on their way into memory of its own, of at most so many bytes; None: as many as is wise. Nothing where
    /// there are none, or where they stay.
    fn nearing(&self, _most: Option<u64>) -> Option<Nearing> {
        None
    }

    /// Keys found and not found in its tables so far; None where it has none.
    fn lookups(&self) -> Option<(u64, u64)> {
        None
    }

    /// How far it has followed its chain; None where it follows none.
    fn progress(&self) -> Option<Progress> {
        None
    }
}

/// One run at a time.
pub trait Runner: Send + 'static {
    type Stopper: Stop;

    fn run(&mut self, calls: &[Call]) -> (Vec<Result<Vec<Tensor>>>, Timings);

    /// Runs the bundle's own rows, so that the first request is no slower than the others.
    fn warm_up(&mut self) -> Result<()>;

    fn stopper(&self) -> Self::Stopper;

    /// Where in its chain the model stood as the last run saw it; None where it follows none.
    fn position(&self) -> Option<Position> {
        None
    }
}

/// Ends a run from another thread.
pub trait Stop: Send + Sync + 'static {
    fn stop(&self);
    fn reset(&self);
}

impl Engine for Model {
    type Lane = Lane;

    fn open(folder: &Path, options: &Options) -> Result<Model> {
        Model::open(folder, options)
    }

    /// Its files, without snapshots, which are mapped, and what only training reads.
    fn estimate_bytes(folder: &Path) -> u64 {
        let Ok(files) = std::fs::read_dir(folder) else {
            return 0;
        };
        let sizes = files.flatten().map(|file| match file.metadata() {
            Ok(about) if about.is_file() && !is_mapped(&file.path()) => about.len(),
            Ok(about) if about.is_dir() && file.file_name() != "training" => {
                Self::estimate_bytes(&file.path())
            }
            _ => 0,
        });
        sizes.sum()
    }

    fn signature(&self) -> &Signature {
        Model::signature(self)
    }

    fn batches(&self) -> bool {
        Model::batches(self)
    }

    fn rows(&self, call: Call) -> Result<usize> {
        Model::rows(self, call)
    }

    fn memory_bytes(&self) -> u64 {
        Model::memory_bytes(self)
    }

    fn lane(self: &Arc<Model>) -> Result<Lane> {
        Model::lane(self)
    }

    fn scrub(&self, cursor: &mut usize) -> Result<Option<bool>> {
        self.snapshot()
            .map(|snapshot| snapshot.scrub(cursor))
            .transpose()
            .map_err(|error| Fault::internal(error.to_string()))
    }

    fn nearing(&self, most: Option<u64>) -> Option<Nearing> {
        Nearing::begin(&self.snapshot()?, most)
    }

    fn lookups(&self) -> Option<(u64, u64)> {
        self.snapshot().map(|snapshot| snapshot.lookups())
    }

    fn progress(&self) -> Option<Progress> {
        Model::progress(self)
    }
}

fn is_mapped(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "snapshot")
}

impl Runner for Lane {
    type Stopper = Stopper;

    fn run(&mut self, calls: &[Call]) -> (Vec<Result<Vec<Tensor>>>, Timings) {
        Lane::run(self, calls)
    }

    fn warm_up(&mut self) -> Result<()> {
        Lane::warm_up(self)
    }

    fn stopper(&self) -> Stopper {
        Lane::stopper(self)
    }

    fn position(&self) -> Option<Position> {
        Lane::position(self)
    }
}

impl Stop for Stopper {
    fn stop(&self) {
        Stopper::stop(self);
    }

    fn reset(&self) {
        Stopper::reset(self);
    }
}
