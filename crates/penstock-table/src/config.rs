//! What a table is told once: shape, optimizer, init, admission, eviction, bounds.

use crate::error::{Result, TableError};
use crate::half::Dtype;
use crate::init::Init;
use crate::optimizers::Optimizer;
use crate::optimizers::user::UserFunction;

pub const MAX_DIM: usize = 512;

#[derive(Clone, Debug)]
pub struct TableConfig {
    pub name: String,
    /// Values a row, 1..=512.
    pub dim: usize,
    pub dtype: Dtype,
    pub optimizer: Optimizer,
    /// The learning rate until `Table::set_learning_rate`.
    pub learning_rate: f32,
    pub gradient: GradientRules,
    pub init: Init,
    /// None: init(key) if one sighting admits, else zeros.
    pub missing: Option<Missing>,
    pub admission: Admission,
    pub eviction: Eviction,
    /// Of init and of admission by probability.
    pub seed: u64,
    /// Keep a u32 a row that counts its updates.
    pub versions: bool,
    pub bounds: Bounds,
    /// Rows that memory is taken for at once, so that they come without growth; 0: everything grows from nothing.
    pub expected_rows: u64,
}

impl TableConfig {
    pub fn new(
        name: impl Into<String>,
        dim: usize,
        optimizer: Optimizer,
        learning_rate: f32,
    ) -> TableConfig {
        TableConfig {
            name: name.into(),
            dim,
            dtype: Dtype::F32,
            optimizer,
            learning_rate,
            gradient: GradientRules::default(),
            init: Init::Constant(0.0),
            missing: None,
            admission: Admission::Always,
            eviction: Eviction::default(),
            seed: 0,
            versions: false,
            bounds: Bounds::default(),
            expected_rows: 0,
        }
    }

    /// What a key without a row reads.
    pub fn missing(&self) -> Missing {
        self.missing.unwrap_or(if self.admission.at_first_sight() {
            Missing::Init
        } else {
            Missing::Zeros
        })
    }

    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |what: String| {
            Err(TableError::Config {
                table: self.name.clone(),
                what,
            })
        };
        if !(1..=MAX_DIM).contains(&self.dim) {
            return refuse(format!("dim is {}, it must be 1 to {MAX_DIM}", self.dim));
        }
        if !self.init.is_sound() {
            return refuse(format!(
                "init {:?} has an infinite number or an empty range",
                self.init
            ));
        }
        if self.missing == Some(Missing::Init) && !self.admission.at_first_sight() {
            return refuse("missing = init needs an admission at first sight".into());
        }
        match self.admission {
            Admission::Count { least: 0, .. } => {
                return refuse("admission after 0 sightings; the least is 1".into());
            }
            Admission::Count { least, .. } if least > crate::sketch::MOST => {
                return refuse(format!(
                    "admission after {least} sightings; the sketch counts to {}",
                    crate::sketch::MOST
                ));
            }
            Admission::Count { halve_every: 0, .. } => {
                return refuse("the sketch cannot be halved every 0 sightings".into());
            }
            Admission::Probability(p) if !(p > 0.0 && p <= 1.0) => {
                return refuse(format!("admission probability {p} is not in (0, 1]"));
            }
            _ => {}
        }
        if let Some(what) = self
            .optimizer
            .unsound()
            .or_else(|| self.gradient.unsound())
            .or_else(|| self.eviction.unsound())
        {
            return refuse(what);
        }
        if self.expected_rows > crate::rows::MOST_ROWS {
            return refuse(format!(
                "{} rows are expected, a table holds at most {}",
                self.expected_rows,
                crate::rows::MOST_ROWS
            ));
        }
        if !self.learning_rate.is_finite() {
            return refuse(format!("the learning rate is {}", self.learning_rate));
        }
        Ok(())
    }
}

/// What `lookup` gives for a key without a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Zeros,
    /// What the row would be at first.
    Init,
}

/// When an absent key becomes a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admission {
    Always,
    /// After `least` sightings, counted by a sketch of `sketch_bytes`, halved every `halve_every` sightings of absent keys.
    Count {
        least: u32,
        sketch_bytes: usize,
        halve_every: u64,
    },
    /// Each sighting with this probability, decided by key and update number.
    Probability(f64),
}

impl Admission {
    pub fn at_first_sight(&self) -> bool {
        match *self {
            Admission::Always => true,
            Admission::Count { least, .. } => least <= 1,
            Admission::Probability(p) => p >= 1.0,
        }
    }
}

/// When `sweep` drops a row: as soon as one of these says so. All times are event time in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Eviction {
    /// Not seen for longer than this.
    pub ttl_s: Option<u32>,
    /// Seen less often than this in all.
    pub least_count: Option<u32>,
    /// Euclidean norm of the values below this.
    pub least_norm: Option<f32>,
    pub score: Option<Score>,
    /// A user's verdict (see `UserFunction`).
    pub policy: Option<UserFunction>,
    /// All but ttl spare a row that was seen within the last `grace_s` seconds.
    pub grace_s: u32,
}

/// A row's score is multiplied by 2^(-idle / half-life) and grows by weighted shows and clicks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub show_weight: f32,
    pub click_weight: f32,
    pub half_life_s: u32,
    pub least: f32,
}

impl Eviction {
    pub fn is_none(&self) -> bool {
        self.ttl_s.is_none()
            && self.least_count.is_none()
            && self.least_norm.is_none()
            && self.score.is_none()
            && self.policy.is_none()
    }

    fn unsound(&self) -> Option<String> {
        if self.least_norm.is_some_and(|norm| !norm.is_finite()) {
            return Some("the least norm is not finite".into());
        }
        let score = self.score.as_ref()?;
        let finite = [score.show_weight, score.click_weight, score.least]
            .iter()
            .all(|x| x.is_finite());
        (!finite || score.half_life_s == 0)
            .then(|| "the score's weights must be finite and its half-life above 0".into())
    }
}

/// What happens to a row's summed gradient before its optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GradientRules {
    /// Each element into -x..x.
    pub clip_value: Option<f32>,
    /// The row's Euclidean norm to at most this.
    pub clip_norm: Option<f32>,
    /// `gradient += l2 * w + l1 * sign(w)`. FTRL has its own.
    pub l1: f32,
    pub l2: f32,
    /// First of all, `w *= 1 - rate * decay`.
    pub decay: f32,
    /// DC-ASGD: `gradient += lambda * gradient^2 * (w - pulled w)` where the update says what was pulled.
    pub compensation: f32,
}

impl GradientRules {
    pub fn is_none(&self) -> bool {
        *self == GradientRules::default()
    }

    fn unsound(&self) -> Option<String> {
        let clips = [self.clip_value, self.clip_norm]
            .into_iter()
            .flatten()
            .all(|x| x > 0.0 && x.is_finite());
        let rest = [self.l1, self.l2, self.decay, self.compensation]
            .iter()
            .all(|x| x.is_finite() && *x >= 0.0);
        (!clips || !rest).then(|| {
            "clips must be above 0; l1, l2, decay and compensation 0 or more; all finite".into()
        })
    }
}

/// How much a table may hold and keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of everything; an update that would pass it sweeps once around, then errs before it writes.
    pub memory_limit: Option<u64>,
    /// Tombstones kept for consumers.
    pub tombstones: usize,
    /// Finished epochs kept for consumers.
    pub epochs: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            memory_limit: None,
            tombstones: 10_000_000,
            epochs: 1000,
        }
    }
}

/// How a table runs; changes no result.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    pub threads: usize,
    pub level: crate::simd::Level,
}

impl Default for Engine {
    fn default() -> Engine {
        Engine {
            threads: 1,
            level: crate::simd::Level::detect(),
        }
    }
}
