//! Verifies a version's mapped rows in the background: all of them soon after it was loaded, then on and on, slowly. In
//! between it brings them into memory on huge pages, where they may take so much.
//! What is damaged is told to the control side once; look-ups that meet it fail until the version has been replaced.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::line::Line;

/// The first pass works so long, then leaves the processor to requests for as long.
const AT_ONCE: Duration = Duration::from_micros(500);
/// Between two blocks of later passes: a gigabyte takes the better part of an hour.
const LATER: Duration = Duration::from_millis(20);
/// After so many of them it looks whether there are rows to bring near: those of a newer base.
const LOOK: u32 = 256;

pub struct Scrubber {
    /// Hanging up ends the thread.
    ends: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    /// None where nothing is mapped, or where there is no thread for it: then look-ups verify what they touch.
    pub fn start<M: Engine>(line: &Arc<Line<M>>) -> Option<Scrubber> {
        let mut cursor = 0;
        if let Ok(None) = line.engine.scrub(&mut cursor) {
            return None;
        }
        let line = line.clone();
        let (ends, ended) = channel();
        let over = move |pause| ended.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
        let thread = std::thread::Builder::new()
            .name("penstock-scrub".into())
            .spawn(move || {
                if let Err(why) = scrub(&*line.engine, line.limits.rows_bytes, over) {
                    let events = &line.hub.events;
                    events.tell("damaged", &line.model, &line.label, &line.bundle, &why);
                }
            });
        Some(Scrubber {
            ends: Some(ends),
            thread: Some(thread.ok()?),
        })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.ends = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Until it is over, or something is damaged: then it says what.
fn scrub<M: Engine>(
    engine: &M,
    most: Option<u64>,
    over: impl Fn(Duration) -> bool,
) -> Result<(), String> {
    let (mut cursor, mut first, mut turns) = (0, true, 0);
    loop {
        let began = Instant::now();
        while engine.scrub(&mut cursor).map_err(|fault| fault.message)? != Some(true) {
            if !first || began.elapsed() > AT_ONCE {
                break;
            }
        }
        first &= cursor != 0;
        if over(if first { AT_ONCE } else { LATER }) {
            return Ok(());
        }
        if !first && turns % LOOK == 0 {
            let mut nearing = engine.nearing(most);
            while let Some(under_way) = nearing {
                nearing = under_way.step();
                if over(AT_ONCE) {
                    return Ok(());
                }
            }
        }
        turns += u32::from(!first);
    }
}
