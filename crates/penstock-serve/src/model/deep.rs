//! A deep model: rows from a mapped snapshot, the rest by its dense graph.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_table::{Bag, Pooling, Snapshot, View};
use serde::Deserialize;

use super::dense::Dense;
use super::graph::{Graph, Run, value};
use super::linear::{Scaled, sigmoid, standardised};
use super::live::{Live, Position};
use super::manifest::broken;
use super::matrix::{Keys, Matrix};
use super::sides::DeepSide;
use super::{Options, Stopper};
use crate::error::{Fault, Result};
use crate::tensor::Data;

const ROWS: &str = "rows.snapshot";
const DENSE: &str = "dense.onnx";
const LOGIT: &str = "logit";
/// Rows scored at a time: the looked-up rows of so many are held at once.
const BLOCK: usize = 8_192;

#[derive(Deserialize)]
pub(super) struct DeepForm {
    feeds: Vec<FeedForm>,
    /// The slot of each field of the matrix.
    slots: Vec<String>,
    numbers: Vec<Scaled>,
}

#[derive(Deserialize)]
struct FeedForm {
    name: String,
    kind: String,
    #[serde(default)]
    slots: Vec<String>,
    #[serde(default)]
    pooling: String,
}

/// One input of the dense graph. Fields are places in the matrix.
struct Feed {
    name: String,
    kind: FeedKind,
}

enum FeedKind {
    /// Pooled rows, side by side: field and slot number each; their width together.
    Pooled(Vec<(usize, u32)>, Pooling, usize),
    /// A field's rows in order, padded with zeros to the longest: field, slot number, dim.
    Rows(usize, u32, usize),
    Lengths(usize),
    Numbers,
}

pub(super) struct DeepScorer {
    rows: Rows,
    /// As the bundle has it.
    graph: Graph,
    feeds: Vec<Feed>,
    numbers: Vec<Scaled>,
}

/// Where rows come from.
enum Rows {
    Snapshot(Arc<Snapshot>),
    /// Rows and graph follow a chain.
    Live(Live<DeepSide>),
}

/// What one run reads its rows from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Snapshot(&'a Snapshot),
    View(&'a View),
}

impl Source<'_> {
    fn pool(&self, bags: &[Bag], pooling: Pooling, out: &mut [f32]) -> Result<()> {
        let done = match self {
            Source::Snapshot(rows) => rows.pool(bags, pooling, 1, out),
            Source::View(rows) => rows.pool(bags, pooling, 1, out),
        };
        done.map_err(|error| Fault::internal(error.to_string()))
    }

    fn lookup(&self, slot: u32, keys: &[u64], out: &mut [f32]) -> Result<()> {
        let done = match self {
            Source::Snapshot(rows) => rows.lookup(slot, keys, out),
            Source::View(rows) => rows.lookup(slot, keys, out),
        };
        done.map(drop)
            .map_err(|error| Fault::internal(error.to_string()))
    }
}

/// The part of a snapshot's record that names its slots (training/artefacts.py).
#[derive(Deserialize)]
struct Recorded {
    slots: Vec<String>,
}

impl DeepScorer {
    pub fn open(folder: &Path, form: DeepForm, options: &Options) -> Result<DeepScorer> {
        let fault = |error: &dyn std::fmt::Display| broken(folder, error);
        let snapshot = Snapshot::open(&folder.join(ROWS), None).map_err(|error| fault(&error))?;
        let snapshot = Arc::new(snapshot);
        let recorded: Recorded = serde_json::from_str(snapshot.plan())
            .map_err(|error| broken(folder, format!("{ROWS}: its record: {error}")))?;
        let slot = |name: &String| {
            let number = recorded.slots.iter().position(|known| known == name);
            let field = form.slots.iter().position(|known| known == name);
            match (field, number) {
                (Some(field), Some(number)) => Ok((field, number as u32)),
                _ => Err(broken(folder, format!("{ROWS} has no slot {name}"))),
            }
        };
        let dim = |number: u32| {
            let (table, _) = snapshot.slot(number).map_err(|error| fault(&error))?;
            Ok(snapshot.tables()[table].dim)
        };
        let one = |feed: &FeedForm| {
            let first = || {
                let name = feed.slots.first();
                name.ok_or_else(|| broken(folder, format!("feed {} has no slot", feed.name)))
            };
            Ok(match feed.kind.as_str() {
                "pooled" => {
                    let slots = feed.slots.iter().map(slot).collect::<Result<Vec<_>>>()?;
                    let pooling = match feed.pooling.as_str() {
                        "sum" => Pooling::Sum,
                        "mean" => Pooling::Mean,
                        "sqrtn" => Pooling::Sqrtn,
                        other => return Err(broken(folder, format!("pooling {other}"))),
                    };
                    let dims = slots.iter().map(|(_, slot)| dim(*slot));
                    let width = dims.sum::<Result<usize>>()?;
                    FeedKind::Pooled(slots, pooling, width)
                }
                "rows" => {
                    let (field, number) = slot(first()?)?;
                    FeedKind::Rows(field, number, dim(number)?)
                }
                "lengths" => FeedKind::Lengths(slot(first()?)?.0),
                "numbers" => FeedKind::Numbers,
                other => {
                    return Err(broken(
                        folder,
                        format!("a feed of the unknown kind {other}"),
                    ));
                }
            })
        };
        let feeds = form
            .feeds
            .iter()
            .map(|feed| {
                Ok(Feed {
                    name: feed.name.clone(),
                    kind: one(feed)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let graph = Graph::open(folder, DENSE, options.threads)?;
        if !graph.outputs.iter().any(|output| output.name == LOGIT) {
            return Err(broken(folder, format!("{DENSE} has no output '{LOGIT}'")));
        }
        let rows = match &options.following {
            None => Rows::Snapshot(snapshot),
            Some(following) => {
                let dense = Arc::new(Dense::new(graph.clone()));
                let bytes = following.overlay_bytes;
                let side = || DeepSide::new(&snapshot, &dense, bytes);
                Rows::Live(Live::new(following, side)?)
            }
        };
        Ok(DeepScorer {
            rows,
            graph,
            feeds,
            numbers: form.numbers,
        })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        match &self.rows {
            Rows::Snapshot(snapshot) => snapshot.clone(),
            Rows::Live(live) => live.pin().held.rows.snapshot().clone(),
        }
    }

    /// A lane's own session.
    pub fn run(&self) -> Result<Run> {
        match &self.rows {
            Rows::Snapshot(_) => self.graph.run(),
            Rows::Live(live) => {
                let dense = &live.pin().held.dense;
                Ok(dense.graph().run()?.among(live.lanes(), dense))
            }
        }
    }

    /// What follows a chain; None where nothing does.
    pub fn live(&self) -> Option<&Live<DeepSide>> {
        match &self.rows {
            Rows::Snapshot(_) => None,
            Rows::Live(live) => Some(live),
        }
    }

    /// Opens the base of a bundle's folder beside what is shown.
    pub fn stage(&self, folder: &Path, at: Position) -> Result<()> {
        let live = self
            .live()
            .ok_or_else(|| Fault::internal("it follows no chain"))?;
        let graph = Graph::open(folder, DENSE, self.graph.threads())?;
        let names = |graph: &Graph| -> Vec<String> {
            graph.inputs.iter().map(|i| i.name.clone()).collect()
        };
        if names(&graph) != names(&self.graph) {
            return Err(broken(
                folder,
                "its dense graph reads other inputs than the one that is served",
            ));
        }
        let opened = Snapshot::open(&folder.join(ROWS), None);
        let opened = Arc::new(opened.map_err(|error| Fault::internal(error.to_string()))?);
        let own = self.snapshot();
        if shape(&own) != shape(&opened) || own.plan() != opened.plan() {
            let rows = folder.join(ROWS);
            let said = format!("the base {} has other tables or slots", rows.display());
            return Err(Fault::invalid(said));
        }
        let (dense, bytes) = (Arc::new(Dense::new(graph)), live.following().overlay_bytes);
        live.stage(at, || DeepSide::new(&opened, &dense, bytes))
    }

    /// Probabilities of label 1, what looking the rows up took, and where in its chain the model stood.
    pub fn scores(
        &self,
        matrix: &Matrix,
        run: &mut Run,
        stopper: &Stopper,
    ) -> Result<(Vec<f64>, Duration, Option<Position>)> {
        let mut out = Vec::with_capacity(matrix.rows);
        let mut looked_up = Duration::ZERO;
        let numbers = standardised(&self.numbers, matrix);
        // All of the run sees the side that is shown as it begins: rows and weights of one delta.
        let side = self.live().map(Live::pin);
        let rows = match (&self.rows, &side) {
            (_, Some(side)) => {
                run.follow(&side.held.dense)?;
                Source::View(&side.held.rows)
            }
            (Rows::Snapshot(rows), None) => Source::Snapshot(rows),
            (Rows::Live(_), None) => unreachable!("what is live has a side"),
        };
        for start in (0..matrix.rows).step_by(BLOCK) {
            stopper.check()?;
            let stop = matrix.rows.min(start + BLOCK);
            let began = Instant::now();
            let inputs = self.inputs(rows, matrix, &numbers, start, stop)?;
            looked_up += began.elapsed();
            run.run(inputs, |outputs| {
                let logit = outputs
                    .get(LOGIT)
                    .ok_or_else(|| Fault::internal("the dense graph gave no logit"))?;
                let (_, logits) = logit
                    .try_extract_tensor::<f32>()
                    .map_err(|error| Fault::internal(error.to_string()))?;
                if logits.len() != stop - start {
                    return Err(Fault::internal(
                        "the dense graph gave another number of rows",
                    ));
                }
                out.extend(logits.iter().map(|&logit| sigmoid(f64::from(logit))));
                Ok(())
            })?;
        }
        Ok((out, looked_up, side.map(|side| side.position)))
    }

    fn inputs(
        &self,
        source: Source,
        matrix: &Matrix,
        numbers: &[f32],
        start: usize,
        stop: usize,
    ) -> Result<Vec<(&str, ort::value::DynValue)>> {
        let rows = stop - start;
        let whole = rows == matrix.rows;
        let parts: Vec<Keys>;
        let fields: &[Keys] = if whole {
            &matrix.fields
        } else {
            parts = matrix.fields.iter().map(|f| part(f, start, stop)).collect();
            &parts
        };
        let mut inputs = Vec::with_capacity(self.feeds.len());
        for feed in &self.feeds {
            let given = match &feed.kind {
                FeedKind::Pooled(slots, pooling, width) => {
                    let bags: Vec<Bag> = slots.iter().map(|&(f, s)| bag(s, &fields[f])).collect();
                    let mut out = vec![0.0_f32; rows * width];
                    source.pool(&bags, *pooling, &mut out)?;
                    value(&[rows, *width], Data::F32(out))?
                }
                FeedKind::Rows(field, slot, dim) => {
                    let keys = &fields[*field];
                    let mut found = vec![0.0_f32; keys.keys.len() * dim];
                    source.lookup(*slot, &keys.keys, &mut found)?;
                    let (longest, out) = padded(keys, &found, *dim);
                    value(&[rows, longest, *dim], Data::F32(out))?
                }
                FeedKind::Lengths(field) => {
                    let ends = fields[*field].offsets.windows(2);
                    let lengths = ends.map(|at| at[1] - at[0]).collect();
                    value(&[rows], Data::I64(lengths))?
                }
                FeedKind::Numbers => {
                    let width = self.numbers.len();
                    let own = numbers[start * width..stop * width].to_vec();
                    value(&[rows, width], Data::F32(own))?
                }
            };
            inputs.push((feed.name.as_str(), given));
        }
        Ok(inputs)
    }
}

/// What the rows of two bases must have alike: names and widths of tables, and slots.
fn shape(of: &Snapshot) -> impl PartialEq + use<> {
    let tables = of.tables().iter().map(|t| (t.name.clone(), t.dim));
    (tables.collect::<Vec<_>>(), of.slots().collect::<Vec<_>>())
}

fn bag(slot: u32, keys: &Keys) -> Bag<'_> {
    Bag {
        slot,
        keys: &keys.keys,
        offsets: &keys.offsets,
        weights: keys.values.as_deref(),
    }
}

fn part(keys: &Keys, start: usize, stop: usize) -> Keys {
    let (from, to) = (keys.offsets[start], keys.offsets[stop]);
    let range = from as usize..to as usize;
    Keys {
        offsets: keys.offsets[start..=stop]
            .iter()
            .map(|at| at - from)
            .collect(),
        keys: keys.keys[range.clone()].to_vec(),
        values: keys.values.as_ref().map(|values| values[range].to_vec()),
    }
}

/// Each sample's rows in order, weighted, zeros after them: [rows, longest, dim].
fn padded(keys: &Keys, found: &[f32], dim: usize) -> (usize, Vec<f32>) {
    let lengths = keys.offsets.windows(2).map(|at| (at[1] - at[0]) as usize);
    let longest = lengths.max().unwrap_or(0);
    let mut out = vec![0.0; keys.rows() * longest * dim];
    for (row, out) in out.chunks_exact_mut((longest * dim).max(1)).enumerate() {
        let (from, to) = (keys.offsets[row] as usize, keys.offsets[row + 1] as usize);
        out[..(to - from) * dim].copy_from_slice(&found[from * dim..to * dim]);
        if let Some(values) = &keys.values {
            for (own, weight) in out.chunks_exact_mut(dim).zip(&values[from..to]) {
                own.iter_mut().for_each(|x| *x *= weight);
            }
        }
    }
    (longest, out)
}
