//! What the control side should hear: rollbacks, warnings, failures; a JSON line each.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;

/// The oldest are dropped where nobody listens.
const KEPT: usize = 1000;

#[derive(Serialize)]
struct Event<'a> {
    /// Unix time, seconds.
    time: f64,
    event: &'a str,
    model: &'a str,
    version: &'a str,
    bundle: &'a str,
    why: &'a str,
}

#[derive(Default)]
pub struct Events(Mutex<VecDeque<String>>);

impl Events {
    /// `event`: "rollback", "score_shift", "panic", "lane_lost", "impressions_lost", "damaged".
    pub fn tell(&self, event: &str, model: &str, version: &str, bundle: &str, why: &str) {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let line = Event {
            time: since.as_secs_f64(),
            event,
            model,
            version,
            bundle,
            why,
        };
        let line = serde_json::to_string(&line).unwrap_or_default();
        let mut lines = self.0.lock();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// What was told since the last call, oldest first.
    pub fn take(&self) -> Vec<String> {
        self.0.lock().drain(..).collect()
    }
}
