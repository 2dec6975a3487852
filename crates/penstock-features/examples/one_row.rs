//! How long one row takes: 40 slots (and 8 dense) of a CTR-like plan, as serving calls it.
//!
//! `cargo run --release -p penstock-features --example one_row`

use std::time::Instant;

use penstock_features::{Attachments, Plan, Scratch, Value};

const ROUNDS: usize = 7;
const ROWS: usize = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut items = Vec::new();
    let slot = |id: usize, function: &str, from: &str, params: &str| {
        format!(
            r#"{{"as":"slot","name":"s{id}","id":{id},"fn":"{function}","from":[{from}],"params":{{{params}}}}}"#
        )
    };
    for i in 0..20 {
        items.push(slot(i + 1, "hash", &format!(r#"{{"column":"c{i}"}}"#), ""));
    }
    for i in 0..10 {
        items.push(slot(
            i + 21,
            "piecewise",
            &format!(r#"{{"column":"n{i}"}}"#),
            r#""bounds":[0,1,2,5,10,20,50,100]"#,
        ));
    }
    for i in 0..8 {
        items.push(slot(
            i + 31,
            "combine",
            &format!(r#"{{"column":"c{i}"}},{{"item":{}}}"#, i + 20),
            "",
        ));
    }
    items.push(slot(39, "hash", r#"{"column":"tags"}"#, ""));
    items.push(slot(
        40,
        "descartes",
        r#"{"column":"tags"},{"column":"c0"}"#,
        "",
    ));
    for i in 0..8 {
        items.push(format!(
            r#"{{"as":"dense","name":"d{i}","fn":"log1p","from":[{{"column":"n{i}"}}]}}"#
        ));
    }
    let json = format!(
        r#"{{"penstock":"plan/1","name":"row","seed":"0","items":[{}]}}"#,
        items.join(",")
    );
    let plan = Plan::compile(&json, &Attachments::default())?;

    let texts: Vec<String> = (0..ROWS)
        .map(|i| format!("{:08x}", i * 2_654_435_761))
        .collect();
    let tags: Vec<Value<'_>> = ["action", "drama", "comedy", "1990s"]
        .map(Value::Text)
        .to_vec();
    let rows: Vec<Vec<Value<'_>>> = (0..ROWS)
        .map(|row| {
            let value = |(i, column): (usize, &String)| match column.as_bytes() {
                b"tags" => Value::List(&tags),
                [b'c', ..] => Value::Text(&texts[(row + i * 977) % ROWS]),
                _ => Value::Float((row + i) as f64 % 120.0),
            };
            plan.columns().iter().enumerate().map(value).collect()
        })
        .collect();

    let mut scratch = Scratch::default();
    let mut rounds: Vec<f64> = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for row in &rows {
            std::hint::black_box(plan.apply_row(row, &mut scratch)?);
        }
        rounds.push(start.elapsed().as_secs_f64() * 1e6 / ROWS as f64);
    }
    rounds.sort_by(f64::total_cmp);
    println!(
        "one row of 40 slots and 8 dense: {:.2} us (median of {ROUNDS} rounds of {ROWS} rows)",
        rounds[ROUNDS / 2]
    );
    Ok(())
}
