//! What look-ups, updates, admission and eviction mean.

use penstock_table::{
    Admission, Dtype, Engine, Eviction, Extras, Init, Keys, Level, Optimizer, Store, Table,
    TableError, Update, UserContext, UserFunction,
};

use super::{config, read, table, update};

#[test]
fn the_update_that_admits_after_several_sightings_drops_its_gradient() {
    let mut config = config(1);
    config.admission = Admission::Count {
        least: 3,
        sketch_bytes: 1 << 16,
        halve_every: 1000,
    };
    let mut table = table(config);
    for sighting in 1..=2 {
        update(&mut table, &[7], &[0.25], sighting).unwrap();
        assert_eq!(
            (table.rows(), read(&table, 7)),
            (0, vec![0.0]),
            "missing reads zeros where admission needs more"
        );
    }
    let done = update(&mut table, &[7], &[0.25], 3).unwrap();
    assert_eq!((done.created, done.stepped, done.sightings), (1, 0, 1));
    let row = table.get(7).unwrap();
    assert_eq!((row.values, row.count, row.last_seen_s), (vec![0.5], 3, 3));
    update(&mut table, &[7], &[0.25], 4).unwrap();
    assert_eq!(read(&table, 7), [0.25]);
}

#[test]
fn an_evicted_key_starts_anew_with_fresh_state() {
    let mut config = config(1);
    config.optimizer = Optimizer::Adagrad {
        epsilon: 0.0,
        initial: 0.0,
    };
    config.eviction = Eviction {
        ttl_s: Some(100),
        ..Eviction::default()
    };
    let mut table = table(config);
    update(&mut table, &[1, 2], &[2.0, 2.0], 1000).unwrap();
    update(&mut table, &[2], &[2.0], 1101).unwrap();
    let swept = table.sweep(1 << 20);
    assert_eq!(
        (
            swept.evicted,
            swept.wrapped,
            table.rows(),
            table.tombstones()
        ),
        (1, true, 1, 1)
    );
    assert_eq!(read(&table, 1), [0.5], "an absent key reads init again");
    update(&mut table, &[1], &[4.0], 1102).unwrap();
    let row = table.get(1).unwrap();
    assert_eq!(
        (row.values, row.state, row.count),
        (vec![-0.5], vec![16.0], 1)
    );
}

#[test]
fn a_slot_says_which_bits_are_the_key() {
    let mut store = Store::default();
    let shared = store.add_table(config(1), Engine::default()).unwrap();
    let raw = store.add_table(config(2), Engine::default()).unwrap();
    store.add_slot(3, shared, Keys::Mapped).unwrap();
    store.add_slot(4, shared, Keys::Mapped).unwrap();
    store.add_slot(5, raw, Keys::Raw).unwrap();
    let one = Update {
        keys: &[3 << 52 | 9],
        grads: &[0.25],
        ..Update::default()
    };
    store.update(3, &one).unwrap();
    let mut out = [0.0];
    store.lookup(4, &[4 << 52 | 9], &mut out).unwrap();
    assert_eq!(out, [0.25], "two slots share a row by its value");
    store
        .update(
            5,
            &Update {
                keys: &[u64::MAX],
                grads: &[0.25, 0.5],
                ..Update::default()
            },
        )
        .unwrap();
    let mut out = [0.0; 4];
    assert_eq!(
        store
            .lookup(5, &[u64::MAX, u64::MAX >> 12], &mut out)
            .unwrap(),
        1
    );
    assert_eq!(out, [0.25, 0.0, 0.5, 0.5], "all 64 bits of a raw key count");
    assert_eq!(
        store.lookup(6, &[1], &mut out),
        Err(TableError::UnknownSlot { slot: 6 })
    );
    assert!(store.add_slot(3, raw, Keys::Raw).is_err());
}

#[test]
fn admission_by_probability_takes_its_share_and_the_same_keys_each_time() {
    let run = |threads| {
        let mut config = config(1);
        (config.admission, config.seed) = (Admission::Probability(0.2), 5);
        let mut table = Table::new(
            config,
            Engine {
                threads,
                level: Level::detect(),
            },
        )
        .unwrap();
        let keys: Vec<u64> = (0..20_000).collect();
        update(&mut table, &keys, &vec![1.0; keys.len()], 0).unwrap();
        assert!((3_800..4_200).contains(&table.rows()), "{}", table.rows());
        assert_eq!(
            read(
                &table,
                keys.iter()
                    .copied()
                    .find(|&key| table.get(key).is_some())
                    .unwrap()
            ),
            [0.5]
        );
        keys.into_iter()
            .filter(|&key| table.get(key).is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn sums_are_in_batch_order_and_threads_change_no_bit() {
    let run = |threads| {
        let mut config = config(16);
        (config.optimizer, config.init) = (
            Optimizer::RowwiseAdagrad {
                epsilon: 1e-8,
                initial: 0.0,
            },
            Init::Normal {
                mean: 0.0,
                deviation: 0.1,
            },
        );
        config.dtype = Dtype::Bf16;
        let mut table = Table::new(
            config,
            Engine {
                threads,
                level: Level::detect(),
            },
        )
        .unwrap();
        for round in 0..6u64 {
            let keys: Vec<u64> = (0..5000).map(|i: u64| (i * i + round) % 997).collect();
            let grads: Vec<f32> = (0..80_000u32)
                .map(|i| {
                    (i.wrapping_mul(2_654_435_761u32.wrapping_mul(round as u32 + 1)) as f32) * 1e-9
                })
                .collect();
            update(&mut table, &keys, &grads, round as i64).unwrap();
        }
        let mut rows = Vec::new();
        table.each(|key, row| rows.push((key, row)));
        rows
    };
    let one = run(1);
    assert!(one.len() > 900);
    for threads in [2, 3, 7] {
        assert!(run(threads) == one, "{threads} threads");
    }
    // 1e8 + 1 - 1e8 is 0 in this order and 1 in another.
    let mut table = table(config(1));
    update(&mut table, &[1, 1, 1], &[1e8, 1.0, -1e8], 0).unwrap();
    assert_eq!(read(&table, 1), [0.5]);
    // So too where a batch is large enough to be taken shard by shard.
    let (mut keys, mut grads) = ((100..30_100).collect::<Vec<u64>>(), vec![1.0; 30_000]);
    for (place, grad) in [(0, 1e8), (15_000, 1.0), (29_999, -1e8)] {
        (keys[place], grads[place]) = (2, grad);
    }
    let done = update(&mut table, &keys, &grads, 0).unwrap();
    assert_eq!((done.distinct, done.created), (29_998, 29_998));
    assert_eq!(read(&table, 2), [0.5]);
    assert_eq!(read(&table, 101), read(&table, 30_098));
}

unsafe extern "C" fn drop_small_counts(
    n: i64,
    rows: *const *mut f32,
    _: *const *mut f32,
    facts: *mut f32,
    context: *const UserContext,
) {
    // SAFETY: as `UserCall` says.
    unsafe {
        for i in 0..n as usize {
            let (first, facts) = (**rows.add(i), facts.add(4 * i));
            *facts.add(3) = f32::from(*facts < 2.0 && first < *(*context).user.cast::<f32>());
        }
    }
}

#[test]
fn a_users_policy_and_the_norm_decide_what_goes() {
    let mut below = 0.5f32;
    let mut by_policy = config(1);
    // SAFETY: the function keeps to `UserCall`, and `below` outlives the table.
    by_policy.eviction.policy =
        Some(unsafe { UserFunction::new(drop_small_counts, (&raw mut below).cast(), 0, 0.0) });
    let mut table = table(by_policy);
    update(&mut table, &[1, 2, 3, 3], &[0.25, -0.25, 0.25, 0.25], 0).unwrap();
    assert_eq!(table.sweep(1 << 20).evicted, 1);
    assert!(table.get(1).is_none() && table.get(2).is_some() && table.get(3).is_some());

    let mut by_norm = config(2);
    by_norm.eviction.least_norm = Some(0.5);
    let mut table = self::table(by_norm);
    update(&mut table, &[1, 2], &[0.1, 0.1, 0.2, 0.2], 0).unwrap();
    assert_eq!(
        (table.sweep(1 << 20).evicted, table.get(2).is_none()),
        (1, true)
    );
}

#[test]
fn a_lookup_gives_versions_and_the_state_columns_asked_for() {
    let mut adam = config(2);
    adam.optimizer = Optimizer::Adam {
        beta1: 0.5,
        beta2: 0.5,
        epsilon: 1e-8,
        per_row: true,
    };
    adam.versions = true;
    let mut table = table(adam);
    update(&mut table, &[1, 1, 2], &[1.0, 2.0, 1.0, 2.0, 4.0, 8.0], 0).unwrap();
    update(&mut table, &[2], &[0.0, 0.0], 0).unwrap();
    let (mut versions, mut state) = ([9; 3], [9.0; 9]);
    table
        .lookup_extras(
            &[2, 9, 1],
            Extras {
                versions: Some(&mut versions),
                state: Some((&[2, 0], &mut state)),
            },
        )
        .unwrap();
    assert_eq!(versions, [2, 0, 1]);
    assert_eq!((state[0].to_bits(), &state[1..3]), (2, &[1.0, 2.0][..]));
    assert_eq!(
        (&state[3..6], state[6].to_bits(), &state[7..]),
        (&[0.0; 3][..], 1, &[1.0, 2.0][..])
    );
    let unknown = Extras {
        versions: None,
        state: Some((&[3], &mut [])),
    };
    assert!(table.lookup_extras(&[], unknown).is_err());
}
