//! How often absent keys were seen: a count-min sketch of bytes that ages.
//!
//! A key's four counters lie in one cache line (60 counters and a clock). Aging halves everything; a line carries the
//! number of halvings it has seen and catches up when touched, so aging costs nothing where nobody looks.

use crate::hash::mix;

const COUNTERS: usize = 60;
const PROBES: usize = 4;
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
        let at = (u128::from(bits) * self.lines.len() as u128) >> 64;
        let line = &mut self.lines[at as usize];
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

    /// Asks for the line of a hash.
    pub fn prefetch(&self, hash: u64) {
        let at = (u128::from(mix(hash)) * self.lines.len() as u128) >> 64;
        crate::line::prefetch(self.lines.as_ptr().wrapping_add(at as usize));
    }
}
