//! What comes before the optimizer: decay on touch, delay compensation, clipping, L1 and L2.

use super::lane_sum;
use crate::config::GradientRules;

impl GradientRules {
    /// Changes one row's gradient, and decays its values. `pulled` is what the worker saw when it took the gradient.
    pub(crate) fn apply(&self, rate: f32, w: &mut [f32], g: &mut [f32], pulled: Option<&[f32]>) {
        if self.decay != 0.0 {
            let keep = 1.0 - rate * self.decay;
            w.iter_mut().for_each(|w| *w *= keep);
        }
        if let Some(pulled) = pulled
            && self.compensation != 0.0
        {
            for ((g, w), pulled) in g.iter_mut().zip(&*w).zip(pulled) {
                *g += self.compensation * *g * *g * (w - pulled);
            }
        }
        if let Some(most) = self.clip_value {
            g.iter_mut().for_each(|g| *g = g.clamp(-most, most));
        }
        if let Some(most) = self.clip_norm {
            let norm = lane_sum(g, |g| g * g).sqrt();
            if norm > most {
                let shrink = most / norm;
                g.iter_mut().for_each(|g| *g *= shrink);
            }
        }
        if self.l1 != 0.0 || self.l2 != 0.0 {
            for (g, &w) in g.iter_mut().zip(&*w) {
                let sign = if w == 0.0 { 0.0 } else { 1f32.copysign(w) };
                *g += self.l2 * w + self.l1 * sign;
            }
        }
    }
}
