//! Random sequences of operations with cuts among them: what a cut restores is the table at its `prepare`, and the operations
//! after it lead both to the same bits.

use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::{
    Admission, Checkpoints, CutOptions, Dtype, Eviction, Init, OpenCut, Optimizer, Score, Store,
    TableConfig, Update,
};
use proptest::prelude::*;

use super::{Image, changes, checkpoints, image, store};

const DIM: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Update(Vec<(u64, i8, u32)>, u32),
    Sweep(u64),
    Evict(u64),
    Put(u64, i8),
    Flip,
    Prepare(bool),
    Step(u64),
    Commit,
    Abort,
    Resume,
}

fn key(number: u64) -> u64 {
    match number {
        0 => 0,
        1 => u64::MAX,
        n => n.wrapping_mul(0x1_0001_0000),
    }
}

fn op() -> impl Strategy<Value = Op> {
    let update = |keys: u64, size: std::ops::Range<usize>| {
        let rows = prop::collection::vec((0..keys, -8i8..8, 0u32..3), size);
        (rows, 0u32..40).prop_map(|(rows, time)| Op::Update(rows, time))
    };
    prop_oneof![
        6 => update(20, 0..30),
        3 => update(3000, 100..600),
        3 => prop_oneof![Just(Op::Sweep(1 << 20)), (1u64..3000).prop_map(Op::Sweep)],
        1 => (0..3000u64).prop_map(Op::Evict),
        1 => (0..3000u64, -8i8..8).prop_map(|(n, x)| Op::Put(n, x)),
        1 => Just(Op::Flip),
        3 => any::<bool>().prop_map(Op::Prepare),
        3 => (0u64..200).prop_map(Op::Step),
        3 => Just(Op::Commit),
        1 => Just(Op::Abort),
        1 => Just(Op::Resume),
    ]
}

fn config() -> impl Strategy<Value = TableConfig> {
    let admission = prop_oneof![
        Just(Admission::Always),
        // So small a sketch that keys do meet in it.
        (2u32..4, prop::sample::select(vec![40u64, 100_000])).prop_map(|(least, halve_every)| {
            Admission::Count {
                least,
                sketch_bytes: 64 * 64 * 3,
                halve_every,
            }
        }),
    ];
    let eviction = (
        prop::option::of(5u32..30),
        prop::option::of(1u32..4),
        any::<bool>(),
    )
        .prop_map(|(ttl_s, least_count, score)| Eviction {
            ttl_s,
            least_count,
            score: score.then_some(Score {
                show_weight: 0.5,
                click_weight: 2.0,
                half_life_s: 10,
                least: 0.25,
            }),
            grace_s: 3,
            ..Eviction::default()
        });
    let dtype = prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]);
    (admission, eviction, dtype, any::<bool>()).prop_map(
        |(admission, eviction, dtype, versions)| {
            let adagrad = Optimizer::Adagrad {
                epsilon: 1e-8,
                initial: 0.1,
            };
            let mut config = TableConfig::new("model", DIM, adagrad, 0.1);
            config.init = Init::Uniform {
                low: -1.0,
                high: 1.0,
            };
            config.admission = admission;
            config.eviction = eviction;
            config.dtype = dtype;
            config.versions = versions;
            config
        },
    )
}

/// Does what changes a table; whether it did.
fn apply(store: &mut Store, op: &Op) {
    match op {
        Op::Update(rows, time) => {
            let keys: Vec<u64> = rows.iter().map(|row| key(row.0)).collect();
            let grads: Vec<f32> = rows
                .iter()
                .flat_map(|row| [row.1, row.1 + 1, -row.1])
                .map(f32::from)
                .collect();
            let occurrences: Vec<u32> = rows.iter().map(|row| row.2).collect();
            let shows: Vec<f32> = rows.iter().map(|row| row.2 as f32).collect();
            let batch = Update {
                keys: &keys,
                grads: &grads,
                occurrences: Some(&occurrences),
                shows: Some(&shows),
                event_time_s: i64::from(*time),
                ..Update::default()
            };
            store.update(1, &batch).unwrap();
        }
        Op::Sweep(lines) => {
            store.tables_mut()[0].sweep(*lines);
        }
        Op::Evict(number) => {
            store.tables_mut()[0].evict(key(*number));
        }
        Op::Put(number, x) => {
            let table = &mut store.tables_mut()[0];
            let parts = penstock_table::RowParts {
                values: vec![f32::from(*x); DIM],
                state: vec![1.0; DIM],
                count: 7,
                last_seen_s: 30,
                version: 9,
                score: 1.0,
            };
            table.put(key(*number), &parts).unwrap();
        }
        Op::Flip => {
            store.tables_mut()[0].flip();
        }
        _ => {}
    }
}

/// A cut that is open, what the table was, and what was done since.
struct Open {
    cut: OpenCut,
    id: String,
    image: Image,
    since: Vec<Op>,
}

fn same(restored: &Store, wanted: &Store) {
    let (restored, wanted) = (&restored.tables()[0], &wanted.tables()[0]);
    assert_eq!(image(restored), image(wanted));
    let (mut a, mut b) = (restored.clock(), wanted.clock());
    let since = a.oldest.max(b.oldest);
    assert_eq!(changes(restored, since), changes(wanted, since));
    // How long changes are kept depends on who asked for them meanwhile.
    (a.oldest, b.oldest) = (0, 0);
    assert_eq!(a, b);
}

fn run(config: &TableConfig, ops: &[Op]) -> std::result::Result<(), TestCaseError> {
    let disk = SimulatedDisk::new(0);
    let mut folder: Checkpoints = checkpoints(&disk);
    let mut live = store(config.clone());
    let mut open: Option<Open> = None;
    for (number, op) in ops.iter().enumerate() {
        match op {
            Op::Prepare(full) if open.is_none() => {
                let options = CutOptions {
                    full: *full,
                    ..CutOptions::default()
                };
                let id = format!("cut {number}");
                let before = image(&live.tables()[0]);
                let mut cut = folder.prepare(&mut live, &id, options).unwrap();
                cut.section("positions", number.to_le_bytes());
                open = Some(Open {
                    cut,
                    id,
                    image: before,
                    since: Vec::new(),
                });
            }
            Op::Step(rows) => {
                if let Some(open) = &mut open {
                    open.cut.step(&live, *rows).unwrap();
                }
            }
            Op::Abort => {
                if let Some(open) = open.take() {
                    open.cut.abort(&mut live);
                    prop_assert_eq!(live.tables()[0].copied_bytes(), 0);
                }
            }
            Op::Commit => {
                let Some(Open {
                    cut,
                    id,
                    image: cut_image,
                    since,
                }) = open.take()
                else {
                    continue;
                };
                folder.commit(cut, &mut live).unwrap();
                let found = folder.newest().unwrap().unwrap();
                prop_assert_eq!(found.cut_id(), &id);
                let position: usize = id[4..].parse().unwrap();
                prop_assert_eq!(
                    &found.sections().unwrap()["positions"],
                    &position.to_le_bytes()
                );
                let mut restored = found.restore(store(config.clone()), 0..4096).unwrap();
                prop_assert_eq!(image(&restored.tables()[0]), cut_image);
                since.iter().for_each(|op| apply(&mut restored, op));
                same(&restored, &live);
            }
            Op::Resume if open.is_none() => {
                // As after a kill: what was since the newest cut is gone for both.
                let Some(found) = folder.newest().unwrap() else {
                    continue;
                };
                folder = checkpoints(&disk);
                live = folder.resume(&found, store(config.clone())).unwrap();
            }
            _ => {
                apply(&mut live, op);
                if let Some(open) = &mut open {
                    open.since.push(op.clone());
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 60 } else { 300 }, ..ProptestConfig::default() })]

    #[test]
    fn a_cut_restores_its_instant_and_training_on_is_the_same_bit_for_bit(
        config in config(), ops in prop::collection::vec(op(), 1..60),
    ) {
        run(&config, &ops)?;
    }
}
