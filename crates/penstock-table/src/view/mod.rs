//! A serving view: a mapped snapshot with rows and tombstones laid over it (ADR 0032).
//!
//! Readers share it and take no lock. One delta is applied at a time; a lookup sees each row whole, before or after it.

mod overlay;

use std::sync::Arc;

use crate::artefact::{ArtefactError, Result};
use crate::epochs::Change;
use crate::hash::mix;
use crate::lookup::BLOCK;
use crate::snapshot::{Found, Snapshot};
use crate::table::check;
use overlay::{Laid, Overlay};

pub struct View {
    snapshot: Arc<Snapshot>,
    overlays: Vec<Overlay>,
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
            snapshot,
        })
    }

    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Lays a delta over table `table`: all of it, or nothing and an error if it does not fit.
    pub fn apply(&self, table: usize, delta: &[Change]) -> Result<()> {
        let held = &self.snapshot.tables()[table];
        for change in delta {
            if let Change::Row(_, row) = change {
                check("values", row.values.len(), held.dim)?;
            }
        }
        let overlay = &self.overlays[table];
        let mut writer = overlay.writer();
        let absent = |hash| matches!(self.snapshot.find(table, hash), Ok(Found::Absent));
        let new = delta.iter().filter(|change| match change {
            Change::Row(key, _) | Change::Gone(key) => !overlay.has(mix(*key)),
        });
        if new.count() > overlay.room(&writer) {
            return Err(ArtefactError::OverlayFull {
                table: held.name.clone(),
                rows: overlay.capacity() as u64,
            });
        }
        for change in delta {
            match change {
                Change::Row(key, row) => overlay.lay(&mut writer, mix(*key), Some(&row.values)),
                // What is in neither place is gone already.
                Change::Gone(key) if !overlay.has(mix(*key)) && absent(mix(*key)) => {}
                Change::Gone(key) => overlay.lay(&mut writer, mix(*key), None),
            }
        }
        Ok(())
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
        Ok(found)
    }
}
