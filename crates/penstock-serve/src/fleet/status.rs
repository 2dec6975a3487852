//! What an operator wants to see of the fleet: who serves, who gets what, how it goes.

use serde::Serialize;

use super::Fleet;
use super::counters::End;
use super::engine::Engine;
use super::entry::Entry;

#[derive(Debug, Serialize)]
pub struct Status {
    pub ready: bool,
    pub memory_bytes: u64,
    pub models: std::collections::BTreeMap<String, ModelStatus>,
}

#[derive(Debug, Serialize)]
pub struct ModelStatus {
    pub live: String,
    pub sticky: Option<String>,
    pub unloaded: bool,
    pub versions: Vec<VersionStatus>,
}

#[derive(Debug, Serialize)]
pub struct VersionStatus {
    pub version: String,
    /// "ready", or what keeps it from that.
    pub state: String,
    pub reference: String,
    pub bundle: String,
    /// Percent of the requests that name no version.
    pub traffic: f64,
    pub shadow: bool,
    pub requests: u64,
    pub failed: u64,
    pub late: u64,
    pub busy: u64,
    pub waiting: usize,
    pub memory_bytes: u64,
    /// What its guards see; None: it is no canary.
    pub watched: Option<Watched>,
    /// Why its guards took it back; None: they have not.
    pub rolled_back: Option<String>,
}

/// The newest requests that traffic dealt to a canary and to live beside it.
#[derive(Debug, Serialize)]
pub struct Watched {
    pub requests: u64,
    pub failed: u64,
    pub live_requests: u64,
    pub live_failed: u64,
}

impl<M: Engine> Fleet<M> {
    pub fn status(&self) -> Status {
        let table = self.inner.table.load();
        let models = table
            .iter()
            .map(|(name, entry)| (name.to_string(), of(entry)))
            .collect();
        Status {
            ready: crate::service::Service::ready(self),
            memory_bytes: self.memory_bytes(),
            models,
        }
    }
}

impl<M: Engine> Entry<M> {
    /// Percent by label, as it is now: of a canary that was taken back, 0.
    pub fn shares(&self) -> Vec<(String, f64)> {
        let tripped = |label: &str| {
            self.watches
                .iter()
                .any(|w| w.tripped() && w.identity.label == label)
        };
        let mut shares: Vec<(String, f64)> = vec![];
        let mut taken = 0.0;
        for (label, percent) in self.split.percents() {
            let back = tripped(label);
            taken += if back { percent } else { 0.0 };
            shares.push((label.to_owned(), if back { 0.0 } else { percent }));
        }
        let live = shares
            .iter_mut()
            .find(|(label, _)| *label == self.spec.traffic.live);
        if let Some((_, percent)) = live {
            *percent += taken;
        }
        shares
    }
}

fn of<M: Engine>(entry: &Entry<M>) -> ModelStatus {
    let shares = entry.shares();
    let mut labels: Vec<&String> = entry
        .spec
        .versions
        .keys()
        .chain(entry.versions.keys())
        .collect();
    labels.sort();
    labels.dedup();
    let versions = labels
        .into_iter()
        .map(|label| version(entry, label, &shares));
    ModelStatus {
        live: entry.spec.traffic.live.clone(),
        sticky: entry.spec.traffic.sticky.clone(),
        unloaded: entry.unloaded,
        versions: versions.collect(),
    }
}

fn version<M: Engine>(entry: &Entry<M>, label: &str, shares: &[(String, f64)]) -> VersionStatus {
    let loaded = entry.versions.get(label);
    let spec = loaded
        .map(|version| &version.spec)
        .or_else(|| entry.spec.versions.get(label));
    let fault = entry.faults.get(label).cloned();
    let end = |end| loaded.map_or(0, |version| version.line.counters.end(end));
    let watch = entry
        .watches
        .iter()
        .find(|watch| watch.identity.label == label);
    VersionStatus {
        version: label.to_owned(),
        state: match (loaded, fault) {
            (Some(_), None) => "ready".to_owned(),
            (Some(_), Some(why)) => format!("ready as it was before: {why}"),
            (None, why) => why.unwrap_or_else(|| "unloaded".to_owned()),
        },
        reference: spec.map(|spec| spec.reference.clone()).unwrap_or_default(),
        bundle: spec.map(|spec| spec.digest.clone()).unwrap_or_default(),
        traffic: shares
            .iter()
            .find(|(of, _)| of == label)
            .map_or(0.0, |(_, percent)| *percent),
        shadow: entry.spec.shadow.iter().any(|shadow| shadow == label),
        requests: end(End::Ok),
        failed: end(End::Failed),
        late: end(End::Late),
        busy: end(End::Busy),
        waiting: loaded.map_or(0, |version| version.line.depth()),
        memory_bytes: loaded.map_or(0, |version| version.memory_bytes()),
        watched: watch.map(|watch| {
            let [live, canary] = watch.error_shares();
            Watched {
                requests: canary.of,
                failed: canary.hits,
                live_requests: live.of,
                live_failed: live.hits,
            }
        }),
        rolled_back: watch
            .filter(|watch| watch.tripped())
            .map(|watch| watch.why()),
    }
}
