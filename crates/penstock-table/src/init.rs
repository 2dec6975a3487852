//! What a new row's values are: a function of the key, the seed and the element, the same bits on every machine.

use crate::hash::mix;
use crate::normal::quantile;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Constant(f32),
    Uniform {
        low: f32,
        high: f32,
    },
    Normal {
        mean: f32,
        deviation: f32,
    },
    /// Normal, cut off two deviations from the mean.
    Truncated {
        mean: f32,
        deviation: f32,
    },
}

/// The standard normal distribution at -2.
const BELOW_CUT: f64 = 0.022_750_131_948_179_2;
const STEP: u64 = 0xd1b5_4a32_d192_ed03;

impl Init {
    /// The values of a new row of the key whose hash this is.
    pub fn fill(&self, hash: u64, seed: u64, values: &mut [f32]) {
        if let Init::Constant(value) = *self {
            return values.fill(value);
        }
        let start = hash.wrapping_add(mix(seed));
        for (element, value) in (0u64..).zip(values) {
            let bits = mix(start.wrapping_add(element.wrapping_mul(STEP)));
            // Strictly between 0 and 1.
            let p = ((bits >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64);
            *value = self.at(p) as f32;
        }
    }

    fn at(&self, p: f64) -> f64 {
        match *self {
            Init::Constant(value) => f64::from(value),
            Init::Uniform { low, high } => f64::from(low) + (f64::from(high) - f64::from(low)) * p,
            Init::Normal { mean, deviation } => {
                f64::from(mean) + f64::from(deviation) * quantile(p)
            }
            Init::Truncated { mean, deviation } => {
                f64::from(mean)
                    + f64::from(deviation) * quantile(BELOW_CUT + (1.0 - 2.0 * BELOW_CUT) * p)
            }
        }
    }

    /// Whether every number in it is finite and every range the right way round.
    pub(crate) fn is_sound(&self) -> bool {
        match *self {
            Init::Constant(value) => value.is_finite(),
            Init::Uniform { low, high } => low.is_finite() && high.is_finite() && low <= high,
            Init::Normal { mean, deviation } | Init::Truncated { mean, deviation } => {
                mean.is_finite() && deviation.is_finite() && deviation >= 0.0
            }
        }
    }
}
