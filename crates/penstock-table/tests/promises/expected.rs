//! Rows that are expected have their memory at once: they come without growth, and are the same rows.

use penstock_table::{Engine, Init, RowParts, Table, TableConfig, TableError};

use super::{config, table, update};

const ROWS: u64 = 50_000;

fn expecting(rows: u64) -> TableConfig {
    let mut config = config(4);
    config.init = Init::Uniform {
        low: -1.0,
        high: 1.0,
    };
    config.expected_rows = rows;
    config
}

fn fill(table: &mut Table, rows: u64) {
    for first in (0..rows).step_by(1000) {
        let keys: Vec<u64> = (first..first + 1000).collect();
        update(table, &keys, &[0.25; 4000], 0).unwrap();
    }
}

fn rows(table: &Table) -> Vec<(u64, RowParts)> {
    let mut rows = Vec::new();
    table.each(|key, row| rows.push((key, row)));
    rows.sort_by_key(|(key, _)| *key);
    rows
}

#[test]
fn expected_rows_come_without_growth_and_are_the_same_rows() {
    let (mut grown, mut expecting) = (table(expecting(0)), table(expecting(ROWS)));
    let taken = expecting.memory();
    for table in [&mut grown, &mut expecting] {
        fill(table, ROWS);
    }
    assert_eq!(rows(&grown), rows(&expecting));
    // A bucket's rows are 12.2 on average: of 4,096, a few have more than two deviations more, and grow.
    let (work, plain) = (expecting.work(), grown.work());
    assert!(work.entries_moved < plain.entries_moved / 50, "{work:?}");
    let held = expecting.memory();
    assert!(
        held.rows <= taken.rows + taken.rows / 32,
        "{taken:?} {held:?}"
    );
    assert!(
        held.index <= taken.index + taken.index / 16,
        "{taken:?} {held:?}"
    );
}

#[test]
fn what_is_expected_costs_what_as_many_rows_do() {
    let (mut grown, expecting) = (table(expecting(0)), table(expecting(200_000)));
    fill(&mut grown, 200_000);
    let (grown, expecting) = (grown.memory().total(), expecting.memory().total());
    assert!(expecting < grown + grown / 8, "{expecting} {grown}");
}

#[test]
fn more_rows_than_expected_are_as_welcome() {
    let (mut grown, mut expecting) = (table(expecting(0)), table(expecting(100)));
    for table in [&mut grown, &mut expecting] {
        fill(table, 20_000);
    }
    assert_eq!(rows(&grown), rows(&expecting));
}

#[test]
fn expecting_more_than_the_limit_or_than_there_is_is_refused_at_once() {
    let mut limited = expecting(1_000_000);
    limited.bounds.memory_limit = Some(10 << 20);
    let Err(TableError::MemoryLimit { limit, needed, .. }) = Table::new(limited, Engine::default())
    else {
        panic!("it was not refused");
    };
    assert!((limit, needed > 16 << 20) == (10 << 20, true), "{needed}");
    // What it may have, it keeps to.
    let mut limited = expecting(10_000);
    limited.bounds.memory_limit = Some(4 << 20);
    assert!(table(limited).memory().total() < 4 << 20);
    let most = Table::new(expecting((1 << 34) + 1), Engine::default());
    assert!(matches!(most, Err(TableError::Config { .. })));
    // 17 billion rows of 4 floats: no machine of ours has that, and the system says so before a page is touched.
    let mut vast = expecting(1 << 34);
    vast.dim = 512;
    let vast = Table::new(vast, Engine::default());
    assert!(matches!(vast, Err(TableError::OutOfMemory { .. })));
}

#[test]
fn threads_fill_rows_while_their_pages_become_huge() {
    let fill = |threads| {
        let mut config = config(64);
        config.init = Init::Normal {
            mean: 0.0,
            deviation: 1.0,
        };
        let engine = Engine {
            threads,
            ..Engine::default()
        };
        let mut table = Table::new(config, engine).unwrap();
        // 40,000 rows of 256 bytes: five parts are full and on their way while the rest is written.
        for first in (0..40_000u64).step_by(4000) {
            let keys: Vec<u64> = (first..first + 4000).collect();
            update(&mut table, &keys, &[0.5; 4000 * 64], 0).unwrap();
        }
        rows(&table)
    };
    assert!(fill(1) == fill(2));
}
