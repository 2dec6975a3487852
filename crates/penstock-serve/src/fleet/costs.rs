//! What runs of a version take, by rows: whether a request may be scored where it was decoded.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Classes of rows: 2^0 .. 2^12.
const CLASSES: usize = 13;
/// A run that holds the thread of a door any longer would be felt by others' requests.
const SHORT_NS: u64 = 1_000_000;

#[derive(Default)]
pub struct Costs {
    /// The worst of late, in nanoseconds, by class; 0: never seen.
    worst_ns: [AtomicU64; CLASSES],
    /// Up to how many rows runs are short.
    short_rows: AtomicUsize,
}

impl Costs {
    /// Rows up to which a run is expected to be short; 0: none, or nothing is known yet.
    pub fn short_rows(&self) -> usize {
        self.short_rows.load(Relaxed)
    }

    pub fn saw(&self, rows: usize, took: Duration) {
        let class = (rows.max(1).next_power_of_two().ilog2() as usize).min(CLASSES - 1);
        let before = self.worst_ns[class].load(Relaxed);
        let now = (took.as_nanos() as u64).max(before - before / 16);
        self.worst_ns[class].store(now, Relaxed);
        // A class that was never seen is taken for twice the one below.
        let (mut expected, mut seen, mut short) = (0, 0, 0);
        for (class, worst) in self.worst_ns.iter().enumerate() {
            match worst.load(Relaxed) {
                0 if expected == 0 => continue,
                0 => expected *= 2,
                ns => {
                    seen = ns.max(seen);
                    expected = seen;
                }
            }
            if expected > SHORT_NS {
                break;
            }
            short = 1 << class;
        }
        self.short_rows.store(short, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_proved_short_is_short() {
        let costs = Costs::default();
        assert_eq!(costs.short_rows(), 0);
        costs.saw(1, Duration::from_micros(100));
        assert_eq!(costs.short_rows(), 8);
        costs.saw(4, Duration::from_micros(110));
        assert_eq!(costs.short_rows(), 32);
        costs.saw(1, Duration::from_millis(200));
        assert_eq!(costs.short_rows(), 0);
        (0..200).for_each(|_| costs.saw(1, Duration::from_micros(100)));
        assert_eq!(costs.short_rows(), 32);
    }
}
