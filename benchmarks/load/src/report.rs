//! What was measured.

use std::time::Instant;

pub struct Report {
    from: Instant,
    until: Instant,
    /// Of requests that were intended while measuring, microseconds.
    latencies: Vec<f64>,
    /// Answers that came while measuring.
    answered: usize,
    errors: usize,
    fault: Option<String>,
}

impl Report {
    pub fn new(from: Instant, until: Instant) -> Report {
        Report {
            from,
            until,
            latencies: Vec::new(),
            answered: 0,
            errors: 0,
            fault: None,
        }
    }

    pub fn answered(&mut self, intended: Instant, now: Instant, fault: Option<String>) {
        if fault.is_some() {
            self.errors += 1;
            self.fault = self.fault.take().or(fault);
            return;
        }
        if intended >= self.from {
            self.latencies.push((now - intended).as_secs_f64() * 1e6);
        }
        self.answered += usize::from(now >= self.from && now < self.until);
    }

    pub fn abandoned(&mut self, count: usize) {
        self.errors += count;
        let fault = format!("{count} requests were not answered");
        self.fault = self.fault.take().or(Some(fault));
    }

    pub fn json(mut self) -> String {
        self.latencies.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            let at = (self.latencies.len() as f64 * share).ceil() as usize;
            let found = self.latencies.get(at.saturating_sub(1)).copied();
            found.map_or("null".to_owned(), |us| format!("{us:.1}"))
        };
        let seconds = (self.until - self.from).as_secs_f64();
        format!(
            "{{\"answered\": {}, \"errors\": {}, \"fault\": {}, \"rate\": {:.1}, \"latencies\": {}, \
             \"p50_us\": {}, \"p99_us\": {}, \"p999_us\": {}, \"max_us\": {}}}",
            self.answered,
            self.errors,
            self.fault.as_deref().map_or("null".to_owned(), quoted),
            self.answered as f64 / seconds,
            self.latencies.len(),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            quantile(1.0),
        )
    }
}

/// A string as JSON has it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn latencies_count_from_the_intended_moment_and_only_while_measuring() {
        let from = Instant::now();
        let mut report = Report::new(from, from + Duration::from_secs(1));
        report.answered(
            from - Duration::from_millis(5),
            from + Duration::from_millis(1),
            None,
        );
        report.answered(from, from + Duration::from_millis(3), None);
        report.answered(
            from,
            from + Duration::from_millis(4),
            Some("\"no\"\n".to_owned()),
        );
        let json = report.json();
        assert!(json.contains("\"answered\": 2, \"errors\": 1"), "{json}");
        assert!(json.contains("\"fault\": \"\\\"no\\\"\\u000a\""), "{json}");
        assert!(
            json.contains("\"latencies\": 1, \"p50_us\": 3000.0"),
            "{json}"
        );
    }
}
