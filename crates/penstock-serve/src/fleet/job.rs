//! A request on its way through a version: what is waited for, and what it counts for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::brake::Ticket;
use super::guards::Side;
use super::watch::Watch;
use crate::error::{Fault, Kind, Result};
use crate::service::{Reply, Request};
use crate::tensor::{Data, Tensor};

/// Why a version has this request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was named.
    Named,
    /// Traffic was dealt to it.
    Dealt,
    /// Another one answers; this one only scores.
    Shadow,
}

pub struct Job {
    pub request: Arc<Request>,
    pub rows: usize,
    pub origin: Origin,
    pub deadline: Option<Instant>,
    pub queued: Instant,
    pub ticket: Arc<Ticket>,
    /// The canaries that this request counts for, and on which side.
    pub watches: Vec<Arc<Watch>>,
    pub side: Side,
    /// None: nobody waits (a shadow's).
    pub reply: Option<oneshot::Sender<Result<Reply>>>,
}

impl Job {
    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

pub fn late(waited: Duration) -> Fault {
    let message = format!(
        "the deadline has passed after {:.1} ms",
        waited.as_secs_f64() * 1e3
    );
    Fault::new(Kind::Late, message)
}

/// A number a row from the first output: what guards compare and samples hold.
pub fn scores(outputs: &[Tensor], rows: usize) -> Vec<f32> {
    let Some(first) = outputs.first() else {
        return vec![];
    };
    let width = (first.data.len() / rows.max(1)).max(1);
    match &first.data {
        Data::F32(values) => values.iter().copied().step_by(width).collect(),
        Data::F64(values) => values.iter().map(|v| *v as f32).step_by(width).collect(),
        _ => vec![],
    }
}

/// The outputs asked for, in order; all where none is named.
pub fn pick(outputs: Vec<Tensor>, wanted: &[String]) -> Vec<Tensor> {
    if wanted.is_empty() {
        return outputs;
    }
    let named = |name: &String| outputs.iter().find(|output| output.name == *name).cloned();
    wanted.iter().filter_map(named).collect()
}
