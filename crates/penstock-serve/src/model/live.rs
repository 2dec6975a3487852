//! Rows and weights that follow a chain while they are served (ADR 0043). `sides.rs`: what they are, of each kind of model.
//!
//! Two sides stand beside each other: requests see the one that is shown, a delta is laid over the other, and one pointer
//! makes that the shown one. A run holds the side that it began with, so it sees one (generation, sequence) in every row and
//! in its dense weights; nobody waits for a lock. Whoever applies waits until the last run has let the other side go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use penstock_table::delta::{Block, Content, Record, Weight};

use crate::error::{Fault, Kind, Result};
pub use crate::service::Position;

/// How a model follows its chain.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Following {
    /// The most that changed rows take beside those of the bundle, on each of both sides: of a table of a deep model; of all
    /// fields of a regression or factorisation machine.
    pub overlay_bytes: u64,
    /// Further behind, the host is not ready.
    pub max_lag_s: f64,
}

/// What deltas are laid over: one side's, or what both sides share beneath.
pub(super) trait Held: Sized {
    /// Weights that are no row's, as a side has them.
    type Weights;

    fn weights(&self) -> Self::Weights;

    /// The weights with these put in, ready for so many lanes. Nothing is changed, and nobody waits.
    fn with(&self, weights: &[Weight], lanes: usize) -> Result<Self::Weights>;

    fn set(&mut self, weights: Self::Weights);

    /// Lays rows and tombstones over: all of them, or none.
    fn lay(&mut self, blocks: &[Block]) -> Result<()>;

    /// Before requests see it for the first time.
    fn prepare(&self, lanes: usize) -> Result<()>;
}

/// What one run sees: never written to while anybody but its writer has it.
pub(super) struct Side<H> {
    pub position: Position,
    pub held: H,
}

/// Both sides of one base.
struct Pair<H> {
    front: Arc<Side<H>>,
    back: Arc<Side<H>>,
    /// Records that the front has and the back lacks.
    behind: Vec<Vec<u8>>,
}

pub(super) struct Live<H> {
    shown: ArcSwap<Side<H>>,
    work: Mutex<Work<H>>,
    lanes: Lanes,
    following: Following,
    /// When everything that the chain had was applied, in milliseconds since the epoch; 0: not yet.
    current_ms: AtomicU64,
    rows: AtomicU64,
    deltas: AtomicU64,
    rebased: AtomicU64,
}

struct Work<H> {
    pair: Pair<H>,
    /// A newer base that catches up before it is shown.
    staged: Option<Pair<H>>,
}

/// How many lanes there are: each holds one.
pub(super) type Lanes = Arc<()>;

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

impl<H: Held> Pair<H> {
    /// `side` gives the base, twice.
    fn new(position: Position, side: impl Fn() -> Result<H>) -> Result<Pair<H>> {
        let side = || {
            let held = side()?;
            Ok(Arc::new(Side { position, held }))
        };
        Ok(Pair {
            front: side()?,
            back: side()?,
            behind: vec![],
        })
    }

    /// Brings the back to where a delta leads and makes it the front. `lanes`: how many weights are made ready for.
    /// After an error the front is what it was, and the delta can be applied again.
    fn apply(&mut self, records: &[&[u8]], to: Position, lanes: usize) -> Result<u64> {
        let (blocks, weights) = parts(records.iter().copied())?;
        let front = &self.front.held;
        let weights = match weights.is_empty() {
            true => front.weights(),
            false => front.with(&weights, lanes)?,
        };
        let back = alone(&mut self.back);
        let (behind, _) = parts(self.behind.iter().map(Vec::as_slice))?;
        back.held.lay(&behind)?;
        self.behind.clear();
        back.held.lay(&blocks)?;
        back.held.set(weights);
        back.position = to;
        std::mem::swap(&mut self.front, &mut self.back);
        self.behind = records.iter().map(|record| record.to_vec()).collect();
        Ok(blocks
            .iter()
            .map(|b| (b.rows() + b.gone().len()) as u64)
            .sum())
    }
}

/// The only holder of a side, once the last run that saw it is over.
fn alone<H>(side: &mut Arc<Side<H>>) -> &mut Side<H> {
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

impl<H: Held> Live<H> {
    /// `side` gives the rows and weights of the bundle, twice.
    pub fn new(following: &Following, side: impl Fn() -> Result<H>) -> Result<Live<H>> {
        let pair = Pair::new(Position::default(), side)?;
        Ok(Live {
            shown: ArcSwap::new(pair.front.clone()),
            work: Mutex::new(Work { pair, staged: None }),
            lanes: Lanes::default(),
            following: following.clone(),
            current_ms: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            deltas: AtomicU64::new(0),
            rebased: AtomicU64::new(0),
        })
    }

    /// What a run that begins now sees, for as long as it holds it.
    pub fn pin(&self) -> Arc<Side<H>> {
        self.shown.load_full()
    }

    /// Each lane keeps one.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    fn lane_count(&self) -> usize {
        Arc::strong_count(&self.lanes) - 1
    }

    pub fn following(&self) -> &Following {
        &self.following
    }

    /// Takes a base in beside what is shown, twice: deltas go there until `show`.
    pub fn stage(&self, at: Position, side: impl Fn() -> Result<H>) -> Result<()> {
        let pair = Pair::new(at, side)?;
        self.work.lock().staged = Some(pair);
        Ok(())
    }
}

/// What follows a chain, whatever it holds.
pub(super) trait Follows {
    /// Applies the parts of a delta that leads to `to`: to the staged base if there is one, else to what is shown.
    fn apply(&self, records: &[&[u8]], to: Position) -> Result<()>;

    /// Says where the base that was opened stands, before any delta.
    fn stands_at(&self, at: Position);

    /// Shows the staged base; nothing happens where none is.
    fn show(&self) -> Result<()>;

    /// Everything that the chain had at this time was applied.
    fn is_current(&self, at_ms: u64);

    fn progress(&self) -> Progress;
}

impl<H: Held> Follows for Live<H> {
    fn apply(&self, records: &[&[u8]], to: Position) -> Result<()> {
        let Work { pair, staged } = &mut *self.work.lock();
        let rows = match staged {
            Some(staged) => staged.apply(records, to, self.lane_count())?,
            None => {
                let rows = pair.apply(records, to, self.lane_count())?;
                self.shown.store(pair.front.clone());
                rows
            }
        };
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.deltas.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn stands_at(&self, at: Position) {
        let Work { pair, .. } = &mut *self.work.lock();
        if pair.front.position.sequence == 0 {
            alone(&mut pair.back).position = at;
            std::mem::swap(&mut pair.front, &mut pair.back);
            self.shown.store(pair.front.clone());
            alone(&mut pair.back).position = at;
        }
    }

    fn show(&self) -> Result<()> {
        let mut work = self.work.lock();
        if let Some(pair) = work.staged.take() {
            pair.front.held.prepare(self.lane_count())?;
            self.shown.store(pair.front.clone());
            work.pair = pair;
            self.rebased.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn is_current(&self, at_ms: u64) {
        self.current_ms.fetch_max(at_ms, Ordering::Relaxed);
    }

    fn progress(&self) -> Progress {
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

/// A delta that cannot be laid over these rows.
pub(super) fn refused(error: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::Invalid, error.to_string())
}
