//! A snapshot's bytes brought from the map of its file into memory of the process, on huge pages.
//!
//! A row is anywhere in the file: on pages of 4 KB nearly every look-up also waits for the page tables, in a virtual
//! machine for two of them. Both places hold the same bytes, and readers see one or the other: nobody waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Snapshot;
use super::bytes::Map;
use crate::memory::{Mapping, available};

/// Copied at a time: the better part of a millisecond, with the pages that the system has to clear.
const STEP: usize = 1 << 20;

/// A copy under way.
pub struct Nearing {
    snapshot: Arc<Snapshot>,
    to: Mapping,
    done: usize,
}

impl Nearing {
    /// `most`: bytes that it may take; None: half of what the system could give now. None where the snapshot stays where it
    /// is, is on its way, or was brought near before.
    pub fn begin(snapshot: &Arc<Snapshot>, most: Option<u64>) -> Option<Nearing> {
        let bytes = &snapshot.bytes;
        let far = matches!(bytes.map, Map::Mapped(_)) && bytes.near.get().is_none();
        if !far || bytes.len() as u64 > most.unwrap_or_else(|| available() / 2) {
            return None;
        }
        if bytes.coming.swap(true, Ordering::Relaxed) {
            return None;
        }
        let to = Mapping::zeroed(bytes.len())?;
        to.prefer_huge();
        Some(Nearing {
            snapshot: snapshot.clone(),
            to,
            done: 0,
        })
    }

    /// Copies some more. At the end readers are led there, what the map held is given back to the system, and the copy is
    /// let go: None.
    pub fn step(mut self) -> Option<Nearing> {
        let from = &*self.snapshot.bytes;
        let end = from.len().min(self.done + STEP);
        let part = &from[self.done..end];
        // SAFETY: the mapping is as long as the bytes, they do not overlap, and nobody else has it yet.
        unsafe {
            let to = self.to.base().add(self.done);
            std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
        }
        self.done = end;
        if end < from.len() {
            return Some(self);
        }
        let Nearing { snapshot, to, .. } = self;
        if snapshot.bytes.near.set(to).is_ok() {
            snapshot.bytes.map.let_go();
        }
        None
    }
}

impl Snapshot {
    /// What it takes in memory of the process's own, beside what the system may take back.
    pub fn near_bytes(&self) -> u64 {
        self.bytes.near.get().map_or(0, |near| near.bytes() as u64)
    }
}
