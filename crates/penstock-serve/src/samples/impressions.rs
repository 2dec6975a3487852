//! Impressions: every answered row in a topic before its reply is sent, so that the closed loop misses none.
//!
//! What cannot be written (a full disk, a queue that is full) is counted and told, and the reply is sent all the same: a
//! host that stops answering costs more than rows that are not learnt from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use penstock_streams::{Ack, Appender, Fault, Log, Message, Options, Refused};

use super::Sample;
use super::lines::{id, write_rows};
use crate::fleet::ImpressionsSpec;

/// Keys and values that may wait for the disk.
const WAITING_BYTES: usize = 64 << 20;
/// Between complaints.
const QUIET: Duration = Duration::from_secs(10);

/// Sends the reply.
pub type Answer = Box<dyn FnOnce() + Send>;

pub struct Impressions {
    spec: ImpressionsSpec,
    shared: Arc<Shared>,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
    /// Writes what it has taken when it is dropped.
    appender: Appender,
}

#[derive(Default)]
struct Shared {
    written: AtomicU64,
    lost: AtomicU64,
    complaint: Mutex<Complaint>,
}

#[derive(Default)]
struct Complaint {
    why: Option<String>,
    told: Option<Instant>,
}

impl Shared {
    fn lose(&self, rows: u64, why: &str) {
        self.lost.fetch_add(rows, Ordering::Relaxed);
        self.complaint.lock().why.get_or_insert_with(|| why.into());
    }
}

/// A request whose rows are on their way.
struct Pending {
    left: AtomicUsize,
    answer: Mutex<Option<Answer>>,
}

impl Pending {
    fn done(&self, rows: usize) {
        if self.left.fetch_sub(rows, Ordering::AcqRel) == rows
            && let Some(answer) = self.answer.lock().take()
        {
            answer();
        }
    }
}

impl Impressions {
    /// Opens the topic; makes it where there is none.
    pub fn open(spec: &ImpressionsSpec) -> Result<Impressions, Fault> {
        let options = Options {
            segment_bytes: spec.segment_bytes,
            sync_every: spec.sync_ms.map(Duration::from_millis),
            retention_ms: spec.retention_ms,
            retention_bytes: spec.retention_bytes,
            lock_wait: Duration::from_millis(spec.lock_wait_ms),
        };
        let log = Arc::new(Log::open(&spec.path, spec.partitions, true, options)?);
        let ack = match spec.ack.as_str() {
            "synced" => Ack::Synced,
            _ => Ack::Written,
        };
        let appender = Appender::start(log.clone(), ack, WAITING_BYTES)?;
        let (stop, stopped) = channel();
        let every = Duration::from_millis(spec.tick_ms.max(1));
        let ticker = std::thread::Builder::new()
            .name("penstock-ticks".into())
            .spawn(move || tick(&log, every, &stopped))
            .map_err(|error| Fault::Setting(format!("starting a thread: {error}")))?;
        Ok(Impressions {
            spec: spec.clone(),
            shared: Arc::default(),
            ticker: Some((stop, ticker)),
            appender,
        })
    }

    pub fn spec(&self) -> &ImpressionsSpec {
        &self.spec
    }

    /// Appends a record for each row, and answers once all are written, or cannot be. Never waits. Nobody waits for an
    /// answer to a shadow's rows.
    pub fn offer(&self, sample: &Sample, mut answer: Option<Answer>) {
        if (self.spec.ack == "none" || sample.rows == 0)
            && let Some(answer) = answer.take()
        {
            answer();
        }
        let pending = Arc::new(Pending {
            left: AtomicUsize::new(sample.rows),
            answer: Mutex::new(answer),
        });
        let (mut buffer, mut ends) = (Vec::new(), Vec::with_capacity(sample.rows));
        write_rows(&mut buffer, sample, &self.spec.deny, |buffer| {
            ends.push(buffer.len());
        });
        let (now, mut start) = (now_ms(), 0);
        for (row, end) in ends.into_iter().enumerate() {
            let (shared, waiting) = (self.shared.clone(), pending.clone());
            let told = Box::new(move |written: Result<(usize, u64), Arc<Fault>>| {
                match written {
                    Ok(_) => {
                        shared.written.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(fault) => shared.lose(1, &fault.to_string()),
                }
                waiting.done(1);
            });
            let key = id(&sample.request, row).into_bytes();
            let value = buffer[start..end].to_vec();
            start = end;
            match self.appender.offer(Some(key), value, now, told) {
                Ok(()) => {}
                Err(Refused::TooLarge(fault)) => {
                    self.shared.lose(1, &fault.to_string());
                    pending.done(1);
                }
                Err(Refused::Full(_) | Refused::Closed(_)) => {
                    // Those behind it would find no more room.
                    let rest = sample.rows - row;
                    self.shared
                        .lose(rest as u64, "the disk does not keep up: the queue is full");
                    pending.done(rest);
                    return;
                }
            }
        }
    }

    /// Rows written, rows lost.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.shared.written.load(Ordering::Relaxed),
            self.shared.lost.load(Ordering::Relaxed),
        )
    }

    pub fn waiting_bytes(&self) -> usize {
        self.appender.waiting_bytes()
    }

    /// Why rows were lost since it was last asked; said now and then, however many are lost.
    pub fn complaint(&self) -> Option<String> {
        let mut complaint = self.shared.complaint.try_lock()?;
        if complaint.told.is_some_and(|told| told.elapsed() < QUIET) {
            return None;
        }
        let why = complaint.why.take()?;
        complaint.told = Some(Instant::now());
        Some(why)
    }
}

impl Drop for Impressions {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

/// Tells every partition what time it is, so that those who join need not wait for impressions. A tick that cannot be
/// written is the next one's.
fn tick(log: &Log, every: Duration, stopped: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
        let time_ms = now_ms();
        let value = format!("{{\"_tick_ms\":{time_ms}}}").into_bytes();
        for partition in 0..log.partitions().len() {
            let message = Message {
                key: None,
                value: &value,
                time_ms,
            };
            let _ = log.append(partition, &[message], Ack::Written);
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as i64
}
