//! The sample log: what was asked and what was answered, a row a line, for the closed loop to learn from.
//!
//! In: answered requests, offered without ever waiting. Out: a file of JSON lines that only its owner reads (0600):
//! `{"id","time","time_ms","model","version","bundle","request","row","shadow","features":{...},"score"}`. Null features are `null`.
//! `impressions.rs` appends the same objects to a topic, unsampled, before the reply is sent.
//! What comes faster than the rate, than the file, or finds a full disk is dropped and counted.

mod impressions;
mod lines;
mod rate;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::fleet::SamplesSpec;
use crate::service::Request;
pub use impressions::{Answer, Impressions};
use lines::write_lines;
use rate::Rate;

/// Requests that may wait for the file.
const WAITING: usize = 1024;
/// How long written lines may lie in memory.
const FLUSHES: Duration = Duration::from_millis(500);
const BUFFER_BYTES: usize = 256 << 10;

/// A request and its answer.
pub struct Sample {
    pub request: Arc<Request>,
    pub rows: usize,
    pub version: Arc<str>,
    pub bundle: Arc<str>,
    pub shadow: bool,
    pub scores: Vec<f32>,
}

pub struct Samples {
    spec: SamplesSpec,
    rate: Mutex<Rate>,
    queue: Option<Sender<Sample>>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
}

impl Samples {
    /// Opens the file to add to it; makes it, 0600, where there is none.
    pub fn open(spec: &SamplesSpec) -> io::Result<Samples> {
        let file = open(&spec.path)?;
        let counts = Arc::new(Counts::default());
        let (queue, samples) = bounded(WAITING);
        let writer = Writer {
            spec: spec.clone(),
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            rows: 0,
            counts: counts.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("penstock-samples".into())
            .spawn(move || writer.work(&samples))?;
        Ok(Samples {
            spec: spec.clone(),
            rate: Mutex::new(Rate::new(spec.rows_per_s)),
            queue: Some(queue),
            thread: Some(thread),
            counts,
        })
    }

    pub fn spec(&self) -> &SamplesSpec {
        &self.spec
    }

    /// Takes the sample if there is room and rate for it; never waits. What the rate leaves out is not lost: nobody asked
    /// for it.
    pub fn offer(&self, sample: Sample) {
        if !self.rate.lock().take(sample.rows, Instant::now()) {
            return;
        }
        let rows = sample.rows as u64;
        let refused = self
            .queue
            .as_ref()
            .is_none_or(|queue| queue.try_send(sample).is_err());
        if refused {
            self.counts.lost.fetch_add(rows, Relaxed);
        }
    }

    /// Rows written, rows lost.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.counts.written.load(Relaxed),
            self.counts.lost.load(Relaxed),
        )
    }
}

impl Drop for Samples {
    /// What was taken is written.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    spec: SamplesSpec,
    file: File,
    buffer: Vec<u8>,
    /// In the buffer.
    rows: u64,
    counts: Arc<Counts>,
}

impl Writer {
    fn work(mut self, samples: &Receiver<Sample>) {
        let mut flushed = Instant::now();
        loop {
            let next = samples.recv_timeout(FLUSHES);
            if let Ok(sample) = &next {
                write_lines(&mut self.buffer, sample, &self.spec.deny);
                self.rows += sample.rows as u64;
            }
            let over = matches!(next, Err(RecvTimeoutError::Disconnected));
            if over || self.buffer.len() >= BUFFER_BYTES || flushed.elapsed() >= FLUSHES {
                self.flush();
                flushed = Instant::now();
            }
            if over {
                return;
            }
        }
    }

    /// Whole lines or nothing: what a full disk cut off is taken back.
    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self.follow_rotation().and_then(|()| {
            let before = self.file.metadata()?.len();
            self.file.write_all(&self.buffer).inspect_err(|_| {
                let _ = self.file.set_len(before);
            })
        });
        let count = if written.is_ok() {
            &self.counts.written
        } else {
            &self.counts.lost
        };
        count.fetch_add(self.rows, Relaxed);
        self.buffer.clear();
        self.rows = 0;
    }

    /// Somebody may have moved the file away: then a new one is begun.
    fn follow_rotation(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        let there = std::fs::metadata(&self.spec.path);
        let same = there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if !same {
            self.file = open(&self.spec.path)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
