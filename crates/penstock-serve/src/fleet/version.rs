//! A loaded version: an engine, its line, and the threads that empty it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::desired::VersionSpec;
use super::engine::Engine;
use super::hub::Hub;
use super::line::{Line, Naming};
use super::run::panic_text;
use super::scrub::Scrubber;
use crate::error::{Fault, Result};
use crate::model::Options;

pub struct Version<M: Engine> {
    pub line: Arc<Line<M>>,
    pub spec: VersionSpec,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Verifies what is mapped as long as the version stands.
    scrubber: Mutex<Option<Scrubber>>,
}

impl<M: Engine> Version<M> {
    /// Opens a bundle. A panic in there is a fault like any other.
    pub fn open(spec: &VersionSpec, threads: usize) -> Result<Arc<M>> {
        let options = Options {
            threads,
            functions: spec.functions.clone(),
            following: spec.following.clone(),
        };
        caught(|| M::open(&spec.folder, &options)).map(Arc::new)
    }

    /// Lanes for an open bundle, warmed up, and a thread for each.
    pub fn start(
        engine: Arc<M>,
        spec: &VersionSpec,
        naming: Naming,
        hub: &Arc<Hub>,
    ) -> Result<Arc<Version<M>>> {
        let line = Arc::new(caught(|| Line::new(engine, naming, hub.clone()))?);
        let version = Version {
            line: line.clone(),
            spec: spec.clone(),
            threads: Mutex::default(),
            scrubber: Mutex::new(Scrubber::start(&line)),
        };
        for _ in 0..line.limits.concurrency {
            let theirs = line.clone();
            let name = format!("{}-{}", line.model, line.label);
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || theirs.work());
            match thread {
                Ok(thread) => version.threads.lock().push(thread),
                Err(error) => {
                    line.close();
                    return Err(Fault::internal(format!("no thread for it: {error}")));
                }
            }
        }
        Ok(Arc::new(version))
    }

    pub fn memory_bytes(&self) -> u64 {
        self.line.engine.memory_bytes()
    }

    pub fn label(&self) -> &Arc<str> {
        &self.line.label
    }

    pub fn bundle(&self) -> &Arc<str> {
        &self.line.bundle
    }

    /// Takes no more requests, and returns when its last one is answered, or after `patience`; whether all were.
    pub fn drain(&self, patience: Duration) -> bool {
        self.line.close();
        drop(self.scrubber.lock().take());
        let until = Instant::now() + patience;
        while !self.line.idle() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !self.line.idle() {
            return false; // its threads end when their runs do
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        threads.into_iter().for_each(|thread| drop(thread.join()));
        true
    }
}

fn caught<T>(make: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| {
        let said = panic_text(&*panic);
        Err(Fault::internal(format!(
            "it panicked while loading: {said}"
        )))
    })
}
