//! A folder in memory that loses power: what was not synced is kept, dropped or torn, as a seed says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, Lock, Source, Unfinished};

/// What a sector keeps or loses as one.
const SECTOR: usize = 512;

/// What happens at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation errs; the next ones work.
    Fails,
    /// The power goes: it and everything after errs, until `SimulatedDisk::reboot`.
    PowerGoes,
}

/// SplitMix64's step: numbers without a pattern from numbers in a row.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    /// What a sync made lasting.
    synced: Vec<u8>,
}

/// A change of the folder that no sync made lasting yet.
enum Change {
    Put(String, usize),
    Remove(String),
    /// Both ends of a rename at once.
    Rename(String, String, usize),
}

#[derive(Default)]
struct State {
    files: Vec<File>,
    folder: BTreeMap<String, usize>,
    lasting: BTreeMap<String, usize>,
    changes: Vec<Change>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    capacity: Option<usize>,
    down: bool,
    random: u64,
    /// Names of locks that are held.
    held: BTreeSet<String>,
    boots: u128,
}

impl State {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(1);
        mix(self.random)
    }

    /// Counts an operation and lets it fail if it is the one. Half of the failing writes are done in part (`partly`).
    fn operate(&mut self, partly: impl FnOnce(&mut State)) -> io::Result<()> {
        let fault = self.fault.filter(|(at, _)| *at == self.operations);
        self.operations += 1;
        if self.down {
            return Err(io::Error::other("the power is off"));
        }
        let Some((_, fault)) = fault else {
            return Ok(());
        };
        if self.random() & 1 == 0 {
            partly(self);
        }
        self.down = fault == Fault::PowerGoes;
        Err(io::Error::other("the chosen operation fails"))
    }

    fn used(&self) -> usize {
        self.folder
            .values()
            .map(|&file| self.files[file].bytes.len())
            .sum()
    }
}

fn apply(folder: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Put(name, file) => {
            folder.insert(name.clone(), *file);
        }
        Change::Remove(name) => {
            folder.remove(name);
        }
        Change::Rename(from, to, file) => {
            folder.remove(from);
            folder.insert(to.clone(), *file);
        }
    }
}

/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    pub fn new(seed: u64) -> SimulatedDisk {
        let disk = SimulatedDisk::default();
        disk.state().random = mix(seed);
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets operation `at` (from 0, counted over all) go wrong.
    pub fn fault(&self, at: u64, fault: Fault) {
        self.state().fault = Some((at, fault));
    }

    /// Bytes that fit; writes beyond fail as on a full disk.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    /// Whether the power is off.
    pub fn is_down(&self) -> bool {
        self.state().down
    }

    /// What was to go wrong and has not will not.
    pub fn clear_fault(&self) {
        self.state().fault = None;
    }

    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The power goes now if it had not, and comes back: each unsynced change of the folder and each unsynced sector
    /// lasts or not.
    pub fn reboot(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        for change in std::mem::take(&mut state.changes) {
            if state.random() & 1 == 0 {
                apply(&mut state.lasting, &change);
            }
        }
        state.folder = state.lasting.clone();
        for number in 0..state.files.len() {
            let draws: Vec<u64> = {
                let sectors = state.files[number].bytes.len() / SECTOR + 2;
                (0..sectors).map(|_| state.random()).collect()
            };
            let file = &mut state.files[number];
            let (bytes, mut kept) = (std::mem::take(&mut file.bytes), file.synced.clone());
            if bytes != kept {
                let length = draws[0] as usize % (bytes.len() + 1);
                kept.resize(length.max(kept.len()), 0xd5);
                for (sector, draw) in draws[1..].iter().enumerate() {
                    let from = sector * SECTOR;
                    // A sector lasts, or its first bytes do, or none.
                    let until = match draw & 3 {
                        0 | 1 => from + SECTOR,
                        2 => from + (draw >> 8) as usize % SECTOR,
                        _ => from,
                    }
                    .min(kept.len())
                    .min(bytes.len());
                    if from < until {
                        kept[from..until].copy_from_slice(&bytes[from..until]);
                    }
                }
            }
            file.bytes.clone_from(&kept);
            file.synced = kept;
        }
        state.down = false;
        state.fault = None;
        state.held.clear();
        state.boots += 1;
    }

    /// A file's bytes, and how to change them behind everybody's back.
    pub fn with_bytes<T>(&self, name: &str, change: impl FnOnce(&mut Vec<u8>) -> T) -> Option<T> {
        let mut state = self.state();
        let file = *state.folder.get(name)?;
        Some(change(&mut state.files[file].bytes))
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn Unfinished>> {
        let mut state = self.state();
        state.operate(|_| {})?;
        state.files.push(File::default());
        let file = state.files.len() - 1;
        state.folder.insert(name.into(), file);
        state.changes.push(Change::Put(name.into(), file));
        Ok(Box::new(Writing {
            disk: self.clone(),
            file,
        }))
    }

    fn extend(&self, name: &str) -> io::Result<Box<dyn Unfinished>> {
        let mut state = self.state();
        state.operate(|_| {})?;
        let file = *state.folder.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Writing {
            disk: self.clone(),
            file,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Source>> {
        let mut state = self.state();
        state.operate(|_| {})?;
        let file = *state.folder.get(name).ok_or(io::ErrorKind::NotFound)?;
        let bytes = state.files[file].bytes.len() as u64;
        Ok(Box::new(Reading {
            disk: self.clone(),
            file,
            bytes,
        }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        let mut state = self.state();
        state.operate(|_| {})?;
        Ok(state.folder.contains_key(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let rename = |state: &mut State| {
            if let Some(&file) = state.folder.get(from) {
                let change = Change::Rename(from.into(), to.into(), file);
                apply(&mut state.folder, &change);
                state.changes.push(change);
            }
        };
        state.operate(rename)?;
        rename(&mut state);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operate(|_| {})?;
        state.folder.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.changes.push(Change::Remove(name.into()));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operate(|_| {})?;
        state.changes.clear();
        state.lasting = state.folder.clone();
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.operate(|_| {})?;
        Ok(state.folder.keys().cloned().collect())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Lock>> {
        self.state().operate(|_| {})?;
        Ok(Box::new(SimulatedLock {
            disk: self.clone(),
            name: name.into(),
            held: None,
        }))
    }

    fn boot(&self) -> u128 {
        self.state().boots + 1
    }
}

struct SimulatedLock {
    disk: SimulatedDisk,
    name: String,
    /// The boot it was taken in: a loss of power lets go of all.
    held: Option<u128>,
}

impl Lock for SimulatedLock {
    fn try_take(&mut self) -> io::Result<bool> {
        let mut state = self.disk.state();
        state.operate(|_| {})?;
        let free = state.held.insert(self.name.clone());
        if free {
            self.held = Some(state.boots);
        }
        Ok(free)
    }

    fn release(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        if self.held.take() == Some(state.boots) {
            state.held.remove(&self.name);
        }
        Ok(())
    }
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let _ = self.release();
    }
}

/// A file as it is: it grows while it is read.
struct Reading {
    disk: SimulatedDisk,
    file: usize,
    bytes: u64,
}

impl Source for Reading {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.state().files[self.file].bytes.read(at, out)
    }

    fn bytes_now(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].bytes.len() as u64)
    }
}

struct Writing {
    disk: SimulatedDisk,
    file: usize,
}

impl Unfinished for Writing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let file = self.file;
        let half = &bytes[..bytes.len() / 2];
        state.operate(|state| state.files[file].bytes.extend_from_slice(half))?;
        let room = state
            .capacity
            .map_or(usize::MAX, |most| most.saturating_sub(state.used()));
        let fits = &bytes[..bytes.len().min(room)];
        state.files[file].bytes.extend_from_slice(fits);
        if fits.len() < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate(|_| {})?;
        let file = &mut state.files[self.file];
        file.synced.clone_from(&file.bytes);
        Ok(())
    }
}
