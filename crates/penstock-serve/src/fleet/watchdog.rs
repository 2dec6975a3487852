//! Ends runs that were expected to be short, and hold a door's thread for too long: they are run again by the version's
//! own threads.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::brake::Brake;

/// Twenty times what is called short.
const TOO_LONG: Duration = Duration::from_millis(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// After so long without any such run it sleeps until the next.
const LINGERS: Duration = Duration::from_secs(1);

pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    runs: Vec<Watched>,
    entered: u64,
    asleep: bool,
    over: bool,
}

struct Watched {
    number: u64,
    since: Instant,
    brake: Arc<Brake>,
    run: u64,
    stopped: bool,
}

impl Watchdog {
    pub fn start() -> Watchdog {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("penstock-watchdog".into())
            .spawn(move || theirs.watch())
            .ok();
        Watchdog {
            shared,
            thread: Mutex::new(thread),
        }
    }

    /// A run begins in a door's thread.
    pub fn enter(&self, brake: &Arc<Brake>, run: u64, since: Instant) -> u64 {
        let mut state = self.shared.state.lock();
        state.entered += 1;
        let number = state.entered;
        state.runs.push(Watched {
            number,
            since,
            brake: brake.clone(),
            run,
            stopped: false,
        });
        if state.asleep {
            state.asleep = false;
            self.shared.wake.notify_one();
        }
        number
    }

    /// The run is over; whether it was ended from here.
    pub fn leave(&self, number: u64) -> bool {
        let mut state = self.shared.state.lock();
        let at = state.runs.iter().position(|run| run.number == number);
        at.is_some_and(|at| state.runs.swap_remove(at).stopped)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.state.lock().over = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn watch(&self) {
        let mut state = self.state.lock();
        let (mut seen, mut busy) = (0, Instant::now());
        while !state.over {
            if state.entered != seen || !state.runs.is_empty() {
                (seen, busy) = (state.entered, Instant::now());
            }
            if busy.elapsed() > LINGERS {
                state.asleep = true;
                self.wake.wait(&mut state);
                busy = Instant::now();
                continue;
            }
            self.wake.wait_for(&mut state, BETWEEN_LOOKS);
            for run in &mut state.runs {
                if !run.stopped && run.since.elapsed() > TOO_LONG {
                    run.stopped = true;
                    run.brake.stop(run.run);
                }
            }
        }
    }
}
