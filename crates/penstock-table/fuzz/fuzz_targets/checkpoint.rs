//! Any bytes as a checkpoint: an error or a store, and no panic.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use penstock_table::disk::Disk;
use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::{Checkpoints, Engine, Keys, Optimizer, Store, TableConfig};

mod reseal;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    reseal::reseal(&mut bytes);
    let disk = SimulatedDisk::new(0);
    let mut file = disk.create("000000000001.cut").expect("memory");
    file.append(&bytes).expect("memory");
    let folder = Checkpoints::open(Arc::new(disk), "plan").expect("memory");
    let Ok(found) = folder.at(1) else { return };
    let _ = found.sections();
    let _ = found.verify();
    let mut store = Store::default();
    store.add_table(TableConfig::new("t", 3, Optimizer::Sgd, 0.5), Engine::default()).expect("a sound table");
    store.add_slot(1, 0, Keys::Raw).expect("a new slot");
    let _ = found.restore(store, 0..4096);
});
