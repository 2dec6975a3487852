//! What touches `unsafe`, small enough for Miri (`make sanitize`): growth, removal, halves, threads, pooling and stepping.

use penstock_table::half::Dtype;
use penstock_table::{
    Bag, Engine, Init, Keys, Level, Optimizer, Pooling, Staged, Store, Table, TableConfig, Update,
};

fn config(dim: usize, dtype: Dtype) -> TableConfig {
    let optimizer = Optimizer::RowwiseAdagrad {
        epsilon: 1e-8,
        initial: 0.0,
    };
    let mut config = TableConfig::new("t", dim, optimizer, 0.1);
    config.dtype = dtype;
    config.init = Init::Uniform {
        low: -1.0,
        high: 1.0,
    };
    config
}

/// Keys of one bucket, so that a few make it grow.
fn keys(n: u64) -> Vec<u64> {
    (0..n)
        .map(|k| penstock_table::hash::unmix(k << 40 | k))
        .collect()
}

#[test]
fn rows_come_grow_go_and_come_again() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for threads in [1, 2] {
            let engine = Engine {
                threads,
                level: Level::Baseline,
            };
            let mut table = Table::new(config(3, dtype), engine).unwrap();
            let keys = keys(200);
            for turn in 0..2 {
                let grads = vec![0.5; keys.len() * 3];
                let batch = Update {
                    keys: &keys,
                    grads: &grads,
                    event_time_s: turn,
                    ..Update::default()
                };
                table.update(&batch).unwrap();
                assert_eq!(table.rows(), 200);
                for key in keys.iter().step_by(3) {
                    assert!(table.evict(*key));
                }
                let mut out = vec![0.0; keys.len() * 3];
                assert_eq!(table.lookup(&keys, &mut out).unwrap(), 200 - 67);
            }
        }
    }
}

#[test]
fn expected_rows_fill_what_was_taken_for_them() {
    let mut config = config(2, Dtype::F32);
    config.expected_rows = 2000;
    let engine = Engine {
        threads: 1,
        level: Level::Baseline,
    };
    let mut table = Table::new(config, engine).unwrap();
    // More than expected of one bucket: it grows beyond what it was given.
    let keys = keys(60);
    let batch = Update {
        keys: &keys,
        grads: &vec![0.5; keys.len() * 2],
        ..Update::default()
    };
    table.update(&batch).unwrap();
    let mut out = vec![0.0; keys.len() * 2];
    assert_eq!(table.lookup(&keys, &mut out).unwrap(), 60);
}

#[test]
fn bags_are_pooled_staged_and_stepped_on_two_threads() {
    let engine = Engine {
        threads: 2,
        level: Level::Baseline,
    };
    let mut store = Store::default();
    for slot in 0..4 {
        store
            .add_table(config(1 + slot as usize, Dtype::F32), engine)
            .unwrap();
        store.add_slot(slot, slot as usize, Keys::Raw).unwrap();
    }
    // Two tiles of samples, the first with a longer bag.
    let samples = 300;
    let keys: Vec<u64> = (0..samples as u64 + 9).map(|k| k % 50).collect();
    let offsets: Vec<i64> = (0..=samples)
        .map(|i| if i == 0 { 0 } else { i + 9 })
        .collect();
    let bags: Vec<Bag> = (0..4)
        .map(|slot| Bag {
            slot,
            keys: &keys,
            offsets: &offsets,
            weights: None,
        })
        .collect();
    let mut staged = Staged::default();
    let mut out = vec![0.0; samples as usize * 10];
    store.pool(&bags, Pooling::Mean, 2, &mut out).unwrap();
    store
        .stage(&bags, Pooling::Mean, &out, &mut staged)
        .unwrap();
    let done = store.step(&mut staged, 0).unwrap();
    assert_eq!(done.created, 4 * 50);
    assert!(staged.is_empty() && staged.is_finite());
}
