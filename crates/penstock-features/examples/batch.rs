//! How long a batch takes, function by function, on one thread: the CTR-like table of benchmarks/features.py in small.
//!
//! `cargo run --release -p penstock-features --example batch [CASE]`

use std::sync::Arc;
use std::time::Instant;

use arrow_array::builder::{LargeListBuilder, StringViewBuilder};
use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use penstock_features::{Attachments, Dictionary, Options, Plan};

/// The wheel's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 200_000;
const ROUNDS: usize = 15;
const NUMBERS: usize = 13;
const STRINGS: usize = 26;

/// SplitMix64: enough for made-up data.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Few values often, most rarely.
    fn skewed(&mut self, distinct: u64) -> u64 {
        ((self.unit().powf(-0.9) - 1.0) * distinct as f64 / 50.0) as u64 % distinct
    }
}

fn table() -> Result<RecordBatch, Box<dyn std::error::Error>> {
    let mut random = Random(7);
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for i in 0..NUMBERS {
        let values: Float64Array = (0..ROWS)
            .map(|_| {
                let x = (random.unit() * 8.0 - 1.0).exp();
                (random.unit() >= 0.02 * i as f64).then(|| (x * 4.0).floor() / 4.0)
            })
            .collect();
        columns.push((format!("n{i}"), Arc::new(values)));
    }
    for i in 0..STRINGS {
        let distinct = if i < 2 {
            1_200_000
        } else {
            10u64.pow(1 + i as u32 % 6)
        };
        let mut values = StringViewBuilder::new();
        for _ in 0..ROWS {
            let value = format!("c{}_{}", i + 1, random.skewed(distinct));
            values.append_option((random.unit() >= 0.01 * (i % 4) as f64).then_some(value));
        }
        columns.push((format!("c{i}"), Arc::new(values.finish())));
    }
    for (name, most) in [("tags", 6), ("history", 16)] {
        let mut lists = LargeListBuilder::new(StringViewBuilder::new());
        for _ in 0..ROWS {
            for _ in 0..random.next() % most {
                lists
                    .values()
                    .append_value(random.skewed(50_000).to_string());
            }
            lists.append(true);
        }
        columns.push((name.into(), Arc::new(lists.finish())));
    }
    Ok(RecordBatch::try_from_iter(columns)?)
}

struct Items(Vec<String>);

impl Items {
    fn add(&mut self, role: &str, function: &str, from: &[String], params: &str) {
        let id = self.0.len() + 1;
        let from: Vec<String> = from
            .iter()
            .map(|name| format!(r#"{{"column":"{name}"}}"#))
            .collect();
        let from = from.join(",");
        let id_field = if role == "slot" {
            format!(r#""id":{id},"#)
        } else {
            String::new()
        };
        self.0.push(format!(
            r#"{{"as":"{role}","name":"i{id}",{id_field}"fn":"{function}","from":[{from}],"params":{{{params}}}}}"#
        ));
    }
}

fn items(case: &str) -> Items {
    let mut items = Items(Vec::new());
    let all = case == "all";
    let columns = |prefix: &str, range: std::ops::Range<usize>| {
        range
            .map(|i| format!("{prefix}{i}"))
            .collect::<Vec<String>>()
    };
    if all || case == "piecewise" {
        for name in columns("n", 0..NUMBERS) {
            let bounds = r#""bounds":[0,1,2,5,10,25,50,100,250,1000]"#;
            items.add("slot", "piecewise", &[name], bounds);
        }
    }
    if all || case == "pickcat" {
        for name in columns("c", 0..2) {
            items.add(
                "slot",
                "pickcat",
                &[name],
                r#""dict":"entries","unknown":0"#,
            );
        }
    }
    if all || case == "hash" {
        for name in columns("c", 2..STRINGS) {
            items.add("slot", "hash", &[name], "");
        }
    }
    if all || case == "lists" {
        for name in ["tags", "history"] {
            items.add("slot", "hash", &[name.into()], "");
        }
    }
    if all || case == "combine" {
        for (a, b) in [(0, 2), (3, 4), (5, 6), (7, 8), (9, 10)] {
            items.add("slot", "combine", &[format!("c{a}"), format!("c{b}")], "");
        }
    }
    if all || case == "log" {
        for name in columns("n", 0..NUMBERS) {
            items.add("dense", "log", &[name], "");
        }
    }
    items
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted = std::env::args().nth(1);
    let batch = table()?;
    let entries: Vec<String> = (0..1_000_000)
        .map(|i| format!("c{}_{}", 1 + i % 2, i / 2))
        .collect();
    let dictionary = Arc::new(Dictionary::from_values(&entries)?);
    let cases = [
        "piecewise",
        "pickcat",
        "hash",
        "lists",
        "combine",
        "log",
        "all",
    ];
    let options = Options {
        threads: 1,
        ..Options::default()
    };
    for case in cases
        .into_iter()
        .filter(|case| wanted.as_deref().is_none_or(|wanted| wanted == *case))
    {
        let items = items(case).0;
        let json = format!(
            r#"{{"penstock":"plan/1","name":"batch","seed":"0","dicts":{{"entries":{{"sha256":"{}","entries":{}}}}},"items":[{}]}}"#,
            dictionary.sha256(),
            dictionary.len(),
            items.join(",")
        );
        let mut attached = Attachments::default();
        attached
            .dictionaries
            .insert("entries".into(), dictionary.clone());
        let plan = Plan::compile(&json, &attached)?;
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let (mapped, _) = plan.apply_in_runs(&batch, &options)?;
            best = best.min(start.elapsed().as_secs_f64());
            drop(mapped);
        }
        let nanoseconds = best / ROWS as f64 * 1e9;
        println!(
            "{case:>10}: {nanoseconds:7.1} ns a row, {:6.1} an item",
            nanoseconds / items.len() as f64
        );
    }
    Ok(())
}
