//! So many rows a second: a bucket that fills steadily and holds a second's worth.

use std::time::Instant;

pub struct Rate {
    per_s: f64,
    /// Rows that may be taken; below 0 after a request larger than what was there.
    left: f64,
    at: Instant,
}

impl Rate {
    pub fn new(per_s: f64) -> Rate {
        Rate {
            per_s,
            left: per_s.max(1.0),
            at: Instant::now(),
        }
    }

    /// Whether these rows are taken. A request larger than a second's worth is taken when the bucket is not empty, and
    /// paid for later: large ones are not left out for good.
    pub fn take(&mut self, rows: usize, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left = (self.left + since * self.per_s).min(self.per_s.max(1.0));
        let taken = self.left >= 1.0;
        if taken {
            self.left -= rows as f64;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn over_a_long_time_the_rate_is_kept_for_small_and_large_requests() {
        for rows in [1, 7, 500] {
            let (mut rate, start) = (Rate::new(100.0), Instant::now());
            let each = (0..100_000).map(|ms| start + Duration::from_millis(ms));
            let taken = each.filter(|now| rate.take(rows, *now)).count() * rows;
            assert!((9_900..=10_700).contains(&taken), "{rows}: {taken}");
        }
    }
}
