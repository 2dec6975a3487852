//! Appends to a partition that others append to as well: lock it, look what they did, write, let go.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use penstock_disk::{Disk, Lock, Unfinished};

use crate::cursor::{Cursor, Stop};
use crate::fault::{Fault, Result};
use crate::frame::Message;
use crate::options::Options;
use crate::segment::{HEAD, Header, MOST_BATCH, all_numbers, is_followed, name, numbers};

/// Pauses between looks at a lock that others hold.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(2));
/// A new segment before it has its name.
const UNNAMED: &str = "next";
const LOCK: &str = "lock";

/// What syncs the segment that records went to; of all who wrote it.
pub(crate) type Syncing = Arc<Mutex<Box<dyn Unfinished>>>;

struct Active {
    header: Header,
    /// At its end, as far as this process knows.
    cursor: Cursor,
    latest_ms: i64,
    file: Box<dyn Unfinished>,
    syncing: Syncing,
}

pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    label: Arc<str>,
    options: Options,
    lock: Box<dyn Lock>,
    active: Option<Active>,
    buffer: Vec<u8>,
    /// The next append begins a segment.
    turn: bool,
}

/// What was appended, and what makes it last.
pub(crate) struct Written {
    pub first: u64,
    pub next: u64,
    pub syncing: Syncing,
    /// All before was synced by the change of segments.
    pub synced: Option<u64>,
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

impl Writer {
    pub fn open(disk: Arc<dyn Disk>, label: Arc<str>, options: Options) -> Result<Writer> {
        let lock = disk.lock(LOCK);
        let lock =
            lock.map_err(|error| Fault::io(format!("{label}/{LOCK}"), "opening it", error))?;
        Ok(Writer {
            disk,
            label,
            options,
            lock,
            active: None,
            buffer: Vec::new(),
            turn: false,
        })
    }

    /// Appends all of it or, to whoever reads, some first part; an error says that none of it is acknowledged. `synced`:
    /// the offset before which this process knows all to be synced.
    pub fn append(&mut self, messages: &[Message<'_>], synced: u64) -> Result<Written> {
        let size: usize = messages.iter().map(Message::size).sum();
        if size > MOST_BATCH {
            let (what, most) = ("a batch of records".into(), MOST_BATCH);
            return Err(Fault::TooLarge { what, size, most });
        }
        for message in messages {
            message.check()?;
        }
        self.locked(|this| this.append_locked(messages, synced))
    }

    /// After a failed sync nothing more goes into the segment that it was of.
    pub fn turn(&mut self) {
        self.turn = true;
    }

    /// Removes whole segments whose records are all before `before`. Returns how many.
    pub fn trim(&mut self, before: u64) -> Result<usize> {
        self.locked(|this| this.trim_locked(|_, next| next.base <= before))
    }

    fn locked<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.take_lock()?;
        let done = work(self);
        let released = self.lock.release();
        let done = done?;
        released.map_err(|error| Fault::io(&*self.label, "letting go of the lock", error))?;
        Ok(done)
    }

    fn take_lock(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let taken = self.lock.try_take();
            let file = || format!("{}/{LOCK}", self.label);
            if taken.map_err(|error| Fault::io(file(), "taking it", error))? {
                return Ok(());
            }
            let waited = started.elapsed();
            if waited >= self.options.lock_wait {
                let (file, waited_ms) = (file(), waited.as_millis() as u64);
                return Err(Fault::Locked { file, waited_ms });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn append_locked(&mut self, messages: &[Message<'_>], synced: u64) -> Result<Written> {
        let turned = self.ready()?;
        let active = self.active.as_mut().expect("ready");
        // Every segment is synced before the next begins.
        let known = synced.max(active.header.base);
        let (first, mut next) = (active.cursor.next, active.cursor.next);
        self.buffer.clear();
        for message in messages {
            message.write(next, known, &mut self.buffer);
            next += 1;
        }
        // What a failed write leaves is looked at, and sealed, by the next append.
        let written = active.file.append(&self.buffer);
        written.map_err(|error| Fault::io(&active.cursor.file, "appending records", error))?;
        active.cursor.at += self.buffer.len() as u64;
        active.cursor.next = next;
        let latest = messages.iter().map(|message| message.time_ms).max();
        active.latest_ms = active.latest_ms.max(latest.unwrap_or(i64::MIN));
        if self.buffer.capacity() > 4 * self.options.segment_bytes as usize {
            self.buffer = Vec::new();
        }
        Ok(Written {
            first,
            next,
            syncing: active.syncing.clone(),
            synced: turned,
        })
    }

    /// Brings `active` to the end of what all have written, in a segment that may be written on. The offset before which
    /// all is synced, if that took a new segment.
    fn ready(&mut self) -> Result<Option<u64>> {
        let overtaken = match &self.active {
            Some(active) => is_followed(&*self.disk, &self.label, active.header.number)?,
            None => true,
        };
        let mut fresh = false;
        if overtaken {
            let numbers = numbers(&*self.disk, &self.label)?;
            fresh = true;
            self.active = match numbers.last() {
                Some(&last) => Some(self.open_segment(last)?),
                None => return self.begin(None).map(Some),
            };
            // Whoever began it may have died before its name lasted.
            let named = self.disk.sync_folder();
            named.map_err(|error| Fault::io(&*self.label, "syncing the folder", error))?;
        }
        let boot = self.disk.boot();
        let active = self.active.as_mut().expect("opened or known");
        let in_doubt = fresh && active.header.of_another_boot(boot);
        let whole = active.catch_up(in_doubt)?;
        let age_ms = now_ms().saturating_sub(active.header.made_ms);
        let full = active.cursor.at >= self.options.segment_bytes.max(HEAD + 1)
            || self
                .options
                .segment_age_ms()
                .is_some_and(|most| age_ms > most);
        if !whole || in_doubt || full || self.turn {
            return self.begin(Some(in_doubt)).map(Some);
        }
        Ok(None)
    }

    fn open_segment(&self, number: u64) -> Result<Active> {
        let (name, file) = (name(number), format!("{}/{}", self.label, name(number)));
        let opening = |error| Fault::io(&file, "opening it", error);
        let source = self.disk.open(&name).map_err(opening)?;
        let header = Header::read(&*source, number, &file)?;
        let syncing = self.disk.extend(&name).map_err(opening)?;
        Ok(Active {
            header,
            file: self.disk.extend(&name).map_err(opening)?,
            latest_ms: header.latest_before_ms,
            cursor: Cursor::new(source, file, header.base),
            syncing: Arc::new(Mutex::new(syncing)),
        })
    }

    /// Begins the segment after the active one, which is sealed by that as far as its records are whole, or the first.
    /// Returns the offset before which all is synced now.
    fn begin(&mut self, after: Option<bool>) -> Result<u64> {
        let boot = self.disk.boot();
        let header = match (&self.active, after) {
            (Some(active), Some(in_doubt)) => {
                let sync = active
                    .syncing
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .sync();
                sync.map_err(|error| Fault::NotSynced {
                    file: active.cursor.file.clone(),
                    error,
                })?;
                let end = active.cursor.next;
                Header {
                    number: active.header.number + 1,
                    // Offsets that power took are not given again: somebody may have read them.
                    base: if in_doubt {
                        end.max(active.header.most())
                    } else {
                        end
                    },
                    previous_bytes: active.cursor.at,
                    previous_end: end,
                    made_ms: now_ms(),
                    latest_before_ms: active.latest_ms,
                    boot,
                    roll_bytes: self.options.segment_bytes,
                }
            }
            _ => Header {
                number: 1,
                base: 0,
                previous_bytes: 0,
                previous_end: 0,
                made_ms: now_ms(),
                latest_before_ms: i64::MIN,
                boot,
                roll_bytes: self.options.segment_bytes,
            },
        };
        let made = self.make(&header);
        made.map_err(|error| {
            let _ = self.disk.remove(UNNAMED);
            Fault::io(&*self.label, "beginning a segment", error)
        })?;
        self.active = Some(self.open_segment(header.number)?);
        self.turn = false;
        self.retain()?;
        Ok(header.base)
    }

    /// A segment has its name only once its head lasts.
    fn make(&self, header: &Header) -> std::io::Result<()> {
        let mut file = self.disk.create(UNNAMED)?;
        file.append(&header.encode())?;
        file.sync()?;
        self.disk.rename(UNNAMED, &name(header.number))?;
        self.disk.sync_folder()
    }

    /// Removes what retention no longer wants, the oldest first.
    fn retain(&mut self) -> Result<()> {
        if let Some(most) = self.options.retention_ms {
            let now = now_ms();
            self.trim_locked(|_, next| now.saturating_sub(next.made_ms) > most as i64)?;
        }
        if let Some(most) = self.options.retention_bytes {
            let numbers = numbers(&*self.disk, &self.label)?;
            let mut held = 0;
            for &number in &numbers {
                let source = self.disk.open(&name(number));
                held += source.map_or(0, |source| source.bytes());
            }
            self.trim_locked(|bytes, _| {
                let over = held > most;
                held -= if over { bytes } else { 0 };
                over
            })?;
        }
        Ok(())
    }

    /// Removes segments from the oldest on as long as `goes` says so of one's bytes and the head of the one after it.
    fn trim_locked(&mut self, mut goes: impl FnMut(u64, &Header) -> bool) -> Result<usize> {
        let (strays, numbers) = all_numbers(&*self.disk, &self.label)?;
        for stray in strays {
            let removing = |error| Fault::io(&*self.label, "removing a segment again", error);
            self.disk.remove(&name(stray)).map_err(removing)?;
        }
        let mut removed = 0;
        for pair in numbers.windows(2) {
            let file = format!("{}/{}", self.label, name(pair[1]));
            let opening = |error| Fault::io(&file, "opening it", error);
            let next = self.disk.open(&name(pair[1])).map_err(opening)?;
            let next = Header::read(&*next, pair[1], &file)?;
            let bytes = self.disk.open(&name(pair[0])).map_err(opening)?.bytes();
            if !goes(bytes, &next) {
                break;
            }
            let removing = |error| Fault::io(&file, "removing the segment before it", error);
            self.disk.remove(&name(pair[0])).map_err(removing)?;
            removed += 1;
        }
        Ok(removed)
    }
}

impl Active {
    /// To the end of what others wrote. Whether that is the end of the file, so that more can be written there.
    fn catch_up(&mut self, in_doubt: bool) -> Result<bool> {
        let there = self.cursor.bytes_now()?;
        if there < self.cursor.at {
            // Somebody cut it. What was in it is lost, but its offsets are not given again.
            self.cursor.at = there;
            return Ok(false);
        }
        let latest = &mut self.latest_ms;
        loop {
            let stop = self.cursor.walk(there, &mut |record| {
                *latest = record.time_ms.max(*latest);
                true
            })?;
            if stop != Stop::Broken {
                return Ok(true);
            }
            match self.cursor.hole(there, in_doubt)? {
                Some(hole) => self.cursor.jump(hole),
                None => return Ok(false),
            }
        }
    }
}
