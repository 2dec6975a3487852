//! A table as a plain map, written to be read.

use std::collections::{BTreeSet, HashMap};

use penstock_table::{Admission, Missing, RowParts, TableConfig};

use super::{DIM, RATE};

/// What the table should hold.
pub struct Model {
    pub config: TableConfig,
    pub rows: HashMap<u64, RowParts>,
    pub sightings: HashMap<u64, (u32, u64)>,
    pub seen: u64,
    pub now: u32,
    pub epoch: u32,
    pub oldest: u32,
    /// Key, epoch, in order; whether it was a row then is told by `rows`.
    pub changed: BTreeSet<(u32, u64)>,
    pub gone: BTreeSet<(u32, u64)>,
}

impl Model {
    pub fn init(&self) -> Vec<f32> {
        vec![0.25; DIM]
    }

    pub fn missing(&self) -> Vec<f32> {
        match self.config.missing() {
            Missing::Zeros => vec![0.0; DIM],
            Missing::Init => self.init(),
        }
    }

    pub fn fade(idle: u32) -> f64 {
        0.5f64.powf(f64::from(idle) / 10.0)
    }

    pub fn update(
        &mut self,
        keys: &[u64],
        grads: &[f32],
        occurrences: &[u32],
        shows: &[f32],
        time: u32,
    ) {
        let mut order = Vec::new();
        let mut sums: HashMap<u64, (Vec<f32>, u32, f32)> = HashMap::new();
        for (i, &key) in keys.iter().enumerate() {
            let sum = sums.entry(key).or_insert_with(|| {
                order.push(key);
                (vec![0.0; DIM], 0, 0.0)
            });
            sum.0
                .iter_mut()
                .zip(&grads[i * DIM..])
                .for_each(|(sum, g)| *sum += g);
            sum.1 += occurrences[i];
            sum.2 += shows[i];
        }
        let halvings = match self.config.admission {
            Admission::Count { halve_every, .. } => self.seen / halve_every,
            _ => 0,
        };
        for key in order {
            let (grad, count, shows) = &sums[&key];
            let more = shows * 0.5 + shows * 2.0;
            let has_score = self.config.eviction.score.is_some();
            if let Some(row) = self.rows.get_mut(&key) {
                if has_score {
                    let last = row.last_seen_s;
                    let (old, new) = if time >= last {
                        (Self::fade(time - last), 1.0)
                    } else {
                        (1.0, Self::fade(last - time))
                    };
                    row.score = (f64::from(row.score) * old + f64::from(more) * new) as f32;
                }
                row.values
                    .iter_mut()
                    .zip(grad)
                    .for_each(|(w, g)| *w -= RATE * g);
                row.count += count;
                row.last_seen_s = row.last_seen_s.max(time);
                row.version += 1;
            } else {
                let mut row = RowParts {
                    values: self.init(),
                    state: vec![],
                    count: *count,
                    last_seen_s: time,
                    version: 1,
                    score: if has_score { more } else { 0.0 },
                };
                match self.config.admission {
                    Admission::Count { least, .. } if least > 1 => {
                        self.seen += u64::from(*count);
                        let (sightings, at) = self.sightings.entry(key).or_insert((0, 0));
                        *sightings =
                            sightings.checked_shr((halvings - *at) as u32).unwrap_or(0) + count;
                        *at = halvings;
                        if *sightings < least || *count == 0 {
                            continue;
                        }
                        row.count = *sightings;
                    }
                    _ => row
                        .values
                        .iter_mut()
                        .zip(grad)
                        .for_each(|(w, g)| *w -= RATE * g),
                }
                self.rows.insert(key, row);
            }
            self.changed.insert((self.epoch, key));
        }
        self.now = self.now.max(time);
    }

    pub fn condemned(&self, row: &RowParts) -> bool {
        let rules = &self.config.eviction;
        let idle = self.now.saturating_sub(row.last_seen_s);
        let score = f64::from(row.score) * Self::fade(idle);
        rules.ttl_s.is_some_and(|ttl| idle > ttl)
            || idle >= rules.grace_s
                && (rules.least_count.is_some_and(|least| row.count < least)
                    || rules
                        .score
                        .is_some_and(|rule| score < f64::from(rule.least)))
    }

    /// Whether rounding could decide otherwise.
    pub fn doubtful(&self, row: &RowParts) -> bool {
        let score = f64::from(row.score) * Self::fade(self.now.saturating_sub(row.last_seen_s));
        self.config
            .eviction
            .score
            .is_some_and(|rule| (score - f64::from(rule.least)).abs() < 1e-5)
    }

    pub fn bury(&mut self, key: u64) {
        self.rows.remove(&key);
        self.gone.insert((self.epoch, key));
    }

    pub fn release(&mut self, passed: u32) {
        self.oldest = self.oldest.max(passed.min(self.epoch));
    }
}
