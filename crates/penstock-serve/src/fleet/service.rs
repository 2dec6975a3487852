//! The fleet as the doors see it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Fleet;
use super::engine::Engine;
use super::entry::Entry;
use super::version::Version;
use crate::error::{Fault, Kind, Result};
use crate::service::{Config, Description, IndexEntry, Reply, Request, Service, State, Statistics};

impl<M: Engine> Service for Fleet<M> {
    fn ready(&self) -> bool {
        let inner = &self.inner;
        inner.applied.load(Ordering::Relaxed)
            && !inner.draining.load(Ordering::Relaxed)
            && self.whole()
    }

    async fn infer(&self, request: Request) -> Result<Reply> {
        self.answer(request).await
    }

    fn encoded(&self, reply: &Reply, took: Duration) {
        if let Some(entry) = self.inner.table.load().get(&*reply.model)
            && let Some(version) = entry.versions.get(&*reply.version)
        {
            version.line.counters.encoded(took);
        }
    }

    fn model_ready(&self, model: &str, version: Option<&str>) -> bool {
        let Ok(entry) = self.entry(model) else {
            return false;
        };
        match version {
            Some(label) => entry.versions.contains_key(label),
            None => entry.split.labels().next().is_some(),
        }
    }

    fn describe(&self, model: &str, version: Option<&str>) -> Result<Description> {
        let entry = self.entry(model)?;
        let found = asked(&entry, version)?;
        let (signature, spec) = (found.line.engine.signature(), &found.spec);
        let versions = match version {
            Some(_) => vec![found.label().clone()],
            None => entry.versions.values().map(|v| v.label().clone()).collect(),
        };
        let properties = [
            ("bundle", spec.digest.clone()),
            ("reference", spec.reference.clone()),
        ];
        Ok(Description {
            name: model.to_owned(),
            versions,
            platform: signature.platform.clone(),
            inputs: signature.inputs.clone(),
            mapped: signature.mapped.clone(),
            outputs: signature.outputs.clone(),
            properties: BTreeMap::from(properties.map(|(key, value)| (key.to_owned(), value))),
        })
    }

    fn config(&self, model: &str, version: Option<&str>) -> Result<Config> {
        let description = self.describe(model, version)?;
        let limits = &self.entry(model)?.spec.limits;
        Ok(Config {
            description,
            max_batch_rows: limits.max_batch_rows,
            concurrency: limits.concurrency,
        })
    }

    fn index(&self) -> Vec<IndexEntry> {
        let table = self.inner.table.load();
        let mut lines: Vec<IndexEntry> = table.values().flat_map(|entry| index_of(entry)).collect();
        lines.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        lines
    }

    async fn load(&self, model: &str) -> Result<()> {
        self.by_hand(model, false).await
    }

    async fn unload(&self, model: &str) -> Result<()> {
        self.by_hand(model, true).await
    }

    fn statistics(&self, model: Option<&str>, version: Option<&str>) -> Result<Vec<Statistics>> {
        let Some(model) = model else {
            let table = self.inner.table.load();
            let mut all: Vec<Statistics> = table
                .values()
                .flat_map(|entry| statistics_of(entry))
                .collect();
            all.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
            return Ok(all);
        };
        let entry = self.entry(model)?;
        match version {
            Some(label) => Ok(vec![entry.version(label)?.line.statistics()]),
            None => Ok(statistics_of(&entry)),
        }
    }

    fn metrics(&self) -> String {
        self.metrics_text()
    }
}

impl<M: Engine> Fleet<M> {
    async fn by_hand(&self, model: &str, unloaded: bool) -> Result<()> {
        let (fleet, model) = (self.clone(), model.to_owned());
        let done = tokio::task::spawn_blocking(move || fleet.set_unloaded(&model, unloaded)).await;
        done.unwrap_or_else(|error| Err(Fault::new(Kind::Internal, error.to_string())))
    }
}

fn asked<'a, M: Engine>(entry: &'a Entry<M>, version: Option<&str>) -> Result<&'a Arc<Version<M>>> {
    version.map_or_else(|| entry.speaker(), |label| entry.version(label))
}

fn statistics_of<M: Engine>(entry: &Entry<M>) -> Vec<Statistics> {
    entry
        .versions
        .values()
        .map(|version| version.line.statistics())
        .collect()
}

fn index_of<M: Engine>(entry: &Entry<M>) -> Vec<IndexEntry> {
    let mut labels: Vec<&String> = entry
        .spec
        .versions
        .keys()
        .chain(entry.versions.keys())
        .collect();
    labels.sort();
    labels.dedup();
    let each = labels.into_iter().map(|label| {
        let reason = entry.faults.get(label).cloned().unwrap_or_default();
        let state = match entry.versions.contains_key(label) {
            true => State::Ready,
            false if reason == super::apply::LOADING => State::Loading,
            false => State::Unavailable,
        };
        IndexEntry {
            name: entry.name.to_string(),
            version: Arc::from(label.as_str()),
            state,
            reason: if entry.unloaded {
                "unloaded".to_owned()
            } else {
                reason
            },
        }
    });
    each.collect()
}
