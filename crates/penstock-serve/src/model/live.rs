//! Rows and dense weights that follow a chain while they are served (ADR 0043).
//!
//! Two sides stand beside each other: requests see the one that is shown, a delta is laid over the other, and one pointer
//! makes that the shown one. A run holds the side that it began with, so it sees one (generation, sequence) in every row and
//! in its dense weights; nobody waits for a lock. Whoever applies waits until the last run has let the other side go.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use penstock_table::delta::{Block, Content, Record, Weight};
use penstock_table::{Snapshot, View};

use super::dense::Dense;
use super::graph::Graph;
use crate::error::{Fault, Kind, Result};

/// How a model follows its chain.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Following {
    /// The most that changed rows of a table take beside its snapshot, on each of both sides.
    pub overlay_bytes: u64,
    /// Further behind, the host is not ready.
    pub max_lag_s: f64,
}

/// Where in a chain something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub generation: u64,
    pub sequence: u64,
}

/// What one run sees: never written to while anybody but its writer has it.
pub(super) struct Side {
    pub position: Position,
    pub rows: View,
    pub dense: Arc<Dense>,
}

/// Both sides of one base.
struct Pair {
    front: Arc<Side>,
    back: Arc<Side>,
    /// Records that the front has and the back lacks.
    behind: Vec<Vec<u8>>,
}

pub(super) struct Live {
    shown: ArcSwap<Side>,
    work: Mutex<Work>,
    following: Following,
    /// When everything that the chain had was applied, in milliseconds since the epoch; 0: not yet.
    current_ms: AtomicU64,
    rows: AtomicU64,
    deltas: AtomicU64,
    rebased: AtomicU64,
}

struct Work {
    pair: Pair,
    /// A newer base that catches up before it is shown.
    staged: Option<Pair>,
}

/// What a chain has done to a model so far.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub position: Position,
    pub lag_s: f64,
    pub max_lag_s: f64,
    pub deltas: u64,
    pub rows: u64,
    pub rebased: u64,
}

impl Pair {
    fn new(
        snapshot: &Arc<Snapshot>,
        dense: &Arc<Dense>,
        position: Position,
        following: &Following,
    ) -> Result<Pair> {
        let side = || {
            let rows = View::new(snapshot.clone(), following.overlay_bytes);
            Ok(Arc::new(Side {
                position,
                rows: rows.map_err(internal)?,
                dense: dense.clone(),
            }))
        };
        Ok(Pair {
            front: side()?,
            back: side()?,
            behind: vec![],
        })
    }

    /// Brings the back to where a delta leads and makes it the front. `lanes`: sessions to build where weights change.
    /// After an error the front is what it was, and the delta can be applied again.
    fn apply(&mut self, records: &[&[u8]], to: Position, lanes: usize) -> Result<u64> {
        let (blocks, weights) = parts(records.iter().copied())?;
        let dense = match weights.is_empty() {
            true => self.front.dense.clone(),
            false => Arc::new(self.front.dense.with(&weights, lanes)?),
        };
        let back = alone(&mut self.back);
        let (behind, _) = parts(self.behind.iter().map(Vec::as_slice))?;
        back.rows.apply_blocks(&behind).map_err(refused)?;
        self.behind.clear();
        back.rows.apply_blocks(&blocks).map_err(refused)?;
        (back.position, back.dense) = (to, dense);
        std::mem::swap(&mut self.front, &mut self.back);
        self.behind = records.iter().map(|record| record.to_vec()).collect();
        Ok(blocks
            .iter()
            .map(|b| (b.rows() + b.gone().len()) as u64)
            .sum())
    }
}

/// The only holder of a side, once the last run that saw it is over.
fn alone(side: &mut Arc<Side>) -> &mut Side {
    let mut pause = Duration::from_micros(20);
    while Arc::get_mut(side).is_none() {
        std::thread::sleep(pause);
        pause = (2 * pause).min(Duration::from_millis(1));
    }
    match Arc::get_mut(side) {
        Some(side) => side,
        None => unreachable!("nobody can come to a side that is not shown"),
    }
}

type Parts<'a> = (Vec<Block<'a>>, Vec<Weight<'a>>);

fn parts<'a>(records: impl Iterator<Item = &'a [u8]>) -> Result<Parts<'a>> {
    let (mut rows, mut dense) = (vec![], vec![]);
    for record in records {
        match Record::read(record).map_err(refused)?.content {
            Content::Rows { blocks, .. } => rows.extend(blocks),
            Content::Dense { weights, .. } => dense.extend(weights),
            _ => {
                return Err(Fault::invalid(
                    "a delta has rows and weights, and no other records",
                ));
            }
        }
    }
    Ok((rows, dense))
}

impl Live {
    pub fn new(snapshot: &Arc<Snapshot>, graph: Graph, following: &Following) -> Result<Live> {
        let dense = Arc::new(Dense::new(graph));
        let pair = Pair::new(snapshot, &dense, Position::default(), following)?;
        Ok(Live {
            shown: ArcSwap::new(pair.front.clone()),
            work: Mutex::new(Work { pair, staged: None }),
            following: following.clone(),
            current_ms: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            deltas: AtomicU64::new(0),
            rebased: AtomicU64::new(0),
        })
    }

    /// What a run that begins now sees, for as long as it holds it.
    pub fn pin(&self) -> Arc<Side> {
        self.shown.load_full()
    }

    /// Applies the parts of a delta that leads to `to`: to the staged base if there is one, else to what is shown.
    pub fn apply(&self, records: &[&[u8]], to: Position, lanes: usize) -> Result<()> {
        let Work { pair, staged } = &mut *self.work.lock();
        let rows = match staged {
            Some(staged) => staged.apply(records, to, lanes)?,
            None => {
                let rows = pair.apply(records, to, lanes)?;
                self.shown.store(pair.front.clone());
                rows
            }
        };
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.deltas.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Says where the base that was opened stands, before any delta.
    pub fn stands_at(&self, at: Position) {
        let Work { pair, .. } = &mut *self.work.lock();
        if pair.front.position.sequence == 0 {
            alone(&mut pair.back).position = at;
            std::mem::swap(&mut pair.front, &mut pair.back);
            self.shown.store(pair.front.clone());
            alone(&mut pair.back).position = at;
        }
    }

    /// Opens a base beside what is shown: deltas go there until `show`.
    pub fn stage(&self, snapshot: &Path, graph: Graph, at: Position) -> Result<()> {
        let opened = Arc::new(Snapshot::open(snapshot, None).map_err(internal)?);
        let mut work = self.work.lock();
        let own = work.pair.front.rows.snapshot();
        let shape = |of: &Snapshot| {
            let tables: Vec<_> = of
                .tables()
                .iter()
                .map(|t| (t.name.clone(), t.dim))
                .collect();
            (tables, of.slots().collect::<Vec<_>>())
        };
        if shape(own) != shape(&opened) || own.plan() != opened.plan() {
            let said = format!("the base {} has other tables or slots", snapshot.display());
            return Err(Fault::invalid(said));
        }
        let dense = Arc::new(Dense::new(graph));
        work.staged = Some(Pair::new(&opened, &dense, at, &self.following)?);
        Ok(())
    }

    /// Shows the staged base; nothing happens where none is.
    pub fn show(&self, lanes: usize) -> Result<()> {
        let mut work = self.work.lock();
        if let Some(pair) = work.staged.take() {
            pair.front.dense.prepare(lanes)?;
            self.shown.store(pair.front.clone());
            work.pair = pair;
            self.rebased.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Everything that the chain had at this time was applied.
    pub fn is_current(&self, at_ms: u64) {
        self.current_ms.fetch_max(at_ms, Ordering::Relaxed);
    }

    pub fn progress(&self) -> Progress {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let current = Duration::from_millis(self.current_ms.load(Ordering::Relaxed));
        let lag = match current.is_zero() {
            true => f64::INFINITY,
            false => now.saturating_sub(current).as_secs_f64(),
        };
        Progress {
            position: self.shown.load().position,
            lag_s: lag,
            max_lag_s: self.following.max_lag_s,
            deltas: self.deltas.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            rebased: self.rebased.load(Ordering::Relaxed),
        }
    }
}

fn internal(error: impl std::fmt::Display) -> Fault {
    Fault::internal(error.to_string())
}

/// A delta that cannot be laid over these rows.
fn refused(error: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::Invalid, error.to_string())
}
