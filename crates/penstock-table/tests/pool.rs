//! Pooling and its gradient, against the sums written out.

use penstock_table::{
    Bag, Engine, Init, Keys, Layout, Optimizer, Pooling, Staged, Store, TableConfig, TableError,
};

const POOLINGS: [Pooling; 3] = [Pooling::Sum, Pooling::Mean, Pooling::Sqrtn];

/// Two tables, of 3 and of 20 columns; slots 1 and 2 share the first.
fn store() -> Store {
    let mut store = Store::default();
    for (name, dim) in [("items", 3), ("cities", 20)] {
        let mut config = TableConfig::new(name, dim, Optimizer::Sgd, 0.5);
        config.init = Init::Uniform {
            low: -1.0,
            high: 1.0,
        };
        store.add_table(config, Engine::default()).unwrap();
    }
    for (slot, table) in [(1, 0), (2, 0), (3, 1)] {
        store.add_slot(slot, table, Keys::Raw).unwrap();
    }
    store
}

struct Made {
    keys: Vec<u64>,
    offsets: Vec<i64>,
    weights: Option<Vec<f32>>,
}

impl Made {
    /// Bags of 0 to 4 keys, now and then one longer than what is read at a time.
    fn new(slot: u32, samples: usize, weighted: bool) -> Made {
        let (mut keys, mut offsets) = (Vec::new(), vec![0]);
        for sample in 0..samples as u64 {
            let length = if sample == 7 {
                2_500
            } else {
                (sample + u64::from(slot)) % 5
            };
            keys.extend((0..length).map(|i| ((sample * 31 + i * 7) % 97) << 40));
            offsets.push(keys.len() as i64);
        }
        let weights = weighted.then(|| (0..keys.len()).map(|i| (i % 7) as f32 * 0.25).collect());
        Made {
            keys,
            offsets,
            weights,
        }
    }

    fn bag(&self, slot: u32) -> Bag<'_> {
        Bag {
            slot,
            keys: &self.keys,
            offsets: &self.offsets,
            weights: self.weights.as_deref(),
        }
    }

    fn factor(&self, sample: usize, pooling: Pooling) -> f32 {
        let range = self.offsets[sample] as usize..self.offsets[sample + 1] as usize;
        let weights: Vec<f32> = range
            .map(|at| self.weights.as_ref().map_or(1.0, |w| w[at]))
            .collect();
        let divisor = match pooling {
            Pooling::Sum => 1.0,
            Pooling::Mean => weights.iter().sum::<f32>(),
            Pooling::Sqrtn => weights.iter().map(|w| w * w).sum::<f32>().sqrt(),
        };
        if divisor == 0.0 { 0.0 } else { 1.0 / divisor }
    }
}

fn made(samples: usize) -> Vec<(u32, Made)> {
    vec![
        (1, Made::new(1, samples, false)),
        (3, Made::new(3, samples, true)),
        (2, Made::new(2, samples, true)),
    ]
}

fn bags(made: &[(u32, Made)]) -> Vec<Bag<'_>> {
    made.iter().map(|(slot, made)| made.bag(*slot)).collect()
}

#[test]
fn pooled_rows_are_their_weighted_sums_on_any_number_of_threads() {
    // More samples than are pooled at a time.
    let (store, made, samples) = (store(), made(600), 600);
    for pooling in POOLINGS {
        let mut out = vec![f32::NAN; samples * 26];
        store.pool(&bags(&made), pooling, 1, &mut out).unwrap();
        let mut expected = Vec::new();
        for sample in 0..samples {
            for (slot, made) in &made {
                let dim = if *slot == 3 { 20 } else { 3 };
                let mut sum = vec![0.0; dim];
                for at in made.offsets[sample] as usize..made.offsets[sample + 1] as usize {
                    let mut row = vec![0.0; dim];
                    store.lookup(*slot, &made.keys[at..=at], &mut row).unwrap();
                    let weight = made.weights.as_ref().map_or(1.0, |w| w[at]);
                    sum.iter_mut()
                        .zip(row)
                        .for_each(|(sum, value)| *sum += weight * value);
                }
                expected.extend(sum.iter().map(|value| value * made.factor(sample, pooling)));
            }
        }
        assert_eq!(out, expected, "{pooling:?}");
        for threads in [2, 7, 64] {
            let mut again = vec![f32::NAN; samples * 26];
            store
                .pool(&bags(&made), pooling, threads, &mut again)
                .unwrap();
            assert_eq!(again, out, "{threads} threads");
        }
    }
}

#[test]
fn a_step_gives_each_key_the_sum_of_its_gradients_and_shared_slots_share() {
    for pooling in POOLINGS {
        let (mut store, made, samples) = (store(), made(20), 20);
        let before = store_values(&store, &made);
        let grads: Vec<f32> = (0..samples * 26).map(|i| (i % 13) as f32 - 6.0).collect();
        let mut staged = Staged::default();
        store
            .stage(&bags(&made), pooling, &grads, &mut staged)
            .unwrap();
        assert_eq!(
            store_values(&store, &made),
            before,
            "staging changes nothing"
        );
        store.step(&mut staged, 100).unwrap();
        assert!(staged.is_empty());
        // SGD of rate 0.5 on each table's summed gradient.
        for (slot, first, dim) in [(1_u32, 0, 3), (3, 3, 20)] {
            let key = 31 << 40;
            let mut sum = vec![0.0_f64; dim];
            let mut column = 0;
            for (own, made) in &made {
                let width = if *own == 3 { 20 } else { 3 };
                if (*own == 3) == (slot == 3) {
                    for sample in 0..samples {
                        for at in made.offsets[sample] as usize..made.offsets[sample + 1] as usize {
                            if made.keys[at] == key {
                                let weight = made.weights.as_ref().map_or(1.0, |w| w[at]);
                                let factor = made.factor(sample, pooling) * weight;
                                for (e, sum) in sum.iter_mut().enumerate() {
                                    *sum += f64::from(factor * grads[sample * 26 + column + e]);
                                }
                            }
                        }
                    }
                }
                column += width;
            }
            let at = before
                .iter()
                .position(|(s, k, _)| *s == slot && *k == key)
                .unwrap();
            let mut row = vec![0.0; dim];
            store.lookup(slot, &[key], &mut row).unwrap();
            for e in 0..dim {
                let expected = f64::from(before[at].2[e]) - 0.5 * sum[e];
                assert!(
                    (f64::from(row[e]) - expected).abs() <= 1e-3 * expected.abs().max(1.0),
                    "{pooling:?} {first}"
                );
            }
        }
    }
}

/// Tables of 1 to 24 columns with a slot each, and two more slots of the first.
fn many(threads: usize, tables: usize) -> Store {
    let engine = Engine {
        threads,
        ..Engine::default()
    };
    let mut store = Store::default();
    for table in 0..tables {
        let optimizer = Optimizer::RowwiseAdagrad {
            epsilon: 1e-8,
            initial: 0.0,
        };
        let mut config =
            TableConfig::new(format!("t{table}"), 1 + 23 * (table % 2), optimizer, 0.1);
        config.init = Init::Uniform {
            low: -1.0,
            high: 1.0,
        };
        store.add_table(config, engine).unwrap();
    }
    for slot in 0..tables + 2 {
        let table = if slot < tables { slot } else { 0 };
        store.add_slot(slot as u32, table, Keys::Raw).unwrap();
    }
    store
}

#[test]
fn any_number_of_threads_stages_and_steps_to_the_same_bits() {
    const SAMPLES: usize = 700;
    for tables in [1, 9] {
        let made: Vec<(u32, Made)> = (0..tables as u32 + 2)
            .map(|slot| (slot, Made::new(slot, SAMPLES, slot % 3 == 1)))
            .collect();
        let width: usize = (0..tables).map(|t| 1 + 23 * (t % 2)).sum::<usize>() + 2;
        let grads: Vec<f32> = (0..SAMPLES * width)
            .map(|i| ((i * 7) % 31) as f32 * 0.01 - 0.1)
            .collect();
        let after = |threads: usize| {
            let mut store = many(threads, tables);
            let (mut staged, mut out) = (Staged::default(), vec![f32::NAN; SAMPLES * width]);
            for pooling in POOLINGS {
                for _ in 0..2 {
                    store
                        .stage(&bags(&made), pooling, &grads, &mut staged)
                        .unwrap();
                }
                store.step(&mut staged, 5).unwrap();
                store
                    .pool(&bags(&made), pooling, threads, &mut out)
                    .unwrap();
            }
            assert!(staged.is_empty());
            out.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        let alone = after(1);
        for threads in [2, 3, 8] {
            assert!(
                after(threads) == alone,
                "{tables} tables, {threads} threads"
            );
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_seen_wherever_it_came_from() {
    let (mut store, made, samples) = (store(), made(300), 300);
    let mut staged = Staged::default();
    let mut grads = vec![0.5; samples * 26];
    let stage = |grads: &[f32], staged: &mut Staged| {
        store
            .stage(&bags(&made), Pooling::Sum, grads, staged)
            .unwrap();
    };
    stage(&grads, &mut staged);
    assert!(staged.is_finite());
    // In the last tile, in a bag that has keys.
    grads[298 * 26] = f32::NAN;
    stage(&grads, &mut staged);
    assert!(!staged.is_finite());
    staged.scale(0.5);
    assert!(!staged.is_finite(), "scaling does not mend it");
    staged.clear();
    assert!(staged.is_finite());
    stage(&vec![3e38; samples * 26], &mut staged);
    staged.scale(10.0);
    assert!(!staged.is_finite(), "scaling overflowed");
    assert!(store.step(&mut staged, 0).is_err());
    assert!(!staged.is_empty());
}

fn store_values(store: &Store, made: &[(u32, Made)]) -> Vec<(u32, u64, Vec<f32>)> {
    let mut found = Vec::new();
    for (slot, made) in made {
        for key in &made.keys {
            let mut row = vec![0.0; if *slot == 3 { 20 } else { 3 }];
            store.lookup(*slot, &[*key], &mut row).unwrap();
            found.push((*slot, *key, row));
        }
    }
    found
}

#[test]
fn the_global_norm_is_of_each_key_once() {
    let store = store();
    let (keys, offsets) = ([5, 5, 6], [0, 2, 3]);
    let bag = Bag {
        slot: 1,
        keys: &keys,
        offsets: &offsets,
        weights: None,
    };
    let mut staged = Staged::default();
    store
        .stage(
            &[bag],
            Pooling::Sum,
            &[1.0, 0.0, 0.0, 0.0, 3.0, 0.0],
            &mut staged,
        )
        .unwrap();
    assert_eq!(staged.square_sum(), 2.0 * 2.0 + 3.0 * 3.0);
    staged.scale(0.5);
    assert_eq!(staged.square_sum(), (2.0 * 2.0 + 3.0 * 3.0) / 4.0);
}

#[test]
fn bags_that_make_no_sense_are_refused_by_name_and_bad_gradients_change_nothing() {
    let mut store = store();
    let keys = [1, 2, 3];
    let refused = |offsets: &[i64], weights: Option<&[f32]>| {
        let bag = Bag {
            slot: 1,
            keys: &keys,
            offsets,
            weights,
        };
        store
            .pool(&[bag], Pooling::Sum, 1, &mut [0.0; 6])
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(&[], None), "slot 1: the first offset must be 0");
    assert_eq!(refused(&[1, 3], None), "slot 1: the first offset must be 0");
    assert_eq!(
        refused(&[0, 2], None),
        "slot 1: the last offset is 2, and there are 3 keys"
    );
    assert_eq!(
        refused(&[0, 2, 1, 3], None),
        "slot 1: offset 2 is below the one before it"
    );
    assert_eq!(
        refused(&[0, 1, 3], Some(&[1.0])),
        "slot 1: 1 weights for 3 keys"
    );
    let bag = Bag {
        slot: 1,
        keys: &keys,
        offsets: &[0, 3],
        weights: None,
    };
    let mut staged = Staged::default();
    store
        .stage(&[bag], Pooling::Sum, &[1.0, f32::NAN, 0.0], &mut staged)
        .unwrap();
    assert!(!staged.is_finite());
    let error = store.step(&mut staged, 0).unwrap_err();
    assert!(
        matches!(
            error,
            TableError::NotFinite {
                position: 0,
                key: 1
            }
        ),
        "{error}"
    );
    assert_eq!(store.tables()[0].rows(), 0);
    let empty = Bag {
        slot: 3,
        keys: &[],
        offsets: &[0],
        weights: None,
    };
    store.pool(&[empty], Pooling::Mean, 2, &mut []).unwrap();
}

#[test]
fn a_step_that_finds_no_room_in_one_table_is_tried_again_without_applying_another_twice() {
    let mut store = Store::default();
    for (name, limit) in [("roomy", None), ("full", Some(1))] {
        let mut config = TableConfig::new(name, 2, Optimizer::Sgd, 1.0);
        config.bounds.memory_limit = limit;
        store.add_table(config, Engine::default()).unwrap();
    }
    store.add_slot(1, 0, Keys::Raw).unwrap();
    store.add_slot(2, 1, Keys::Raw).unwrap();
    let bag = |slot| Bag {
        slot,
        keys: &[7],
        offsets: &[0, 1],
        weights: None,
    };
    let mut staged = Staged::default();
    store
        .stage(&[bag(1), bag(2)], Pooling::Sum, &[1.0; 4], &mut staged)
        .unwrap();
    for _ in 0..2 {
        let error = store.step(&mut staged, 0).unwrap_err();
        assert!(matches!(error, TableError::MemoryLimit { .. }), "{error}");
        assert!(!staged.is_empty(), "the full table's gradient waits");
        let mut row = [0.0; 2];
        store.lookup(1, &[7], &mut row).unwrap();
        assert_eq!(row, [-1.0; 2], "applied once");
    }
}

/// Few keys, so that rows go, come back and take each other's places.
fn drawn(seed: &mut u64, below: u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

fn limited(threads: usize) -> Store {
    let engine = Engine {
        threads,
        ..Engine::default()
    };
    let mut store = Store::default();
    for table in 0..5 {
        let (epsilon, initial) = (1e-8, 0.0);
        let optimizer = Optimizer::Adagrad { epsilon, initial };
        let mut config = TableConfig::new(format!("t{table}"), 4, optimizer, 0.1);
        config.init = Init::Uniform {
            low: -1.0,
            high: 1.0,
        };
        config.eviction.ttl_s = Some(40);
        store.add_table(config, engine).unwrap();
    }
    for (slot, table) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 3), (5, 4)] {
        store.add_slot(slot, table, Keys::Raw).unwrap();
    }
    store
}

#[test]
fn what_pooling_found_is_never_believed_once_rows_went_or_came() {
    for seed in 0..40 {
        let mut seed = seed;
        // One is given what it found, the other looks everything up anew.
        let (mut knows, mut looks) = (limited(1 + seed as usize % 3), limited(1));
        let (mut known, mut looked) = (Staged::default(), Staged::default());
        let mut waiting = Vec::new();
        for now in 0..120 {
            match drawn(&mut seed, 6) {
                0 | 1 => {
                    let samples = 1 + drawn(&mut seed, 30) as usize;
                    let keys: Vec<Vec<u64>> = (0..6)
                        .map(|_| (0..samples).map(|_| drawn(&mut seed, 60)).collect())
                        .collect();
                    let mut out = vec![0.0; samples * 18];
                    let mut leads = vec![0.0; samples * 6];
                    let each: Vec<i64> = (0..=samples as i64).collect();
                    let found = knows
                        .pool_found(
                            &plain(&keys, &each),
                            Pooling::Sum,
                            2,
                            LEAD,
                            &mut leads,
                            &mut out,
                        )
                        .unwrap();
                    let (mut again, mut fronts) = (out.clone(), leads.clone());
                    looks
                        .pool_parted(
                            &plain(&keys, &each),
                            Pooling::Sum,
                            1,
                            LEAD,
                            &mut fronts,
                            &mut again,
                        )
                        .unwrap();
                    assert_eq!((&out, &leads), (&again, &fronts));
                    waiting.push((keys, each, found, leads, out));
                }
                2 | 3 if !waiting.is_empty() => {
                    let at = drawn(&mut seed, waiting.len() as u64) as usize;
                    let (keys, each, found, leads, out) = &waiting[at];
                    let (bags, found) = (plain(keys, each), Some(found));
                    knows
                        .stage_parted(&bags, Pooling::Sum, LEAD, leads, out, found, &mut known)
                        .unwrap();
                    looks
                        .stage_parted(&bags, Pooling::Sum, LEAD, leads, out, None, &mut looked)
                        .unwrap();
                    if drawn(&mut seed, 2) == 0 {
                        waiting.swap_remove(at);
                    }
                }
                4 => {
                    let did = knows.step(&mut known, now).unwrap();
                    assert_eq!(did, looks.step(&mut looked, now).unwrap());
                }
                _ => {
                    for store in [&mut knows, &mut looks] {
                        for table in store.tables_mut() {
                            table.advance(now);
                            table.sweep(1 << 12);
                            table.evict(seed % 60);
                        }
                    }
                }
            }
            for (a, b) in knows.tables().iter().zip(looks.tables()) {
                assert_eq!(a.rows(), b.rows());
            }
        }
        for slot in 0..6 {
            let keys: Vec<u64> = (0..60).collect();
            let (mut a, mut b) = (vec![0.0; 240], vec![0.0; 240]);
            knows.lookup(slot, &keys, &mut a).unwrap();
            looks.lookup(slot, &keys, &mut b).unwrap();
            assert_eq!(a, b);
        }
    }
}

const LEAD: Layout = Layout {
    lead: 1,
    stride: None,
};

/// A key a sample in each of the slots from 0 on.
fn plain<'a>(keys: &'a [Vec<u64>], offsets: &'a [i64]) -> Vec<Bag<'a>> {
    let slots = (0u32..).zip(keys);
    slots
        .map(|(slot, keys)| Bag {
            slot,
            keys,
            offsets,
            weights: None,
        })
        .collect()
}

#[test]
fn what_was_found_of_other_keys_is_refused() {
    let store = limited(1);
    let (keys, each) = (vec![vec![1, 2]; 6], [0, 1, 2]);
    let bags = plain(&keys, &each);
    let (mut leads, mut out) = (vec![0.0; 12], vec![0.0; 36]);
    let found = store
        .pool_found(&bags, Pooling::Sum, 1, LEAD, &mut leads, &mut out)
        .unwrap();
    let mut staged = Staged::default();
    for other in [&bags[1..], &bags[..5]] {
        let (leads, out) = (&leads[..2 * other.len()], &out[..6 * other.len()]);
        let found = Some(&found);
        let error = store
            .stage_parted(other, Pooling::Sum, LEAD, leads, out, found, &mut staged)
            .unwrap_err();
        assert!(error.to_string().contains("not the keys that were pooled"));
    }
    assert!(staged.is_empty());
}
