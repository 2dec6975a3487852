//! What the speed examples share: keys drawn the same on every machine, and clocks.

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

fn clock(which: libc::clockid_t) -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec to write to.
    unsafe { libc::clock_gettime(which, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds of this thread's own work: other work on the machine disturbs it less than the clock on the wall.
#[allow(dead_code)]
pub fn thread_seconds() -> f64 {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Seconds of all threads' work.
#[allow(dead_code)]
pub fn processor_seconds() -> f64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}
