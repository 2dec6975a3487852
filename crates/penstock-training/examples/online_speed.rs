//! Features a second of the progressive trainer: `cargo run --release --example online_speed [rank] [threads] [keys]`.
//!
//! Thirty-nine slots of one key a row; half have few keys, half many (a power law over `keys`).

use std::time::Instant;

use penstock_training::online::{
    Columns, Factors, Model, Offsets, Optimizer, Rates, Settings, Slot, Trainer,
};

const SLOTS: usize = 39;
const ROWS: usize = 1 << 16;

fn noise(state: &mut u64) -> f64 {
    *state = state
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*state >> 11) as f64 / (1_u64 << 53) as f64
}

fn main() {
    let given = |at: usize, default: usize| {
        std::env::args()
            .nth(at)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (rank, threads, keys) = (given(1, 0), given(2, 1), given(3, 1 << 20));
    let rates = Rates {
        alpha: 0.05,
        beta: 1.0,
        l1: 0.0,
        l2: 0.0,
    };
    let settings = Settings {
        optimizer: Optimizer::Ftrl,
        rates,
        factors: (rank > 0).then_some(Factors {
            rank,
            rates,
            spread: 0.01,
            seed: 1,
        }),
        least: 1,
        evict_after: 0,
        batch: 256,
        threads,
    };
    let model = Model::new(settings, SLOTS, 0, true, false).expect("the settings are sound");
    let mut trainer = Trainer::new(model).expect("threads");
    let offsets: Vec<i64> = (0..=ROWS as i64).collect();
    let mut state = 1;
    let (mut seconds, mut rows) = (0.0, 0);
    for _ in 0..20 {
        let columns: Vec<Vec<u64>> = (0..SLOTS as u64)
            .map(|slot| {
                let many = if slot % 2 == 0 { 20.0 } else { keys as f64 };
                let key = |state: &mut u64| {
                    // About Zipf: log-uniform ranks.
                    let rank = (many.ln() * noise(state)).exp() as u64;
                    slot << 52 | rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 12
                };
                (0..ROWS).map(|_| key(&mut state)).collect()
            })
            .collect();
        let labels: Vec<f32> = (0..ROWS)
            .map(|row| f32::from(noise(&mut state) < 0.2 + 0.3 * (columns[1][row] % 2) as f64))
            .collect();
        let slots: Vec<Slot> = columns
            .iter()
            .map(|keys| Slot {
                offsets: Offsets::Wide(&offsets),
                keys,
                values: None,
            })
            .collect();
        let batch = Columns {
            rows: ROWS,
            slots: &slots,
            numbers: &[],
        };
        let begun = Instant::now();
        trainer.learn(&batch, &labels, None).expect("a sound batch");
        let took = begun.elapsed().as_secs_f64();
        rows += ROWS;
        seconds += took;
        println!(
            "{rows:>8} rows: {:.1} M features/s, {} keys, {:?}",
            (ROWS * SLOTS) as f64 / took / 1e6,
            trainer.model.keys(),
            trainer.progress()
        );
    }
    println!("{:.1} M features/s", (rows * SLOTS) as f64 / seconds / 1e6);
}
