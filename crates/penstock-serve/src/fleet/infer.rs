//! A request's way through the fleet: routed, queued, run where that is cheapest, answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Fleet;
use super::brake::Ticket;
use super::counters::End;
use super::engine::Engine;
use super::entry::Route;
use super::job::{Job, Origin, late};
use super::line::{Line, Refused};
use crate::error::{Fault, Kind, Result};
use crate::model::Call;
use crate::service::{Reply, Request};

/// How often a request is routed anew because its version left in that very moment.
const ROUTES: usize = 16;

/// Leaves the request when its client does, or its deadline passes.
struct Waits(Arc<Ticket>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl<M: Engine> Fleet<M> {
    pub(super) async fn answer(&self, mut request: Request) -> Result<Reply> {
        let entry = self.entry(&request.model)?;
        if let Some(views) = &entry.views {
            let speaker = match &request.version {
                Some(label) => entry.version(label)?,
                None => entry.speaker()?,
            };
            let inputs = speaker.line.engine.signature().inputs.clone();
            views.add(&mut request, &inputs).await?;
        }
        drop(entry);
        let request = Arc::new(request);
        for _ in 0..ROUTES {
            let route = self.entry(&request.model)?.route(&request)?;
            if let Some(answer) = through(&request, route).await {
                return answer;
            }
        }
        Err(Fault {
            retry_after_s: Some(1),
            ..Fault::new(
                Kind::Unavailable,
                format!("model '{}' is being replaced", request.model),
            )
        })
    }
}

/// Through one version. None: it takes no more requests.
async fn through<M: Engine>(request: &Arc<Request>, route: Route<M>) -> Option<Result<Reply>> {
    let line = route.version.line.clone();
    let rows = match checked(&line, request) {
        Ok(rows) => rows,
        Err(fault) => {
            line.counters
                .ended(End::of(fault.kind), request.arrived.elapsed());
            return Some(Err(fault));
        }
    };
    let timeout = Duration::from_millis(line.limits.timeout_ms);
    let own = (!timeout.is_zero()).then(|| request.arrived + timeout);
    let deadline = request.deadline.into_iter().chain(own).min();
    let waits = Waits(Arc::default());
    let (reply, answer) = oneshot::channel();
    let job = Job {
        request: request.clone(),
        rows,
        origin: if route.dealt {
            Origin::Dealt
        } else {
            Origin::Named
        },
        deadline,
        queued: Instant::now(),
        ticket: waits.0.clone(),
        watches: route.watches,
        side: route.side,
        reply: Some(reply),
    };
    let leads = rows <= line.costs.short_rows();
    match line.submit(job, leads) {
        Ok(()) => {}
        Err(Refused::Closed) => return None,
        Err(Refused::Full) => {
            line.counters.ended(End::Busy, request.arrived.elapsed());
            let said = format!(
                "{} requests wait for model '{}' already",
                line.limits.queue, line.model
            );
            let retry_after_s = Some(1);
            return Some(Err(Fault {
                retry_after_s,
                ..Fault::new(Kind::Busy, said)
            }));
        }
    }
    for shadow in &route.shadows {
        shadow_of(&shadow.line, request);
    }
    drop((route.version, route.shadows));
    if leads {
        // What other connections have sent meanwhile is decoded first, and goes along.
        tokio::task::yield_now().await;
        line.lead(&waits.0);
    }
    drop(line);
    Some(awaited(answer, deadline, request).await)
}

async fn awaited(
    mut answer: oneshot::Receiver<Result<Reply>>,
    deadline: Option<Instant>,
    request: &Request,
) -> Result<Reply> {
    let gone = |_| Err(Fault::internal("its version ended without an answer"));
    if let Ok(answer) = answer.try_recv() {
        return answer;
    }
    match deadline {
        None => answer.await.unwrap_or_else(gone),
        Some(at) => match tokio::time::timeout_at(at.into(), answer).await {
            Ok(answer) => answer.unwrap_or_else(gone),
            Err(_) => Err(late(request.arrived.elapsed())),
        },
    }
}

/// The rows of a request whose names are all known.
fn checked<M: Engine>(line: &Line<M>, request: &Request) -> Result<usize> {
    let outputs = &line.engine.signature().outputs;
    let unknown =
        (request.wanted.iter()).find(|name| outputs.iter().all(|output| output.name != **name));
    if let Some(name) = unknown {
        return Err(Fault::invalid(format!(
            "model '{}' has no output '{name}'",
            line.model
        )));
    }
    line.engine.rows(Call {
        tensors: &request.tensors,
        broadcast: &request.broadcast,
    })
}

/// The same request for a version whose answer nobody waits for.
fn shadow_of<M: Engine>(line: &Line<M>, request: &Arc<Request>) {
    let call = Call {
        tensors: &request.tensors,
        broadcast: &request.broadcast,
    };
    let Ok(rows) = line.engine.rows(call) else {
        line.shadowed.ended(End::Client, Duration::ZERO);
        return;
    };
    let taken = line.submit_shadow(Job {
        request: request.clone(),
        rows,
        origin: Origin::Shadow,
        deadline: None,
        queued: Instant::now(),
        ticket: Arc::default(),
        watches: vec![],
        side: super::guards::Side::Live,
        reply: None,
    });
    if !taken {
        line.shadowed.ended(End::Busy, Duration::ZERO);
    }
}
