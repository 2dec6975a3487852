//! What both doors hold, and how both ask the service.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::counters::Counters;
use super::settings::Settings;
use crate::auth::Gate;
use crate::error::{Fault, Kind, Result};
use crate::service::{Reply, Request, Service};
use crate::wire::{Call, Limits};

/// Both doors' state. A request is answered on the thread that read it, so all of this is lock-free.
pub struct Shared<S> {
    pub service: Arc<S>,
    pub gate: Arc<Gate>,
    pub limits: Limits,
    pub arrival: Duration,
    pub counters: Counters,
    pub draining: Arc<AtomicBool>,
    held: Arc<Held>,
}

impl<S: Service> Shared<S> {
    pub fn new(service: Arc<S>, gate: Arc<Gate>, settings: &Settings) -> Shared<S> {
        Shared {
            service,
            gate,
            limits: settings.limits,
            arrival: Duration::from_secs_f64(settings.arrival_s),
            counters: Counters::default(),
            draining: Arc::new(AtomicBool::new(false)),
            held: Arc::new(Held {
                bytes: AtomicUsize::new(0),
                limit: settings.held_bytes,
            }),
        }
    }

    pub fn ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.service.ready()
    }

    /// Room for a body that is still to come.
    pub fn hold(&self) -> Hold {
        Hold {
            held: Arc::clone(&self.held),
            bytes: 0,
        }
    }

    pub fn metrics(&self) -> String {
        self.service.metrics()
            + &self
                .counters
                .metrics(self.held.bytes.load(Ordering::Relaxed))
    }

    /// The service's answer, or `Late` once the deadline has passed; a panic of its is `Internal` and ends nothing else.
    pub async fn ask(&self, request: Request) -> Result<Reply> {
        let deadline = request.deadline;
        let answer = AssertUnwindSafe(self.service.infer(request)).catch_unwind();
        let answer = match deadline {
            None => answer.await,
            Some(at) if at <= Instant::now() => return Err(late()),
            Some(at) => match tokio::time::timeout_at(at.into(), answer).await {
                Ok(answer) => answer,
                Err(_) => return Err(late()),
            },
        };
        answer.unwrap_or_else(|_| {
            Err(Fault::internal(
                "the server failed at this request; its log says where",
            ))
        })
    }
}

fn late() -> Fault {
    Fault::new(
        Kind::Late,
        "the request's deadline passed before it was answered",
    )
}

/// A request of what a door read. `arrived`: when the last byte was; `waits`: what the door's own header says.
pub fn request(
    model: String,
    version: Option<String>,
    call: &mut Call,
    trace: crate::service::Trace,
    arrived: Instant,
    waits: Option<Duration>,
) -> Request {
    let patience = [call.timeout, waits].into_iter().flatten().min();
    Request {
        model,
        version,
        id: call.id.clone(),
        tensors: std::mem::take(&mut call.tensors),
        broadcast: std::mem::take(&mut call.broadcast),
        wanted: call.wanted.clone(),
        // A patience beyond what the clock can hold is none at all.
        deadline: patience.and_then(|patience| arrived.checked_add(patience)),
        trace,
        arrived,
        decoded_in: arrived.elapsed(),
        fetched: None,
    }
}

struct Held {
    bytes: AtomicUsize,
    limit: usize,
}

/// Bytes of a body, counted until it is dropped.
pub struct Hold {
    held: Arc<Held>,
    bytes: usize,
}

impl Hold {
    /// Fails with `Busy` where all bodies together would be too many bytes.
    pub fn more(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        let before = self.held.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= self.held.limit {
            return Ok(());
        }
        let text = format!(
            "request bodies of more than {} bytes are being held; try again",
            self.held.limit
        );
        Err(Fault {
            retry_after_s: Some(1),
            ..Fault::new(Kind::Busy, text)
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
