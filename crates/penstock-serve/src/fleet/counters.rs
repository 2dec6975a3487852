//! What a version has done so far: counts that any thread adds to without waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::error::Kind;
use crate::service::{Statistics, Timings};

/// Upper ends of the histograms' buckets, in seconds.
pub const BOUNDS_S: [f64; 19] = [
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Durations by bucket; the last bucket has no end.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_S.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS_S.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    /// Cumulative counts by `BOUNDS_S` and in all, and the sum in seconds.
    pub fn read(&self) -> (Vec<u64>, f64) {
        let mut passed = 0;
        let each = self.buckets.iter().map(|bucket| {
            passed += bucket.load(Relaxed);
            passed
        });
        (each.collect(), self.sum_ns.load(Relaxed) as f64 / 1e9)
    }

    fn total(&self) -> (u64, Duration) {
        let count = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum();
        (count, Duration::from_nanos(self.sum_ns.load(Relaxed)))
    }
}

/// The stages of a request, in order.
pub const STAGES: [&str; 6] = ["decode", "queue", "features", "lookup", "run", "encode"];
/// How requests end.
pub const ENDS: [&str; 6] = ["ok", "client", "busy", "late", "gone", "failed"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Ok = 0,
    /// The client's fault.
    Client = 1,
    /// Refused: the queue was full.
    Busy = 2,
    Late = 3,
    /// The client left before.
    Gone = 4,
    /// Our fault.
    Failed = 5,
}

impl End {
    pub fn of(kind: Kind) -> End {
        match kind {
            Kind::Late => End::Late,
            Kind::Busy => End::Busy,
            Kind::Internal | Kind::Unavailable => End::Failed,
            _ => End::Client,
        }
    }
}

#[derive(Debug, Default)]
pub struct Counters {
    ends: [AtomicU64; ENDS.len()],
    stages: [Histogram; STAGES.len()],
    succeeded_ns: AtomicU64,
    failed_ns: AtomicU64,
    rows: AtomicU64,
    executions: AtomicU64,
    last_ms: AtomicU64,
    /// By rows (rounded up to a power of 2 beyond 16): runs and their time in nanoseconds.
    batches: Mutex<BTreeMap<u64, (u64, u64)>>,
}

impl Counters {
    /// A request has ended, `whole` after it arrived.
    pub fn ended(&self, end: End, whole: Duration) {
        self.ends[end as usize].fetch_add(1, Relaxed);
        let sum = if end == End::Ok {
            &self.succeeded_ns
        } else {
            &self.failed_ns
        };
        sum.fetch_add(whole.as_nanos() as u64, Relaxed);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.last_ms.store(now.as_millis() as u64, Relaxed);
    }

    /// A request that was answered: its rows, and where its time went up to the reply.
    pub fn answered(&self, rows: usize, decode: Duration, timings: &Timings) {
        self.rows.fetch_add(rows as u64, Relaxed);
        let each = [
            decode,
            timings.queue,
            timings.features,
            timings.lookup,
            timings.run,
        ];
        for (stage, took) in self.stages.iter().zip(each) {
            stage.add(took);
        }
    }

    /// What writing the reply took.
    pub fn encoded(&self, took: Duration) {
        self.stages[5].add(took);
    }

    /// A run of so many rows.
    pub fn ran(&self, rows: usize, took: Duration) {
        self.executions.fetch_add(1, Relaxed);
        let rows = if rows > 16 {
            rows.next_power_of_two()
        } else {
            rows
        };
        let mut batches = self.batches.lock();
        let entry = batches.entry(rows as u64).or_default();
        *entry = (entry.0 + 1, entry.1 + took.as_nanos() as u64);
    }

    pub fn end(&self, end: End) -> u64 {
        self.ends[end as usize].load(Relaxed)
    }

    pub fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ENDS.into_iter()
            .zip(self.ends.iter().map(|n| n.load(Relaxed)))
    }

    pub fn stages(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        STAGES.into_iter().zip(&self.stages)
    }

    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Runs by rows.
    pub fn batches(&self) -> BTreeMap<u64, (u64, Duration)> {
        let batches = self.batches.lock();
        let each = batches
            .iter()
            .map(|(rows, (runs, ns))| (*rows, (*runs, Duration::from_nanos(*ns))));
        each.collect()
    }

    /// As the protocol tells it.
    pub fn statistics(&self, name: &str, version: &Arc<str>) -> Statistics {
        let ns = |sum: &AtomicU64| Duration::from_nanos(sum.load(Relaxed));
        let bad = [End::Client, End::Busy, End::Late, End::Gone, End::Failed];
        let stage = |at: usize| self.stages[at].total();
        let (features, lookup) = (stage(2), stage(3));
        Statistics {
            name: name.to_owned(),
            version: version.clone(),
            last_ms: self.last_ms.load(Relaxed),
            rows: self.rows(),
            executions: self.executions.load(Relaxed),
            succeeded: (self.end(End::Ok), ns(&self.succeeded_ns)),
            failed: (
                bad.map(|end| self.end(end)).iter().sum(),
                ns(&self.failed_ns),
            ),
            queue: stage(1),
            input: (features.0, features.1 + lookup.1),
            run: stage(4),
            batches: self.batches(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let histogram = Histogram::default();
        for us in [5, 10, 11, 20_000_000] {
            histogram.add(Duration::from_micros(us));
        }
        let (counts, sum_s) = histogram.read();
        assert_eq!((counts[0], counts[1], counts[18], counts[19]), (2, 3, 3, 4));
        assert!((sum_s - 20.000_026).abs() < 1e-9);
    }

    #[test]
    fn batches_beyond_16_rows_are_kept_by_powers_of_two() {
        let counters = Counters::default();
        for rows in [1, 1, 16, 17, 31, 1000] {
            counters.ran(rows, Duration::from_micros(1));
        }
        let told: Vec<(u64, u64)> = counters
            .batches()
            .into_iter()
            .map(|(rows, (n, _))| (rows, n))
            .collect();
        assert_eq!(told, [(1, 2), (16, 1), (32, 2), (1024, 1)]);
    }
}
