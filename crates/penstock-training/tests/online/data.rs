//! Rows for the tests: a slot of one key, a weighted one of up to three, a number; and how they are learnt from.

use std::ops::Range;

use penstock_training::online::{
    Columns, Factors, Model, Offsets, Optimizer, Rates, Settings, Slot, Trainer,
};

const RATES: Rates = Rates {
    alpha: 0.1,
    beta: 1.0,
    l1: 0.01,
    l2: 0.5,
};

pub fn settings(optimizer: Optimizer, rank: usize, threads: usize) -> Settings {
    Settings {
        optimizer,
        rates: RATES,
        factors: (rank > 0).then_some(Factors {
            rank,
            rates: Rates {
                alpha: 0.05,
                beta: 0.5,
                l1: 0.0,
                l2: 0.001,
            },
            spread: 0.1,
            seed: 3,
        }),
        least: 1,
        evict_after: 0,
        batch: 16,
        threads,
    }
}

/// A slot of one key, a weighted one of up to three, a number.
pub struct Data {
    pub offsets: [Vec<i64>; 2],
    pub keys: [Vec<u64>; 2],
    pub values: Vec<f32>,
    pub numbers: Vec<f32>,
    pub labels: Vec<f32>,
    pub sample: Vec<f32>,
}

fn noise(state: &mut u64) -> f64 {
    *state = state
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*state >> 11) as f64 / (1_u64 << 53) as f64
}

pub fn data(rows: usize) -> Data {
    let mut state = 5;
    let mut data = Data {
        offsets: [vec![0], vec![0]],
        keys: [vec![], vec![]],
        values: vec![],
        numbers: vec![],
        labels: vec![],
        sample: vec![],
    };
    for _ in 0..rows {
        let first = (noise(&mut state) * 30.0) as u64;
        data.keys[0].push(first);
        let many = (noise(&mut state) * 4.0) as usize;
        for _ in 0..many {
            data.keys[1].push((noise(&mut state) * 300.0) as u64);
            data.values.push(noise(&mut state) as f32 * 2.0 - 0.5);
        }
        for (offsets, keys) in data.offsets.iter_mut().zip(&data.keys) {
            offsets.push(keys.len() as i64);
        }
        let number = noise(&mut state) as f32 * 2.0 - 1.0;
        data.numbers.push(number);
        let p = 0.15 + 0.5 * (first % 2) as f64 + 0.1 * f64::from(number);
        data.labels.push(f32::from(noise(&mut state) < p));
        data.sample.push(0.5 + noise(&mut state) as f32);
    }
    data
}

impl Data {
    pub fn slots(&self) -> [Slot<'_>; 2] {
        let slot = |at: usize, values| Slot {
            offsets: Offsets::Wide(&self.offsets[at]),
            keys: &self.keys[at],
            values,
        };
        [slot(0, None), slot(1, Some(&self.values[..]))]
    }

    /// Learn in batches of `cut` rows.
    pub fn learn(&self, trainer: &mut Trainer, cut: usize) {
        let rows = self.labels.len();
        for from in (0..rows).step_by(cut) {
            self.learn_rows(trainer, from..(from + cut).min(rows));
        }
        trainer.finish().unwrap();
    }

    pub fn learn_rows(&self, trainer: &mut Trainer, rows: Range<usize>) {
        let slots = self.slots().map(|slot| match slot.offsets {
            Offsets::Wide(offsets) => Slot {
                offsets: Offsets::Wide(&offsets[rows.start..=rows.end]),
                ..slot
            },
            Offsets::Narrow(_) => slot,
        });
        let columns = Columns {
            rows: rows.len(),
            slots: &slots,
            numbers: &self.numbers[rows.clone()],
        };
        let sample = Some(&self.sample[rows.clone()]);
        trainer.learn(&columns, &self.labels[rows], sample).unwrap();
    }

    pub fn trained(&self, settings: Settings, cut: usize) -> Trainer {
        let mut trainer = Trainer::new(Model::new(settings, 2, 1, false, false).unwrap()).unwrap();
        self.learn(&mut trainer, cut);
        trainer
    }
}
