//! One run: several requests through a lane, each to its own end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::brake::Brake;
use super::counters::End;
use super::engine::{Engine, Runner};
use super::guards::Outcome;
use super::job::{Job, Origin, late, pick, scores};
use super::line::{Batch, Bay, Line};
use crate::error::{Fault, Kind, Result};
use crate::model::{Call, Position};
use crate::samples::{Answer, Sample};
use crate::service::{Reply, Timings};
use crate::tensor::Tensor;

type Outputs = Result<Vec<Tensor>>;

impl<M: Engine> Line<M> {
    /// Runs a batch and answers its requests; the lane comes back. `leading`: in a door's thread, which must not be held
    /// for long; where it is, the run is ended and its requests wait for the version's own threads.
    pub fn run(&self, batch: Batch<M::Lane>, leading: bool) -> Bay<M::Lane> {
        let Batch {
            mut bay,
            mut jobs,
            late: over,
        } = batch;
        over.into_iter().for_each(|job| self.gave_up(job));
        // One more than there are requests, so that the run cannot end while they join it.
        let run = bay.brake.begin(jobs.len() + 1);
        let left: Vec<Job> = jobs
            .extract_if(.., |job| !job.ticket.join(&bay.brake, run))
            .collect();
        for job in left {
            bay.brake.leave(run);
            self.gave_up(job);
        }
        if jobs.is_empty() {
            bay.brake.end();
            return bay;
        }
        bay.brake.leave(run);
        let started = Instant::now();
        let watched = leading.then(|| self.hub.watchdog.enter(&bay.brake, run, started));
        let brake = bay.brake.clone();
        let (results, timings) = self.score(&mut bay, &jobs);
        let position = bay.lane.as_ref().and_then(Runner::position);
        let took = started.elapsed();
        let too_long = watched.is_some_and(|number| self.hub.watchdog.leave(number));
        brake.end();
        let rows = jobs.iter().map(|job| job.rows).sum();
        self.costs.saw(rows, took);
        if too_long
            && results
                .iter()
                .any(|r| matches!(r, Err(fault) if fault.kind == Kind::Late))
        {
            self.requeue(jobs);
            return bay;
        }
        let counters = if jobs[0].origin == Origin::Shadow {
            &self.shadowed
        } else {
            &self.counters
        };
        counters.ran(rows, took);
        for (job, result) in jobs.into_iter().zip(results) {
            let queue = started.saturating_duration_since(job.queued);
            let timings = Timings { queue, ..timings };
            self.finish(job, result, timings, (rows, took), position);
        }
        bay
    }

    /// The lane's own run, with what may go wrong in it caught. A result for each job.
    fn score(&self, bay: &mut Bay<M::Lane>, jobs: &[Job]) -> (Vec<Outputs>, Timings) {
        let failed = |fault: Fault| (vec![Err(fault); jobs.len()], Timings::default());
        if bay.lane.is_none()
            && let Err(fault) = self.renew(bay)
        {
            return failed(fault);
        }
        let Some(lane) = &mut bay.lane else {
            return failed(Fault::internal("its lane is lost"));
        };
        let done = {
            let _running = bay.marker.running();
            // A lane whose run panicked is never used again.
            catch_unwind(AssertUnwindSafe(|| match jobs {
                [job] => lane.run(&[call_of(job)]),
                jobs => lane.run(&jobs.iter().map(call_of).collect::<Vec<_>>()),
            }))
        };
        match done {
            Ok((results, timings)) if results.len() == jobs.len() => (results, timings),
            Ok((results, _)) => {
                let said = format!("{} results for {} requests", results.len(), jobs.len());
                failed(Fault::internal(said))
            }
            Err(panic) => {
                let said = panic_text(&*panic);
                self.hub
                    .events
                    .tell("panic", &self.model, &self.label, &self.bundle, &said);
                let lane = bay.lane.take();
                let _ = catch_unwind(AssertUnwindSafe(|| drop(lane)));
                if let Err(fault) = self.renew(bay) {
                    let why = &fault.message;
                    self.hub
                        .events
                        .tell("lane_lost", &self.model, &self.label, &self.bundle, why);
                }
                let model = &self.model;
                failed(Fault::internal(format!("model '{model}' panicked: {said}")))
            }
        }
    }

    /// A new lane in the place of one that is lost.
    fn renew(&self, bay: &mut Bay<M::Lane>) -> Result<()> {
        let made = catch_unwind(AssertUnwindSafe(|| self.engine.lane()));
        let lane = made.unwrap_or_else(|panic| Err(Fault::internal(panic_text(&*panic))))?;
        bay.brake = Brake::new(lane.stopper());
        bay.lane = Some(lane);
        Ok(())
    }

    /// A request that nobody waits for any more, or whose time was over before it ran.
    fn gave_up(&self, job: Job) {
        if job.origin == Origin::Shadow {
            return;
        }
        let waited = job.request.arrived.elapsed();
        let end = if job.is_late(Instant::now()) {
            End::Late
        } else {
            End::Gone
        };
        self.counters.ended(end, waited);
        if let Some(reply) = job.reply {
            let _ = reply.send(Err(late(waited)));
        }
    }

    /// Counts, tells the guards, keeps a sample, replies: once the impressions are written, where they are wanted.
    fn finish(
        &self,
        job: Job,
        result: Outputs,
        timings: Timings,
        whole: (usize, Duration),
        position: Option<Position>,
    ) {
        let request = &job.request;
        let counters = if job.origin == Origin::Shadow {
            &self.shadowed
        } else {
            &self.counters
        };
        let end = match &result {
            Ok(_) => End::Ok,
            Err(fault) if fault.kind == Kind::Late && !job.is_late(Instant::now()) => End::Gone,
            Err(fault) => End::of(fault.kind),
        };
        counters.ended(end, request.arrived.elapsed());
        let samples = self.hub.samples.load();
        let impressions = self.hub.impressions.load();
        let scored = match &result {
            Ok(outputs) => {
                counters.answered(job.rows, request.decoded_in, &timings);
                let needed = !job.watches.is_empty() || samples.is_some() || impressions.is_some();
                if needed {
                    scores(outputs, job.rows)
                } else {
                    vec![]
                }
            }
            Err(_) => vec![],
        };
        let outcome = match end {
            End::Ok => Outcome::Answered,
            End::Failed => Outcome::Failed,
            End::Late => Outcome::Stopped,
            End::Client | End::Busy | End::Gone => Outcome::Neither,
        };
        for watch in &job.watches {
            watch.count(
                job.side,
                outcome,
                whole.0,
                whole.1,
                &scored,
                &self.hub.events,
            );
        }
        let wanted = end == End::Ok && (samples.is_some() || impressions.is_some());
        let sample = wanted.then(|| Sample {
            request: job.request.clone(),
            rows: job.rows,
            version: self.label.clone(),
            bundle: self.bundle.clone(),
            shadow: job.origin == Origin::Shadow,
            scores: scored,
        });
        let answer = job.reply.map(|reply| {
            let replied = result.map(|outputs| Reply {
                model: self.model.to_string(),
                version: self.label.clone(),
                bundle: self.bundle.clone(),
                outputs: pick(outputs, &request.wanted),
                timings,
                position,
            });
            Box::new(move || {
                let _ = reply.send(replied);
            }) as Answer
        });
        match (&*impressions, &sample) {
            (Some(impressions), Some(sample)) => {
                impressions.offer(sample, answer);
                if let Some(why) = impressions.complaint() {
                    let events = &self.hub.events;
                    events.tell(
                        "impressions_lost",
                        &self.model,
                        &self.label,
                        &self.bundle,
                        &why,
                    );
                }
            }
            _ => answer.into_iter().for_each(|answer| answer()),
        }
        if let (Some(samples), Some(sample)) = (&*samples, sample) {
            samples.offer(sample);
        }
    }
}

fn call_of(job: &Job) -> Call<'_> {
    let request = &job.request;
    Call {
        tensors: &request.tensors,
        broadcast: &request.broadcast,
    }
}

pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a word".to_owned())
}
