//! A model as requests find it: its versions, and who gets which request.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::desired::ModelSpec;
use super::engine::Engine;
use super::guards::Side;
use super::split::{Split, sticky_key};
use super::version::Version;
use super::views::Views;
use super::watch::{Identity, Watch};
use crate::error::{Fault, Kind, Result};
use crate::service::Request;

pub struct Entry<M: Engine> {
    pub name: Arc<str>,
    pub spec: ModelSpec,
    /// Loaded ones, by label.
    pub versions: BTreeMap<String, Arc<Version<M>>>,
    /// Why versions that should serve do not, by label.
    pub faults: BTreeMap<String, String>,
    pub split: Split,
    pub watches: Vec<Arc<Watch>>,
    /// What is looked up for its requests.
    pub views: Option<Arc<Views>>,
    /// Taken out of service by hand.
    pub unloaded: bool,
}

/// Who answers, and what the answer counts for.
pub struct Route<M: Engine> {
    pub version: Arc<Version<M>>,
    pub watches: Vec<Arc<Watch>>,
    pub side: Side,
    /// Who else scores it.
    pub shadows: Vec<Arc<Version<M>>>,
    pub dealt: bool,
}

impl<M: Engine> Entry<M> {
    /// An entry that serves `versions`. Shares of versions that are not loaded go to the others in proportion, unless
    /// `before` still serves all that it dealt to: then traffic stays as it was. Watches of `before` go on.
    pub fn new(
        name: &Arc<str>,
        spec: &ModelSpec,
        versions: BTreeMap<String, Arc<Version<M>>>,
        faults: BTreeMap<String, String>,
        before: Option<&Entry<M>>,
    ) -> Entry<M> {
        let mut spec = spec.clone();
        let lacking = |of: &ModelSpec| {
            let mut dealt = of
                .traffic
                .weights
                .iter()
                .filter(|(_, weight)| **weight > 0.0);
            dealt.any(|(label, _)| !versions.contains_key(label))
        };
        if lacking(&spec)
            && let Some(before) = before.filter(|before| !lacking(&before.spec))
        {
            spec.traffic = before.spec.traffic.clone();
        }
        let traffic = &spec.traffic;
        let mut weights = traffic.weights.clone();
        weights.retain(|label, _| versions.contains_key(label));
        let split = Split::new(&weights, &traffic.live, name, &traffic.salt);
        let live_bundle = versions
            .get(&traffic.live)
            .map(|live| live.bundle().to_string());
        let watch = |label: &str| {
            let identity = Identity {
                model: name.to_string(),
                label: label.to_owned(),
                bundle: versions.get(label)?.bundle().to_string(),
                live_bundle: live_bundle.clone()?,
                salt: traffic.salt.clone(),
                guards: spec.guards.clone(),
            };
            let known = before.and_then(|b| b.watches.iter().find(|w| w.identity == identity));
            Some(
                known
                    .cloned()
                    .unwrap_or_else(|| Arc::new(Watch::new(identity))),
            )
        };
        let canaries = split.labels().filter(|label| *label != traffic.live);
        let watches = canaries.filter_map(watch).collect();
        Entry {
            name: name.clone(),
            spec,
            versions,
            faults,
            split,
            watches,
            views: None,
            unloaded: false,
        }
    }

    /// Whether no version is further behind its chain than it may be.
    pub fn current(&self) -> bool {
        let progress = |version: &Arc<Version<M>>| version.line.engine.progress();
        let mut all = self.versions.values().filter_map(progress);
        all.all(|followed| followed.lag_s <= followed.max_lag_s)
    }

    /// Who answers a request. `NotFound` for a version that the configuration does not name, `Unavailable` for one that
    /// is not loaded.
    pub fn route(&self, request: &Request) -> Result<Route<M>> {
        if let Some(label) = &request.version {
            return Ok(Route {
                version: self.version(label)?.clone(),
                watches: vec![],
                side: Side::Live,
                shadows: vec![],
                dealt: false,
            });
        }
        let traffic = &self.spec.traffic;
        let sticky = traffic
            .sticky
            .as_deref()
            .filter(|_| !self.watches.is_empty());
        let key = sticky.and_then(|column| sticky_key(&request.tensors, column));
        let label = self
            .split
            .choose(key.as_deref())
            .ok_or_else(|| self.nothing_loaded())?;
        let canary = self
            .watches
            .iter()
            .find(|watch| watch.identity.label == label);
        let label = match canary {
            Some(watch) if watch.tripped() => traffic.live.as_str(),
            _ => label,
        };
        let (watches, side) = match canary.filter(|watch| !watch.tripped()) {
            Some(watch) => (vec![watch.clone()], Side::Canary),
            // Every canary that is still watched is compared with live.
            None if label == traffic.live => {
                let still = self.watches.iter().filter(|watch| !watch.tripped());
                (still.cloned().collect(), Side::Live)
            }
            None => (vec![], Side::Live),
        };
        let version = self.version(label)?.clone();
        let others = self.spec.shadow.iter().filter(|shadow| *shadow != label);
        let shadows = others
            .filter_map(|shadow| self.versions.get(shadow).cloned())
            .collect();
        Ok(Route {
            version,
            watches,
            side,
            shadows,
            dealt: true,
        })
    }

    /// A version by label.
    pub fn version(&self, label: &str) -> Result<&Arc<Version<M>>> {
        if let Some(version) = self.versions.get(label) {
            return Ok(version);
        }
        if !self.spec.versions.contains_key(label) {
            let said = format!("model '{}' has no version '{label}'", self.name);
            return Err(Fault::new(Kind::NotFound, said));
        }
        let why = self.faults.get(label).map_or("", String::as_str);
        let said = format!(
            "version '{label}' of model '{}' is not loaded: {why}",
            self.name
        );
        Err(unavailable(said))
    }

    /// The version that answers questions about the model: live, else any that has a share, else any.
    pub fn speaker(&self) -> Result<&Arc<Version<M>>> {
        let shared = self
            .split
            .labels()
            .find_map(|label| self.versions.get(label));
        let live = self.versions.get(&self.spec.traffic.live);
        let found = live
            .or(shared)
            .or_else(|| self.versions.values().next_back());
        found.ok_or_else(|| self.nothing_loaded())
    }

    /// Whether every version that should serve does.
    pub fn whole(&self) -> bool {
        self.unloaded || self.faults.is_empty()
    }

    fn nothing_loaded(&self) -> Fault {
        let name = &self.name;
        if self.unloaded {
            return unavailable(format!("model '{name}' was unloaded"));
        }
        let mut each = self
            .faults
            .iter()
            .map(|(label, why)| format!("version '{label}': {why}"));
        let why = each.next().unwrap_or_else(|| super::apply::LOADING.into());
        unavailable(format!("model '{name}' is not loaded: {why}"))
    }
}

fn unavailable(said: String) -> Fault {
    Fault {
        retry_after_s: Some(5),
        ..Fault::new(Kind::Unavailable, said)
    }
}
