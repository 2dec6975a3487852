//! What the test does to a table, drawn at random.

use penstock_table::{Admission, Eviction, Score};
use proptest::prelude::*;

use super::KEYS;

/// A key of the test: a few at the edges of u64, most near one another.
pub fn key(number: u64) -> u64 {
    match number {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << 63,
        n => n * 65536,
    }
}

#[derive(Clone, Debug)]
pub enum Op {
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

pub fn op() -> impl Strategy<Value = Op> {
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

pub fn admission() -> impl Strategy<Value = Admission> {
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

pub fn eviction() -> impl Strategy<Value = Eviction> {
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
