//! Cuts, checkpoints, snapshots and views: what is written is what was, and damage is told.

mod damage;
mod disk;
mod model;
mod places;
mod promises;
mod reading;
mod restoring;
mod threads;

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_table::disk::Disk;
use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::{
    Change, Checkpoints, CutOptions, Engine, Keys, Store, Table, TableConfig, Update,
};

/// A row to the last bit: values, state, count, last-seen, version, score.
type RowBits = (Vec<u32>, Vec<u32>, u32, u32, u32, u32);
type Image = BTreeMap<u64, RowBits>;

fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|x| x.to_bits()).collect()
}

/// Every row of a table by its key.
fn image(table: &Table) -> Image {
    let mut image = Image::new();
    table.each(|key, row| {
        let bits = (
            bits(&row.values),
            bits(&row.state),
            row.count,
            row.last_seen_s,
            row.version,
            row.score.to_bits(),
        );
        assert!(image.insert(key, bits).is_none(), "key {key} twice");
    });
    image
}

/// Keys that changed since an epoch, and whether each has a row.
fn changes(table: &Table, since: u32) -> BTreeMap<u64, bool> {
    let mut changes = BTreeMap::new();
    table
        .changes(since, |change| {
            let (key, row) = match change {
                Change::Row(key, _) => (key, true),
                Change::Gone(key) => (key, false),
            };
            assert!(changes.insert(key, row).is_none(), "key {key} twice");
        })
        .unwrap();
    changes
}

/// A store of one table, read through raw slot 1.
fn store(config: TableConfig) -> Store {
    let mut store = Store::default();
    store.add_table(config, Engine::default()).unwrap();
    store.add_slot(1, 0, Keys::Raw).unwrap();
    store
}

fn update(store: &mut Store, keys: &[u64], grads: &[f32], time: i64) {
    store
        .update(
            1,
            &Update {
                keys,
                grads,
                event_time_s: time,
                ..Update::default()
            },
        )
        .unwrap();
}

fn checkpoints(disk: &SimulatedDisk) -> Checkpoints {
    Checkpoints::open(shared(disk), "plan").unwrap()
}

fn shared(disk: &SimulatedDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// A whole cut at once.
fn cut(
    checkpoints: &mut Checkpoints,
    store: &mut Store,
    id: &str,
    full: bool,
) -> penstock_table::Committed {
    let options = CutOptions {
        full,
        ..CutOptions::default()
    };
    let mut open = checkpoints.prepare(store, id, options).unwrap();
    open.section("id", id);
    checkpoints.commit(open, store).unwrap()
}
