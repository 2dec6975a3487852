//! The fleet: many models and versions in one process, each behind its own bulkhead, changed without a failed request.
//!
//! In: what should serve (`desired`) and requests. Out: replies, events for the control side, metrics. A request finds its
//! model's `entry`, which routes it to a `version`; its `line` queues it and its lanes `run` it. `apply` brings what serves
//! to what should; `guards` take a canary back.

mod apply;
mod brake;
mod costs;
mod counters;
mod desired;
mod engine;
mod entry;
mod events;
mod guards;
mod hub;
mod infer;
mod job;
mod line;
pub mod markers;
mod metrics;
mod run;
mod scores;
mod scrub;
mod service;
mod significance;
mod split;
mod status;
#[cfg(test)]
mod tests;
mod version;
mod views;
mod watch;
mod watchdog;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use apply::{Report, VersionReport};
pub use desired::{
    Desired, Guards, ImpressionsSpec, Limits, ModelSpec, SamplesSpec, Traffic, VersionSpec,
};
pub use engine::{Engine, Runner, Stop};
use entry::Entry;
use hub::Hub;
use markers::Markers;
pub use views::ViewsSpec;

use crate::model::Model;

/// What serves. Cheap to clone: all clones are the same fleet.
pub struct Fleet<M: Engine = Model> {
    inner: Arc<Inner<M>>,
}

impl<M: Engine> Clone for Fleet<M> {
    fn clone(&self) -> Fleet<M> {
        let inner = self.inner.clone();
        Fleet { inner }
    }
}

struct Inner<M: Engine> {
    table: ArcSwap<Table<M>>,
    /// Held while what serves is changed, which may take as long as loading does; requests never wait for it.
    control: Mutex<Control>,
    hub: Arc<Hub>,
    draining: AtomicBool,
    applied: AtomicBool,
}

type Table<M> = HashMap<Arc<str>, Arc<Entry<M>>>;

#[derive(Default)]
struct Control {
    desired: Desired,
    /// Models that were taken out of service by hand.
    unloaded: BTreeSet<String>,
}

impl<M: Engine> Fleet<M> {
    /// Without any model. `markers`: where lanes say what they run (`markers.rs`).
    pub fn new(markers: Markers) -> Fleet<M> {
        let inner = Arc::new(Inner {
            table: ArcSwap::default(),
            control: Mutex::default(),
            hub: Hub::new(markers),
            draining: AtomicBool::new(false),
            applied: AtomicBool::new(false),
        });
        Fleet { inner }
    }

    /// What the control side should hear since the last call, a JSON document each.
    pub fn events(&self) -> Vec<String> {
        self.inner.hub.events.take()
    }

    /// Readiness turns false; requests are answered as before.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// Takes every model out, each when its last request is answered, within `patience` in all.
    pub fn close(&self, patience: Duration) {
        self.drain();
        let _control = self.inner.control.lock();
        let table = self.inner.table.swap(Arc::default());
        let until = std::time::Instant::now() + patience;
        for version in table.values().flat_map(|entry| entry.versions.values()) {
            version.drain(until.saturating_duration_since(std::time::Instant::now()));
        }
        self.inner.hub.samples.store(None);
        self.inner.hub.impressions.store(None);
    }

    /// What a version that is loaded runs.
    pub fn engine(&self, model: &str, label: &str) -> Option<Arc<M>> {
        let table = self.inner.table.load();
        let version = table.get(model)?.versions.get(label)?;
        Some(version.line.engine.clone())
    }

    fn entry(&self, model: &str) -> crate::Result<Arc<Entry<M>>> {
        let table = self.inner.table.load();
        table.get(model).cloned().ok_or_else(|| {
            crate::Fault::new(
                crate::Kind::NotFound,
                format!("there is no model '{model}'"),
            )
        })
    }
}
