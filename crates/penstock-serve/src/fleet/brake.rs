//! Ending a run that nobody waits for any more: its clients' deadlines have passed, or they have left.

use std::sync::Arc;

use parking_lot::Mutex;

use super::engine::Stop;

/// A lane's way to end the run under way, and no other: stopping and ending a run exclude each other.
pub struct Brake {
    stopper: Box<dyn Stop>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    run: u64,
    /// Requests of the run that somebody still waits for.
    waiting: usize,
    stopped: bool,
}

impl Brake {
    pub fn new(stopper: impl Stop) -> Arc<Brake> {
        Arc::new(Brake {
            stopper: Box::new(stopper),
            state: Mutex::default(),
        })
    }

    /// A run begins that so many requests wait for; its number.
    pub fn begin(&self, waiting: usize) -> u64 {
        let mut state = self.state.lock();
        state.run += 1;
        state.waiting = waiting;
        state.run
    }

    /// One request less waits for a run; the last one ends it.
    pub fn leave(&self, run: u64) {
        let mut state = self.state.lock();
        if state.run == run && state.waiting > 0 {
            state.waiting -= 1;
            if state.waiting == 0 {
                state.stopped = true;
                self.stopper.stop();
            }
        }
    }

    /// Ends a run although requests wait for it.
    pub fn stop(&self, run: u64) {
        let mut state = self.state.lock();
        if state.run == run && state.waiting > 0 {
            state.waiting = 0;
            state.stopped = true;
            self.stopper.stop();
        }
    }

    /// The run is over; whether it was ended from outside.
    pub fn end(&self) -> bool {
        let mut state = self.state.lock();
        state.run += 1;
        state.waiting = 0;
        let stopped = std::mem::take(&mut state.stopped);
        if stopped {
            self.stopper.reset();
        }
        stopped
    }
}

/// What a waiting client and its request's run share.
#[derive(Default)]
pub struct Ticket(Mutex<Place>);

#[derive(Default)]
enum Place {
    #[default]
    Waiting,
    Running(Arc<Brake>, u64),
    /// Nobody waits for it.
    Left,
}

impl Ticket {
    /// The request joins a run; false where nobody waits for it any more.
    pub fn join(&self, brake: &Arc<Brake>, run: u64) -> bool {
        let mut place = self.0.lock();
        if matches!(*place, Place::Left) {
            return false;
        }
        *place = Place::Running(brake.clone(), run);
        true
    }

    /// The request waits again.
    pub fn rejoin_queue(&self) {
        let mut place = self.0.lock();
        if matches!(*place, Place::Running(..)) {
            *place = Place::Waiting;
        }
    }

    pub fn has_left(&self) -> bool {
        matches!(*self.0.lock(), Place::Left)
    }

    pub fn is_waiting(&self) -> bool {
        matches!(*self.0.lock(), Place::Waiting)
    }

    pub fn leave(&self) {
        let was = std::mem::replace(&mut *self.0.lock(), Place::Left);
        if let Place::Running(brake, run) = was {
            brake.leave(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Clone, Default)]
    struct Flag(Arc<AtomicBool>);

    impl Stop for Flag {
        fn stop(&self) {
            self.0.store(true, Ordering::SeqCst);
        }

        fn reset(&self) {
            self.0.store(false, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_run_ends_when_its_last_client_leaves() {
        let flag = Flag::default();
        let brake = Brake::new(flag.clone());
        let run = brake.begin(2);
        let tickets = [Ticket::default(), Ticket::default()];
        assert!(tickets.iter().all(|t| t.join(&brake, run)));
        tickets[0].leave();
        assert!(!flag.0.load(Ordering::SeqCst));
        tickets[1].leave();
        assert!(flag.0.load(Ordering::SeqCst) && brake.end());
        assert!(
            !flag.0.load(Ordering::SeqCst),
            "the next run goes on as usual"
        );
    }

    #[test]
    fn who_leaves_late_does_not_end_the_next_run() {
        let flag = Flag::default();
        let brake = Brake::new(flag.clone());
        let ticket = Ticket::default();
        assert!(ticket.join(&brake, brake.begin(1)));
        assert!(!brake.end());
        brake.begin(1);
        ticket.leave();
        assert!(!flag.0.load(Ordering::SeqCst) && ticket.has_left());
        assert!(!ticket.join(&brake, 3));
    }
}
