//! How many keys were looked up, for whoever watches: counted once a call, not once a key.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Lookups {
    found: AtomicU64,
    absent: AtomicU64,
}

impl Lookups {
    pub fn add(&self, found: usize, asked: usize) {
        self.found.fetch_add(found as u64, Ordering::Relaxed);
        let absent = (asked - found) as u64;
        self.absent.fetch_add(absent, Ordering::Relaxed);
    }

    pub fn so_far(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.found), read(&self.absent))
    }
}
