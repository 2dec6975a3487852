//! Adam for touched rows (torch's SparseAdam), its bias corrected by the table's updates or by the row's own.

use super::Kernel;

pub(crate) struct Adam {
    step: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
}

impl Adam {
    /// At update `t`, from 1.
    #[inline(always)]
    pub fn new(rate: f32, beta1: f32, beta2: f32, epsilon: f32, t: u64) -> Adam {
        let bias = |beta: f32| 1.0 - power(f64::from(beta), t);
        let step = f64::from(rate) * bias(beta2).sqrt() / bias(beta1);
        Adam {
            step: step as f32,
            beta1,
            beta2,
            epsilon,
        }
    }
}

impl Kernel for Adam {
    #[inline(always)]
    fn row(&self, w: &mut [f32], s: &mut [f32], g: &[f32]) {
        let (mean, square) = s.split_at_mut(w.len());
        for (((w, mean), square), &g) in w.iter_mut().zip(mean).zip(square).zip(g) {
            *mean += (g - *mean) * (1.0 - self.beta1);
            *square += (g * g - *square) * (1.0 - self.beta2);
            *w -= self.step * (*mean / (square.sqrt() + self.epsilon));
        }
    }
}

pub(crate) struct PerRow {
    pub rate: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
}

impl Kernel for PerRow {
    #[inline(always)]
    fn row(&self, w: &mut [f32], s: &mut [f32], g: &[f32]) {
        let (moments, steps) = s.split_at_mut(2 * w.len());
        // Steps are kept as an integer's bits: a float would stop counting at 2^24.
        let t = steps[0].to_bits().saturating_add(1);
        steps[0] = f32::from_bits(t);
        Adam::new(
            self.rate,
            self.beta1,
            self.beta2,
            self.epsilon,
            u64::from(t),
        )
        .row(w, moments, g);
    }
}

/// `base^exponent` by squaring: basic operations in a fixed order.
#[inline(always)]
fn power(base: f64, mut exponent: u64) -> f64 {
    let (mut result, mut square) = (1.0, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= square;
        }
        square *= square;
        exponent >>= 1;
    }
    result
}
