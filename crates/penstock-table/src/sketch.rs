//! How often absent keys were seen: a count-min sketch of bytes that ages.
//!
//! A key's four counters lie in one cache line (60 counters and a clock). Aging halves everything; a line carries the
//! number of halvings it has seen and catches up when touched, so aging costs nothing where nobody looks.

use crate::hash::mix;

const COUNTERS: usize = 60;
const PROBES: usize = 4;
/// Bytes of a line.
pub const LINE: usize = 64;
/// The highest count it can tell.
pub const MOST: u32 = 255;

#[repr(C, align(64))]
#[derive(Clone)]
struct Line {
    counters: [u8; COUNTERS],
    halvings: u32,
}

/// The sketch of one shard. Empty if the table admits at first sight.
#[derive(Clone, Default)]
pub struct Sketch {
    lines: Vec<Line>,
}

impl Sketch {
    pub fn new(bytes: usize) -> Sketch {
        Sketch {
            lines: vec![
                Line {
                    counters: [0; COUNTERS],
                    halvings: 0
                };
                (bytes / 64).max(1)
            ],
        }
    }

    pub fn bytes(&self) -> u64 {
        (self.lines.len() * 64) as u64
    }

    /// Adds `sightings` of a hash after `halvings` halvings; returns its estimated count, at most `MOST`.
    pub fn add(&mut self, hash: u64, sightings: u32, halvings: u32) -> u32 {
        let bits = mix(hash);
        let at = self.place(hash);
        let line = &mut self.lines[at];
        let behind = halvings - line.halvings;
        if behind > 0 {
            line.counters
                .iter_mut()
                .for_each(|counter| *counter = counter.checked_shr(behind).unwrap_or(0));
            line.halvings = halvings;
        }
        let probes: [usize; PROBES] =
            std::array::from_fn(|probe| (bits >> (8 * probe)) as u8 as usize * COUNTERS / 256);
        let least = probes
            .iter()
            .map(|&probe| line.counters[probe])
            .min()
            .unwrap_or(0);
        let count = (u32::from(least)).saturating_add(sightings).min(MOST);
        for probe in probes {
            line.counters[probe] = line.counters[probe].max(count as u8);
        }
        count
    }

    /// The number of lines.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// The line of a hash.
    pub fn place(&self, hash: u64) -> usize {
        ((u128::from(mix(hash)) * self.lines.len() as u128) >> 64) as usize
    }

    /// A line as artefacts have it.
    pub fn line(&self, at: usize) -> [u8; LINE] {
        let mut bytes = [0; LINE];
        bytes[..COUNTERS].copy_from_slice(&self.lines[at].counters);
        bytes[COUNTERS..].copy_from_slice(&self.lines[at].halvings.to_le_bytes());
        bytes
    }

    /// Takes all lines from what `line` gave, one after another. None if there are not as many, or of a later time.
    pub fn restore(&mut self, bytes: &[u8], halvings_so_far: u32) -> Option<()> {
        let (lines, rest) = bytes.as_chunks::<LINE>();
        if lines.len() != self.lines.len() || !rest.is_empty() {
            return None;
        }
        for (line, bytes) in self.lines.iter_mut().zip(lines) {
            let (counters, halvings) = bytes.split_at(COUNTERS);
            line.counters.copy_from_slice(counters);
            line.halvings = crate::artefact::word(halvings, 0);
            if line.halvings > halvings_so_far {
                return None;
            }
        }
        Some(())
    }

    /// Asks for the line of a hash.
    pub fn prefetch(&self, hash: u64) {
        crate::line::prefetch(self.lines.as_ptr().wrapping_add(self.place(hash)));
    }
}
