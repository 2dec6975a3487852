//! The fleet's promises, with toys for models and the real threads, queues and clocks.

mod bulkheads;
mod changes;
mod releases;
mod toy;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::desired::{Desired, ModelSpec, Traffic, VersionSpec};
use super::markers::Markers;
use super::{Fleet, Report};
use crate::error::Result;
use crate::service::{Reply, Request, Service, Trace};
use crate::tensor::{Data, Tensor};
use toy::{Toy, ToyModel};

struct Host {
    fleet: Fleet<ToyModel>,
    folder: TempDir,
    desired: Desired,
}

impl Host {
    fn new() -> Host {
        Host {
            fleet: Fleet::new(Markers::none()),
            folder: tempfile::tempdir().unwrap(),
            desired: Desired::default(),
        }
    }

    /// A model `name` that has these versions; `weights` by label, the first is live.
    fn set(
        &mut self,
        name: &str,
        versions: &[(&str, Toy)],
        weights: &[(&str, f64)],
    ) -> &mut ModelSpec {
        let each = versions.iter().map(|(label, toy)| {
            let digest = format!("{name}-{label}-{toy:?}").replace(['/', ' '], "");
            let folder = toy.save(self.folder.path(), &digest);
            let reference = format!("models:/{name}/{label}");
            let spec = VersionSpec {
                folder,
                digest,
                reference,
                copy: String::new(),
                functions: Default::default(),
                following: None,
                quarantined: None,
            };
            ((*label).to_owned(), spec)
        });
        let versions: BTreeMap<_, _> = each.collect();
        let traffic = Traffic {
            weights: weights.iter().map(|(l, w)| ((*l).to_owned(), *w)).collect(),
            live: weights[0].0.to_owned(),
            sticky: None,
            salt: "s".into(),
        };
        let spec = ModelSpec {
            versions,
            traffic,
            shadow: vec![],
            guards: Default::default(),
            optional: false,
            limits: Default::default(),
            views: None,
        };
        self.desired.models.insert(name.to_owned(), spec);
        self.desired.models.get_mut(name).unwrap()
    }

    fn apply(&self) -> Report {
        self.fleet.apply(self.desired.clone())
    }

    async fn ask(&self, model: &str, x: f32) -> Result<Reply> {
        self.fleet.infer(request(model, None, &[x])).await
    }
}

fn request(model: &str, version: Option<&str>, x: &[f32]) -> Request {
    Request {
        model: model.into(),
        version: version.map(str::to_owned),
        id: None,
        tensors: vec![Tensor::new("x", vec![x.len()], Data::F32(x.to_vec()))],
        broadcast: vec![],
        wanted: vec![],
        deadline: None,
        trace: Trace::default(),
        arrived: Instant::now(),
        decoded_in: Duration::ZERO,
        fetched: None,
    }
}

fn score(reply: &Reply) -> f32 {
    match &reply.outputs[0].data {
        Data::F32(scores) => scores[0],
        other => panic!("{other:?}"),
    }
}

fn of(scale: f32) -> Toy {
    Toy {
        scale,
        ..Toy::default()
    }
}

fn events(host: &Host) -> Vec<serde_json::Value> {
    host.fleet
        .events()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
