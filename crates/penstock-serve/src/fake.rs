//! A service for tests of the doors. `echo` gives its inputs back as its outputs; `slow` takes a second, `busy` is full,
//! `broken` panics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Fault, Kind, Result};
use crate::service::{
    Config, Description, IndexEntry, Reply, Request, Service, State, Statistics, Timings,
};
use crate::tensor::{Datatype, TensorSpec};

#[derive(Default)]
pub struct Fake {
    /// Times that a reply's encoding was reported.
    pub encoded: AtomicUsize,
}

const MODELS: [&str; 4] = ["echo", "slow", "busy", "broken"];

fn known(model: &str, version: Option<&str>) -> Result<()> {
    if !MODELS.contains(&model) {
        return Err(Fault::new(Kind::NotFound, format!("no model '{model}'")));
    }
    match version {
        Some(version) if version != "1" => Err(Fault::new(
            Kind::NotFound,
            format!("model '{model}' has no version '{version}'"),
        )),
        _ => Ok(()),
    }
}

impl Service for Fake {
    fn ready(&self) -> bool {
        true
    }

    async fn infer(&self, request: Request) -> Result<Reply> {
        known(&request.model, request.version.as_deref())?;
        match request.model.as_str() {
            "slow" => tokio::time::sleep(Duration::from_secs(1)).await,
            "busy" => {
                return Err(Fault {
                    retry_after_s: Some(3),
                    ..Fault::new(Kind::Busy, "the queue of 'busy' is full")
                });
            }
            "broken" => panic!("as the test wants it"),
            _ => {}
        }
        Ok(Reply {
            model: request.model,
            version: Arc::from("1"),
            bundle: Arc::from("sha256:ab"),
            outputs: request.tensors,
            timings: Timings::default(),
            position: None,
        })
    }

    fn encoded(&self, _reply: &Reply, _took: Duration) {
        self.encoded.fetch_add(1, Ordering::Relaxed);
    }

    fn model_ready(&self, model: &str, version: Option<&str>) -> bool {
        known(model, version).is_ok() && model != "broken"
    }

    fn describe(&self, model: &str, version: Option<&str>) -> Result<Description> {
        known(model, version)?;
        let spec = |name: &str, datatype| TensorSpec {
            name: name.to_owned(),
            datatype,
            shape: vec![-1],
        };
        Ok(Description {
            name: model.to_owned(),
            versions: vec![Arc::from("1")],
            platform: "penstock_echo".to_owned(),
            inputs: vec![spec("user", Datatype::Bytes), spec("price", Datatype::F64)],
            mapped: vec![spec("keys", Datatype::U64)],
            outputs: vec![spec("score", Datatype::F32)],
            properties: BTreeMap::from([("bundle".to_owned(), "sha256:ab".to_owned())]),
        })
    }

    fn config(&self, model: &str, version: Option<&str>) -> Result<Config> {
        let description = self.describe(model, version)?;
        Ok(Config {
            description,
            max_batch_rows: 1000,
            concurrency: 2,
        })
    }

    fn index(&self) -> Vec<IndexEntry> {
        let state = |model: &str| {
            if model == "broken" {
                State::Unavailable
            } else {
                State::Ready
            }
        };
        let entry = |model: &&str| IndexEntry {
            name: (*model).to_owned(),
            version: Arc::from("1"),
            state: state(model),
            reason: String::new(),
        };
        MODELS.iter().map(entry).collect()
    }

    async fn load(&self, model: &str) -> Result<()> {
        known(model, None)
    }

    async fn unload(&self, model: &str) -> Result<()> {
        known(model, None)
    }

    fn statistics(&self, model: Option<&str>, version: Option<&str>) -> Result<Vec<Statistics>> {
        if let Some(model) = model {
            known(model, version)?;
        }
        let of = |name: &&&str| model.is_none_or(|model| model == **name);
        let one = |name: &&str| Statistics {
            name: (*name).to_owned(),
            version: Arc::from("1"),
            rows: 3,
            succeeded: (2, Duration::from_micros(5)),
            batches: BTreeMap::from([(1, (2, Duration::from_micros(4)))]),
            ..Statistics::default()
        };
        Ok(MODELS.iter().filter(of).map(one).collect())
    }

    fn metrics(&self) -> String {
        "penstock_fake 1\n".to_owned()
    }
}
