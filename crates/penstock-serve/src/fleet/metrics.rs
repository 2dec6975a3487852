//! The fleet's part of `/metrics`, in Prometheus' text format. Labels are names of the configuration, never a request's.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Fleet;
use super::counters::{BOUNDS_S, Counters, End, Histogram};
use super::engine::Engine;
use super::entry::Entry;
use super::version::Version;
use crate::model::Progress;

/// Upper ends of the histogram of rows a run.
const ROWS: [u64; 9] = [1, 4, 16, 64, 128, 256, 512, 1024, 4096];

/// A family of series: its head, then its lines.
struct Family {
    name: &'static str,
    text: String,
}

impl Family {
    fn new(name: &'static str, kind: &str, help: &str) -> Family {
        let text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { name, text }
    }

    fn line(&mut self, suffix: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{}{suffix}{{{labels}}} {value}", self.name);
    }

    fn histogram(&mut self, labels: &str, of: &Histogram) {
        let (counts, sum_s) = of.read();
        let bounds = BOUNDS_S
            .iter()
            .map(f64::to_string)
            .chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&counts) {
            self.line("_bucket", &format!("{labels},le=\"{bound}\""), count);
        }
        self.line("_sum", labels, sum_s);
        self.line("_count", labels, counts.last().unwrap_or(&0));
    }
}

impl<M: Engine> Fleet<M> {
    pub(super) fn metrics_text(&self) -> String {
        let table = self.inner.table.load();
        let mut entries: Vec<&Arc<Entry<M>>> = table.values().collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let versions = || entries.iter().flat_map(|entry| entry.versions.values());
        let families = [
            requests(
                "penstock_requests_total",
                "Requests by how they ended.",
                versions(),
                |v| &v.line.counters,
            ),
            requests(
                "penstock_shadow_requests_total",
                "Requests scored as a shadow; busy: dropped.",
                versions(),
                |v| &v.line.shadowed,
            ),
            stages(versions()),
            batches(versions()),
            gauges(
                "penstock_queue_requests",
                "Requests waiting for a lane.",
                versions(),
                |v| v.line.depth() as f64,
            ),
            gauges(
                "penstock_memory_bytes",
                "What a version holds in memory of its own.",
                versions(),
                |v| v.memory_bytes() as f64,
            ),
            rows(versions()),
            lookups(versions()),
            followed(
                versions(),
                "penstock_chain_generation",
                "gauge",
                "Generation of the chain that is served.",
                |p| p.position.generation as f64,
            ),
            followed(
                versions(),
                "penstock_chain_sequence",
                "gauge",
                "Sequence number in it.",
                |p| p.position.sequence as f64,
            ),
            followed(
                versions(),
                "penstock_chain_lag_seconds",
                "gauge",
                "Since the version last had all that its chain had.",
                |p| p.lag_s,
            ),
            followed(
                versions(),
                "penstock_chain_deltas_total",
                "counter",
                "Deltas applied.",
                |p| p.deltas as f64,
            ),
            followed(
                versions(),
                "penstock_chain_rows_total",
                "counter",
                "Rows and tombstones applied.",
                |p| p.rows as f64,
            ),
            followed(
                versions(),
                "penstock_chain_rebased_total",
                "counter",
                "Times that a newer base took the place of rows and deltas.",
                |p| p.rebased as f64,
            ),
            shares(&entries),
            rolled_back(&entries),
            self.own(),
        ];
        families.into_iter().map(|family| family.text).collect()
    }

    fn own(&self) -> Family {
        let mut family = Family::new(
            "penstock_ready",
            "gauge",
            "Whether every model that is not optional serves.",
        );
        let draining = self.inner.draining.load(Ordering::Relaxed);
        let _ = writeln!(
            family.text,
            "penstock_ready {}",
            u8::from(self.whole() && !draining)
        );
        if let Some(samples) = &*self.inner.hub.samples.load() {
            let (written, lost) = samples.counts();
            for (name, help, value) in [
                (
                    "penstock_samples_written_total",
                    "Rows written to the sample log.",
                    written,
                ),
                (
                    "penstock_samples_lost_total",
                    "Rows that the sample log could not keep up with or write.",
                    lost,
                ),
            ] {
                let _ = writeln!(
                    family.text,
                    "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}"
                );
            }
        }
        if let Some(impressions) = &*self.inner.hub.impressions.load() {
            let (written, lost) = impressions.counts();
            let waiting = impressions.waiting_bytes() as u64;
            for (name, kind, help, value) in [
                (
                    "penstock_impressions_written_total",
                    "counter",
                    "Rows appended to the topic of impressions.",
                    written,
                ),
                (
                    "penstock_impressions_lost_total",
                    "counter",
                    "Rows that were answered and could not be appended.",
                    lost,
                ),
                (
                    "penstock_impressions_waiting_bytes",
                    "gauge",
                    "Bytes that wait to be appended.",
                    waiting,
                ),
            ] {
                let _ = writeln!(
                    family.text,
                    "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
                );
            }
        }
        family
    }
}

fn labels<M: Engine>(version: &Version<M>) -> String {
    // Models' names and labels are checked where the configuration is read; a quote could still stand in a label.
    let label = version
        .label()
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', " ");
    format!("model=\"{}\",version=\"{label}\"", version.line.model)
}

fn requests<'a, M: Engine>(
    name: &'static str,
    help: &str,
    versions: impl Iterator<Item = &'a Arc<Version<M>>>,
    of: impl Fn(&Version<M>) -> &Counters,
) -> Family {
    let mut family = Family::new(name, "counter", help);
    for version in versions {
        for (end, count) in of(version).ends() {
            family.line("", &format!("{},end=\"{end}\"", labels(version)), count);
        }
    }
    family
}

fn stages<'a, M: Engine>(versions: impl Iterator<Item = &'a Arc<Version<M>>>) -> Family {
    let help = "Where answered requests' time went.";
    let mut family = Family::new("penstock_stage_seconds", "histogram", help);
    for version in versions.filter(|version| version.line.counters.end(End::Ok) > 0) {
        for (stage, histogram) in version.line.counters.stages() {
            family.histogram(&format!("{},stage=\"{stage}\"", labels(version)), histogram);
        }
    }
    family
}

fn batches<'a, M: Engine>(versions: impl Iterator<Item = &'a Arc<Version<M>>>) -> Family {
    let mut family = Family::new("penstock_batch_rows", "histogram", "Rows of a run.");
    for version in versions {
        let batches = version.line.counters.batches();
        let labels = labels(version);
        let runs: u64 = batches.values().map(|(runs, _)| runs).sum();
        for bound in ROWS {
            let count: u64 = batches.range(..=bound).map(|(_, (runs, _))| runs).sum();
            family.line("_bucket", &format!("{labels},le=\"{bound}\""), count);
        }
        family.line("_bucket", &format!("{labels},le=\"+Inf\""), runs);
        family.line("_sum", &labels, version.line.counters.rows());
        family.line("_count", &labels, runs);
    }
    family
}

fn gauges<'a, M: Engine>(
    name: &'static str,
    help: &str,
    versions: impl Iterator<Item = &'a Arc<Version<M>>>,
    of: impl Fn(&Version<M>) -> f64,
) -> Family {
    let mut family = Family::new(name, "gauge", help);
    versions.for_each(|version| family.line("", &labels(version), of(version)));
    family
}

fn rows<'a, M: Engine>(versions: impl Iterator<Item = &'a Arc<Version<M>>>) -> Family {
    let mut family = Family::new(
        "penstock_rows_total",
        "counter",
        "Rows scored for requests that were answered.",
    );
    versions.for_each(|version| family.line("", &labels(version), version.line.counters.rows()));
    family
}

fn lookups<'a, M: Engine>(versions: impl Iterator<Item = &'a Arc<Version<M>>>) -> Family {
    let help = "Keys looked up in a version's tables.";
    let mut family = Family::new("penstock_table_keys_total", "counter", help);
    for version in versions {
        if let Some((hits, misses)) = version.line.engine.lookups() {
            let labels = labels(version);
            family.line("", &format!("{labels},found=\"true\""), hits);
            family.line("", &format!("{labels},found=\"false\""), misses);
        }
    }
    family
}

fn followed<'a, M: Engine>(
    versions: impl Iterator<Item = &'a Arc<Version<M>>>,
    name: &'static str,
    kind: &str,
    help: &str,
    of: impl Fn(&Progress) -> f64,
) -> Family {
    let mut family = Family::new(name, kind, help);
    for version in versions {
        if let Some(progress) = version.line.engine.progress() {
            let value = of(&progress);
            // Prometheus' own word; Rust says `inf`.
            let value = if value.is_infinite() {
                "+Inf".to_owned()
            } else {
                value.to_string()
            };
            family.line("", &labels(version), value);
        }
    }
    family
}

fn shares<M: Engine>(entries: &[&Arc<Entry<M>>]) -> Family {
    let help = "Percent of a model's requests that a version gets.";
    let mut family = Family::new("penstock_traffic_percent", "gauge", help);
    for entry in entries {
        for (label, percent) in entry.shares() {
            family.line(
                "",
                &format!("model=\"{}\",version=\"{label}\"", entry.name),
                percent,
            );
        }
    }
    family
}

fn rolled_back<M: Engine>(entries: &[&Arc<Entry<M>>]) -> Family {
    let help = "Whether a canary's guards have taken it back.";
    let mut family = Family::new("penstock_rolled_back", "gauge", help);
    for watch in entries.iter().flat_map(|entry| &entry.watches) {
        let of = &watch.identity;
        let labels = format!("model=\"{}\",version=\"{}\"", of.model, of.label);
        family.line("", &labels, u8::from(watch.tripped()));
    }
    family
}
