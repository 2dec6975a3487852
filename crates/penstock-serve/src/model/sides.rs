//! What stands on a side of a model that follows a chain: of deep models rows over a snapshot and a graph, of regressions
//! and factorisation machines rows over those of the bundle.

use std::sync::Arc;

use penstock_table::delta::{Block, Weight};
use penstock_table::{Snapshot, View};
use penstock_training::online::{Laid, Model, OwnRows};

use super::dense::Dense;
use super::live::{Held, refused};
use crate::error::{Fault, Result};

pub(super) struct DeepSide {
    pub rows: View,
    pub dense: Arc<Dense>,
}

impl DeepSide {
    pub fn new(snapshot: &Arc<Snapshot>, dense: &Arc<Dense>, bytes: u64) -> Result<DeepSide> {
        let rows = View::new(snapshot.clone(), bytes);
        Ok(DeepSide {
            rows: rows.map_err(|error| Fault::internal(error.to_string()))?,
            dense: dense.clone(),
        })
    }
}

impl Held for DeepSide {
    type Weights = Arc<Dense>;

    fn weights(&self) -> Arc<Dense> {
        self.dense.clone()
    }

    fn with(&self, weights: &[Weight], lanes: usize) -> Result<Arc<Dense>> {
        self.dense.with(weights, lanes).map(Arc::new)
    }

    fn set(&mut self, weights: Arc<Dense>) {
        self.dense = weights;
    }

    fn lay(&mut self, blocks: &[Block]) -> Result<()> {
        self.rows.apply_blocks(blocks).map_err(refused)
    }

    fn prepare(&self, lanes: usize) -> Result<()> {
        self.dense.prepare(lanes)
    }
}

pub(super) struct OnlineSide(pub Laid);

impl OnlineSide {
    pub fn new(base: &Arc<Model>, bytes: u64) -> Result<OnlineSide> {
        let laid = Laid::new(base.clone(), bytes);
        laid.map(OnlineSide)
            .map_err(|error| Fault::internal(error.to_string()))
    }
}

impl Held for OnlineSide {
    type Weights = OwnRows;

    fn weights(&self) -> OwnRows {
        self.0.own()
    }

    fn with(&self, weights: &[Weight], _: usize) -> Result<OwnRows> {
        self.0.with(weights).map_err(refused)
    }

    fn set(&mut self, weights: OwnRows) {
        self.0.set(weights);
    }

    fn lay(&mut self, blocks: &[Block]) -> Result<()> {
        self.0.lay(blocks).map_err(refused)
    }

    fn prepare(&self, _: usize) -> Result<()> {
        Ok(())
    }
}
