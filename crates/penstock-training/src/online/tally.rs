//! Progressive metrics: each row is judged by the score it had before it was learnt from.

use super::state::{Reader, Writer};

/// Margins are told apart to this much in the AUC, within -16..16.
const BINS: usize = 1 << 16;
const REACH: f64 = 16.0;

/// Where a pass stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    pub rows: u64,
    pub weight: f64,
    /// Mean log loss; NaN without rows.
    pub logloss: f64,
    /// Ties, and what shares a bin of 1/2048 of a margin, count one half. NaN where a class is missing.
    pub auc: f64,
}

pub(crate) struct Tally {
    rows: u64,
    weight: f64,
    loss: f64,
    positive: Vec<f64>,
    negative: Vec<f64>,
}

impl Tally {
    pub fn new() -> Tally {
        Tally {
            rows: 0,
            weight: 0.0,
            loss: 0.0,
            positive: vec![0.0; BINS],
            negative: vec![0.0; BINS],
        }
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    #[inline]
    pub fn add(&mut self, margin: f64, label: f32, sample: f32, loss: f64) {
        let sample = f64::from(sample);
        let bin = ((margin + REACH) * (BINS as f64 / (2.0 * REACH))).clamp(0.0, BINS as f64 - 1.0);
        let side = if label > 0.0 {
            &mut self.positive
        } else {
            &mut self.negative
        };
        side[bin as usize] += sample;
        self.rows += 1;
        self.weight += sample;
        self.loss += sample * loss;
    }

    pub fn write(&self, out: &mut Writer) {
        out.u64(self.rows);
        out.f64(self.weight);
        out.f64(self.loss);
        let sides = self.positive.iter().zip(&self.negative);
        let used = (0u64..).zip(sides).filter(|(_, (p, n))| **p + **n > 0.0);
        out.u64(used.clone().count() as u64);
        for (bin, (positive, negative)) in used {
            out.u64(bin);
            out.f64(*positive);
            out.f64(*negative);
        }
    }

    /// None where the bytes are none that `write` wrote.
    pub fn read(from: &mut Reader) -> Option<Tally> {
        let mut tally = Tally::new();
        tally.rows = from.u64()?;
        (tally.weight, tally.loss) = (from.f64()?, from.f64()?);
        for _ in 0..from.u64()? {
            let bin = usize::try_from(from.u64()?).ok()?;
            *tally.positive.get_mut(bin)? = from.f64()?;
            tally.negative[bin] = from.f64()?;
        }
        Some(tally)
    }

    pub fn progress(&self) -> Progress {
        let (mut below, mut wins) = (0.0, 0.0);
        for (positive, negative) in self.positive.iter().zip(&self.negative) {
            wins += positive * (below + negative / 2.0);
            below += negative;
        }
        let positives: f64 = self.positive.iter().sum();
        Progress {
            rows: self.rows,
            weight: self.weight,
            logloss: self.loss / self.weight,
            auc: wins / (positives * below),
        }
    }
}

/// `log(1 + exp(-margin))` for label 1, `log(1 + exp(margin))` for 0, without overflow.
#[inline]
pub(crate) fn log_loss(margin: f64, label: f32) -> f64 {
    let against = if label > 0.0 { -margin } else { margin };
    against.max(0.0) + (-against.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_and_logloss_are_those_of_the_rows() {
        let mut tally = Tally::new();
        for (margin, label) in [(1.0, 1.0), (0.5, 0.0), (-1.0, 0.0), (0.5, 1.0)] {
            tally.add(margin, label, 2.0, log_loss(margin, label));
        }
        let found = tally.progress();
        assert_eq!((found.rows, found.weight), (4, 8.0));
        // Of four pairs three are won and one is tied.
        assert!((found.auc - 3.5 / 4.0).abs() < 1e-12);
        let expected = [(1.0f64, 1.0), (0.5, -1.0), (-1.0, -1.0), (0.5, 1.0)]
            .iter()
            .map(|(m, y)| (1.0 + (-m * y).exp()).ln())
            .sum::<f64>()
            / 4.0;
        assert!((found.logloss - expected).abs() < 1e-12);
    }

    #[test]
    fn a_margin_far_out_neither_overflows_nor_leaves_the_bins() {
        let mut tally = Tally::new();
        tally.add(1e6, 0.0, 1.0, log_loss(1e6, 0.0));
        tally.add(-1e6, 1.0, 1.0, log_loss(-1e6, 1.0));
        assert_eq!((tally.progress().auc, tally.progress().logloss), (0.0, 1e6));
    }
}
