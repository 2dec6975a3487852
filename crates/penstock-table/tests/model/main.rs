//! Random sequences of operations on a table and on a plain map that says what they mean.

mod map;
mod operations;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use map::Model;
use operations::{Op, admission, eviction, key, op};
use penstock_table::{
    Change, Engine, Init, Level, Optimizer, RowParts, Table, TableConfig, TableError, Update,
};
use proptest::prelude::*;

const DIM: usize = 3;
const RATE: f32 = 0.5;
const KEYS: u64 = 400;

fn same_rows(table: &Table, model: &Model) {
    let mut found = BTreeMap::new();
    table.each(|key, row| assert!(found.insert(key, row).is_none(), "key {key} twice"));
    assert_eq!(found.len(), model.rows.len());
    assert_eq!(table.rows(), found.len() as u64);
    for (key, row) in found {
        let wanted = &model.rows[&key];
        let off = (row.score - wanted.score).abs();
        assert!(
            off <= 1e-4 * wanted.score.abs().max(1.0),
            "score {} is not {}",
            row.score,
            wanted.score
        );
        assert_eq!(
            RowParts {
                score: wanted.score,
                ..row
            },
            *wanted,
            "key {key}"
        );
    }
}

fn same_changes(table: &Table, model: &Model, since: u32) {
    let mut told = BTreeMap::new();
    let result = table.changes(since, |change| {
        let (key, row) = match change {
            Change::Row(key, row) => (key, Some(row.values)),
            Change::Gone(key) => (key, None),
        };
        assert!(told.insert(key, row).is_none(), "key {key} told twice");
    });
    if since < model.oldest {
        assert_eq!(
            result,
            Err(TableError::FullSnapshotNeeded {
                epoch: since,
                oldest: model.oldest
            })
        );
        return;
    }
    result.unwrap();
    let newer = |set: &BTreeSet<(u32, u64)>| {
        set.iter()
            .filter(|(epoch, _)| *epoch >= since)
            .map(|(_, key)| *key)
            .collect()
    };
    let (changed, gone): (BTreeSet<u64>, BTreeSet<u64>) =
        (newer(&model.changed), newer(&model.gone));
    let rows = changed.iter().filter_map(|key| {
        model
            .rows
            .get(key)
            .map(|row| (*key, Some(row.values.clone())))
    });
    let graves = gone
        .iter()
        .filter(|key| !model.rows.contains_key(key))
        .map(|key| (*key, None));
    assert_eq!(told, rows.chain(graves).collect());
}

fn play(config: TableConfig, ops: &[Op], engine: Engine, kept: bool) -> Table {
    let mut table = Table::new(config.clone(), engine).unwrap();
    let mut model = Model {
        config,
        rows: HashMap::new(),
        sightings: HashMap::new(),
        seen: 0,
        now: 0,
        epoch: 1,
        oldest: 1,
        changed: BTreeSet::new(),
        gone: BTreeSet::new(),
    };
    let mut needed = 1;
    if kept {
        table.register("reader", 1);
    }
    for op in ops {
        match op {
            Op::Update {
                keys,
                grads,
                occurrences,
                time,
            } => {
                let grads: Vec<f32> = grads.iter().map(|&g| f32::from(g) / 8.0).collect();
                let shows: Vec<f32> = occurrences.iter().map(|&n| n as f32).collect();
                let update = Update {
                    keys,
                    grads: &grads,
                    occurrences: Some(occurrences),
                    shows: Some(&shows),
                    clicks: Some(&shows),
                    event_time_s: i64::from(*time),
                    ..Update::default()
                };
                table.update(&update).unwrap();
                model.update(keys, &grads, occurrences, &shows, *time);
            }
            Op::Sweep(budget) => {
                let swept = table.sweep(*budget);
                assert!(swept.lines <= *budget);
                let all_around = *budget >= 1 << 20;
                if all_around {
                    // The first ended where the index ends; this one begins at its start.
                    table.sweep(*budget);
                }
                let gone = |key: &u64| table.get(*key).is_none();
                let (evicted, spared): (Vec<u64>, Vec<u64>) =
                    model.rows.keys().copied().partition(gone);
                assert!(evicted.len() as u64 >= swept.evicted);
                for key in evicted {
                    let row = &model.rows[&key];
                    assert!(
                        model.condemned(row) || model.doubtful(row),
                        "key {key} was evicted: {row:?}"
                    );
                    model.bury(key);
                }
                for key in spared.iter().filter(|_| all_around) {
                    let row = &model.rows[key];
                    assert!(
                        !model.condemned(row) || model.doubtful(row),
                        "key {key} was spared: {row:?}"
                    );
                }
            }
            Op::Evict(key) => {
                let there = model.rows.contains_key(key);
                assert_eq!(table.evict(*key), there);
                if there {
                    model.bury(*key);
                }
            }
            Op::Put(key, x) => {
                let version = 9;
                let score = if model.config.eviction.score.is_some() {
                    3.0
                } else {
                    0.0
                };
                let row = RowParts {
                    values: vec![f32::from(*x); DIM],
                    state: vec![],
                    count: 7,
                    last_seen_s: model.now,
                    version,
                    score,
                };
                table.put(*key, &row).unwrap();
                model.rows.insert(*key, row);
                model.changed.insert((model.epoch, *key));
            }
            Op::Flip => {
                model.epoch += 1;
                assert_eq!(table.flip(), model.epoch);
                model.release(if kept { needed } else { model.epoch });
            }
            Op::Passed(behind) => {
                if kept {
                    needed = needed.max(model.epoch.saturating_sub(*behind));
                    table.register("reader", needed);
                    model.release(needed);
                }
            }
        }
        assert_eq!(table.clock().oldest, model.oldest);
    }
    same_rows(&table, &model);
    (0..=model.epoch).for_each(|since| same_changes(&table, &model, since));
    let keys: Vec<u64> = (0..KEYS + 10).map(key).collect();
    let (mut out, mut versions) = (vec![f32::NAN; keys.len() * DIM], vec![99; keys.len()]);
    let before = table.clock();
    let found = table.lookup(&keys, &mut out).unwrap();
    table
        .lookup_extras(
            &keys,
            penstock_table::Extras {
                versions: Some(&mut versions),
                state: None,
            },
        )
        .unwrap();
    for ((key, out), version) in keys.iter().zip(out.chunks(DIM)).zip(versions) {
        let row = model.rows.get(key);
        assert_eq!(out, row.map_or(model.missing(), |row| row.values.clone()));
        assert_eq!(version, row.map_or(0, |row| row.version));
    }
    assert_eq!(
        found,
        keys.iter()
            .filter(|key| model.rows.contains_key(key))
            .count()
    );
    assert_eq!(table.clock(), before, "a lookup changes nothing");
    same_rows(&table, &model);
    table
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_table_does_what_a_map_would(
        ops in prop::collection::vec(op(), 0..40), admission in admission(), eviction in eviction(), kept in any::<bool>(),
        expected_rows in prop::sample::select(vec![0, 50, 5000]),
    ) {
        let mut config = TableConfig::new("model", DIM, Optimizer::Sgd, RATE);
        config.init = Init::Constant(0.25);
        config.admission = admission;
        config.eviction = eviction;
        config.versions = true;
        config.expected_rows = expected_rows;
        let one = play(config.clone(), &ops, Engine { threads: 1, level: Level::Baseline }, kept);
        let three = play(config, &ops, Engine { threads: 3, level: Level::Avx512 }, kept);
        let rows = |table: &Table| { let mut rows = Vec::new(); table.each(|key, row| rows.push((key, row))); rows };
        prop_assert_eq!(rows(&one), rows(&three), "order of rows included");
        prop_assert_eq!((one.clock(), one.memory(), one.tombstones()), (three.clock(), three.memory(), three.tombstones()));
    }
}
