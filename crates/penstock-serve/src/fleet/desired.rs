//! What should serve, as one JSON document: the control side writes it whole, the fleet makes it so.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::views::ViewsSpec;
use crate::model::Following;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    pub models: BTreeMap<String, ModelSpec>,
    /// What all models together may hold in memory of their own; 0: whatever they take.
    #[serde(default)]
    pub memory_bytes: u64,
    #[serde(default)]
    pub samples: Option<SamplesSpec>,
    #[serde(default)]
    pub impressions: Option<ImpressionsSpec>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// By label, as requests name them.
    pub versions: BTreeMap<String, VersionSpec>,
    pub traffic: Traffic,
    /// Labels that score what others answer; nobody sees their replies.
    #[serde(default)]
    pub shadow: Vec<String>,
    #[serde(default)]
    pub guards: Guards,
    /// Whether the host is ready without it.
    #[serde(default)]
    pub optional: bool,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub views: Option<ViewsSpec>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionSpec {
    pub folder: PathBuf,
    pub digest: String,
    /// Which copy of the bundle lies in the folder: another one is opened anew, though its digest is the same.
    #[serde(default)]
    pub copy: String,
    /// As the configuration names it: a folder, `models:/ctr@live`.
    pub reference: String,
    /// Addresses of the plan's user functions.
    #[serde(default)]
    pub functions: HashMap<String, usize>,
    /// How it follows its model's chain; None: it stays as the bundle has it.
    #[serde(default)]
    pub following: Option<Following>,
    /// Why it may not run, in words: it crashed the process too often, or it cannot be had.
    #[serde(default)]
    pub quarantined: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Percent by label; they sum to 100.
    pub weights: BTreeMap<String, f64>,
    /// The label that the others are judged by, and that they take their share from.
    pub live: String,
    /// The input whose value decides which version answers.
    #[serde(default)]
    pub sticky: Option<String>,
    /// Of the release: another one deals the keys anew.
    #[serde(default)]
    pub salt: String,
}

/// When a canary is taken back. None: that guard is off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guards {
    /// By how much its share of failed requests may exceed live's.
    pub error_rate: Option<f64>,
    /// A request is slow beyond this many times live's 95th percentile.
    pub latency: Option<f64>,
    /// The population stability index of its scores against live's.
    pub score_shift: Option<f64>,
    /// Whether a score shift rolls back; else it warns.
    pub score_shift_acts: bool,
    pub min_requests: u64,
    pub min_scores: u64,
}

impl Default for Guards {
    fn default() -> Guards {
        Guards {
            error_rate: Some(0.01),
            latency: Some(1.25),
            score_shift: Some(0.25),
            score_shift_acts: false,
            min_requests: 200,
            min_scores: 1000,
        }
    }
}

/// What a version of a model may take for itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Runs at a time, each in a lane (session, scratch) and a thread of its own.
    pub concurrency: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// Threads of one run.
    pub threads: usize,
    /// Rows that may be scored in one run when several requests wait.
    pub max_batch_rows: usize,
    /// The deadline of requests that bring none; 0: they wait as long as it takes.
    pub timeout_ms: u64,
    /// Mapped rows of at most so many bytes are brought into memory, on huge pages; None: of half of what is free.
    pub rows_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            concurrency: 1,
            queue: 256,
            threads: 1,
            max_batch_rows: 1024,
            timeout_ms: 30_000,
            rows_bytes: Some(0),
        }
    }
}

/// Where answered requests are written for the closed loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplesSpec {
    pub path: PathBuf,
    /// Rows a second, at most.
    pub rows_per_s: f64,
    /// Inputs that are never written.
    #[serde(default)]
    pub deny: Vec<String>,
}

/// The topic that every answered row is appended to before its reply is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImpressionsSpec {
    pub path: PathBuf,
    pub partitions: Option<usize>,
    /// What a reply waits for: "written", "synced", or "none".
    pub ack: String,
    /// Inputs that are never written.
    #[serde(default)]
    pub deny: Vec<String>,
    pub tick_ms: u64,
    pub segment_bytes: u64,
    pub sync_ms: Option<u64>,
    pub retention_ms: Option<u64>,
    pub retention_bytes: Option<u64>,
    pub lock_wait_ms: u64,
}

impl Desired {
    /// From the control side's JSON; says what is wrong with it.
    pub fn parse(text: &str) -> Result<Desired, String> {
        let desired: Desired = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for (name, model) in &desired.models {
            model
                .check()
                .map_err(|wrong| format!("model '{name}': {wrong}"))?;
        }
        Ok(desired)
    }
}

impl ModelSpec {
    fn check(&self) -> Result<(), String> {
        let named = (self.traffic.weights.keys()).chain(&self.shadow);
        if let Some(unknown) = named
            .chain([&self.traffic.live])
            .find(|label| !self.versions.contains_key(*label))
        {
            return Err(format!("'{unknown}' is none of its versions"));
        }
        let sum: f64 = self.traffic.weights.values().sum();
        let bad = |weight: &f64| !weight.is_finite() || *weight < 0.0;
        if self.traffic.weights.values().any(bad) || (sum - 100.0).abs() > 1e-6 {
            return Err(format!("its traffic sums to {sum}, not 100"));
        }
        let limits = &self.limits;
        let least = [
            limits.concurrency,
            limits.queue,
            limits.threads,
            limits.max_batch_rows,
        ];
        if least.contains(&0) {
            return Err("concurrency, queue, threads and max_batch_rows are at least 1".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"models": {"ctr": {
        "versions": {"1": {"folder": "/m/1", "digest": "aa", "reference": "models:/ctr/1"}},
        "traffic": {"weights": {"1": WEIGHT}, "live": "LIVE"}}}}"#;

    #[test]
    fn what_is_not_said_has_its_default() {
        let desired = Desired::parse(&ONE.replace("WEIGHT", "100").replace("LIVE", "1")).unwrap();
        let model = &desired.models["ctr"];
        assert_eq!(model.guards, Guards::default());
        assert_eq!(model.limits.concurrency, 1);
        assert!(!model.optional && desired.samples.is_none());
    }

    #[test]
    fn a_document_that_contradicts_itself_is_refused_by_name() {
        let wrong = |weight: &str, live: &str| {
            Desired::parse(&ONE.replace("WEIGHT", weight).replace("LIVE", live)).unwrap_err()
        };
        assert_eq!(
            wrong("90", "1"),
            "model 'ctr': its traffic sums to 90, not 100"
        );
        assert_eq!(
            wrong("100", "2"),
            "model 'ctr': '2' is none of its versions"
        );
        assert!(Desired::parse(r#"{"models": {}, "modles": 1}"#).is_err());
    }
}
