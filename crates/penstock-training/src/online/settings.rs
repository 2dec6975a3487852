//! How a model learns.

use crate::{Result, invalid};

/// How a weight moves; `alpha`, `beta`, `l1` and `l2` are those of `Rates`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// FTRL-proximal per coordinate (McMahan et al., KDD 2013).
    Ftrl,
    /// `w -= alpha g / (beta + sqrt(sum g^2))`, with `g += l2 w + l1 sign(w)` where a batch touches it.
    Adagrad,
    /// `w -= alpha g`, with `g` as in Adagrad; `beta` is not used.
    Sgd,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    pub alpha: f64,
    pub beta: f64,
    pub l1: f64,
    pub l2: f64,
}

/// The second order of a factorisation machine (Rendle, ICDM 2010).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    pub rank: usize,
    /// `l2` is applied where a batch touches a row; `l1` is not used. Rates are Adagrad's, one a row, or SGD's.
    pub rates: Rates,
    /// Standard deviation of a new row's factors.
    pub spread: f64,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub optimizer: Optimizer,
    pub rates: Rates,
    pub factors: Option<Factors>,
    /// A key becomes a row at this many sightings.
    pub least: u32,
    /// A key that so many samples have passed without goes, sooner or later within as many again by a quarter. 0: never.
    pub evict_after: u32,
    /// Rows that are scored before any of them is learnt from, once there have been `GROWTH` times as many.
    pub batch: usize,
    pub threads: usize,
}

pub const MAX_RANK: usize = 256;
pub const MAX_BATCH: usize = 1 << 16;
/// A micro-batch is this part of the rows before it. Scores that are older cost log loss while steps are long, and small
/// batches cost next to no time (600,000 rows of 39 keys: .49271 at 256 from a 64th on, .49263 row by row).
pub const GROWTH: u64 = 512;

impl Settings {
    pub fn check(&self) -> Result<()> {
        check_rates(&self.rates)?;
        if let Some(factors) = &self.factors {
            check_rates(&factors.rates)?;
            if !(1..=MAX_RANK).contains(&factors.rank) {
                return invalid(format!(
                    "rank is {}, it must be 1 to {MAX_RANK}",
                    factors.rank
                ));
            }
            if !(factors.spread >= 0.0 && factors.spread.is_finite()) {
                return invalid("the factors' spread must be 0 or more");
            }
        }
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return invalid(format!(
                "batch is {}, it must be 1 to {MAX_BATCH}",
                self.batch
            ));
        }
        if !(1..=255).contains(&self.least) {
            return invalid(format!("min_count is {}, it must be 1 to 255", self.least));
        }
        if self.evict_after > 1 << 31 {
            return invalid("evict_after is at most 2,147,483,648 samples");
        }
        Ok(())
    }

    pub fn rank(&self) -> usize {
        self.factors.map_or(0, |factors| factors.rank)
    }

    /// Rows of the micro-batch that follows `seen` rows: few at first, while every step is long.
    pub fn rows_at(&self, seen: u64) -> usize {
        ((seen / GROWTH) as usize).clamp(1, self.batch)
    }
}

fn check_rates(rates: &Rates) -> Result<()> {
    let Rates {
        alpha,
        beta,
        l1,
        l2,
    } = *rates;
    if !(alpha > 0.0 && alpha.is_finite()) {
        return invalid(format!("alpha is {alpha}, it must be above 0"));
    }
    for (name, value) in [("beta", beta), ("l1", l1), ("l2", l2)] {
        if !(value >= 0.0 && value.is_finite()) {
            return invalid(format!("{name} is {value}, it must be 0 or more"));
        }
    }
    Ok(())
}
