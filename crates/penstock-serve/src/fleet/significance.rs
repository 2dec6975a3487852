//! Whether a canary fails more often than live: by more than chance explains, and by enough to matter.

/// A guard looks many times; each look may be wrong this often.
const CHANCE: f64 = 1e-7;
/// The same while live has too few requests to compare with, which does not last.
const CHANCE_ALONE: f64 = 1e-5;

/// `hits` of `of` requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub hits: u64,
    pub of: u64,
}

impl Share {
    pub fn value(self) -> f64 {
        self.hits as f64 / self.of.max(1) as f64
    }
}

/// Whether `canary` exceeds `live` by `least` and by more than chance (Fisher's exact test, one-sided). With fewer than
/// `enough` requests of live, it is judged against `least` itself.
pub fn exceeds(canary: Share, live: Share, least: f64, enough: u64) -> bool {
    if live.of < enough {
        return canary.value() > least && binomial_tail(canary, least) < CHANCE_ALONE;
    }
    canary.value() - live.value() >= least && fisher_tail(canary, live) < CHANCE
}

/// P(at least `a.hits` of all hits fall on `a`), if they fell by chance.
fn fisher_tail(a: Share, b: Share) -> f64 {
    let (all, hits) = (a.of + b.of, a.hits + b.hits);
    let first = choose(hits, a.hits) + choose(all - hits, a.of - a.hits) - choose(all, a.of);
    let most = hits.min(a.of);
    // From one term to the next; all are positive.
    let ratio = |x: u64| {
        let up = (hits - x) as f64 * (a.of - x) as f64;
        up / ((x + 1) as f64 * (all + x + 1 - hits - a.of) as f64)
    };
    first.exp() * series(a.hits, most, ratio)
}

/// P(at least `a.hits` of `a.of`), if each were a hit with probability `p`.
fn binomial_tail(a: Share, p: f64) -> f64 {
    let misses = (a.of - a.hits) as f64;
    let first = choose(a.of, a.hits) + a.hits as f64 * p.ln() + misses * (-p).ln_1p();
    let odds = p / (1.0 - p);
    let ratio = |x: u64| (a.of - x) as f64 / (x + 1) as f64 * odds;
    first.exp() * series(a.hits, a.of, ratio)
}

/// 1 + r(from) + r(from) r(from + 1) + ... up to `to`, or until nothing is added.
fn series(from: u64, to: u64, ratio: impl Fn(u64) -> f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for x in from..to {
        term *= ratio(x);
        sum += term;
        if term < sum * 1e-12 {
            break;
        }
    }
    sum
}

/// ln of the binomial coefficient.
fn choose(n: u64, k: u64) -> f64 {
    let ln_factorial = |n: u64| libm::lgamma(n as f64 + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(hits: u64, of: u64) -> Share {
        Share { hits, of }
    }

    #[test]
    fn the_tails_are_those_of_the_books() {
        // R: phyper(2, 10, 90, 20, lower.tail = FALSE); pbinom(2, 20, 0.1, lower.tail = FALSE)
        let fisher = fisher_tail(share(3, 20), share(7, 80));
        assert!((fisher - 0.318_8).abs() < 5e-4, "{fisher}");
        let binomial = binomial_tail(share(3, 20), 0.1);
        assert!((binomial - 0.323_073_2).abs() < 1e-7, "{binomial}");
        assert!((fisher_tail(share(0, 20), share(5, 80)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_chance_explains_is_not_told_and_what_matters_is() {
        assert!(!exceeds(share(3, 200), share(0, 1800), 0.01, 200));
        assert!(exceeds(share(50, 1000), share(0, 9000), 0.01, 200));
        assert!(exceeds(share(50, 1000), share(1, 1000), 0.01, 200));
        // Significant, but not worth a rollback.
        assert!(!exceeds(
            share(900, 100_000),
            share(100, 100_000),
            0.01,
            200
        ));
        // Live has too little to compare with.
        assert!(exceeds(share(50, 1000), share(0, 10), 0.01, 200));
        assert!(!exceeds(share(20, 1000), share(0, 10), 0.01, 200));
    }
}
