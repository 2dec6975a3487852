//! A version's waiting line and its lanes: bounded, its own, and emptied by its own threads.
//!
//! Requests whose runs are known to be short are run by the thread that decoded them (`lead`): no thread is woken, and
//! what other requests of the same moment have queued meanwhile goes along in the same run. All others go to the
//! version's own threads, so that a slow model holds up nobody else. A lane that is idle takes what waits, at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::brake::{Brake, Ticket};
use super::costs::Costs;
use super::counters::Counters;
use super::desired::Limits;
use super::engine::{Engine, Runner};
use super::hub::Hub;
use super::job::Job;
use super::markers::Marker;
use crate::error::Result;
use crate::service::Statistics;

/// Requests of a shadow that may wait; more are dropped.
const SHADOWS: usize = 64;

/// A lane and what belongs to it. None: it has been lost to a panic, and could not be made anew.
pub struct Bay<L> {
    pub lane: Option<L>,
    pub brake: Arc<Brake>,
    pub marker: Marker,
}

pub struct Line<M: Engine> {
    pub engine: Arc<M>,
    pub model: Arc<str>,
    pub label: Arc<str>,
    pub bundle: Arc<str>,
    pub limits: Limits,
    pub hub: Arc<Hub>,
    pub counters: Counters,
    /// Of requests that it scored as a shadow.
    pub shadowed: Counters,
    pub costs: Costs,
    state: Mutex<State<M::Lane>>,
    wake: Condvar,
}

struct State<L> {
    waiting: VecDeque<Job>,
    shadows: VecDeque<Job>,
    bays: Vec<Bay<L>>,
    parked: usize,
    /// Something waits for a lane that nobody leads.
    stranded: bool,
    closed: bool,
}

/// Why a job did not come in.
pub enum Refused {
    Full,
    /// The version is on its way out.
    Closed,
}

/// What one run takes along.
pub struct Batch<L> {
    pub bay: Bay<L>,
    pub jobs: Vec<Job>,
    /// Those whose time was over before.
    pub late: Vec<Job>,
}

impl<L> Batch<L> {
    fn has(&self, ticket: &Ticket) -> bool {
        let mut jobs = self.jobs.iter().chain(&self.late);
        jobs.any(|job| std::ptr::eq(&*job.ticket, ticket))
    }
}

/// What a version is called and may take.
pub struct Naming {
    pub model: Arc<str>,
    pub label: Arc<str>,
    pub bundle: Arc<str>,
    pub limits: Limits,
}

impl<M: Engine> Line<M> {
    /// With lanes that have run the bundle's warm-up rows.
    pub fn new(engine: Arc<M>, naming: Naming, hub: Arc<Hub>) -> Result<Line<M>> {
        let Naming {
            model,
            label,
            bundle,
            limits,
        } = naming;
        let mut bays = Vec::with_capacity(limits.concurrency);
        for _ in 0..limits.concurrency {
            let marker = hub.markers.slot(&bundle);
            let mut lane = engine.lane()?;
            let running = marker.running();
            lane.warm_up()?;
            drop(running);
            let brake = Brake::new(lane.stopper());
            let lane = Some(lane);
            bays.push(Bay {
                lane,
                brake,
                marker,
            });
        }
        let state = Mutex::new(State {
            waiting: VecDeque::new(),
            shadows: VecDeque::new(),
            bays,
            parked: 0,
            stranded: false,
            closed: false,
        });
        Ok(Line {
            engine,
            model,
            label,
            bundle,
            limits,
            hub,
            counters: Counters::default(),
            shadowed: Counters::default(),
            costs: Costs::default(),
            state,
            wake: Condvar::new(),
        })
    }

    /// Queues a job. `leads`: its thread will call `lead` for it; else one of the version's threads is woken.
    pub fn submit(&self, job: Job, leads: bool) -> std::result::Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.waiting.len() >= self.limits.queue {
            return Err(Refused::Full);
        }
        state.waiting.push_back(job);
        if !leads {
            self.wake_one(&mut state);
        }
        Ok(())
    }

    /// Queues a shadow's job; false where it was dropped.
    pub fn submit_shadow(&self, job: Job) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.shadows.len() >= SHADOWS {
            return false;
        }
        state.shadows.push_back(job);
        self.wake_one(&mut state);
        true
    }

    /// Runs what waits, the job of `ticket` with it, in this thread, if a lane is idle and the job still waits.
    pub fn lead(&self, ticket: &Ticket) {
        let batch = {
            let mut state = self.state.lock();
            if !ticket.is_waiting() || state.waiting.is_empty() {
                return;
            }
            let most = self.costs.short_rows().max(1);
            let batch = self.take(&mut state, most);
            // This was its thread's one turn: what was taken came before it, and it still waits.
            if ticket.is_waiting() && !batch.as_ref().is_some_and(|batch| batch.has(ticket)) {
                state.stranded = true;
            }
            batch
        };
        if let Some(batch) = batch {
            self.give_back(self.run(batch, true));
        }
    }

    /// One of the version's threads: runs what waits until the line is closed and empty.
    pub fn work(&self) {
        loop {
            let batch = {
                let mut state = self.state.lock();
                loop {
                    if let Some(batch) = self.take(&mut state, self.limits.max_batch_rows) {
                        break batch;
                    }
                    // A run under way elsewhere may still come back to the line.
                    let all = state.bays.len() == self.limits.concurrency;
                    if state.closed && state.waiting.is_empty() && all {
                        return;
                    }
                    // Woken for something, but a door's thread was quicker to the lane: whoever gives it back wakes again.
                    if !state.waiting.is_empty() || !state.shadows.is_empty() {
                        state.stranded = true;
                    }
                    state.parked += 1;
                    self.wake.wait(&mut state);
                }
            };
            self.give_back(self.run(batch, false));
        }
    }

    /// No more jobs come in; what waits is still run.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.shadows.clear();
        state.parked = 0;
        self.wake.notify_all();
    }

    /// As the protocol tells it.
    pub fn statistics(&self) -> Statistics {
        self.counters.statistics(&self.model, &self.label)
    }

    /// Requests waiting now.
    pub fn depth(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Whether every lane is back.
    pub fn idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && state.bays.len() == self.limits.concurrency
    }

    /// Jobs whose run was ended come first again, for the version's threads.
    pub fn requeue(&self, jobs: Vec<Job>) {
        let mut state = self.state.lock();
        for job in jobs.into_iter().rev() {
            job.ticket.rejoin_queue();
            state.waiting.push_front(job);
        }
        state.stranded = true; // their lane is given back next
    }

    fn give_back(&self, bay: Bay<M::Lane>) {
        let mut state = self.state.lock();
        state.bays.push(bay);
        if state.closed {
            state.parked = 0;
            self.wake.notify_all();
        } else if std::mem::take(&mut state.stranded) {
            self.wake_one(&mut state);
        }
    }

    /// Wakes a thread of the version if there is a lane for it; else whoever gives one back does.
    fn wake_one(&self, state: &mut State<M::Lane>) {
        if state.bays.is_empty() {
            state.stranded = true;
        } else if state.parked > 0 {
            state.parked -= 1;
            self.wake.notify_one();
        }
    }

    /// An idle lane and the jobs for it: as many as wait, up to `most` rows, at least one.
    fn take(&self, state: &mut State<M::Lane>, most: usize) -> Option<Batch<M::Lane>> {
        let State {
            waiting,
            shadows,
            bays,
            ..
        } = state;
        let queue = if waiting.is_empty() { shadows } else { waiting };
        if queue.is_empty() {
            return None;
        }
        let bay = bays.pop()?;
        let most = if self.engine.batches() { most } else { 0 };
        let now = Instant::now();
        let (mut jobs, mut late, mut rows) = (vec![], vec![], 0);
        while let Some(next) = queue.front() {
            if !jobs.is_empty() && rows + next.rows > most {
                break;
            }
            let Some(job) = queue.pop_front() else { break };
            if job.is_late(now) || job.ticket.has_left() {
                late.push(job);
            } else {
                rows += job.rows;
                jobs.push(job);
            }
        }
        Some(Batch { bay, jobs, late })
    }
}
