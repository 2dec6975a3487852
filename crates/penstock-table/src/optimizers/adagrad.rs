//! Adagrad with a sum for each element (torch) or for each row (FBGEMM).

use super::{Kernel, lane_sum};

pub(crate) struct Adagrad {
    pub rate: f32,
    pub epsilon: f32,
}

impl Kernel for Adagrad {
    #[inline(always)]
    fn row(&self, w: &mut [f32], s: &mut [f32], g: &[f32]) {
        for ((w, sum), &g) in w.iter_mut().zip(s).zip(g) {
            *sum += g * g;
            *w -= self.rate * (g / (sum.sqrt() + self.epsilon));
        }
    }
}

pub(crate) struct Rowwise {
    pub rate: f32,
    pub epsilon: f32,
    pub dim: f32,
}

impl Kernel for Rowwise {
    #[inline(always)]
    fn row(&self, w: &mut [f32], s: &mut [f32], g: &[f32]) {
        let Some(sum) = s.first_mut() else { return };
        *sum += lane_sum(g, |g| g * g) / self.dim;
        let step = self.rate / (sum.sqrt() + self.epsilon);
        for (w, &g) in w.iter_mut().zip(g) {
            *w -= step * g;
        }
    }
}
