//! Any bytes as a snapshot: an error or values, and no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_table::Snapshot;
use penstock_table::disk::Disk;
use penstock_table::disk::simulated::SimulatedDisk;

mod reseal;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    reseal::reseal(&mut bytes);
    let disk = SimulatedDisk::new(0);
    let mut file = disk.create("s").expect("memory");
    file.append(&bytes).expect("memory");
    let Ok(snapshot) = Snapshot::read(&disk, "s", None) else { return };
    let dim = snapshot.tables().first().map_or(0, |table| table.dim);
    let keys: Vec<u64> = (0..64).collect();
    let _ = snapshot.lookup(1, &keys, &mut vec![0.0; 64 * dim]);
    let _ = snapshot.verify();
});
