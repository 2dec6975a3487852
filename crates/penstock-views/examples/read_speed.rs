//! How long a request waits for all views of a store that benchmarks/views.py (or anybody) filled:
//! `cargo run --release -p penstock-views --example read_speed -- lmdb:PATH [entities=200000] [rows=100] [asks=4000]`.
//! Entities are those whose key is one integer from 0 on. Times are of the clock; the median counts.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, Int64Array};
use penstock_views::{Fault, Keys, View, open, read};

fn main() -> Result<(), Fault> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_default();
    let given: HashMap<String, u64> = arguments
        .filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect();
    let number = |name: &str, default| given.get(name).copied().unwrap_or(default);
    let (entities, rows) = (number("entities", 200_000), number("rows", 100));
    let store = open(&address, false, 64 << 30)?;
    let views = store.views()?;
    let views = views.iter().map(|(_, about)| View::parse(&about.declared));
    let views = views.collect::<Result<Vec<_>, _>>()?;
    let mut state = 1u64;
    let mut any = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 33) % entities) as i64
    };
    let mut spent = Vec::new();
    for _ in 0..number("asks", 4000) {
        let users: ArrayRef = Arc::new((0..rows).map(|_| any()).collect::<Int64Array>());
        let started = Instant::now();
        let keys = Keys::new(vec![users])?;
        let asked: Vec<(&View, &Keys)> = views.iter().map(|view| (view, &keys)).collect();
        black_box(read(&*store, &asked, 1_700_000_000_000_000)?);
        spent.push(started.elapsed().as_secs_f64() * 1e3);
    }
    spent.sort_by(f64::total_cmp);
    let at = |share: f64| spent[((spent.len() - 1) as f64 * share) as usize];
    println!(
        "{} views x {rows} rows: p50 {:.3} ms, p99 {:.3} ms",
        views.len(),
        at(0.5),
        at(0.99)
    );
    Ok(())
}
