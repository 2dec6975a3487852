//! Every optimizer against a slow one written from its formula, in f64, and every vector level against the others.

use std::collections::HashMap;

use penstock_table::{
    Dtype, Engine, GradientRules, Init, Level, Optimizer, Pulled, Table, TableConfig, Update,
    UserContext, UserFunction,
};
use proptest::prelude::*;

const RATE: f64 = 0.05;

/// One row of the slow optimizer.
#[derive(Clone, Default)]
struct Slow {
    w: Vec<f64>,
    a: Vec<f64>,
    b: Vec<f64>,
    row: f64,
    steps: i32,
}

fn slow_step(optimizer: &Optimizer, row: &mut Slow, g: &[f64], update: i32) {
    row.steps += 1;
    let dim = g.len();
    for i in 0..dim {
        match *optimizer {
            Optimizer::Sgd => row.w[i] -= RATE * g[i],
            Optimizer::Momentum { momentum, nesterov } => {
                let mu = f64::from(momentum);
                row.a[i] = mu * row.a[i] + g[i];
                row.w[i] -= RATE
                    * if nesterov {
                        g[i] + mu * row.a[i]
                    } else {
                        row.a[i]
                    };
            }
            Optimizer::Adagrad { epsilon, .. } => {
                row.a[i] += g[i].powi(2);
                row.w[i] -= RATE * g[i] / (row.a[i].sqrt() + f64::from(epsilon));
            }
            Optimizer::RowwiseAdagrad { epsilon, .. } => {
                if i == 0 {
                    row.row += g.iter().map(|g| g * g).sum::<f64>() / dim as f64;
                }
                row.w[i] -= RATE * g[i] / (row.row.sqrt() + f64::from(epsilon));
            }
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                per_row,
            } => {
                let (b1, b2) = (f64::from(beta1), f64::from(beta2));
                let t = if per_row { row.steps } else { update };
                row.a[i] = b1 * row.a[i] + (1.0 - b1) * g[i];
                row.b[i] = b2 * row.b[i] + (1.0 - b2) * g[i] * g[i];
                let rate = RATE * (1.0 - b2.powi(t)).sqrt() / (1.0 - b1.powi(t));
                row.w[i] -= rate * row.a[i] / (row.b[i].sqrt() + f64::from(epsilon));
            }
            Optimizer::Ftrl { beta, l1, l2 } => {
                let (beta, l1, l2) = (f64::from(beta), f64::from(l1), f64::from(l2));
                let n = row.b[i] + g[i] * g[i];
                let sigma = (n.sqrt() - row.b[i].sqrt()) / RATE;
                row.a[i] += g[i] - sigma * row.w[i];
                row.b[i] = n;
                row.w[i] = if row.a[i].abs() <= l1 {
                    0.0
                } else {
                    -(row.a[i] - row.a[i].signum() * l1) / ((beta + n.sqrt()) / RATE + l2)
                };
            }
            Optimizer::User(_) => unreachable!("compared with the built-in it copies"),
        }
    }
}

fn slow_rules(rules: &GradientRules, w: &mut [f64], g: &mut [f64], pulled: Option<&[f32]>) {
    let f = f64::from;
    w.iter_mut().for_each(|w| *w *= 1.0 - RATE * f(rules.decay));
    for i in 0..g.len() {
        if let Some(pulled) = pulled {
            g[i] += f(rules.compensation) * g[i] * g[i] * (w[i] - f(pulled[i]));
        }
        if let Some(most) = rules.clip_value {
            g[i] = g[i].min(f(most)).max(-f(most));
        }
    }
    let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
    let shrink = rules.clip_norm.map_or(
        1.0,
        |most| if norm > f(most) { f(most) / norm } else { 1.0 },
    );
    for i in 0..g.len() {
        let sign = if w[i] > 0.0 {
            1.0
        } else if w[i] < 0.0 {
            -1.0
        } else {
            0.0
        };
        g[i] = g[i] * shrink + f(rules.l2) * w[i] + f(rules.l1) * sign;
    }
}

fn optimizers() -> Vec<Optimizer> {
    vec![
        Optimizer::Sgd,
        Optimizer::Momentum {
            momentum: 0.9,
            nesterov: false,
        },
        Optimizer::Momentum {
            momentum: 0.9,
            nesterov: true,
        },
        Optimizer::Adagrad {
            epsilon: 1e-6,
            initial: 0.1,
        },
        Optimizer::RowwiseAdagrad {
            epsilon: 1e-6,
            initial: 0.1,
        },
        Optimizer::Adam {
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-3,
            per_row: false,
        },
        Optimizer::Adam {
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-3,
            per_row: true,
        },
        Optimizer::Ftrl {
            beta: 1.0,
            l1: 0.02,
            l2: 0.1,
        },
    ]
}

fn table(
    optimizer: Optimizer,
    dim: usize,
    rules: GradientRules,
    engine: Engine,
    dtype: Dtype,
) -> Table {
    let mut config = TableConfig::new("t", dim, optimizer, RATE as f32);
    config.init = Init::Uniform {
        low: -0.3,
        high: 0.3,
    };
    config.gradient = rules;
    config.dtype = dtype;
    Table::new(config, engine).unwrap()
}

fn close(fast: &[f32], slow: &[f64], what: &str) {
    for (i, (&fast, &slow)) in fast.iter().zip(slow).enumerate() {
        let off = (f64::from(fast) - slow).abs();
        assert!(
            off <= 5e-5 * slow.abs().max(0.1),
            "{what}, element {i}: {fast} is not {slow}"
        );
    }
}

#[derive(Clone, Debug)]
struct Batch {
    keys: Vec<u64>,
    grads: Vec<f32>,
    pulled: Vec<f32>,
}

fn batches(dim: usize) -> impl Strategy<Value = Vec<Batch>> {
    let grad = -2.0f32..2.0;
    let batch = prop::collection::vec(
        (
            0u64..12,
            prop::collection::vec(grad, dim),
            prop::collection::vec(-0.3f32..0.3, dim),
        ),
        0..40,
    )
    .prop_map(|rows| Batch {
        keys: rows.iter().map(|row| row.0).collect(),
        grads: rows.iter().flat_map(|row| row.1.clone()).collect(),
        pulled: rows.iter().flat_map(|row| row.2.clone()).collect(),
    });
    prop::collection::vec(batch, 1..8)
}

fn rules() -> impl Strategy<Value = GradientRules> {
    let clips = (prop::option::of(0.5f32..2.0), prop::option::of(0.5f32..3.0));
    prop_oneof![
        Just(GradientRules::default()),
        (clips, 0.0f32..0.1, 0.0f32..0.1, 0.0f32..0.2, 0.0f32..0.5).prop_map(
            |(clips, l1, l2, decay, compensation)| {
                GradientRules {
                    clip_value: clips.0,
                    clip_norm: clips.1,
                    l1,
                    l2,
                    decay,
                    compensation,
                }
            }
        ),
    ]
}

fn with_dim() -> impl Strategy<Value = (usize, Vec<Batch>)> {
    prop::sample::select(vec![1, 3, 8, 16, 19, 32, 70])
        .prop_flat_map(|dim| (Just(dim), batches(dim)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn each_optimizer_does_what_its_formula_says((dim, batches) in with_dim(), rules in rules()) {
        for optimizer in optimizers() {
            let mut table = table(optimizer, dim, rules, Engine::default(), Dtype::F32);
            let mut slow: HashMap<u64, Slow> = HashMap::new();
            for (number, batch) in batches.iter().enumerate() {
                let mut order = Vec::new();
                let mut sums: HashMap<u64, (Vec<f64>, usize)> = HashMap::new();
                for (place, &key) in batch.keys.iter().enumerate() {
                    let grad = &batch.grads[place * dim..][..dim];
                    let sum = sums.entry(key).or_insert_with(|| { order.push(key); (vec![0.0; dim], place) });
                    sum.0.iter_mut().zip(grad).for_each(|(sum, &g)| *sum = f64::from(*sum as f32 + g));
                }
                for key in order {
                    let row = slow.entry(key).or_insert_with(|| {
                        let mut w = vec![0.0; dim];
                        table.lookup(&[key], &mut w).unwrap();
                        let w: Vec<f64> = w.into_iter().map(f64::from).collect();
                        let mut row = Slow { a: vec![0.0; dim], b: vec![0.0; dim], row: 0.1f32.into(), w, steps: 0 };
                        match optimizer {
                            Optimizer::Adagrad { .. } => row.a.fill(0.1f32.into()),
                            // The z whose solution the first values are.
                            Optimizer::Ftrl { beta, l1, l2 } => for (z, w) in row.a.iter_mut().zip(&row.w) {
                                *z = -(w * (f64::from(beta) / RATE + f64::from(l2)) + w.signum() * f64::from(l1));
                            },
                            _ => {}
                        }
                        row
                    });
                    let (grad, first) = sums.get_mut(&key).unwrap();
                    slow_rules(&rules, &mut row.w, grad, Some(&batch.pulled[*first * dim..][..dim]));
                    slow_step(&optimizer, row, grad, number as i32 + 1);
                }
                let versions = vec![0; batch.keys.len()];
                let pulled = Pulled { versions: &versions, values: &batch.pulled, state: &[] };
                let update = Update { keys: &batch.keys, grads: &batch.grads, pulled: Some(pulled), ..Update::default() };
                table.update(&update).unwrap();
            }
            for (&key, slow) in &slow {
                let row = table.get(key).unwrap();
                close(&row.values, &slow.w, &format!("{optimizer:?} {rules:?} dim {dim} key {key}"));
            }
            prop_assert_eq!(table.rows(), slow.len() as u64);
        }
    }

    #[test]
    fn every_level_and_number_of_threads_gives_the_same_bits((dim, batches) in with_dim(), rules in rules()) {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            for optimizer in optimizers() {
                let run = |level, threads| {
                    let mut table = table(optimizer, dim, rules, Engine { threads, level }, dtype);
                    for batch in &batches {
                        let (keys, grads) = (&batch.keys, &batch.grads);
                        table.update(&Update { keys, grads, ..Update::default() }).unwrap();
                    }
                    let keys: Vec<u64> = (0..12).collect();
                    let mut out = vec![0.0; 12 * dim];
                    table.lookup(&keys, &mut out).unwrap();
                    out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let one = run(Level::Baseline, 1);
                for level in [Level::Avx2, Level::Avx512] {
                    prop_assert!(run(level, 1) == one, "{:?} {:?} {:?}", optimizer, dtype, level);
                }
            }
        }
    }
}

unsafe extern "C" fn user_adagrad(
    n: i64,
    rows: *const *mut f32,
    state: *const *mut f32,
    grads: *mut f32,
    context: *const UserContext,
) {
    // SAFETY: as `UserCall` says.
    unsafe {
        let dim = (*context).dim as usize;
        for i in 0..n as usize {
            for j in 0..dim {
                let (w, sum, g) = (
                    (*rows.add(i)).add(j),
                    (*state.add(i)).add(j),
                    *grads.add(i * dim + j),
                );
                *sum += g * g;
                *w -= (*context).learning_rate
                    * (g / ((*sum).sqrt() + *(*context).user.cast::<f32>()));
            }
        }
    }
}

#[test]
fn a_users_copy_of_adagrad_gives_the_same_bits() {
    let mut epsilon = 1e-6f32;
    for dtype in [Dtype::F32, Dtype::Bf16] {
        // SAFETY: the function keeps to `UserCall`, and `epsilon` outlives the table.
        let user = unsafe { UserFunction::new(user_adagrad, (&raw mut epsilon).cast(), 16, 0.1) };
        let run = |optimizer| {
            let mut table = table(
                optimizer,
                16,
                GradientRules::default(),
                Engine::default(),
                dtype,
            );
            for round in 0..5u64 {
                let keys: Vec<u64> = (0..100).map(|i| i * round % 37).collect();
                let grads: Vec<f32> = (0..1600)
                    .map(|i| ((i * 7 + round * 13) % 101) as f32 * 0.01 - 0.5)
                    .collect();
                table
                    .update(&Update {
                        keys: &keys,
                        grads: &grads,
                        ..Update::default()
                    })
                    .unwrap();
            }
            let mut rows = Vec::new();
            table.each(|key, row| rows.push((key, row)));
            rows
        };
        assert_eq!(
            run(Optimizer::User(user)),
            run(Optimizer::Adagrad {
                epsilon: 1e-6,
                initial: 0.1
            })
        );
    }
}
