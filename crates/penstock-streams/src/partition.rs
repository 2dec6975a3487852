//! One partition: a writer that its threads share, one sync for all who wait for one, positions, readers.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use penstock_disk::Disk;

use crate::fault::{Fault, Result};
use crate::frame::Message;
use crate::groups;
use crate::options::Options;
use crate::reader::Reader;
use crate::segment::{name, numbers};
use crate::writer::{Syncing, Writer};

const GROUPS_LOCK: &str = "groups-lock";

/// What an append has seen done when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Given to the system: a killed process loses nothing, a machine without power what was not synced yet.
    Written,
    /// On the disk.
    Synced,
}

pub struct Partition {
    disk: Arc<dyn Disk>,
    label: Arc<str>,
    options: Options,
    // Locks are taken in this order.
    writer: Mutex<Option<Writer>>,
    synced: Mutex<Synced>,
    sync_over: Condvar,
    end: Mutex<Reader>,
}

/// Offsets as this process knows them.
#[derive(Default)]
struct Synced {
    /// After the last record it wrote.
    written: u64,
    /// All before lasts.
    until: u64,
    /// A sync failed: what was written before here, and is not before `until`, is in doubt for good.
    doubtful: u64,
    running: bool,
    file: Option<Syncing>,
    /// Of a sync that nobody waited for.
    failure: Option<Fault>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Partition {
    /// `label` says in messages where it is.
    pub fn new(disk: Arc<dyn Disk>, label: &str, options: Options) -> Partition {
        let label: Arc<str> = label.into();
        Partition {
            end: Mutex::new(Reader::new(disk.clone(), label.clone(), 0)),
            writer: Mutex::new(None),
            synced: Mutex::default(),
            sync_over: Condvar::new(),
            disk,
            label,
            options,
        }
    }

    /// Appends in order, one after the other, and says at which offsets. An error acknowledges none, though some first
    /// part may be read; a failed sync of earlier records that nobody waited for is also said here, before anything is
    /// written.
    pub fn append(&self, messages: &[Message<'_>], ack: Ack) -> Result<Range<u64>> {
        if messages.is_empty() {
            let end = self.end()?;
            return Ok(end..end);
        }
        let mut writer = lock(&self.writer);
        let known = {
            let mut synced = lock(&self.synced);
            if let Some(failure) = synced.failure.take() {
                return Err(failure);
            }
            synced.until
        };
        if writer.is_none() {
            let opened = Writer::open(self.disk.clone(), self.label.clone(), self.options)?;
            *writer = Some(opened);
        }
        let written = writer.as_mut().expect("open").append(messages, known)?;
        {
            let mut synced = lock(&self.synced);
            synced.written = written.next;
            synced.file = Some(written.syncing);
            synced.until = synced.until.max(written.synced.unwrap_or(0));
        }
        drop(writer);
        if ack == Ack::Synced {
            self.sync_until(written.next)?;
        }
        Ok(written.first..written.next)
    }

    /// Whether this process wrote what is not synced yet.
    pub(crate) fn is_dirty(&self) -> bool {
        let synced = lock(&self.synced);
        synced.written > synced.until.max(synced.doubtful)
    }

    /// Makes lasting what this process has appended.
    pub fn sync(&self) -> Result<()> {
        let written = lock(&self.synced).written;
        self.sync_until(written)
    }

    /// As `sync`; what goes wrong is said by the next append.
    pub(crate) fn sync_unattended(&self) {
        if let Err(failure) = self.sync() {
            lock(&self.synced).failure = Some(failure);
        }
    }

    /// One of those who wait syncs for all that has been written by then.
    fn sync_until(&self, target: u64) -> Result<()> {
        let mut synced = lock(&self.synced);
        loop {
            if synced.until >= target {
                return Ok(());
            }
            if synced.doubtful >= target {
                let error = io::Error::other("the sync that it was part of failed");
                return Err(self.not_synced(error));
            }
            if !synced.running {
                break;
            }
            let waited = self.sync_over.wait(synced);
            synced = waited.unwrap_or_else(PoisonError::into_inner);
        }
        synced.running = true;
        let (file, written) = (synced.file.clone(), synced.written);
        drop(synced);
        let done = file.map_or(Ok(()), |file| lock(&file).sync());
        let mut synced = lock(&self.synced);
        synced.running = false;
        match &done {
            Ok(()) => synced.until = synced.until.max(written),
            Err(_) => synced.doubtful = synced.doubtful.max(written),
        }
        drop(synced);
        self.sync_over.notify_all();
        done.map_err(|error| {
            // A system forgets what it could not write: later syncs of that file would say nothing of it.
            if let Some(writer) = lock(&self.writer).as_mut() {
                writer.turn();
            }
            self.not_synced(error)
        })
    }

    fn not_synced(&self, error: io::Error) -> Fault {
        let file = self.label.to_string();
        Fault::NotSynced { file, error }
    }

    /// The offset of the oldest record.
    pub fn start(&self) -> Result<u64> {
        lock(&self.end).start()
    }

    /// The offset that the next record will have.
    pub fn end(&self) -> Result<u64> {
        lock(&self.end).end()
    }

    /// The offset of the first record whose time is `time_ms` or later; the end if there is none.
    pub fn at_time(&self, time_ms: i64) -> Result<u64> {
        self.reader(0).at_time(time_ms)
    }

    /// Reads from `offset` on.
    pub fn reader(&self, offset: u64) -> Reader {
        Reader::new(self.disk.clone(), self.label.clone(), offset)
    }

    /// Removes segments whose records are all before `before`; some of those records may stay. Returns how many segments.
    pub fn trim(&self, before: u64) -> Result<usize> {
        let mut writer = lock(&self.writer);
        if writer.is_none() {
            let opened = Writer::open(self.disk.clone(), self.label.clone(), self.options)?;
            *writer = Some(opened);
        }
        writer.as_mut().expect("open").trim(before)
    }

    /// Stores that `group` has come to `offset`, lasting, and so all before it.
    pub fn commit(&self, group: &str, offset: u64) -> Result<()> {
        groups::check(group)?;
        self.make_lasting(offset)?;
        let file = || format!("{}/{GROUPS_LOCK}", self.label);
        let taking = |error| Fault::io(file(), "taking it", error);
        let mut held = self.disk.lock(GROUPS_LOCK).map_err(taking)?;
        let started = std::time::Instant::now();
        while !held.try_take().map_err(taking)? {
            let waited = started.elapsed();
            if waited >= self.options.lock_wait {
                let (file, waited_ms) = (file(), waited.as_millis() as u64);
                return Err(Fault::Locked { file, waited_ms });
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let stored = groups::store(&*self.disk, &self.label, group, offset);
        let _ = held.release();
        stored
    }

    /// Whoever read before the power went must not have come further than what is there after it.
    fn make_lasting(&self, offset: u64) -> Result<()> {
        let end = self.end()?;
        if offset > end {
            return Err(Fault::Beyond {
                file: self.label.to_string(),
                asked: offset,
                end,
            });
        }
        if lock(&self.synced).until >= offset {
            return Ok(());
        }
        let numbers = numbers(&*self.disk, &self.label)?;
        let Some(&last) = numbers.last() else {
            return Ok(());
        };
        let sync = || {
            self.disk.extend(&name(last))?.sync()?;
            self.disk.sync_folder()
        };
        sync().map_err(|error| self.not_synced(error))
    }

    /// Where `group` has come to, if it has stored that.
    pub fn committed(&self, group: &str) -> Result<Option<u64>> {
        groups::check(group)?;
        groups::load(&*self.disk, &self.label, group)
    }

    /// The groups that stored positions, by name.
    pub fn groups(&self) -> Result<Vec<String>> {
        groups::names(&*self.disk, &self.label)
    }

    pub fn forget(&self, group: &str) -> Result<()> {
        groups::check(group)?;
        groups::forget(&*self.disk, &self.label, group)
    }

    /// Segments and their bytes.
    pub fn size(&self) -> Result<(usize, u64)> {
        let numbers = numbers(&*self.disk, &self.label)?;
        let bytes = |&number: &u64| self.disk.open(&name(number)).map_or(0, |file| file.bytes());
        Ok((numbers.len(), numbers.iter().map(bytes).sum()))
    }
}
