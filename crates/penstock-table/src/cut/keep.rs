//! A shard's side of an open cut: old images of what changed since.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::record;
use crate::changes::Epoch;
use crate::hash::bucket;
use crate::index::BUCKETS_A_SHARD;
use crate::rows::{Layout, Row};
use crate::sketch::{LINE, Sketch};

/// What a cut's shards have in common.
pub(crate) struct Ledger {
    pub cut: String,
    pub limit: u64,
    copied: AtomicU64,
    passed_limit: AtomicBool,
    over: AtomicBool,
}

impl Ledger {
    pub fn new(cut: &str, limit: u64) -> Ledger {
        Ledger {
            cut: cut.into(),
            limit,
            copied: AtomicU64::new(0),
            passed_limit: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    pub fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    pub fn passed_limit(&self) -> bool {
        self.passed_limit.load(Ordering::Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether so many more bytes may be copied; if not, the cut is over.
    fn take(&self, bytes: usize) -> bool {
        let before = self.copied.fetch_add(bytes as u64, Ordering::Relaxed);
        if before + bytes as u64 > self.limit {
            self.passed_limit.store(true, Ordering::Relaxed);
            self.end();
            return false;
        }
        true
    }

    fn give(&self, bytes: usize) {
        self.copied.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

/// What an entry of the map of sketch lines costs beside the line.
const SKETCH_LINE_BYTES: usize = 2 * LINE;

pub(crate) struct Keep {
    ledger: Arc<Ledger>,
    /// Rows whose record was saved or is not wanted, one bit a row below `end`.
    touched: Vec<u64>,
    end: u32,
    /// Of an incremental cut: only rows of these sets are wanted.
    wanted: Option<Vec<Arc<Epoch>>>,
    /// Saved records, local bucket by local bucket.
    saved: Vec<Vec<u8>>,
    sketch: HashMap<usize, [u8; LINE]>,
    /// Local buckets that were read. Written under `&`, so that reading needs no more.
    read: AtomicUsize,
    sketch_read: AtomicBool,
    /// Local buckets whose records were dropped after reading.
    dropped: usize,
}

impl Keep {
    pub fn new(ledger: Arc<Ledger>, end: u32, wanted: Option<Vec<Arc<Epoch>>>) -> Keep {
        Keep {
            ledger,
            touched: vec![0; (end as usize).div_ceil(64)],
            end,
            wanted,
            saved: vec![Vec::new(); BUCKETS_A_SHARD],
            sketch: HashMap::new(),
            read: AtomicUsize::new(0),
            sketch_read: AtomicBool::new(false),
            dropped: 0,
        }
    }

    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Whether a row number stands for a row of the cut that still is as it was.
    pub fn is_untouched(&self, row: u32) -> bool {
        row < self.end && self.touched[row as usize >> 6] >> (row & 63) & 1 == 0
    }

    fn touch(&mut self, row: u32) {
        if let Some(word) = self.touched.get_mut(row as usize >> 6) {
            *word |= 1 << (row & 63);
        }
    }

    /// A row number is a new row's now.
    pub fn born(&mut self, row: u32) {
        if row < self.end {
            self.touch(row);
        }
    }

    /// Saves a row that is about to change or go, if the cut still wants it.
    pub fn save(&mut self, layout: &Layout, number: u32, hash: u64, row: Row) {
        if !self.is_untouched(number) {
            return;
        }
        self.touch(number);
        let wanted = self
            .wanted
            .as_ref()
            .is_none_or(|sets| sets.iter().any(|set| set.has(number)));
        let read = self.read.load(Ordering::Relaxed);
        let local = bucket(hash) % BUCKETS_A_SHARD;
        if !wanted || local < read || self.ledger.is_over() {
            return;
        }
        self.drop_read(read);
        let bytes = record::size(layout);
        let saved = &mut self.saved[local];
        if saved.capacity() - saved.len() < bytes {
            // A quarter more: the limit counts what is reserved.
            let more = (saved.len() / 4).next_multiple_of(bytes).max(bytes);
            if !self.ledger.take(more) {
                return self.clear();
            }
            saved.reserve_exact(more);
        }
        record::write(layout, hash, number, row, saved);
    }

    /// Saves the sketch's line of a hash that is about to be counted.
    pub fn save_sketch(&mut self, sketch: &Sketch, hash: u64) {
        if self.sketch_read.load(Ordering::Relaxed) || self.ledger.is_over() {
            return;
        }
        let at = sketch.place(hash);
        if self.sketch.contains_key(&at) {
            return;
        }
        if !self.ledger.take(SKETCH_LINE_BYTES) {
            return self.clear();
        }
        self.sketch.insert(at, sketch.line(at));
    }

    /// Records of a local bucket as they were saved.
    pub fn saved(&self, local: usize) -> &[u8] {
        &self.saved[local]
    }

    /// Every line of the sketch as it was.
    pub fn sketch(&self, sketch: &Sketch) -> Vec<u8> {
        let line = |at| {
            self.sketch
                .get(&at)
                .copied()
                .unwrap_or_else(|| sketch.line(at))
        };
        (0..sketch.lines()).flat_map(line).collect()
    }

    pub fn sketch_was_read(&self) {
        self.sketch_read.store(true, Ordering::Relaxed);
    }

    pub fn was_read(&self, local: usize) {
        self.read.store(local + 1, Ordering::Relaxed);
    }

    /// What was read need not be kept.
    fn drop_read(&mut self, read: usize) {
        for local in self.dropped..read {
            self.ledger.give(self.saved[local].capacity());
            self.saved[local] = Vec::new();
        }
        self.dropped = self.dropped.max(read);
        if self.sketch_read.load(Ordering::Relaxed) && !self.sketch.is_empty() {
            self.ledger.give(self.sketch.len() * SKETCH_LINE_BYTES);
            self.sketch = HashMap::new();
        }
    }

    fn clear(&mut self) {
        self.saved = vec![Vec::new(); BUCKETS_A_SHARD];
        self.sketch = HashMap::new();
    }
}
