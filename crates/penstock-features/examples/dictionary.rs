//! The native side of `benchmarks/dictionary.py`: a compiled dictionary or the standard HashMap, one thread.
//!
//! Reads questions and writes answers, a JSON line each. First `{"kind", "source", "compiled", "queries"}`, answered
//! with a version and the cost of becoming ready; then each `{"case"}` is answered with look-ups a second.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use penstock_features::Dictionary;
use serde_json::{Value, json};

/// As many values at a time as the kernel's chunks have rows.
const CHUNK: usize = 2048;

enum Table {
    Ours(Dictionary),
    Standard(HashMap<String, u32>),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut lines = std::io::stdin().lock().lines();
    let setup: Value = serde_json::from_str(&lines.next().ok_or("no setup")??)?;
    let path = |name: &str| PathBuf::from(setup[name].as_str().unwrap_or_default());
    let start = Instant::now();
    let (table, version) = if setup["kind"] == "ours" {
        Dictionary::compile(&path("source"), &path("compiled"))?;
        (None, env!("CARGO_PKG_VERSION").to_string())
    } else {
        let text = std::fs::read_to_string(path("source"))?;
        let entries = text
            .lines()
            .zip(1..)
            .map(|(line, index)| (line.to_owned(), index));
        (Some(Table::Standard(entries.collect())), "std".to_string())
    };
    let build_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let table = match table {
        Some(table) => table,
        None => Table::Ours(Dictionary::open(&path("compiled"))?),
    };
    let open_ms = start.elapsed().as_secs_f64() * 1e3;
    let queries = std::fs::read_to_string(path("queries"))?;
    let queries: Vec<&str> = queries.lines().collect();
    answer(&json!({"version": version, "build_s": build_s, "open_ms": open_ms}))?;
    for line in lines {
        let question: Value = serde_json::from_str(&line?)?;
        let start = Instant::now();
        let found = look_up(&table, &queries, question["case"] == "batch");
        let rate = queries.len() as f64 / start.elapsed().as_secs_f64();
        answer(&json!({"rate": rate, "found": found}))?;
    }
    Ok(())
}

/// The sum of the indices found.
fn look_up(table: &Table, queries: &[&str], batch: bool) -> u64 {
    match table {
        Table::Ours(found) if batch => {
            let (mut hashes, mut indices, mut sum) = (Vec::new(), Vec::new(), 0);
            for chunk in queries.chunks(CHUNK) {
                let values: Vec<&[u8]> = chunk.iter().map(|query| query.as_bytes()).collect();
                indices.clear();
                found.get_many(&values, &mut hashes, &mut indices);
                sum += indices.iter().sum::<u64>();
            }
            sum
        }
        Table::Ours(found) => queries
            .iter()
            .map(|query| found.get(query.as_bytes()).map_or(0, u64::from))
            .sum(),
        Table::Standard(found) => queries
            .iter()
            .map(|query| found.get(*query).map_or(0, |index| u64::from(*index)))
            .sum(),
    }
}

fn answer(value: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}
