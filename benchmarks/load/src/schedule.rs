//! When requests are to be sent.

use std::time::{Duration, Instant};

pub enum Schedule {
    /// At moments that do not depend on the answers.
    Open(Arrivals),
    Closed,
}

impl Schedule {
    pub fn new(rate: Option<f64>, began: Instant) -> Schedule {
        match rate {
            None => Schedule::Closed,
            Some(rate) => Schedule::Open(Arrivals {
                rate,
                next: began,
                state: 0x9e37_79b9_7f4a_7c15,
            }),
        }
    }
}

/// A Poisson process of fixed seed.
pub struct Arrivals {
    rate: f64,
    next: Instant,
    state: u64,
}

impl Arrivals {
    /// The moments that have come.
    pub fn until(&mut self, now: Instant) -> impl Iterator<Item = Instant> + '_ {
        std::iter::from_fn(move || {
            (self.next <= now).then(|| {
                let after = self.next + self.gap();
                std::mem::replace(&mut self.next, after)
            })
        })
    }

    /// Exponential, by inversion of a uniform number in (0, 1] (SplitMix64).
    fn gap(&mut self) -> Duration {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-uniform.ln() / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_come_at_the_rate_and_in_order() {
        let began = Instant::now();
        let Schedule::Open(mut arrivals) = Schedule::new(Some(10_000.0), began) else {
            unreachable!()
        };
        let moments: Vec<Instant> = arrivals.until(began + Duration::from_secs(10)).collect();
        assert!((moments.len() as f64 / 1e5 - 1.0).abs() < 0.02);
        assert!(moments.is_sorted());
        assert!(
            arrivals
                .until(began + Duration::from_secs(10))
                .next()
                .is_none()
        );
    }
}
