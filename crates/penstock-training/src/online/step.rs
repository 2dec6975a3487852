//! One row's step by its batch's summed gradient. A row is `[w, z, s, tag, t, factors...]`, all f32.
//!
//! `s` is the square root of the sum of squared gradients (FTRL, Adagrad), `z` is FTRL's; `t` is the root of the mean
//! square of the factors' gradients, summed. `tag` is the trainer's own (see `trainer.rs`).

use super::settings::{Factors, Optimizer, Rates, Settings};

pub(crate) const W: usize = 0;
pub(crate) const Z: usize = 1;
pub(crate) const S: usize = 2;
pub(crate) const TAG: usize = 3;
pub(crate) const T: usize = 4;
pub(crate) const FIRST: usize = 5;

/// Floats of a row: factors end at a multiple of four.
pub(crate) fn width(rank: usize) -> usize {
    if rank == 0 {
        TAG + 1
    } else {
        (FIRST + rank).next_multiple_of(4)
    }
}

/// Rates of the linear part, as its inner loop wants them.
#[derive(Clone, Copy)]
pub(crate) struct Linear {
    optimizer: Optimizer,
    rates: Rates,
    per_alpha: f64,
}

impl Linear {
    pub fn new(settings: &Settings) -> Linear {
        Linear {
            optimizer: settings.optimizer,
            rates: settings.rates,
            per_alpha: 1.0 / settings.rates.alpha,
        }
    }

    pub fn optimizer(&self) -> Optimizer {
        self.optimizer
    }

    /// The same without penalties: what a bias learns by.
    pub fn free(&self) -> Linear {
        let rates = Rates {
            l1: 0.0,
            l2: 0.0,
            ..self.rates
        };
        Linear { rates, ..*self }
    }

    #[inline(always)]
    pub fn step(&self, row: &mut [f32], gradient: f32) {
        let Rates {
            alpha,
            beta,
            l1,
            l2,
        } = self.rates;
        let (w, s, mut g) = (f64::from(row[W]), f64::from(row[S]), f64::from(gradient));
        match self.optimizer {
            Optimizer::Ftrl => {
                let grown = (s * s + g * g).sqrt();
                let z = f64::from(row[Z]) + g - (grown - s) * self.per_alpha * w;
                let beyond = (z.abs() - l1).max(0.0).copysign(z);
                let hold = (beta + grown) * self.per_alpha + l2;
                // beta 0 and no gradient yet: nothing to divide by.
                row[W] = if hold > 0.0 { -beyond / hold } else { 0.0 } as f32;
                row[Z] = z as f32;
                row[S] = grown as f32;
            }
            Optimizer::Adagrad => {
                g += penalty(w, l1, l2);
                let grown = (s * s + g * g).sqrt();
                if beta + grown > 0.0 {
                    row[W] = (w - alpha * g / (beta + grown)) as f32;
                }
                row[S] = grown as f32;
            }
            Optimizer::Sgd => row[W] = (w - alpha * (g + penalty(w, l1, l2))) as f32,
        }
    }
}

#[inline(always)]
fn penalty(w: f64, l1: f64, l2: f64) -> f64 {
    let sign = if w == 0.0 { 0.0 } else { w.signum() };
    l2 * w + l1 * sign
}

/// The factors' step. `outer` is the sum over the batch of `g x S` (S the row's sum of factors), `inner` of `g x^2`: the
/// gradient is `outer - inner v`. `outer` is overwritten.
#[inline(always)]
pub(crate) fn step_factors(
    factors: &Factors,
    sgd: bool,
    row: &mut [f32],
    outer: &mut [f32],
    inner: f32,
) {
    let Rates {
        alpha, beta, l2, ..
    } = factors.rates;
    let rank = outer.len();
    let hold = l2 as f32 - inner;
    let (head, v) = row.split_at_mut(FIRST);
    let v = &mut v[..rank];
    let mut square = 0.0f64;
    for (g, &v) in outer.iter_mut().zip(v.iter()) {
        *g += hold * v;
        square += f64::from(*g) * f64::from(*g);
    }
    let rate = if sgd {
        alpha
    } else {
        let t = f64::from(head[T]);
        let grown = (t * t + square / rank as f64).sqrt();
        head[T] = grown as f32;
        if beta + grown > 0.0 {
            alpha / (beta + grown)
        } else {
            0.0
        }
    } as f32;
    for (v, &g) in v.iter_mut().zip(outer.iter()) {
        *v -= rate * g;
    }
}
