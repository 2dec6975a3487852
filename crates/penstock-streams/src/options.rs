//! What whoever opens a log may choose.

use std::time::Duration;

use crate::fault::{Fault, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes at which a segment is followed by the next.
    pub segment_bytes: u64,
    /// What was written is synced so soon; None leaves that to the system.
    pub sync_every: Option<Duration>,
    /// Records may go once they are so old. Whole segments go, never the last.
    pub retention_ms: Option<u64>,
    /// The oldest segments go when a partition has more.
    pub retention_bytes: Option<u64>,
    /// How long an append waits for another process's.
    pub lock_wait: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            sync_every: Some(Duration::from_millis(50)),
            retention_ms: None,
            retention_bytes: None,
            lock_wait: Duration::from_secs(30),
        }
    }
}

impl Options {
    pub fn check(&self) -> Result<()> {
        if !(4096..=1 << 30).contains(&self.segment_bytes) {
            let what = format!(
                "a segment of {} bytes: from 4 KiB to 1 GiB",
                self.segment_bytes
            );
            return Err(Fault::Setting(what));
        }
        if self
            .sync_every
            .is_some_and(|every| every < Duration::from_millis(1))
        {
            return Err(Fault::Setting("syncing more often than every ms".into()));
        }
        Ok(())
    }

    /// Records can only go with their segment: one is not written on for longer than an eighth of what is kept.
    pub(crate) fn segment_age_ms(&self) -> Option<i64> {
        self.retention_ms.map(|kept| (kept / 8).max(1000) as i64)
    }
}
