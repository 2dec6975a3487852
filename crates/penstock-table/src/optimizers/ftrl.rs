//! FTRL-proximal: McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, algorithm 1.

use super::Kernel;

pub(crate) struct Ftrl {
    pub alpha: f32,
    pub beta: f32,
    pub l1: f32,
    pub l2: f32,
}

impl Kernel for Ftrl {
    #[inline(always)]
    fn row(&self, w: &mut [f32], s: &mut [f32], g: &[f32]) {
        let (z, n) = s.split_at_mut(w.len());
        for (((w, z), n), &g) in w.iter_mut().zip(z).zip(n).zip(g) {
            let (before, sum) = (n.sqrt(), *n + g * g);
            let root = sum.sqrt();
            *z += g - (root - before) / self.alpha * *w;
            *n = sum;
            let pull = z.abs() - self.l1;
            let solved = -pull.copysign(*z) / ((self.beta + root) / self.alpha + self.l2);
            *w = if pull > 0.0 { solved } else { 0.0 };
        }
    }
}

/// The state whose solution the row's first values are: n = 0 and the z that gives w back.
pub(crate) fn begin(ftrl: &Ftrl, values: &[f32], state: &mut [f32]) {
    let (z, n) = state.split_at_mut(values.len());
    n.fill(0.0);
    for (z, &w) in z.iter_mut().zip(values) {
        *z = if w == 0.0 {
            0.0
        } else {
            -(w * (ftrl.beta / ftrl.alpha + ftrl.l2) + ftrl.l1.copysign(w))
        };
    }
}
