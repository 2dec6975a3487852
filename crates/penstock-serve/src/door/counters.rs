//! What the doors themselves count, for `/metrics`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Door;

/// Statuses that replies have; what is none of them counts as the last.
const STATUSES: [u16; 12] = [200, 400, 401, 403, 404, 405, 413, 429, 501, 503, 504, 500];

#[derive(Default)]
pub struct Counters {
    replies: [[AtomicU64; STATUSES.len()]; 2],
    connections: [AtomicU64; 2],
    open: [AtomicU64; 2],
}

impl Counters {
    /// Of gRPC the HTTP status of the same meaning.
    pub fn replied(&self, door: Door, status: u16) {
        let place = STATUSES.iter().position(|known| *known == status);
        let place = place.unwrap_or(STATUSES.len() - 1);
        self.replies[door as usize][place].fetch_add(1, Ordering::Relaxed);
    }

    pub fn opened(&self, door: Door) {
        self.connections[door as usize].fetch_add(1, Ordering::Relaxed);
        self.open[door as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn closed(&self, door: Door) {
        self.open[door as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// In Prometheus' text format.
    pub fn metrics(&self, held_bytes: usize) -> String {
        let mut text = String::with_capacity(1024);
        let each =
            |text: &mut String, name: &str, kind: &str, help: &str, values: &[AtomicU64; 2]| {
                head(text, name, kind, help);
                for (door, value) in Door::BOTH.iter().zip(values) {
                    let value = value.load(Ordering::Relaxed);
                    let _ = writeln!(text, "{name}{{door=\"{}\"}} {value}", door.name());
                }
            };
        let name = "penstock_door_replies_total";
        head(
            &mut text,
            name,
            "counter",
            "Replies by door and status (gRPC's by the HTTP status of the same meaning).",
        );
        for (door, replies) in Door::BOTH.iter().zip(&self.replies) {
            for (status, count) in STATUSES.iter().zip(replies) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let _ = writeln!(
                        text,
                        "{name}{{door=\"{}\",status=\"{status}\"}} {count}",
                        door.name()
                    );
                }
            }
        }
        let accepted = "Connections accepted.";
        each(
            &mut text,
            "penstock_door_connections_total",
            "counter",
            accepted,
            &self.connections,
        );
        each(
            &mut text,
            "penstock_door_connections",
            "gauge",
            "Connections open.",
            &self.open,
        );
        let name = "penstock_door_held_bytes";
        head(&mut text, name, "gauge", "Bytes of request bodies held.");
        let _ = writeln!(text, "{name} {held_bytes}");
        text
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
