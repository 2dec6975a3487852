//! A cut is written by a thread of its own while another trains: a step borrows the store, an update owns it.

use std::sync::RwLock;

use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::{CutOptions, Optimizer, TableConfig};

use super::{checkpoints, image, store, update};

#[test]
fn a_thread_writes_the_cut_while_training_goes_on() {
    let config = || TableConfig::new("t", 4, Optimizer::Sgd, 0.5);
    let disk = SimulatedDisk::new(0);
    let mut folder = checkpoints(&disk);
    let live = RwLock::new(store(config()));
    let train = |turn: u64| {
        let keys: Vec<u64> = (0..500).map(|i| (turn * 37 + i * 11) % 6000).collect();
        update(
            &mut live.write().unwrap(),
            &keys,
            &vec![0.5; 2000],
            turn as i64,
        );
    };
    (0..40).for_each(train);
    let wanted = image(&live.read().unwrap().tables()[0]);
    let mut open = folder
        .prepare(&mut live.write().unwrap(), "a", CutOptions::default())
        .unwrap();
    let open = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut steps = 0;
            while !open.step(&live.read().unwrap(), 50).unwrap() {
                steps += 1;
                std::thread::yield_now();
            }
            assert!(steps > 20, "{steps} steps");
            open
        });
        (40..120).for_each(train);
        writer.join().unwrap()
    });
    let mut live = live.into_inner().unwrap();
    folder.commit(open, &mut live).unwrap();
    let restored = folder
        .newest()
        .unwrap()
        .unwrap()
        .restore(store(config()), 0..4096)
        .unwrap();
    assert_eq!(image(&restored.tables()[0]), wanted);
    assert_ne!(image(&live.tables()[0]), wanted);
}
