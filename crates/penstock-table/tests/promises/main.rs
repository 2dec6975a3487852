//! Single promises of the table, three rows rather than three hundred.

mod bounds;
mod expected;
mod meaning;

use penstock_table::{Engine, Init, Optimizer, Table, TableConfig, TableError, Update};

fn config(dim: usize) -> TableConfig {
    let mut config = TableConfig::new("t", dim, Optimizer::Sgd, 1.0);
    config.init = Init::Constant(0.5);
    config
}

fn table(config: TableConfig) -> Table {
    Table::new(config, Engine::default()).unwrap()
}

fn update(
    table: &mut Table,
    keys: &[u64],
    grads: &[f32],
    time: i64,
) -> Result<penstock_table::Updated, TableError> {
    table.update(&Update {
        keys,
        grads,
        event_time_s: time,
        ..Update::default()
    })
}

fn read(table: &Table, key: u64) -> Vec<f32> {
    let mut out = vec![f32::NAN; table.config().dim];
    table.lookup(&[key], &mut out).unwrap();
    out
}
