//! A bundle, open for scoring. `Model` is shared; each worker has a `Lane` of its own, with a session and scratch.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Fault, Result};
use crate::service::Timings;
use crate::tensor::{Tensor, TensorSpec};

/// What a model takes and gives.
#[derive(Clone, Debug)]
pub struct Signature {
    /// "penstock_trees", "penstock_deep", "onnx_onnxv1", ...
    pub platform: String,
    pub inputs: Vec<TensorSpec>,
    pub mapped: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// How a bundle is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Threads of one run.
    pub threads: usize,
    /// Addresses of the plan's user functions, by name; a plan that has others is refused.
    pub functions: std::collections::HashMap<String, usize>,
}

/// One request's part of a run.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub tensors: &'a [Tensor],
    pub broadcast: &'a [String],
}

/// An open bundle.
pub struct Model {
    signature: Signature,
}

impl Model {
    /// Opens the bundle in a folder: its manifest, plan, tables, graph. Fails with what is wrong with it.
    pub fn open(_folder: &Path, _options: &Options) -> Result<Model> {
        Err(Fault::internal("not yet"))
    }

    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Whether rows of several requests may be scored in one run.
    pub fn batches(&self) -> bool {
        true
    }

    /// The rows of a call: the leading dimension its inputs agree on. `Invalid` names those that do not.
    pub fn rows(&self, _call: Call) -> Result<usize> {
        Err(Fault::internal("not yet"))
    }

    /// What it holds in memory of its own, estimated; mapped files do not count.
    pub fn memory_bytes(&self) -> u64 {
        0
    }

    /// A worker's own way to run it.
    pub fn lane(self: &Arc<Model>) -> Result<Lane> {
        Err(Fault::internal("not yet"))
    }
}

/// A session and scratch: one run at a time.
pub struct Lane {
    model: Arc<Model>,
}

/// Ends a run from another thread.
#[derive(Clone)]
pub struct Stopper {}

impl Stopper {
    /// The run under way (or the next one) fails with `Late` as soon as it can.
    pub fn stop(&self) {}

    /// Runs go on as usual again.
    pub fn reset(&self) {}
}

impl Lane {
    /// One run for all calls; each gets its own outputs or its own fault. A call's fault does not touch the others.
    pub fn run(&mut self, _calls: &[Call]) -> (Vec<Result<Vec<Tensor>>>, Timings) {
        (vec![], Timings::default())
    }

    pub fn stopper(&self) -> Stopper {
        Stopper {}
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}
