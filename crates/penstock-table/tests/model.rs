//! Random sequences of operations on a table and on a plain map that says what they mean.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use penstock_table::{
    Admission, Change, Engine, Eviction, Init, Level, Missing, Optimizer, RowParts, Score, Table,
    TableConfig, TableError, Update,
};
use proptest::prelude::*;

const DIM: usize = 3;
const RATE: f32 = 0.5;
const KEYS: u64 = 400;

/// A key of the test: a few at the edges of u64, most near one another.
fn key(number: u64) -> u64 {
    match number {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << 63,
        n => n * 65536,
    }
}

#[derive(Clone, Debug)]
enum Op {
    Update {
        keys: Vec<u64>,
        grads: Vec<i8>,
        occurrences: Vec<u32>,
        time: u32,
    },
    Sweep(u64),
    Evict(u64),
    Put(u64, i8),
    Flip,
    Passed(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let update = |keys: std::ops::Range<u64>, size: std::ops::Range<usize>| {
        (
            prop::collection::vec((keys, -8i8..8, 0u32..3), size),
            0u32..40,
        )
            .prop_map(|(rows, time)| Op::Update {
                keys: rows.iter().map(|row| key(row.0)).collect(),
                grads: rows
                    .iter()
                    .flat_map(|row| [row.1, row.1 + 1, -row.1])
                    .collect(),
                occurrences: rows.iter().map(|row| row.2).collect(),
                time,
            })
    };
    prop_oneof![
        4 => update(0..12, 0..30),
        3 => update(0..KEYS, 100..400),
        2 => prop_oneof![Just(Op::Sweep(1 << 20)), (1u64..3000).prop_map(Op::Sweep)],
        1 => (0..KEYS).prop_map(|n| Op::Evict(key(n))),
        1 => (0..KEYS, -8i8..8).prop_map(|(n, x)| Op::Put(key(n), x)),
        2 => Just(Op::Flip),
        1 => (0u32..3).prop_map(Op::Passed),
    ]
}

fn admission() -> impl Strategy<Value = Admission> {
    prop_oneof![
        Just(Admission::Always),
        // A sketch so wide that these keys never meet in it: its counts are exact.
        (1u32..5, prop::sample::select(vec![50u64, 1_000_000])).prop_map(|(least, halve_every)| {
            Admission::Count {
                least,
                sketch_bytes: 64 << 20,
                halve_every,
            }
        }),
    ]
}

fn eviction() -> impl Strategy<Value = Eviction> {
    let score = Score {
        show_weight: 0.5,
        click_weight: 2.0,
        half_life_s: 10,
        least: 0.25,
    };
    let options = (
        prop::option::of(5u32..30),
        prop::option::of(1u32..4),
        prop::option::of(Just(score)),
        0u32..10,
    );
    options.prop_map(|(ttl_s, least_count, score, grace_s)| Eviction {
        ttl_s,
        least_count,
        score,
        grace_s,
        ..Eviction::default()
    })
}

/// What the table should hold.
struct Model {
    config: TableConfig,
    rows: HashMap<u64, RowParts>,
    sightings: HashMap<u64, (u32, u64)>,
    seen: u64,
    now: u32,
    epoch: u32,
    oldest: u32,
    /// Key, epoch, in order; whether it was a row then is told by `rows`.
    changed: BTreeSet<(u32, u64)>,
    gone: BTreeSet<(u32, u64)>,
}

impl Model {
    fn init(&self) -> Vec<f32> {
        vec![0.25; DIM]
    }

    fn missing(&self) -> Vec<f32> {
        match self.config.missing() {
            Missing::Zeros => vec![0.0; DIM],
            Missing::Init => self.init(),
        }
    }

    fn fade(idle: u32) -> f64 {
        0.5f64.powf(f64::from(idle) / 10.0)
    }

    fn update(
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

    fn condemned(&self, row: &RowParts) -> bool {
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
    fn doubtful(&self, row: &RowParts) -> bool {
        let score = f64::from(row.score) * Self::fade(self.now.saturating_sub(row.last_seen_s));
        self.config
            .eviction
            .score
            .is_some_and(|rule| (score - f64::from(rule.least)).abs() < 1e-5)
    }

    fn bury(&mut self, key: u64) {
        self.rows.remove(&key);
        self.gone.insert((self.epoch, key));
    }

    fn release(&mut self, passed: u32) {
        self.oldest = self.oldest.max(passed.min(self.epoch));
    }
}

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
    ) {
        let mut config = TableConfig::new("model", DIM, Optimizer::Sgd, RATE);
        config.init = Init::Constant(0.25);
        config.admission = admission;
        config.eviction = eviction;
        config.versions = true;
        let one = play(config.clone(), &ops, Engine { threads: 1, level: Level::Baseline }, kept);
        let three = play(config, &ops, Engine { threads: 3, level: Level::Avx512 }, kept);
        let rows = |table: &Table| { let mut rows = Vec::new(); table.each(|key, row| rows.push((key, row))); rows };
        prop_assert_eq!(rows(&one), rows(&three), "order of rows included");
        prop_assert_eq!((one.clock(), one.memory(), one.tombstones()), (three.clock(), three.memory(), three.tombstones()));
    }
}
