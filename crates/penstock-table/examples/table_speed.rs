//! How fast one core reads, updates and makes rows:
//! `cargo run --release -p penstock-table --example table_speed -- [rows=10000000] [dim=16] [batch=4096,65536] [level=avx512]
//! [optimizer=rowwise] [rounds=5] [case=lookup_uniform] [expected=0]`. An update case is a lookup and an update of rows that are there.
//! Times are of the thread's own processor time.

use std::collections::HashMap;
use std::hint::black_box;

use penstock_table::{Engine, Level, Optimizer, Table, TableConfig, Update, hash::mix};

#[path = "keys/mod.rs"]
mod keys;
use keys::{Zipf, random, thread_seconds};

/// The key of a rank: nothing about it is regular.
fn key(rank: u64) -> u64 {
    mix(rank ^ 0x5eed)
}

fn main() {
    let arguments: HashMap<String, String> = std::env::args()
        .skip(1)
        .filter_map(|argument| {
            argument
                .split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    let text = |name: &str, default: &str| {
        arguments
            .get(name)
            .cloned()
            .unwrap_or_else(|| default.to_owned())
    };
    let number =
        |name: &str, default: &str| text(name, default).parse::<usize>().expect("a number");
    let (rows, dim, rounds) = (
        number("rows", "10000000") as u64,
        number("dim", "16"),
        number("rounds", "5"),
    );
    let level = match text("level", "").as_str() {
        "baseline" => Level::Baseline,
        "avx2" => Level::Avx2,
        _ => Level::detect(),
    };
    let optimizer = match text("optimizer", "rowwise").as_str() {
        "sgd" => Optimizer::Sgd,
        "adagrad" => Optimizer::Adagrad {
            epsilon: 1e-8,
            initial: 0.0,
        },
        "adam" => Optimizer::Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            per_row: false,
        },
        "ftrl" => Optimizer::Ftrl {
            beta: 1.0,
            l1: 0.1,
            l2: 0.1,
        },
        _ => Optimizer::RowwiseAdagrad {
            epsilon: 1e-8,
            initial: 0.0,
        },
    };
    let batches: Vec<usize> = text("batch", "1024,4096,16384,65536")
        .split(',')
        .map(|n| n.parse().expect("a number"))
        .collect();
    let only = text("case", "");
    let mut config = TableConfig::new("speed", dim, optimizer, 0.01);
    config.expected_rows = number("expected", "0") as u64;
    let mut table = Table::new(
        config,
        Engine {
            threads: number("threads", "1"),
            level,
        },
    )
    .expect("a table");
    let grads: Vec<f32> = (0..65536 * dim)
        .map(|i| (i % 97) as f32 * 1e-3 - 0.05)
        .collect();

    let keys: Vec<u64> = (0..rows).map(key).collect();
    let start = thread_seconds();
    let mut worst = 0.0f64;
    for chunk in keys.chunks(4096) {
        let begun = thread_seconds();
        table
            .update(&Update {
                keys: chunk,
                grads: &grads[..chunk.len() * dim],
                ..Update::default()
            })
            .expect("an update");
        worst = worst.max(thread_seconds() - begun);
    }
    let seconds = thread_seconds() - start;
    let memory = table.memory();
    println!(
        "insert            {:7.2} M/s  level {}  {:.1} bytes a row ({:.1} index)  worst batch {:.2} ms  {:?}",
        rows as f64 / seconds / 1e6,
        table.level().name(),
        memory.total() as f64 / rows as f64,
        memory.index as f64 / rows as f64,
        worst * 1e3,
        table.work()
    );
    drop(keys);

    let zipf = Zipf::new(rows, 1.05);
    let mut seed = 7;
    let total = 1 << 22;
    let even: Vec<u64> = (0..total).map(|_| key(random(&mut seed) % rows)).collect();
    let skewed: Vec<u64> = (0..total).map(|_| key(zipf.draw(&mut seed))).collect();
    for batch in batches {
        let mut out = vec![0.0; batch * dim];
        for (kind, stream) in [("uniform", &even), ("zipf", &skewed)] {
            for updating in [false, true] {
                let name = format!("{}_{kind}", if updating { "update" } else { "lookup" });
                if !only.is_empty() && only != name {
                    continue;
                }
                let mut times: Vec<f64> = (0..rounds)
                    .map(|_| {
                        let start = thread_seconds();
                        for keys in stream.chunks_exact(batch) {
                            table.lookup(keys, &mut out).expect("a lookup");
                            black_box(&out);
                            if updating {
                                let grads = &grads[..keys.len() * dim];
                                table
                                    .update(&Update {
                                        keys,
                                        grads,
                                        ..Update::default()
                                    })
                                    .expect("an update");
                            }
                        }
                        thread_seconds() - start
                    })
                    .collect();
                times.sort_by(f64::total_cmp);
                let speed = |seconds: f64| (total / batch * batch) as f64 / seconds / 1e6;
                println!(
                    "{name:<16} {batch:6}  {:7.2} M/s  (best {:.2})",
                    speed(times[rounds / 2]),
                    speed(times[0])
                );
            }
        }
    }
}
