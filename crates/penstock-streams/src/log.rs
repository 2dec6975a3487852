//! A topic on disk: a folder with `topic.json` and a folder a partition.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use penstock_disk::{Disk, Folder};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::fault::{Fault, Result};
use crate::frame::Message;
use crate::options::Options;
use crate::partition::{Ack, Partition};
use crate::writer::now_ms;

pub const MOST_PARTITIONS: usize = 1024;
const FACTS: &str = "topic.json";
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Facts {
    /// `log/FORMAT`.
    penstock: String,
    partitions: usize,
    made_ms: i64,
}

/// The partition of a key: XXH3-64 of it, modulo their number. The same in every backend.
pub fn partition_of(key: &[u8], partitions: usize) -> usize {
    (xxh3_64(key) % partitions.max(1) as u64) as usize
}

/// An open topic. Dropping it syncs what it has written.
pub struct Log {
    path: PathBuf,
    partitions: Arc<[Partition]>,
    syncer: Option<Syncer>,
}

impl Log {
    /// Opens the topic at `path`. `partitions`: how many it must have; how many a new one gets, 1 if not said. Where there
    /// is none, one is made if `create` says so.
    pub fn open(
        path: &Path,
        partitions: Option<usize>,
        create: bool,
        options: Options,
    ) -> Result<Log> {
        options.check()?;
        let found = match read_facts(path)? {
            Some(found) => found,
            None if create => make(path, partitions.unwrap_or(1), &options)?,
            None => return Err(Fault::Missing(path.display().to_string())),
        };
        if let Some(asked) = partitions.filter(|&asked| asked != found) {
            return Err(Fault::Mismatch {
                file: path.join(FACTS).display().to_string(),
                what: "the number of partitions",
                found: found as u64,
                asked: asked as u64,
            });
        }
        let partitions = (0..found)
            .map(|number| {
                let at = path.join(number.to_string());
                let label = at.display().to_string();
                let folder = Folder::new(at);
                let folder =
                    folder.map_err(|error| Fault::io(&*label, "opening the folder", error))?;
                let disk: Arc<dyn Disk> = Arc::new(folder);
                Ok(Partition::new(disk, &label, options))
            })
            .collect::<Result<Vec<_>>>()?
            .into();
        let syncer = options
            .sync_every
            .map(|every| Syncer::new(&partitions, every));
        Ok(Log {
            path: path.into(),
            partitions,
            syncer,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    pub fn partition(&self, partition: usize) -> Result<&Partition> {
        let partitions = self.partitions.len();
        let found = self.partitions.get(partition);
        found.ok_or(Fault::NoPartition {
            partition,
            partitions,
        })
    }

    /// `Partition::append`, and has what was written synced in due time.
    pub fn append(
        &self,
        partition: usize,
        messages: &[Message<'_>],
        ack: Ack,
    ) -> Result<Range<u64>> {
        let offsets = self.partition(partition)?.append(messages, ack)?;
        if let Some(syncer) = self.syncer.as_ref().filter(|_| ack == Ack::Written) {
            let starting = "starting the thread that syncs";
            let woken = syncer.wake();
            woken.map_err(|error| Fault::io(self.path.display().to_string(), starting, error))?;
        }
        Ok(offsets)
    }

    /// Makes lasting what this process has appended to any partition.
    pub fn sync(&self) -> Result<()> {
        self.partitions.iter().try_for_each(Partition::sync)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.syncer = None;
        for partition in self
            .partitions
            .iter()
            .filter(|partition| partition.is_dirty())
        {
            // Nobody is left to tell; whoever must know calls `sync` first.
            let _ = partition.sync();
        }
    }
}

fn read_facts(path: &Path) -> Result<Option<usize>> {
    let at = path.join(FACTS);
    let file = at.display().to_string();
    let bytes = match fs::read(&at) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::io(file, "reading it", error)),
    };
    let not = |what| Fault::NotALog {
        file: file.clone(),
        what,
    };
    let facts: Facts =
        serde_json::from_slice(&bytes).map_err(|_| not("does not describe a log"))?;
    let format = facts
        .penstock
        .strip_prefix("log/")
        .and_then(|format| format.parse().ok());
    let found: u32 = format.ok_or_else(|| not("does not describe a log"))?;
    if found != FORMAT {
        let known = FORMAT;
        return Err(Fault::Version { file, found, known });
    }
    if !(1..=MOST_PARTITIONS).contains(&facts.partitions) {
        return Err(not("its number of partitions is not one"));
    }
    Ok(Some(facts.partitions))
}

/// Makes an empty topic, unless another process is faster. Returns its partitions.
fn make(path: &Path, partitions: usize, options: &Options) -> Result<usize> {
    if !(1..=MOST_PARTITIONS).contains(&partitions) {
        let what = format!("{partitions} partitions: from 1 to {MOST_PARTITIONS}");
        return Err(Fault::Setting(what));
    }
    let file = path.display().to_string();
    let making = |error| Fault::io(&*file, "making the topic", error);
    let folder = Folder::new(path).map_err(making)?;
    let mut lock = folder.lock("lock").map_err(making)?;
    let started = std::time::Instant::now();
    while !lock.try_take().map_err(making)? {
        if started.elapsed() >= options.lock_wait {
            let waited_ms = started.elapsed().as_millis() as u64;
            return Err(Fault::Locked { file, waited_ms });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    if let Some(found) = read_facts(path)? {
        return Ok(found);
    }
    let write = || -> io::Result<()> {
        for number in 0..partitions {
            fs::create_dir_all(path.join(number.to_string()))?;
        }
        let facts = Facts {
            penstock: format!("log/{FORMAT}"),
            partitions,
            made_ms: now_ms(),
        };
        let next = path.join("topic.json.next");
        let mut made = fs::File::create(&next)?;
        serde_json::to_writer(&mut made, &facts)?;
        made.write_all(b"\n")?;
        made.sync_all()?;
        folder.sync_folder()?;
        fs::rename(&next, path.join(FACTS))?;
        folder.sync_folder()?;
        // The folder's own name.
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(making)?;
    Ok(partitions)
}

/// A thread that syncs, some time after it was woken. It starts when it is first needed: who only reads has none.
struct Syncer {
    partitions: Arc<[Partition]>,
    every: Duration,
    state: Arc<(Mutex<State>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    woken: bool,
    over: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Syncer {
    fn new(partitions: &Arc<[Partition]>, every: Duration) -> Syncer {
        Syncer {
            partitions: partitions.clone(),
            every,
            state: Arc::default(),
            thread: Mutex::new(None),
        }
    }

    fn wake(&self) -> io::Result<()> {
        let (state, changed) = &*self.state;
        {
            let mut state = lock(state);
            if state.woken {
                return Ok(());
            }
            state.woken = true;
            changed.notify_one();
        }
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let (state, partitions, every) =
                (self.state.clone(), self.partitions.clone(), self.every);
            let made = std::thread::Builder::new().name("penstock-log-sync".into());
            *thread = Some(made.spawn(move || work(&state, &partitions, every))?);
        }
        Ok(())
    }
}

fn work((state, changed): &(Mutex<State>, Condvar), partitions: &[Partition], every: Duration) {
    loop {
        {
            let idle = changed.wait_while(lock(state), |state| !state.woken && !state.over);
            let awake = idle.unwrap_or_else(PoisonError::into_inner);
            let paused = changed.wait_timeout_while(awake, every, |state| !state.over);
            let mut state = paused.unwrap_or_else(PoisonError::into_inner).0;
            if state.over {
                return;
            }
            state.woken = false;
        }
        for partition in partitions.iter().filter(|partition| partition.is_dirty()) {
            partition.sync_unattended();
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        let (state, changed) = &*self.state;
        lock(state).over = true;
        changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}
