//! The seam between doors and fleet: what a door may ask, and what it is told.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::tensor::{Tensor, TensorSpec};

/// What came with a request to be told apart and followed by: echoed in replies and logs.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// `x-request-id`, or one that the door made.
    pub request: String,
    /// W3C `traceparent`, as it came.
    pub parent: Option<String>,
    /// W3C `tracestate`, as it came.
    pub state: Option<String>,
}

/// One inference request, decoded.
#[derive(Clone, Debug)]
pub struct Request {
    pub model: String,
    /// None: traffic decides.
    pub version: Option<String>,
    /// The protocol's `id`, echoed.
    pub id: Option<String>,
    pub tensors: Vec<Tensor>,
    /// Inputs of leading dimension 1 that stand for every row.
    pub broadcast: Vec<String>,
    /// Outputs asked for, in order; empty: all.
    pub wanted: Vec<String>,
    /// When the client stops waiting.
    pub deadline: Option<Instant>,
    pub trace: Trace,
    /// When its last byte was read.
    pub arrived: Instant,
    /// What decoding took.
    pub decoded_in: Duration,
    /// What the host looked up for it.
    pub fetched: Option<Arc<Fetched>>,
}

/// What feature views told of a request's entities, for the sample log.
#[derive(Debug)]
pub struct Fetched {
    /// The keys it was looked up by that the model itself does not read.
    pub aside: Vec<Tensor>,
    pub notes: Vec<ViewNote>,
}

/// What was read of a view, for the sample log: served features can be worked out again from it.
#[derive(Debug)]
pub struct ViewNote {
    pub view: String,
    /// How far into its source the store was, as JSON.
    pub at: String,
    /// As of when each row is, in microseconds; one stands for all.
    pub as_of_us: Vec<i64>,
}

impl ViewNote {
    pub fn as_of_us(&self, row: usize) -> i64 {
        let at = if self.as_of_us.len() == 1 { 0 } else { row };
        self.as_of_us.get(at).copied().unwrap_or_default()
    }
}

/// Where in a chain something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub generation: u64,
    pub sequence: u64,
}

/// Where a request's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Waiting for a worker.
    pub queue: Duration,
    /// Raw columns to keys and numbers.
    pub features: Duration,
    /// Keys to rows.
    pub lookup: Duration,
    /// Scoring.
    pub run: Duration,
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub model: String,
    pub version: Arc<str>,
    /// The digest of the bundle that answered.
    pub bundle: Arc<str>,
    pub outputs: Vec<Tensor>,
    pub timings: Timings,
    /// Of a model that follows a chain: the one place in it that all rows and weights of this reply are of.
    pub position: Option<Position>,
}

/// A model's metadata.
#[derive(Clone, Debug)]
pub struct Description {
    pub name: String,
    pub versions: Vec<Arc<str>>,
    /// "penstock_trees", "penstock_deep", "onnx_onnxv1", ...
    pub platform: String,
    /// What it takes: its raw columns, or its tensors.
    pub inputs: Vec<TensorSpec>,
    /// The second input form: mapped tensors. Empty where there is none.
    pub mapped: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// "bundle" (digest), "algorithm", "plan" and the like.
    pub properties: BTreeMap<String, String>,
}

/// What gRPC's ModelConfig tells.
#[derive(Clone, Debug)]
pub struct Config {
    pub description: Description,
    pub max_batch_rows: usize,
    pub concurrency: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Loading,
    Ready,
    Unloading,
    Unavailable,
}

/// A line of the repository index.
#[derive(Clone, Debug)]
pub struct IndexEntry {
    pub name: String,
    pub version: Arc<str>,
    pub state: State,
    /// Why it is not ready.
    pub reason: String,
}

/// Counts since the version was loaded; durations summed.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    pub name: String,
    pub version: Arc<str>,
    /// Unix time of the last request, milliseconds; 0: none yet.
    pub last_ms: u64,
    pub rows: u64,
    pub executions: u64,
    pub succeeded: (u64, Duration),
    pub failed: (u64, Duration),
    pub queue: (u64, Duration),
    /// Features and look-up.
    pub input: (u64, Duration),
    pub run: (u64, Duration),
    /// Batch rows -> how often, with the time of the run.
    pub batches: BTreeMap<u64, (u64, Duration)>,
}

/// What the doors need. The fleet is the real one; tests of a door bring their own.
pub trait Service: Send + Sync + 'static {
    /// Whether every model that is not optional serves, and the host is not draining.
    fn ready(&self) -> bool;

    fn infer(&self, request: Request) -> impl Future<Output = Result<Reply>> + Send;

    /// What encoding a reply took: the door's part of its model's latencies. Called once the reply is written.
    fn encoded(&self, reply: &Reply, took: Duration);

    /// Whether this version (None: any that traffic goes to) would answer.
    fn model_ready(&self, model: &str, version: Option<&str>) -> bool;

    /// Whether a version (None: the model itself) is known. `NotFound` names what is not.
    fn describe(&self, model: &str, version: Option<&str>) -> Result<Description>;

    fn config(&self, model: &str, version: Option<&str>) -> Result<Config>;

    fn index(&self) -> Vec<IndexEntry>;

    /// Loads a model that the configuration names and that was unloaded.
    fn load(&self, model: &str) -> impl Future<Output = Result<()>> + Send;

    /// Takes a model out of service; returns once its last request is answered.
    fn unload(&self, model: &str) -> impl Future<Output = Result<()>> + Send;

    fn statistics(&self, model: Option<&str>, version: Option<&str>) -> Result<Vec<Statistics>>;

    /// The fleet's part of `/metrics`, in Prometheus' text format.
    fn metrics(&self) -> String;
}
