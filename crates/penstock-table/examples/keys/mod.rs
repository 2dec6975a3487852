//! Keys as benchmarks draw them, the same on every machine.

use penstock_table::hash::mix;

/// Ranks 0..n by Zipf's law, by inversion with rejection (Hoermann and Derflinger 1996).
pub struct Zipf {
    n: f64,
    exponent: f64,
    low: f64,
    high: f64,
}

impl Zipf {
    pub fn new(n: u64, exponent: f64) -> Zipf {
        let mut zipf = Zipf {
            n: n as f64,
            exponent,
            low: 0.0,
            high: 0.0,
        };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.n + 0.5);
        zipf
    }

    fn integral(&self, x: f64) -> f64 {
        (x.powf(1.0 - self.exponent) - 1.0) / (1.0 - self.exponent)
    }

    pub fn draw(&self, seed: &mut u64) -> u64 {
        loop {
            let u = self.low + uniform(seed) * (self.high - self.low);
            let x = (1.0 + u * (1.0 - self.exponent)).powf(1.0 / (1.0 - self.exponent));
            let k = (x + 0.5).floor().clamp(1.0, self.n);
            if u >= self.integral(k + 0.5) - k.powf(-self.exponent) {
                return k as u64 - 1;
            }
        }
    }
}

pub fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(1);
    mix(*seed)
}

pub fn uniform(seed: &mut u64) -> f64 {
    (random(seed) >> 11) as f64 / (1u64 << 53) as f64
}
