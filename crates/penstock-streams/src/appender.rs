//! A queue before a log, for many threads that append single records: what waits together is written, and synced, together.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::fault::{Fault, Result};
use crate::frame::Message;
use crate::log::{Log, partition_of};
use crate::partition::Ack;
use crate::segment::MOST_BATCH;

/// Bytes of a record in the queue beside its frame.
const OVERHEAD: usize = 96;

/// Where a record went, or why not; told by the appender's own thread, which must not wait.
pub type Appended = Box<dyn FnOnce(std::result::Result<(usize, u64), Arc<Fault>>) + Send>;

/// Why a record was not taken, and the call that was not made.
pub enum Refused {
    /// No room: what was taken before must be written first.
    Full(Appended),
    Closed(Appended),
    TooLarge(Fault),
}

struct Waiting {
    partition: usize,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    time_ms: i64,
    done: Appended,
}

impl Waiting {
    fn message(&self) -> Message<'_> {
        Message {
            key: self.key.as_deref(),
            value: &self.value,
            time_ms: self.time_ms,
        }
    }

    fn size(&self) -> usize {
        self.message().size() + OVERHEAD
    }
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    bytes: usize,
    keyless: usize,
    closed: bool,
}

/// Dropped, it writes what it has taken first.
pub struct Appender {
    log: Arc<Log>,
    shared: Arc<(Mutex<Queue>, Condvar)>,
    most_bytes: usize,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Appender {
    /// `most_bytes`: what may wait, of keys, values and some more a record.
    pub fn start(log: Arc<Log>, ack: Ack, most_bytes: usize) -> Result<Appender> {
        let shared = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let (theirs, written) = (shared.clone(), log.clone());
        let thread = std::thread::Builder::new()
            .name("penstock-appender".into())
            .spawn(move || work(&written, &theirs, ack))
            .map_err(|error| {
                Fault::io(log.path().display().to_string(), "starting a thread", error)
            })?;
        Ok(Appender {
            log,
            shared,
            most_bytes,
            thread: Some(thread),
        })
    }

    /// Takes the record if there is room for it; never waits. Records of a key go to one partition, in the order of their
    /// offers; those without go to each in turn.
    pub fn offer(
        &self,
        key: Option<Vec<u8>>,
        value: Vec<u8>,
        time_ms: i64,
        done: Appended,
    ) -> std::result::Result<(), Refused> {
        let mut one = Waiting {
            partition: 0,
            key,
            value,
            time_ms,
            done,
        };
        one.message().check().map_err(Refused::TooLarge)?;
        let size = one.size();
        let partitions = self.log.partitions().len();
        let (queue, some) = &*self.shared;
        let mut queue = lock(queue);
        if queue.closed {
            return Err(Refused::Closed(one.done));
        }
        if queue.bytes + size > self.most_bytes {
            return Err(Refused::Full(one.done));
        }
        one.partition = match &one.key {
            Some(key) => partition_of(key, partitions),
            None => {
                queue.keyless = (queue.keyless + 1) % partitions;
                queue.keyless
            }
        };
        queue.bytes += size;
        queue.waiting.push(one);
        drop(queue);
        some.notify_one();
        Ok(())
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        lock(&self.shared.0).bytes
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        let (queue, some) = &*self.shared;
        lock(queue).closed = true;
        some.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(log: &Log, (queue, some): &(Mutex<Queue>, Condvar), ack: Ack) {
    loop {
        let (waiting, closed) = {
            let idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.closed;
            let woken = some.wait_while(lock(queue), idle);
            let mut queue = woken.unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut queue.waiting), queue.closed)
        };
        if waiting.is_empty() && closed {
            return;
        }
        let taken: usize = waiting.iter().map(Waiting::size).sum();
        let mut parts: Vec<Vec<Waiting>> = Vec::new();
        parts.resize_with(log.partitions().len(), Vec::new);
        for one in waiting {
            parts[one.partition].push(one);
        }
        for (partition, mut part) in parts.into_iter().enumerate() {
            while !part.is_empty() {
                let mut bytes = 0;
                let fits = part.iter().take_while(|one| {
                    bytes += one.size();
                    bytes <= MOST_BATCH
                });
                let count = fits.count().max(1);
                let rest = part.split_off(count);
                write(log, partition, std::mem::replace(&mut part, rest), ack);
            }
        }
        lock(queue).bytes -= taken;
    }
}

fn write(log: &Log, partition: usize, part: Vec<Waiting>, ack: Ack) {
    let messages: Vec<Message<'_>> = part.iter().map(Waiting::message).collect();
    let written = log.append(partition, &messages, ack).map_err(Arc::new);
    for (number, one) in part.into_iter().enumerate() {
        let told = match &written {
            Ok(offsets) => Ok((partition, offsets.start + number as u64)),
            Err(fault) => Err(fault.clone()),
        };
        (one.done)(told);
    }
}
