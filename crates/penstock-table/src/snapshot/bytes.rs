//! A snapshot's bytes: where they were found, and where look-ups read them.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use crate::disk::Source;
use crate::memory::Mapping;

/// Where a snapshot's bytes were found.
pub(super) enum Map {
    Mapped(memmap2::Mmap),
    Held(Vec<u8>),
}

impl std::ops::Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Map::Mapped(map) => map,
            Map::Held(bytes) => bytes,
        }
    }
}

impl Map {
    /// Gives the pages that were touched back to the system; they come again when they are touched again.
    pub fn let_go(&self) {
        #[cfg(unix)]
        if let Map::Mapped(map) = self {
            // SAFETY: the map is of a file and read-only, so that nothing is lost but time.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

/// A snapshot's bytes.
pub(super) struct Bytes {
    pub map: Map,
    /// The same in memory of the process's own, once they were brought there (`near.rs`).
    pub near: OnceLock<Mapping>,
    /// Whether somebody brings them there.
    pub coming: AtomicBool,
    length: usize,
}

impl Bytes {
    pub fn of(map: Map) -> Bytes {
        Bytes {
            length: map.len(),
            map,
            near: OnceLock::new(),
            coming: AtomicBool::new(false),
        }
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        if let Some(near) = self.near.get() {
            // SAFETY: it was filled to this length before it was set, and nobody writes to it since.
            return unsafe { std::slice::from_raw_parts(near.base(), self.length) };
        }
        &self.map
    }
}

impl Source for Bytes {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, at: u64, out: &mut [u8]) -> std::io::Result<()> {
        let from = usize::try_from(at).ok();
        let found = from.and_then(|at| self.get(at..)?.get(..out.len()));
        out.copy_from_slice(found.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
