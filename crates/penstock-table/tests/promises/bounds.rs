//! What is refused, and what a table may hold.

use penstock_table::{
    Admission, Bounds, Engine, Eviction, Init, Missing, Pulled, Table, TableConfig, TableError,
    Update,
};

use super::{config, table, update};

#[test]
fn a_full_set_of_tombstones_sends_old_readers_to_a_full_snapshot() {
    let mut config = config(1);
    config.bounds = Bounds {
        tombstones: 64 * 4,
        ..Bounds::default()
    };
    let mut table = table(config);
    table.register("slow", 1);
    let keys: Vec<u64> = (0..2000).collect();
    update(&mut table, &keys, &vec![0.0; 2000], 0).unwrap();
    table.flip();
    keys.iter().for_each(|&key| assert!(table.evict(key)));
    assert!(table.tombstones() <= 64 * 4);
    assert!(matches!(
        table.changes(1, |_| ()),
        Err(TableError::FullSnapshotNeeded { epoch: 1, .. })
    ));
    let now = table.clock().oldest;
    table.changes(now, |_| ()).unwrap();
}

#[test]
fn a_bad_batch_leaves_the_table_untouched() {
    let mut table = table(config(2));
    update(&mut table, &[1], &[0.25, 0.25], 5).unwrap();
    let before = (table.clock(), table.get(1));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let grads = [0.0, 0.0, 0.0, bad];
        assert_eq!(
            update(&mut table, &[1, 2], &grads, 9),
            Err(TableError::NotFinite {
                position: 1,
                key: 2
            })
        );
    }
    let short = TableError::Length {
        what: "grads",
        found: 3,
        expected: 4,
    };
    assert_eq!(update(&mut table, &[1, 2], &[0.0; 3], 9), Err(short));
    let counts = Update {
        keys: &[1],
        grads: &[0.0; 2],
        occurrences: Some(&[1, 2]),
        ..Update::default()
    };
    assert!(table.update(&counts).is_err());
    let pulled = Pulled {
        versions: &[1],
        values: &[0.0],
        state: &[],
    };
    assert!(
        table
            .update(&Update {
                keys: &[1],
                grads: &[0.0; 2],
                pulled: Some(pulled),
                ..Update::default()
            })
            .is_err()
    );
    assert!(table.lookup(&[1], &mut [0.0]).is_err());
    assert_eq!((table.clock(), table.get(1)), before);
    assert_eq!(
        update(&mut table, &[], &[], 9).unwrap().distinct,
        0,
        "an empty batch is a batch"
    );
}

#[test]
fn configurations_that_mean_nothing_are_refused() {
    let refused = |change: fn(&mut TableConfig)| {
        let mut config = config(4);
        change(&mut config);
        matches!(
            Table::new(config, Engine::default()),
            Err(TableError::Config { .. })
        )
    };
    assert!(refused(|config| config.dim = 0));
    assert!(refused(|config| config.dim = 513));
    assert!(refused(|config| config.init = Init::Uniform {
        low: 1.0,
        high: 0.0
    }));
    assert!(refused(
        |config| config.admission = Admission::Probability(0.0)
    ));
    assert!(refused(|config| config.admission = Admission::Count {
        least: 256,
        sketch_bytes: 64,
        halve_every: 1
    }));
    assert!(refused(|config| {
        config.admission = Admission::Probability(0.5);
        config.missing = Some(Missing::Init);
    }));
    assert!(refused(|config| config.gradient.clip_norm = Some(0.0)));
    assert!(refused(|config| config.learning_rate = f32::NAN));
    assert!(!refused(|config| config.dim = 512));
}

#[test]
fn a_memory_limit_evicts_first_and_errs_then() {
    let mut limited = config(16);
    limited.bounds.memory_limit = Some(6 << 20);
    limited.eviction = Eviction {
        ttl_s: Some(10),
        ..Eviction::default()
    };
    let mut table = table(limited);
    let grads = vec![0.0; 1000 * 16];
    let mut refused = None;
    for round in 0..200u64 {
        let keys: Vec<u64> = (round * 1000..(round + 1) * 1000).collect();
        let before = (table.rows(), table.clock().update);
        if let Err(error) = update(&mut table, &keys, &grads, 0) {
            assert_eq!(
                (table.rows(), table.clock().update),
                before,
                "nothing of the batch was applied"
            );
            refused = Some((round, error));
            break;
        }
        assert!(table.memory().total() <= 6 << 20);
    }
    let (round, error) = refused.expect("the limit is met");
    assert!(matches!(error, TableError::MemoryLimit { .. }));
    assert!(table.rows() > 20_000);
    // Rows that are there still learn.
    let there: Vec<u64> = (0..1000).collect();
    update(&mut table, &there, &grads, 0).unwrap();
    // Time passes: now the limit sweeps what is stale and there is room.
    table.advance(100);
    let keys: Vec<u64> = (round * 1000..(round + 1) * 1000).collect();
    update(&mut table, &keys, &grads, 100).unwrap();
    assert_eq!(table.rows(), 1000);
    assert!(table.memory().total() <= 6 << 20);
}

#[test]
fn freed_rows_are_used_again() {
    let mut config = config(8);
    config.eviction = Eviction {
        ttl_s: Some(0),
        ..Eviction::default()
    };
    let mut table = table(config);
    let grads = vec![0.0; 10_000 * 8];
    let mut bytes = Vec::new();
    for day in 1..20i64 {
        let keys: Vec<u64> = (0..10_000).map(|i| i + day as u64 * 1_000_000).collect();
        update(&mut table, &keys, &grads, day).unwrap();
        table.flip();
        table.sweep(1 << 20);
        bytes.push(table.memory().total());
        assert_eq!(table.rows(), 10_000);
    }
    // Each day's keys fall a little differently on shards and buckets, so the peaks creep towards their limit.
    assert!(bytes[18] < bytes[9] + bytes[9] / 20, "{bytes:?}");
}
