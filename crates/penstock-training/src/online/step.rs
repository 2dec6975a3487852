//! One row's step by its batch's summed gradient. A row is `[w, z, s, seen, t, factors...]`, all f32 but `seen`.
//!
//! `s` is the square root of the sum of squared gradients (FTRL, Adagrad), `z` is FTRL's; `t` is the root of the mean
//! square of the factors' gradients, summed. `seen` is a u32: how many samples there had been when it was stepped last.

use penstock_table::{Level, Place};

use super::settings::{Factors, Optimizer, Rates, Settings};

pub(crate) const W: usize = 0;
pub(crate) const Z: usize = 1;
pub(crate) const S: usize = 2;
pub(crate) const SEEN: usize = 3;
pub(crate) const T: usize = 4;
pub(crate) const FIRST: usize = 5;

/// Floats of a row: factors end at a multiple of four.
pub(crate) fn width(rank: usize) -> usize {
    if rank == 0 {
        SEEN + 1
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

    /// `block` rows by their gradients: `w`, `z` and `s` in, and out.
    #[inline(always)]
    fn step(&self, block: &mut Block) {
        let Rates {
            alpha,
            beta,
            l1,
            l2,
        } = self.rates;
        let per_alpha = self.per_alpha;
        let Block { w, z, s, g } = block;
        match self.optimizer {
            Optimizer::Ftrl => {
                for i in 0..BLOCK {
                    let (w0, s0, g) = (f64::from(w[i]), f64::from(s[i]), f64::from(g[i]));
                    let grown = (s0 * s0 + g * g).sqrt();
                    let moved = f64::from(z[i]) + g - (grown - s0) * per_alpha * w0;
                    let beyond = (moved.abs() - l1).max(0.0).copysign(moved);
                    let hold = (beta + grown) * per_alpha + l2;
                    // beta 0 and no gradient yet: nothing to divide by.
                    w[i] = if hold > 0.0 { -beyond / hold } else { 0.0 } as f32;
                    z[i] = moved as f32;
                    s[i] = grown as f32;
                }
            }
            Optimizer::Adagrad => {
                for i in 0..BLOCK {
                    let (w0, s0) = (f64::from(w[i]), f64::from(s[i]));
                    let g = f64::from(g[i]) + penalty(w0, l1, l2);
                    let grown = (s0 * s0 + g * g).sqrt();
                    let hold = beta + grown;
                    let step = if hold > 0.0 { alpha * g / hold } else { 0.0 };
                    w[i] = (w0 - step) as f32;
                    s[i] = grown as f32;
                }
            }
            Optimizer::Sgd => {
                for i in 0..BLOCK {
                    let w0 = f64::from(w[i]);
                    w[i] = (w0 - alpha * (f64::from(g[i]) + penalty(w0, l1, l2))) as f32;
                }
            }
        }
    }
}

const BLOCK: usize = 32;

struct Block {
    w: [f32; BLOCK],
    z: [f32; BLOCK],
    s: [f32; BLOCK],
    g: [f32; BLOCK],
}

#[inline(always)]
unsafe fn step_rows_body(linear: &Linear, now: u32, places: &[Place], gradients: &[f32]) {
    for (places, gradients) in places.chunks(BLOCK).zip(gradients.chunks(BLOCK)) {
        let zeros = [0.0; BLOCK];
        let mut block = Block {
            w: zeros,
            z: zeros,
            s: zeros,
            g: zeros,
        };
        block.g[..gradients.len()].copy_from_slice(gradients);
        for (i, place) in places.iter().enumerate() {
            // SAFETY: the caller's promise.
            let row = unsafe { &*place.values().cast::<[f32; 3]>() };
            (block.w[i], block.z[i], block.s[i]) = (row[W], row[Z], row[S]);
        }
        linear.step(&mut block);
        for (i, place) in places.iter().enumerate() {
            // SAFETY: the caller's promise.
            let row = unsafe { &mut *place.values().cast::<[f32; 4]>() };
            *row = [block.w[i], block.z[i], block.s[i], f32::from_bits(now)];
        }
    }
}

/// The linear part of each row, by the widest instructions there are: all give the same bits.
///
/// # Safety
/// Places of rows that nobody else uses, each of four floats or more, each once.
pub(crate) unsafe fn step_rows(linear: &Linear, now: u32, places: &[Place], gradients: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
        unsafe fn avx512(linear: &Linear, now: u32, places: &[Place], gradients: &[f32]) {
            // SAFETY: the caller's promise.
            unsafe { step_rows_body(linear, now, places, gradients) }
        }
        #[target_feature(enable = "avx2")]
        unsafe fn avx2(linear: &Linear, now: u32, places: &[Place], gradients: &[f32]) {
            // SAFETY: the caller's promise.
            unsafe { step_rows_body(linear, now, places, gradients) }
        }
        // SAFETY (both): the level is available; the rest is the caller's promise.
        match Level::detect() {
            Level::Avx512 => return unsafe { avx512(linear, now, places, gradients) },
            Level::Avx2 => return unsafe { avx2(linear, now, places, gradients) },
            Level::Baseline => {}
        }
    }
    // SAFETY: the caller's promise.
    unsafe { step_rows_body(linear, now, places, gradients) }
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
