//! A serving view: a mapped snapshot with rows and tombstones laid over it (ADR 0032).
//!
//! Readers share it and take no lock. One delta is applied at a time; a lookup sees each row whole, before or after it.
//! Whoever must see a delta whole has two views and lets readers have the one that nobody writes (penstock-serve).

mod overlay;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::artefact::{ArtefactError, Result};
use crate::delta::Block;
use crate::epochs::Change;
use crate::hash::mix;
use crate::lookup::BLOCK;
use crate::pool::{Bag, Pooling, Rows};
use crate::snapshot::{Found, Served, Snapshot, pool_served};
use crate::store::Keys;
use crate::table::check;
use overlay::{Laid, Overlay};

/// Keys whose lines are asked for at once, and after how many others get the processor: some 50 us.
const ABREAST: usize = 64;
const GIVE_WAY: usize = 512;

pub struct View {
    snapshot: Arc<Snapshot>,
    overlays: Vec<Overlay>,
    /// Whoever holds it applies a delta.
    applying: Mutex<()>,
}

impl View {
    /// `overlay_bytes` is the most that the overlay of each table takes; memory is touched as it fills.
    pub fn new(snapshot: Arc<Snapshot>, overlay_bytes: u64) -> Result<View> {
        let overlays = snapshot.tables().iter().map(|table| {
            Overlay::new(table.dim, overlay_bytes).ok_or_else(|| {
                ArtefactError::Table(crate::TableError::OutOfMemory {
                    table: table.name.clone(),
                    refused: 0,
                })
            })
        });
        Ok(View {
            overlays: overlays.collect::<Result<_>>()?,
            applying: Mutex::new(()),
            snapshot,
        })
    }

    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Lays a delta over table `table`: all of it, or nothing and an error if it does not fit.
    pub fn apply(&self, table: usize, delta: &[Change]) -> Result<()> {
        for change in delta {
            if let Change::Row(_, row) = change {
                let dim = self.snapshot.tables()[table].dim;
                check("values", row.values.len(), dim)?;
            }
        }
        let _applying = self.applying();
        let mut new = vec![0; self.overlays.len()];
        for Change::Row(key, _) | Change::Gone(key) in delta {
            new[table] += usize::from(!self.overlays[table].has(mix(*key)));
        }
        self.check_room(&new)?;
        for change in delta {
            match change {
                Change::Row(key, row) => self.lay(table, *key, &row.values),
                Change::Gone(key) => self.bury(table, *key),
            }
        }
        Ok(())
    }

    /// Lays the parts of a delta over the tables: all of it, or nothing and an error if it does not fit.
    pub fn apply_blocks(&self, blocks: &[Block]) -> Result<()> {
        for block in blocks {
            let held = self.snapshot.tables().get(block.table);
            let dim = held.map_or(0, |held| held.dim);
            check("values", block.dim, dim)?;
        }
        let _applying = self.applying();
        let mut new = vec![0; self.overlays.len()];
        for block in blocks {
            let overlay = &self.overlays[block.table];
            abreast(overlay, block.keys().chain(block.gone()), |hash, _| {
                new[block.table] += usize::from(!overlay.has(hash));
            });
        }
        self.check_room(&new)?;
        let mut row = vec![];
        for block in blocks {
            let overlay = &self.overlays[block.table];
            row.resize(block.dim, 0.0);
            abreast(overlay, block.keys(), |hash, number| {
                block.load(number, &mut row);
                overlay.lay(&mut overlay.writer(), hash, Some(&row));
            });
            block.gone().for_each(|key| self.bury(block.table, key));
        }
        Ok(())
    }

    fn applying(&self) -> MutexGuard<'_, ()> {
        self.applying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many more rows of each table fit.
    fn check_room(&self, new: &[usize]) -> Result<()> {
        for (table, (overlay, new)) in self.overlays.iter().zip(new).enumerate() {
            if *new > overlay.room(&overlay.writer()) {
                return Err(ArtefactError::OverlayFull {
                    table: self.snapshot.tables()[table].name.clone(),
                    rows: overlay.capacity() as u64,
                });
            }
        }
        Ok(())
    }

    fn lay(&self, table: usize, key: u64, values: &[f32]) {
        let overlay = &self.overlays[table];
        overlay.lay(&mut overlay.writer(), mix(key), Some(values));
    }

    fn bury(&self, table: usize, key: u64) {
        let (overlay, hash) = (&self.overlays[table], mix(key));
        // What is in neither place is gone already.
        let absent = || matches!(self.snapshot.find(table, hash), Ok(Found::Absent));
        if overlay.has(hash) || !absent() {
            overlay.lay(&mut overlay.writer(), hash, None);
        }
    }

    /// Rows and tombstones laid over table `table`, and how many fit.
    pub fn laid(&self, table: usize) -> (usize, usize) {
        let overlay = &self.overlays[table];
        (
            overlay.capacity() - overlay.room(&overlay.writer()),
            overlay.capacity(),
        )
    }

    /// The values of a slot's keys, `dim` floats each, the overlay's first. Returns how many have a row.
    pub fn lookup(&self, slot: u32, keys: &[u64], out: &mut [f32]) -> Result<usize> {
        let (table, written) = self.snapshot.slot(slot)?;
        let (held, overlay) = (&self.snapshot.tables()[table], &self.overlays[table]);
        check("out", out.len(), keys.len() * held.dim)?;
        let mut found = 0;
        for (keys, out) in keys.chunks(BLOCK).zip(out.chunks_mut(BLOCK * held.dim)) {
            let hash = |key: u64| mix(key & written.mask());
            for &key in keys {
                overlay.prefetch(hash(key));
                self.snapshot.prefetch(table, hash(key));
            }
            // None: the overlay has said it all.
            let mut below = [None; BLOCK];
            for ((below, &key), out) in below
                .iter_mut()
                .zip(keys)
                .zip(out.chunks_exact_mut(held.dim))
            {
                match overlay.read(hash(key), out) {
                    Laid::Row => found += 1,
                    Laid::Gone => held.missing(hash(key), out),
                    Laid::Nothing => {
                        let place = self.snapshot.find(table, hash(key))?;
                        found += usize::from(place != Found::Absent);
                        *below = Some(place);
                    }
                }
            }
            for ((below, &key), out) in below.iter().zip(keys).zip(out.chunks_exact_mut(held.dim)) {
                if let Some(place) = below {
                    self.snapshot.load(table, hash(key), *place, out);
                }
            }
        }
        self.snapshot.lookups.add(found, keys.len());
        Ok(found)
    }

    /// As `Snapshot::pool`: with its bits where nothing is laid over, and with those of the table from which what is
    /// was taken.
    pub fn pool(
        &self,
        bags: &[Bag],
        pooling: Pooling,
        threads: usize,
        out: &mut [f32],
    ) -> Result<()> {
        pool_served(self, bags, pooling, threads, out)
    }
}

/// Where a row is: laid over, or in the snapshot.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Over(u32),
    Below(Found),
}

/// Hashes and numbers of keys, in order, whose lines were asked for some at a time. Between these whoever else waits for
/// the processor gets it: a delta of many rows is no pause for requests.
fn abreast(overlay: &Overlay, keys: impl Iterator<Item = u64>, mut work: impl FnMut(u64, usize)) {
    let (mut keys, mut number) = (keys.map(mix), 0);
    let mut hashes = [0; ABREAST];
    loop {
        let mut count = 0;
        for (place, hash) in hashes.iter_mut().zip(&mut keys) {
            *place = hash;
            count += 1;
        }
        overlay.ask_for(&hashes[..count]);
        for hash in &hashes[..count] {
            work(*hash, number);
            number += 1;
        }
        if count < ABREAST {
            return;
        }
        if number % GIVE_WAY == 0 {
            std::thread::yield_now();
        }
    }
}

impl Rows for View {
    type Error = ArtefactError;

    fn dim(&self, slot: u32) -> Result<usize> {
        self.snapshot.dim(slot)
    }

    fn mask(&self, slot: u32) -> Result<u64> {
        self.snapshot.mask(slot)
    }

    fn read(
        &self,
        slot: u32,
        keys: &[u64],
        out: &mut [f32],
        _: &mut [u32],
        _: bool,
    ) -> Result<u64> {
        self.lookup(slot, keys, out).map(|_| 0)
    }
}

impl Served for View {
    type Place = Place;
    const NOWHERE: Place = Place::Below(Found::Absent);

    fn slot_of(&self, slot: u32) -> Result<(usize, Keys)> {
        self.snapshot.slot(slot)
    }

    #[inline(always)]
    fn announce_hash(&self, table: usize, hash: u64) {
        self.overlays[table].prefetch(hash);
        self.snapshot.announce(table, hash);
    }

    #[inline(always)]
    fn ask_for(&self, table: usize, hash: u64) {
        self.snapshot.prefetch(table, hash);
    }

    #[inline(always)]
    fn place_of(&self, table: usize, hash: u64) -> Result<(Place, bool)> {
        let overlay = &self.overlays[table];
        if let Some(number) = overlay.number_of(hash) {
            return Ok((Place::Over(number), overlay.is_row(number)));
        }
        let found = self.snapshot.find(table, hash)?;
        Ok((Place::Below(found), found != Found::Absent))
    }

    #[inline(always)]
    fn load_from(&self, table: usize, hash: u64, place: Place, out: &mut [f32]) {
        match place {
            Place::Over(number) => {
                if self.overlays[table].read_at(number, out) != Laid::Row {
                    self.snapshot.tables()[table].missing(hash, out);
                }
            }
            Place::Below(found) => self.snapshot.load(table, hash, found, out),
        }
    }

    fn count(&self, found: usize, asked: usize) {
        self.snapshot.lookups.add(found, asked);
    }
}
