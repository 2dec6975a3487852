//! The dense part of a model that follows a chain: a graph whose weights were replaced, and sessions that wait for lanes.
//!
//! Sessions are built and warmed by whoever applies a delta. A lane that meets another graph than its own takes one.

use std::sync::atomic::{AtomicU64, Ordering};

use ort::session::Session;
use parking_lot::Mutex;
use penstock_table::delta::Weight;

use super::graph::Graph;
use super::initialisers::initialisers;
use crate::error::{Fault, Result};

pub(super) struct Dense {
    /// No two have the same.
    pub number: u64,
    graph: Graph,
    ready: Mutex<Vec<Session>>,
    /// What lanes gave back: let go with the side, by whoever applies.
    old: Mutex<Vec<Session>>,
}

fn next() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

impl Dense {
    pub fn new(graph: Graph) -> Dense {
        Dense {
            number: next(),
            graph,
            ready: Mutex::default(),
            old: Mutex::default(),
        }
    }

    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The same graph with these weights, and sessions of it for so many lanes.
    pub fn with(&self, weights: &[Weight], lanes: usize) -> Result<Dense> {
        let mut bytes = self.graph.bytes().to_vec();
        let known = initialisers(&bytes)
            .ok_or_else(|| Fault::internal("the dense graph is no ONNX model"))?;
        for weight in weights {
            let name = weight.name;
            let held = known.get(name).ok_or_else(|| {
                Fault::invalid(format!("the dense graph has no weight '{name}' of floats"))
            })?;
            if held.shape != weight.shape {
                return Err(Fault::invalid(format!(
                    "weight '{name}' is of shape {:?}, in the delta {:?}",
                    held.shape, weight.shape
                )));
            }
            // `Weight` has no more values than its shape.
            let from = held.bytes.start + 4 * weight.first;
            bytes[from..from + weight.values.len()].copy_from_slice(weight.values);
        }
        let made = Dense::new(self.graph.with_bytes(bytes));
        made.prepare(lanes)?;
        Ok(made)
    }

    /// Has sessions for so many lanes.
    pub fn prepare(&self, lanes: usize) -> Result<()> {
        let missing = lanes.saturating_sub(self.ready.lock().len());
        for _ in 0..missing {
            let session = self.graph.session_of()?;
            self.ready.lock().push(session);
        }
        Ok(())
    }

    /// A session for a lane that gives its old one back.
    pub fn exchange(&self, session: &mut Session) -> Result<()> {
        let ready = self.ready.lock().pop();
        let new = match ready {
            Some(ready) => ready,
            None => self.graph.session_of()?,
        };
        let old = std::mem::replace(session, new);
        self.old.lock().push(old);
        Ok(())
    }
}
