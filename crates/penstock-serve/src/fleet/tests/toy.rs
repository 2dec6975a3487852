//! A model whose every virtue and vice stands in its folder: `toy.json`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Fault, Kind, Result};
use crate::fleet::{Engine, Runner, Stop};
use crate::model::{Call, Options, Signature};
use crate::service::Timings;
use crate::tensor::{Data, Datatype, Tensor, TensorSpec};

/// Scores `x` times `scale`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Toy {
    pub scale: f32,
    pub takes_us: u64,
    /// Runs wait until the model's `open` is set.
    pub gated: bool,
    /// Every so many runs fail; 0: none.
    pub fails_every: u64,
    pub broken: bool,
    /// What it maps is damaged in its third block.
    pub rotten: bool,
    pub size_bytes: u64,
}

impl Default for Toy {
    fn default() -> Toy {
        Toy {
            scale: 1.0,
            takes_us: 0,
            gated: false,
            fails_every: 0,
            broken: false,
            rotten: false,
            size_bytes: 1 << 20,
        }
    }
}

impl Toy {
    pub fn save(&self, folder: &Path, name: &str) -> PathBuf {
        let place = folder.join(name);
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("toy.json"), serde_json::to_vec(self).unwrap()).unwrap();
        place
    }
}

pub struct ToyModel {
    toy: Toy,
    signature: Signature,
    runs: AtomicU64,
    pub open: AtomicBool,
}

impl Engine for ToyModel {
    type Lane = ToyLane;

    fn open(folder: &Path, _options: &Options) -> Result<ToyModel> {
        let text =
            std::fs::read(folder.join("toy.json")).map_err(|e| Fault::internal(e.to_string()))?;
        let toy: Toy = serde_json::from_slice(&text).unwrap();
        if toy.broken {
            return Err(Fault::internal("its graph is broken"));
        }
        let spec = |name: &str| TensorSpec {
            name: name.into(),
            datatype: Datatype::F32,
            shape: vec![-1],
        };
        let signature = Signature {
            platform: "toy".into(),
            inputs: vec![spec("x")],
            mapped: vec![],
            outputs: vec![spec("score")],
        };
        Ok(ToyModel {
            toy,
            signature,
            runs: AtomicU64::new(0),
            open: AtomicBool::new(false),
        })
    }

    fn estimate_bytes(folder: &Path) -> u64 {
        let text = std::fs::read(folder.join("toy.json")).unwrap_or_default();
        serde_json::from_slice(&text).map_or(0, |toy: Toy| toy.size_bytes)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn batches(&self) -> bool {
        true
    }

    fn rows(&self, call: Call) -> Result<usize> {
        let x = call.tensors.iter().find(|tensor| tensor.name == "x");
        x.map(Tensor::rows)
            .ok_or_else(|| Fault::invalid("input 'x' is missing"))
    }

    fn memory_bytes(&self) -> u64 {
        self.toy.size_bytes
    }

    fn scrub(&self, cursor: &mut usize) -> Result<Option<bool>> {
        *cursor = (*cursor + 1) % 8;
        match (self.toy.rotten, *cursor) {
            (true, 3) => Err(Fault::internal(
                "row block 3 of table 0: its checksum is wrong",
            )),
            (true, now) => Ok(Some(now == 0)),
            (false, _) => Ok(None),
        }
    }

    fn lane(self: &Arc<ToyModel>) -> Result<ToyLane> {
        Ok(ToyLane {
            model: self.clone(),
            stop: Flag::default(),
        })
    }
}

#[derive(Clone, Default)]
pub struct Flag(Arc<AtomicBool>);

impl Stop for Flag {
    fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn reset(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

pub struct ToyLane {
    model: Arc<ToyModel>,
    stop: Flag,
}

impl Runner for ToyLane {
    type Stopper = Flag;

    /// `x` of -1 panics, of -3 takes 300 ms.
    fn run(&mut self, calls: &[Call]) -> (Vec<Result<Vec<Tensor>>>, Timings) {
        let (started, toy) = (Instant::now(), &self.model.toy);
        let run = self.model.runs.fetch_add(1, Ordering::SeqCst);
        let first = |call: &Call| match &call.tensors[0].data {
            Data::F32(x) => x.first().copied(),
            _ => None,
        };
        let slow = calls.iter().any(|call| first(call) == Some(-3.0));
        let takes = Duration::from_micros(if slow { 300_000 } else { toy.takes_us });
        let shut = || toy.gated && !self.model.open.load(Ordering::SeqCst);
        while shut() || started.elapsed() < takes {
            if self.stop.0.load(Ordering::SeqCst) {
                let late = || Err(Fault::new(Kind::Late, "stopped"));
                return (calls.iter().map(|_| late()).collect(), Timings::default());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let score = |call: &Call| {
            let x: HashMap<&str, &Data> = call
                .tensors
                .iter()
                .map(|t| (t.name.as_str(), &t.data))
                .collect();
            let Data::F32(x) = x["x"] else {
                return Err(Fault::invalid("x is FP32"));
            };
            assert!(x.first() != Some(&-1.0), "minus one");
            if toy.fails_every > 0 && run.is_multiple_of(toy.fails_every) {
                return Err(Fault::internal("its turn to fail"));
            }
            let scores = x.iter().map(|x| x * toy.scale).collect();
            Ok(vec![Tensor::new("score", vec![x.len()], Data::F32(scores))])
        };
        let took = started.elapsed();
        (
            calls.iter().map(score).collect(),
            Timings {
                run: took,
                ..Timings::default()
            },
        )
    }

    fn warm_up(&mut self) -> Result<()> {
        Ok(())
    }

    fn stopper(&self) -> Flag {
        self.stop.clone()
    }
}
