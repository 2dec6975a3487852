//! Plain steps down the gradient, with or without momentum.

use super::Kernel;

pub(crate) struct Sgd {
    pub rate: f32,
}

impl Kernel for Sgd {
    #[inline(always)]
    fn row(&self, w: &mut [f32], _: &mut [f32], g: &[f32]) {
        for (w, &g) in w.iter_mut().zip(g) {
            *w -= self.rate * g;
        }
    }
}

pub(crate) struct Momentum {
    pub rate: f32,
    pub momentum: f32,
    pub nesterov: bool,
}

impl Kernel for Momentum {
    #[inline(always)]
    fn row(&self, w: &mut [f32], s: &mut [f32], g: &[f32]) {
        for ((w, m), &g) in w.iter_mut().zip(s).zip(g) {
            *m = self.momentum * *m + g;
            let step = if self.nesterov {
                g + self.momentum * *m
            } else {
                *m
            };
            *w -= self.rate * step;
        }
    }
}
