//! A bundle, open for scoring. `Model` is shared; each worker has a `Lane` of its own, with a session and scratch.
//!
//! Read `features.rs` for models over raw columns (`inputs.rs`, `cells.rs`: tensors to columns; `mapping.rs`: the plan;
//! `encode.rs`: the matrix; `linear.rs`, `online.rs`, `trees.rs`, `deep.rs`: scores), `tensors.rs` for those over tensors.

mod cells;
mod deep;
mod dense;
mod encode;
mod features;
mod graph;
mod initialisers;
mod inputs;
mod kinds;
mod linear;
mod lists;
mod live;
mod manifest;
mod mapping;
mod matrix;
mod online;
mod part;
mod parting;
mod sides;
mod tensors;
mod trees;
mod warm;
mod weights;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ort::session::{NoSelectedOutputs, RunOptions};
use penstock_table::Snapshot;

use crate::error::{Fault, Kind, Result};
use crate::service::Timings;
use crate::tensor::{Tensor, TensorSpec};
use deep::DeepScorer;
use features::{Desk, FeatureModel};
use graph::Run;
pub use graph::load_runtime;
use live::Follows;
pub use live::{Following, Position, Progress};
use manifest::{Manifest, broken};
use tensors::TensorsModel;

/// Said of any other model.
const FOLLOWERS: &str = "only lr, fm and deep models follow a chain";

/// What a model takes and gives.
#[derive(Clone, Debug)]
pub struct Signature {
    /// "penstock_gbdt", "penstock_deep", "onnx_onnxv1", ...
    pub platform: String,
    pub inputs: Vec<TensorSpec>,
    /// The second input form; empty where there is none.
    pub mapped: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

/// How a bundle is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Threads of one run; 0 means 1.
    pub threads: usize,
    /// Addresses of the plan's user functions, by name; a plan that has others is refused.
    pub functions: HashMap<String, usize>,
    /// How it follows a chain; None: it stays as the bundle has it.
    pub following: Option<Following>,
}

/// One request's part of a run.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub tensors: &'a [Tensor],
    pub broadcast: &'a [String],
}

/// An open bundle.
pub struct Model {
    kind: Form,
    signature: Signature,
    /// What its files take in memory, those that are not mapped.
    memory_bytes: u64,
    warm_up: Vec<Tensor>,
}

enum Form {
    Features(Box<FeatureModel>),
    Tensors(TensorsModel),
}

impl Model {
    /// Opens the bundle in a folder: its manifest, plan, tables, graph. Fails with what is wrong with it.
    pub fn open(folder: &Path, options: &Options) -> Result<Model> {
        let manifest = Manifest::read(folder)?;
        let form = manifest.model.get("form").and_then(|form| form.as_str());
        let form = form.ok_or_else(|| broken(folder, "its manifest does not say its form"))?;
        let (kind, signature) = if form == "onnx" {
            let model = TensorsModel::open(folder, manifest.form(folder)?, options.threads)?;
            let signature = Signature {
                platform: "onnx_onnxv1".into(),
                inputs: model.inputs.clone(),
                mapped: vec![],
                outputs: model.outputs.clone(),
            };
            (Form::Tensors(model), signature)
        } else {
            let model = FeatureModel::open(folder, &manifest, form, options)?;
            let signature = model.signature(&manifest.algorithm);
            (Form::Features(Box::new(model)), signature)
        };
        if options.following.is_some()
            && !matches!(&kind, Form::Features(model) if model.live().is_some())
        {
            return Err(broken(folder, FOLLOWERS));
        }
        let mut warm_up = warm::rows(folder, &signature.inputs);
        if warm_up.is_empty() {
            let columns = matches!(kind, Form::Features(_));
            warm_up = warm::nothing(&signature.inputs, columns);
        }
        Ok(Model {
            kind,
            signature,
            memory_bytes: manifest.held_bytes(),
            warm_up,
        })
    }

    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Whether rows of several requests may be scored in one run.
    pub fn batches(&self) -> bool {
        match &self.kind {
            Form::Features(_) => true,
            Form::Tensors(model) => model.batches,
        }
    }

    /// The rows of a call: the leading dimension its inputs agree on. `Invalid` names those that do not.
    pub fn rows(&self, call: Call) -> Result<usize> {
        inputs::rows(&call)
    }

    /// What it holds in memory of its own, estimated by its files; mapped ones do not count.
    pub fn memory_bytes(&self) -> u64 {
        let near = self.snapshot().map_or(0, |rows| rows.near_bytes());
        self.memory_bytes + near
    }

    /// The rows that it maps; None where it has none.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.deep().map(DeepScorer::snapshot)
    }

    fn deep(&self) -> Option<&DeepScorer> {
        match &self.kind {
            Form::Features(model) => model.deep(),
            Form::Tensors(_) => None,
        }
    }

    // --- following a chain ---

    fn live(&self) -> Result<&dyn Follows> {
        let live = match &self.kind {
            Form::Features(model) => model.live(),
            Form::Tensors(_) => None,
        };
        live.ok_or_else(|| Fault::invalid(FOLLOWERS))
    }

    /// How far it has followed; None where it does not.
    pub fn progress(&self) -> Option<Progress> {
        self.live().ok().map(Follows::progress)
    }

    /// Applies a delta's parts, which lead to `to`. Nothing is changed where it fails.
    pub fn apply_delta(&self, records: &[&[u8]], to: Position) -> Result<()> {
        self.live()?.apply(records, to)
    }

    /// Says where the bundle that was opened stands in its chain.
    pub fn stands_at(&self, at: Position) -> Result<()> {
        self.live().map(|live| live.stands_at(at))
    }

    /// Opens a newer base, which lies in a folder, beside what is shown. Deltas go there until `show_base`.
    pub fn stage_base(&self, folder: &Path, at: Position) -> Result<()> {
        let manifest = Manifest::read(folder)?;
        match &self.kind {
            Form::Features(model) => model.stage(folder, &manifest, at),
            Form::Tensors(_) => Err(Fault::invalid(FOLLOWERS)),
        }
    }

    /// Shows the staged base, if there is one.
    pub fn show_base(&self) -> Result<()> {
        self.live()?.show()
    }

    /// Everything that the chain had at this time (milliseconds since the epoch) was applied.
    pub fn is_current(&self, at_ms: u64) -> Result<()> {
        self.live().map(|live| live.is_current(at_ms))
    }

    /// A worker's own way to run it.
    pub fn lane(self: &Arc<Model>) -> Result<Lane> {
        let seat = match &self.kind {
            Form::Features(model) => Seat::Features(Box::new(model.desk()?)),
            Form::Tensors(model) => Seat::Tensors(model.graph.run()?),
        };
        let run = match &seat {
            Seat::Features(desk) => desk.run(),
            Seat::Tensors(run) => Some(run),
        };
        let stopper = Stopper {
            stopped: Arc::default(),
            run: run.map(Run::options),
        };
        Ok(Lane {
            model: self.clone(),
            seat,
            stopper,
        })
    }
}

/// A session and scratch: one run at a time.
pub struct Lane {
    model: Arc<Model>,
    seat: Seat,
    stopper: Stopper,
}

enum Seat {
    Features(Box<Desk>),
    Tensors(Run),
}

/// Ends a run from another thread.
#[derive(Clone)]
pub struct Stopper {
    stopped: Arc<AtomicBool>,
    run: Option<Arc<RunOptions<NoSelectedOutputs>>>,
}

impl Stopper {
    /// The run under way (or the next one) fails with `Late` as soon as it can.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(run) = &self.run {
            // It fails only for a null pointer, which this is not.
            let _ = run.terminate();
        }
    }

    /// Runs go on as usual again.
    pub fn reset(&self) {
        self.stopped.store(false, Ordering::Release);
        if let Some(run) = &self.run {
            let _ = run.unterminate();
        }
    }

    fn check(&self) -> Result<()> {
        if self.stopped.load(Ordering::Acquire) {
            let said = "the deadline passed while the model ran";
            return Err(Fault::new(Kind::Late, said));
        }
        Ok(())
    }
}

impl Lane {
    /// One run for all calls; each gets its own outputs or its own fault. A call's fault does not touch the others.
    /// Where the model does not batch, call it with one.
    pub fn run(&mut self, calls: &[Call]) -> (Vec<Result<Vec<Tensor>>>, Timings) {
        let mut timings = Timings::default();
        let model = self.model.clone();
        let answers = match (&model.kind, &mut self.seat) {
            (Form::Features(model), Seat::Features(desk)) => {
                let began = Instant::now();
                desk.clear();
                let taken: Vec<Result<usize>> =
                    calls.iter().map(|call| model.take(call, desk)).collect();
                timings.features = began.elapsed();
                let began = Instant::now();
                let scored = model.score(desk, &self.stopper);
                let looked_up = scored.as_ref().map_or(Duration::ZERO, |(_, took)| *took);
                timings.lookup = looked_up;
                timings.run = began.elapsed().saturating_sub(looked_up);
                let mut start = 0;
                let answer = |rows: Result<usize>| {
                    let rows = rows?;
                    let (scores, _) = scored.as_ref().map_err(Clone::clone)?;
                    let output = model.output(scores, start, rows);
                    start += rows;
                    Ok(vec![output])
                };
                taken.into_iter().map(answer).collect()
            }
            (Form::Tensors(model), Seat::Tensors(run)) => {
                let began = Instant::now();
                let answers = self.stopper.check();
                let answers = answers.map(|()| run_tensors(model, calls, run));
                timings.run = began.elapsed();
                answers.unwrap_or_else(|fault| calls.iter().map(|_| Err(fault.clone())).collect())
            }
            _ => unreachable!("a lane is made by its own model"),
        };
        (answers, timings)
    }

    /// Scores the bundle's own rows, so that the first request finds pages, arenas and threads as the others will.
    pub fn warm_up(&mut self) -> Result<()> {
        let model = self.model.clone();
        for _ in 0..3 {
            let call = Call {
                tensors: &model.warm_up,
                broadcast: &[],
            };
            let (answers, _) = self.run(&[call]);
            answers
                .into_iter()
                .try_for_each(|answer| answer.map(drop))?;
        }
        Ok(())
    }

    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Where in its chain the model stood as the last run saw it; None where it follows none.
    pub fn position(&self) -> Option<Position> {
        match &self.seat {
            Seat::Features(desk) => desk.position(),
            Seat::Tensors(_) => None,
        }
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }
}

fn run_tensors(model: &TensorsModel, calls: &[Call], run: &mut Run) -> Vec<Result<Vec<Tensor>>> {
    let read: Vec<_> = calls.iter().map(|call| model.read(call)).collect();
    let good: Vec<_> = read
        .iter()
        .filter_map(|r| r.as_ref().ok())
        .cloned()
        .collect();
    // Only calls alike in everything but their rows go together.
    let alike = |a: &[(Vec<usize>, &Tensor)], b: &[(Vec<usize>, &Tensor)]| {
        a.iter().zip(b).all(|(a, b)| a.0[1..] == b.0[1..])
    };
    let together = model.batches && good.iter().all(|call| alike(call, &good[0]));
    if together && good.len() > 1 {
        let all = model.run(&good, run);
        let mut start = 0;
        let answer = |call: Result<Vec<(Vec<usize>, &Tensor)>>| {
            let rows = call?[0].0[0];
            let all = all.as_ref().map_err(Clone::clone)?;
            let own = all
                .iter()
                .map(|output| tensors::rows_of(output, start, start + rows));
            let own = own.collect();
            start += rows;
            Ok(own)
        };
        return read.into_iter().map(answer).collect();
    }
    let one = |call: Result<Vec<(Vec<usize>, &Tensor)>>| model.run(&[call?], run);
    read.into_iter().map(one).collect()
}
