//! From what serves to what should: load beside, warm up, swap, drain, unload. A model after the other; no request fails.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::desired::{Desired, ModelSpec, VersionSpec};
use super::engine::Engine;
use super::entry::Entry;
use super::line::Naming;
use super::version::Version;
use super::views::Views;
use super::{Fleet, Table};
use crate::error::{Fault, Result};
use crate::samples::{Impressions, Samples};

/// How long what was replaced may take to answer its last requests.
const PATIENCE: Duration = Duration::from_secs(10);

/// The fault of versions that are on their way.
pub(super) const LOADING: &str = "it is being loaded";

/// What came of a desired state.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub ready: bool,
    /// By model, by label.
    pub models: BTreeMap<String, BTreeMap<String, VersionReport>>,
    pub loaded: usize,
    pub unloaded: usize,
    /// What keeps the fleet itself from doing all that it should: the sample log or the topic of impressions cannot be opened.
    pub problems: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct VersionReport {
    /// "ready", "failed" (or refused: it is quarantined), "unloaded".
    pub state: &'static str,
    pub reason: String,
    pub bundle: String,
    pub memory_bytes: u64,
}

type Versions<M> = BTreeMap<String, Arc<Version<M>>>;

impl<M: Engine> Fleet<M> {
    /// Makes it so, and tells what would not go. Blocks as long as that takes; one call after the other.
    pub fn apply(&self, desired: Desired) -> Report {
        let mut control = self.inner.control.lock();
        let mut report = Report::default();
        self.set_samples(&desired, &mut report);
        self.set_impressions(&desired, &mut report);
        control
            .unloaded
            .retain(|model| desired.models.contains_key(model));
        control.desired = desired.clone();
        let table = self.inner.table.load_full();
        // What is no longer wanted leaves first: its memory is free for what comes.
        for name in table
            .keys()
            .filter(|name| !desired.models.contains_key(&***name))
        {
            self.replace(name, None, &mut report);
        }
        for (name, spec) in &desired.models {
            let unloaded = control.unloaded.contains(name);
            self.bring(name, spec, unloaded, desired.memory_bytes, &mut report);
        }
        self.inner.applied.store(true, Ordering::Relaxed);
        report.ready = self.whole();
        report
    }

    /// One model by hand: out of service, or in again.
    pub(super) fn set_unloaded(&self, model: &str, unloaded: bool) -> Result<()> {
        self.entry(model)?;
        let mut control = self.inner.control.lock();
        if unloaded {
            control.unloaded.insert(model.to_owned());
        } else {
            control.unloaded.remove(model);
        }
        let desired = &control.desired;
        let Some(spec) = desired.models.get(model) else {
            return self.entry(model).map(|_| ());
        };
        let mut report = Report::default();
        self.bring(model, spec, unloaded, desired.memory_bytes, &mut report);
        let mut failed = report.models.remove(model).unwrap_or_default().into_iter();
        match failed.find(|(_, version)| version.state == "failed") {
            Some((label, version)) => Err(Fault::internal(format!(
                "version '{label}' of model '{model}' is not loaded: {}",
                version.reason
            ))),
            None => Ok(()),
        }
    }

    /// Whether every model that is not optional serves as it should.
    pub(super) fn whole(&self) -> bool {
        let table = self.inner.table.load();
        table
            .values()
            .all(|entry| entry.spec.optional || (entry.whole() && entry.current()))
    }

    fn bring(
        &self,
        name: &str,
        spec: &ModelSpec,
        unloaded: bool,
        budget: u64,
        report: &mut Report,
    ) {
        let name: Arc<str> = Arc::from(name);
        let before = self.inner.table.load().get(&name).cloned();
        let (mut versions, mut faults) = (Versions::<M>::new(), BTreeMap::new());
        let serving = before.as_ref().and_then(|entry| entry.views.clone());
        let wanted = spec.views.as_ref().filter(|_| !unloaded);
        let views = match Views::bring(wanted, serving.as_ref()) {
            Ok(views) => views,
            Err(why) => {
                // What serves goes on as it is.
                let said = |label: &String| (label.clone(), format!("its feature views: {why}"));
                faults.extend(spec.versions.keys().map(said));
                versions.extend(before.iter().flat_map(|entry| entry.versions.clone()));
                serving
            }
        };
        if !unloaded && faults.is_empty() {
            if before.is_none() {
                // From now on it is known, and not yet ready.
                let loading = spec
                    .versions
                    .keys()
                    .map(|label| (label.clone(), LOADING.to_owned()));
                let entry = Entry::new(&name, spec, Versions::new(), loading.collect(), None);
                self.replace(&name, Some(entry), report);
            }
            for (label, wanted) in &spec.versions {
                let old = before
                    .as_ref()
                    .and_then(|entry| entry.versions.get(label))
                    .cloned();
                match self.version(&name, label, wanted, spec, before.as_deref(), budget) {
                    Ok(version) => {
                        report.loaded +=
                            usize::from(old.is_none_or(|old| !Arc::ptr_eq(&old, &version)));
                        versions.insert(label.clone(), version);
                    }
                    Err(fault) => {
                        faults.insert(label.clone(), fault.message);
                        versions.extend(old.map(|old| (label.clone(), old)));
                    }
                }
            }
            self.keep_what_serves(spec, &mut versions, before.as_deref());
        }
        let mut entry = Entry::new(&name, spec, versions, faults, before.as_deref());
        entry.views = views;
        entry.unloaded = unloaded;
        report.models.insert(name.to_string(), describe(&entry));
        self.replace(&name, Some(entry), report);
    }

    /// Where a version with a share would not load, those that had traffic until now stay.
    fn keep_what_serves(
        &self,
        spec: &ModelSpec,
        versions: &mut Versions<M>,
        before: Option<&Entry<M>>,
    ) {
        let mut dealt = spec
            .traffic
            .weights
            .iter()
            .filter(|(_, weight)| **weight > 0.0);
        if let Some(before) = before
            && dealt.any(|(label, _)| !versions.contains_key(label))
        {
            let serving = before
                .split
                .labels()
                .filter_map(|label| before.versions.get_key_value(label));
            for (label, version) in serving {
                versions
                    .entry(label.clone())
                    .or_insert_with(|| version.clone());
            }
        }
    }

    /// The version as it is wanted: the one that serves, or a new one.
    fn version(
        &self,
        name: &Arc<str>,
        label: &str,
        wanted: &VersionSpec,
        spec: &ModelSpec,
        before: Option<&Entry<M>>,
        budget: u64,
    ) -> Result<Arc<Version<M>>> {
        if let Some(why) = &wanted.quarantined {
            return Err(Fault::internal(why.as_str()));
        }
        let same = |version: &Version<M>| {
            let of = &version.spec;
            (
                &of.folder,
                &of.digest,
                &of.copy,
                &of.functions,
                &of.following,
            ) == (
                &wanted.folder,
                &wanted.digest,
                &wanted.copy,
                &wanted.functions,
                &wanted.following,
            ) && version.line.limits.threads == spec.limits.threads
        };
        let old = before.and_then(|entry| entry.versions.get(label));
        if let Some(old) = old.filter(|old| same(old) && old.line.limits == spec.limits) {
            return Ok(old.clone());
        }
        let mut known = before.iter().flat_map(|entry| entry.versions.values());
        let engine = match known.find(|version| same(version)) {
            Some(version) => version.line.engine.clone(),
            None => {
                self.check_budget(&wanted.folder, budget)?;
                Version::open(wanted, spec.limits.threads)?
            }
        };
        let naming = Naming {
            model: name.clone(),
            label: Arc::from(label),
            bundle: Arc::from(wanted.digest.as_str()),
            limits: spec.limits.clone(),
        };
        Version::start(engine, wanted, naming, &self.inner.hub)
    }

    fn check_budget(&self, folder: &Path, budget: u64) -> Result<()> {
        let (needed, used) = (M::estimate_bytes(folder), self.memory_bytes());
        if budget > 0 && used + needed > budget {
            let mb = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(Fault::internal(format!(
                "it needs about {} MB beside the {} MB in use, and the budget is {} MB",
                mb(needed),
                mb(used),
                mb(budget)
            )));
        }
        Ok(())
    }

    /// What loaded models hold, each engine once.
    pub(super) fn memory_bytes(&self) -> u64 {
        let table = self.inner.table.load();
        let versions = table.values().flat_map(|entry| entry.versions.values());
        let engines: BTreeMap<_, _> = versions
            .map(|version| {
                (
                    Arc::as_ptr(&version.line.engine) as usize,
                    version.memory_bytes(),
                )
            })
            .collect();
        engines.values().sum()
    }

    /// Swaps a model's entry, then waits for what only the old one had.
    fn replace(&self, name: &Arc<str>, entry: Option<Entry<M>>, report: &mut Report) {
        let mut table: Table<M> = self.inner.table.load().as_ref().clone();
        let entry = entry.map(Arc::new);
        let old = match &entry {
            Some(entry) => table.insert(name.clone(), entry.clone()),
            None => table.remove(name),
        };
        self.inner.table.store(Arc::new(table));
        let Some(old) = old else { return };
        let stays = |version: &Arc<Version<M>>| {
            entry
                .iter()
                .flat_map(|entry| entry.versions.values())
                .any(|kept| Arc::ptr_eq(kept, version))
        };
        let gone: Vec<_> = old
            .versions
            .values()
            .filter(|version| !stays(version))
            .collect();
        // All take no more at once, and share the patience.
        gone.iter().for_each(|version| version.line.close());
        let until = Instant::now() + PATIENCE;
        for version in gone {
            report.unloaded += 1;
            if !version.drain(until.saturating_duration_since(Instant::now())) {
                let events = &self.inner.hub.events;
                let why = "a request that it was still answering goes on without it";
                events.tell("drain_late", name, version.label(), version.bundle(), why);
            }
        }
    }

    fn set_samples(&self, desired: &Desired, report: &mut Report) {
        let slot = &self.inner.hub.samples;
        let now = slot.load_full();
        if now.as_ref().map(|samples| samples.spec()) == desired.samples.as_ref() {
            return;
        }
        slot.store(None);
        drop(now); // the old one is written out before another opens the same file
        match desired.samples.as_ref().map(Samples::open).transpose() {
            Ok(opened) => slot.store(opened.map(Arc::new)),
            Err(error) => report.problems.push(format!("the sample log: {error}")),
        }
    }

    /// A log is appended to by several: the new one is there before the old one ends, and where it cannot be opened the old
    /// one goes on.
    fn set_impressions(&self, desired: &Desired, report: &mut Report) {
        let slot = &self.inner.hub.impressions;
        let now = slot.load_full();
        let wanted = desired.impressions.as_ref();
        if now.as_ref().map(|impressions| impressions.spec()) == wanted {
            return;
        }
        match wanted.map(Impressions::open).transpose() {
            Ok(opened) => slot.store(opened.map(Arc::new)),
            Err(fault) => report.problems.push(format!("impressions: {fault}")),
        }
    }
}

fn describe<M: Engine>(entry: &Entry<M>) -> BTreeMap<String, VersionReport> {
    let each = entry.spec.versions.keys().map(|label| {
        let version = entry.versions.get(label);
        let reason = entry.faults.get(label).cloned().unwrap_or_default();
        let state = match version {
            _ if entry.unloaded => "unloaded",
            Some(_) if reason.is_empty() => "ready",
            _ => "failed",
        };
        let report = VersionReport {
            state,
            reason,
            bundle: version.map(|v| v.bundle().to_string()).unwrap_or_default(),
            memory_bytes: version.map_or(0, |v| v.memory_bytes()),
        };
        (label.clone(), report)
    });
    each.collect()
}
