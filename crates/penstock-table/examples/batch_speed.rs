//! How long a training batch of a whole model takes: 26 slots of one key a sample are pooled, their gradients staged and
//! applied. `cargo run --release -p penstock-table --example batch_speed -- [rows=10000000] [tables=1] [samples=4096] [dim=16]
//! [threads=2] [batches=200] [adagrad=0] [lead=0]`. Keys follow Zipf's law (1.05) in each slot. Medians on the
//! wall, and of the processor time of all threads, which other work on the machine disturbs less.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use penstock_table::{
    Bag, Engine, Keys, Layout, Optimizer, Pooling, Staged, Store, TableConfig, Update, hash::mix,
};

#[path = "keys/mod.rs"]
mod keys;
use keys::{Zipf, processor_seconds, uniform};

const SLOTS: usize = 26;

/// As in the wheel: what a batch takes comes and goes without the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: HashMap<String, usize> = std::env::args()
        .skip(1)
        .filter_map(|argument| {
            let (name, value) = argument.split_once('=')?;
            Some((name.to_owned(), value.parse().expect("a number")))
        })
        .collect();
    let number = |name: &str, default| arguments.get(name).copied().unwrap_or(default);
    let (rows, dim, samples) = (
        number("rows", 10_000_000),
        number("dim", 16),
        number("samples", 4096),
    );
    let (tables, threads, batches) = (
        number("tables", 1).min(SLOTS),
        number("threads", 2),
        number("batches", 200),
    );
    let mut store = Store::default();
    let engine = Engine {
        threads,
        ..Engine::default()
    };
    for table in 0..tables {
        let (epsilon, initial) = (1e-8, 0.0);
        let optimizer = match number("adagrad", 0) {
            0 => Optimizer::RowwiseAdagrad { epsilon, initial },
            _ => Optimizer::Adagrad { epsilon, initial },
        };
        let config = TableConfig::new(format!("t{table}"), dim, optimizer, 0.01);
        store.add_table(config, engine).expect("a table");
    }
    for slot in 0..SLOTS {
        store
            .add_slot(slot as u32, slot % tables, Keys::Raw)
            .expect("a slot");
    }
    let of_slot = rows / SLOTS;
    let key = |slot: usize, rank: u64| mix(rank ^ (slot as u64) << 40);
    let zeros = vec![0.0; 4096 * dim];
    for slot in 0..SLOTS {
        let all: Vec<u64> = (0..of_slot as u64).map(|rank| key(slot, rank)).collect();
        for keys in all.chunks(4096) {
            let grads = &zeros[..keys.len() * dim];
            store
                .update(
                    slot as u32,
                    &Update {
                        keys,
                        grads,
                        ..Update::default()
                    },
                )
                .expect("an update");
        }
    }
    let zipf = Zipf::new(of_slot as u64, 1.05);
    let mut seed = 11;
    let offsets: Vec<i64> = (0..=samples as i64).collect();
    let width = SLOTS * dim;
    let grads: Vec<f32> = (0..samples * width)
        .map(|_| uniform(&mut seed) as f32 - 0.5)
        .collect();
    let lead = number("lead", 0);
    let layout = Layout { lead, stride: None };
    let (grads, lead_grads) = grads.split_at(samples * (width - lead * SLOTS));
    let mut out = vec![0.0; grads.len()];
    let mut leads = vec![0.0; lead_grads.len()];
    let mut staged = Staged::default();
    let mut times = [const { (Vec::new(), Vec::new()) }; 3];
    for _ in 0..batches {
        let keys: Vec<Vec<u64>> = (0..SLOTS)
            .map(|slot| {
                (0..samples)
                    .map(|_| key(slot, zipf.draw(&mut seed)))
                    .collect()
            })
            .collect();
        let bags: Vec<Bag> = (0u32..)
            .zip(&keys)
            .map(|(slot, keys)| Bag {
                slot,
                keys,
                offsets: &offsets,
                weights: None,
            })
            .collect();
        let mut last = (Instant::now(), processor_seconds());
        let mut took = |part: usize| {
            times[part].0.push(last.0.elapsed().as_secs_f64() * 1e3);
            times[part].1.push((processor_seconds() - last.1) * 1e3);
            last = (Instant::now(), processor_seconds());
        };
        let found = store
            .pool_found(&bags, Pooling::Sum, threads, layout, &mut leads, &mut out)
            .expect("pooled");
        took(0);
        let found = Some(&found);
        store
            .stage_parted(
                &bags,
                Pooling::Sum,
                layout,
                lead_grads,
                grads,
                found,
                &mut staged,
            )
            .expect("staged");
        took(1);
        store.step(&mut staged, 0).expect("a step");
        took(2);
        black_box(&out);
    }
    let (mut wall, mut processor) = (0.0, 0.0);
    for (name, (walls, processors)) in ["pool", "stage", "step"].iter().zip(&mut times) {
        let (w, p) = (median(walls), median(processors));
        wall += w;
        processor += p;
        println!(
            "{name:<6} {w:6.2} ms  (best {:.2})  processor {p:6.2} ms",
            walls[0]
        );
    }
    println!(
        "all    {wall:6.2} ms  processor {processor:.2} ms, for {} keys of {rows} on {threads} threads, {tables} tables",
        samples * SLOTS
    );
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
