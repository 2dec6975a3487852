//! The point-in-time join of any number of rows in bounded memory: rows are parted by entity into files, each part is
//! joined by itself, and the results are read back in the samples' order.
//!
//! A part in memory is its events, and its samples in pieces of `PIECE`: one entity with most of the samples does no harm.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use arrow_array::{ArrayRef, RecordBatch};
use rayon::prelude::*;

use crate::Fault;
use crate::cell::{Bytes, Cell};
use crate::columns::{Building, Events, time_us};
use crate::keys::{Keys, identity};
use crate::state::State;
use crate::view::View;

const PARTS: usize = 128;
/// Of a sample without entity or time, in the file that tells each sample's part.
const NOWHERE: u8 = u8::MAX;
const PIECE: usize = 2_000_000;
const BUFFER_BYTES: usize = 64 << 10;
const BATCH_ROWS: usize = 65_536;
const SAMPLE_BYTES: usize = 32;

/// Takes events and samples, in any turn, and then joins them.
pub struct Joiner {
    view: View,
    folder: PathBuf,
    events: Vec<Part>,
    samples: Vec<Part>,
    parts: BufWriter<File>,
    key: Vec<u8>,
    row: Vec<Cell>,
    record: Vec<u8>,
    rejected: u64,
}

/// A file that is written in pieces.
struct Part {
    path: PathBuf,
    buffer: Vec<u8>,
    file: Option<File>,
}

impl Joiner {
    /// `folder`: of its own, for files as large as what is joined.
    pub fn new(view: View, folder: &Path) -> Result<Joiner, Fault> {
        let told = |error| Fault::Io(folder.display().to_string(), error);
        std::fs::create_dir_all(folder).map_err(told)?;
        let part = |kind: &str, number: usize| Part {
            path: folder.join(format!("{kind}-{number}")),
            buffer: Vec::new(),
            file: None,
        };
        let order = File::create(folder.join("parts")).map_err(told)?;
        Ok(Joiner {
            view,
            folder: folder.to_owned(),
            events: (0..PARTS).map(|n| part("events", n)).collect(),
            samples: (0..PARTS).map(|n| part("samples", n)).collect(),
            parts: BufWriter::new(order),
            key: Vec::new(),
            row: Vec::new(),
            record: Vec::new(),
            rejected: 0,
        })
    }

    /// Adds events. `offsets`: an int64 each where samples name offsets, not times, as what they may know.
    pub fn events(&mut self, batch: &RecordBatch, offsets: Option<&ArrayRef>) -> Result<(), Fault> {
        let events = Events::of(&self.view, batch)?;
        for row in 0..batch.num_rows() {
            let time = events
                .time_us(row)
                .filter(|_| events.keys.write(row, &mut self.key));
            let Some(time) = time else {
                self.rejected += 1;
                continue;
            };
            events.row(row, &mut self.row);
            let order = offsets
                .and_then(|offsets| time_us(offsets, row))
                .unwrap_or(time);
            let key = identity(&self.key);
            self.record.clear();
            self.record.extend_from_slice(&key.to_le_bytes());
            self.record.extend_from_slice(&order.to_le_bytes());
            self.record.extend_from_slice(&time.to_le_bytes());
            self.record.extend_from_slice(&[0; 4]);
            self.row
                .iter()
                .for_each(|cell| cell.write(&mut self.record));
            let length = self.record.len() as u32;
            self.record[32..36].copy_from_slice(&length.to_le_bytes());
            self.events[part_of(key)].write(&self.record)?;
        }
        Ok(())
    }

    /// Adds samples: each asks for its entity's values at `times`, from events up to `upto` (without it: up to that time).
    pub fn samples(
        &mut self,
        keys: &Keys,
        times: &ArrayRef,
        upto: Option<&ArrayRef>,
    ) -> Result<(), Fault> {
        for row in 0..keys.len() {
            let time = time_us(times, row).filter(|_| keys.write(row, &mut self.key));
            let mut part = NOWHERE;
            if let Some(time) = time {
                let key = identity(&self.key);
                let order = upto.and_then(|upto| time_us(upto, row)).unwrap_or(time);
                self.record.clear();
                self.record.extend_from_slice(&key.to_le_bytes());
                self.record.extend_from_slice(&order.to_le_bytes());
                self.record.extend_from_slice(&time.to_le_bytes());
                self.samples[part_of(key)].write(&self.record)?;
                part = part_of(key) as u8;
            }
            let told = |error| Fault::Io(self.folder.display().to_string(), error);
            self.parts.write_all(&[part]).map_err(told)?;
        }
        Ok(())
    }

    /// Events without entity or time.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    pub fn join(mut self) -> Result<Joined, Fault> {
        let told = |error| Fault::Io(self.folder.display().to_string(), error);
        self.parts.flush().map_err(told)?;
        for part in self.events.iter_mut().chain(&mut self.samples) {
            part.flush()?;
            part.file = None;
            part.buffer = Vec::new();
        }
        let (view, folder) = (&self.view, &self.folder);
        let results = (0..PARTS).into_par_iter().map(|number| {
            let path = folder.join(format!("results-{number}"));
            let (events, samples) = (&self.events[number], &self.samples[number]);
            if samples.is_there() {
                join_part(view, &events.path, &samples.path, &path)
                    .map_err(|error| Fault::Io(path.display().to_string(), error))?;
            }
            let _ = std::fs::remove_file(&events.path);
            let _ = std::fs::remove_file(&samples.path);
            match path.exists() {
                true => File::open(&path)
                    .map(|file| Some(BufReader::with_capacity(BUFFER_BYTES, file)))
                    .map_err(|error| Fault::Io(path.display().to_string(), error)),
                false => Ok(None),
            }
        });
        let results = results.collect::<Result<Vec<_>, _>>()?;
        let order = File::open(self.folder.join("parts")).map_err(told)?;
        let mut nothing = Vec::new();
        State::default().read(&self.view, 0, &mut nothing);
        Ok(Joined {
            parts: BufReader::with_capacity(BUFFER_BYTES, order),
            results,
            building: Building::new(self.view.outputs()),
            nothing,
            record: Vec::new(),
            row: Vec::new(),
            folder: self.folder,
        })
    }
}

fn part_of(key: u128) -> usize {
    (key >> 64) as usize % PARTS
}

impl Part {
    fn write(&mut self, record: &[u8]) -> Result<(), Fault> {
        self.buffer.extend_from_slice(record);
        match self.buffer.len() >= BUFFER_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Fault> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let told = |error| Fault::Io(self.path.display().to_string(), error);
        if self.file.is_none() {
            let options = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.path);
            self.file = Some(options.map_err(told)?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.buffer).map_err(told)?;
        }
        self.buffer.clear();
        Ok(())
    }

    fn is_there(&self) -> bool {
        self.path.exists()
    }
}

/// An event of the part that is joined: where its cells begin and end.
struct Event {
    key: u128,
    order: i64,
    time: i64,
    cells: (usize, usize),
}

fn join_part(view: &View, events: &Path, samples: &Path, results: &Path) -> std::io::Result<()> {
    let bytes = match events.exists() {
        true => std::fs::read(events)?,
        false => Vec::new(),
    };
    let events = sorted(&bytes);
    let mut samples = BufReader::with_capacity(BUFFER_BYTES, File::open(samples)?);
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, File::create(results)?);
    let mut piece = Vec::new();
    loop {
        piece.clear();
        let mut record = [0; SAMPLE_BYTES];
        while piece.len() < PIECE && read_whole(&mut samples, &mut record)? {
            let number = piece.len() as u32;
            piece.push((
                key_of(&record),
                long(&record[16..]),
                long(&record[24..]),
                number,
            ));
        }
        if piece.is_empty() {
            return out.flush();
        }
        piece.sort_unstable();
        answer(view, &bytes, &events, &piece, &mut out)?;
    }
}

/// Events by entity and order; at the same, as they came.
fn sorted(bytes: &[u8]) -> Vec<Event> {
    let (mut events, mut at) = (Vec::new(), 0);
    while let Some(record) = bytes.get(at..).filter(|record| record.len() >= 36) {
        let length = u32::from_le_bytes([record[32], record[33], record[34], record[35]]) as usize;
        events.push(Event {
            key: key_of(record),
            order: long(&record[16..]),
            time: long(&record[24..]),
            cells: (at + 36, at + length),
        });
        at += length;
    }
    events.sort_by_key(|event| (event.key, event.order));
    events
}

/// Answers a piece of the samples, sorted, and writes the answers as the samples came.
fn answer(
    view: &View,
    bytes: &[u8],
    events: &[Event],
    piece: &[(u128, i64, i64, u32)],
    out: &mut impl Write,
) -> std::io::Result<()> {
    let (mut answers, mut places) = (Vec::new(), vec![(0, 0); piece.len()]);
    let (mut state, mut entity, mut next) = (State::default(), None, 0);
    let (mut cells, mut row) = (Vec::new(), Vec::new());
    for (key, order, at, number) in piece {
        if entity != Some(*key) {
            (state, entity) = (State::default(), Some(*key));
            next += events[next..].partition_point(|event| event.key < *key);
        }
        while let Some(event) = events
            .get(next)
            .filter(|e| e.key == *key && e.order <= *order)
        {
            let mut from = Bytes(&bytes[event.cells.0..event.cells.1]);
            cells.clear();
            for _ in &view.inputs {
                cells.push(Cell::read(&mut from).map_err(std::io::Error::other)?);
            }
            state.add(view, event.time, &cells);
            next += 1;
        }
        row.clear();
        state.read(view, *at, &mut row);
        let start = answers.len();
        row.iter().for_each(|cell| cell.write(&mut answers));
        places[*number as usize] = (start, answers.len());
    }
    for (start, end) in places {
        out.write_all(&((end - start) as u32).to_le_bytes())?;
        out.write_all(&answers[start..end])?;
    }
    Ok(())
}

fn key_of(record: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&record[..16]);
    u128::from_le_bytes(bytes)
}

fn long(record: &[u8]) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&record[..8]);
    i64::from_le_bytes(bytes)
}

/// False at the end.
fn read_whole(from: &mut impl Read, record: &mut [u8]) -> std::io::Result<bool> {
    match from.read_exact(record) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the samples asked for, in their order, batch by batch.
pub struct Joined {
    parts: BufReader<File>,
    results: Vec<Option<BufReader<File>>>,
    building: Building,
    nothing: Vec<Cell>,
    record: Vec<u8>,
    row: Vec<Cell>,
    folder: PathBuf,
}

impl Joined {
    fn next_row(&mut self) -> Result<bool, Fault> {
        let told = |error| Fault::Io(self.folder.display().to_string(), error);
        let mut part = [0];
        if !read_whole(&mut self.parts, &mut part).map_err(told)? {
            return Ok(false);
        }
        let Some(Some(results)) = self.results.get_mut(usize::from(part[0])) else {
            self.building.push(&self.nothing);
            return Ok(true);
        };
        let mut length = [0; 4];
        results.read_exact(&mut length).map_err(told)?;
        self.record.resize(u32::from_le_bytes(length) as usize, 0);
        results.read_exact(&mut self.record).map_err(told)?;
        let mut from = Bytes(&self.record);
        self.row.clear();
        for _ in &self.nothing {
            self.row.push(Cell::read(&mut from)?);
        }
        self.building.push(&self.row);
        Ok(true)
    }

    /// The next batch of at most 65,536 rows; None at the end.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, Fault> {
        let mut rows = 0;
        while rows < BATCH_ROWS && self.next_row()? {
            rows += 1;
        }
        match rows {
            0 => Ok(None),
            _ => self.building.finish().map(Some),
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
