//! Single promises of cuts and checkpoints.

use penstock_table::disk::Disk;
use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::{ArtefactError, CutOptions, Init, Optimizer, Store, TableConfig};

use super::{checkpoints, cut, image, store, update};

pub fn config() -> TableConfig {
    let adagrad = Optimizer::RowwiseAdagrad {
        epsilon: 1e-8,
        initial: 0.0,
    };
    let mut config = TableConfig::new("users", 4, adagrad, 0.1);
    config.init = Init::Uniform {
        low: -1.0,
        high: 1.0,
    };
    config
}

pub fn grown(config: TableConfig, rows: u64) -> Store {
    let mut store = store(config);
    train(&mut store, 0..rows);
    store
}

pub fn train(store: &mut Store, keys: std::ops::Range<u64>) {
    let keys: Vec<u64> = keys.collect();
    let dim = store.tables()[0].config().dim;
    let grads: Vec<f32> = (0..keys.len() * dim)
        .map(|i| (i % 7) as f32 - 3.0)
        .collect();
    update(store, &keys, &grads, 10);
}

pub fn refusal<T>(result: Result<T, ArtefactError>) -> String {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_work_of_prepare_does_not_grow_with_rows_but_by_a_bit_each() {
    let mut live = grown(config(), 50_000);
    let open = checkpoints(&SimulatedDisk::new(0))
        .prepare(&mut live, "a", CutOptions::default())
        .unwrap();
    let work = open.work();
    assert_eq!((work.shards, work.buckets, work.sets), (64, 4096, 64));
    // 50,000 bits are 782 words; a shard's last word is begun, and shards are not equally full.
    assert!(work.words < 50_000 / 64 + 2 * 64, "{work:?}");
}

#[test]
fn an_incremental_cut_has_only_what_changed() {
    let disk = SimulatedDisk::new(0);
    let mut folder = checkpoints(&disk);
    let mut live = grown(config(), 20_000);
    assert_eq!(cut(&mut folder, &mut live, "full", false).rows, 20_000);
    train(&mut live, 100..200);
    live.tables_mut()[0].evict(7);
    let second = cut(&mut folder, &mut live, "second", false);
    assert_eq!((second.parent, second.rows), (Some(1), 100));
    assert_eq!(folder.newest().unwrap().unwrap().chain(), [1, 2]);
    assert_eq!(cut(&mut folder, &mut live, "third", true).parent, None);
    assert_eq!(cut(&mut folder, &mut live, "fourth", false).rows, 0);
}

#[test]
fn a_reader_may_load_only_its_buckets() {
    let disk = SimulatedDisk::new(0);
    let mut live = grown(config(), 5000);
    cut(&mut checkpoints(&disk), &mut live, "a", false);
    let found = checkpoints(&disk).newest().unwrap().unwrap();
    let part = |buckets| image(&found.restore(store(config()), buckets).unwrap().tables()[0]);
    let (mut low, high) = (part(0..1000), part(1000..4096));
    assert!(low.len() > 900 && high.len() > 3000);
    low.extend(high);
    assert_eq!(low, image(&live.tables()[0]));
}

#[test]
fn copies_are_bounded_and_at_the_bound_the_cut_ends_cleanly() {
    let disk = SimulatedDisk::new(0);
    let mut folder = checkpoints(&disk);
    let mut live = grown(config(), 5000);
    let options = CutOptions {
        copy_limit_bytes: 20_000,
        ..CutOptions::default()
    };
    let mut open = folder.prepare(&mut live, "busy", options).unwrap();
    open.step(&live, 10).unwrap();
    train(&mut live, 0..100);
    let copied = live.tables()[0].copied_bytes();
    assert!(copied > 100 * 30 && copied < 20_000, "{copied}");
    train(&mut live, 0..5000);
    let said = refusal(open.step(&live, 10));
    assert!(
        said.contains("'busy'") && said.contains("20000 bytes"),
        "{said}"
    );
    drop(open);
    assert_eq!(
        disk.names().unwrap(),
        Vec::<String>::new(),
        "its file is gone"
    );
    train(&mut live, 0..1);
    assert_eq!(live.tables()[0].copied_bytes(), 0);
    cut(&mut folder, &mut live, "next", false);
    let restored = folder
        .newest()
        .unwrap()
        .unwrap()
        .restore(store(config()), 0..4096)
        .unwrap();
    assert_eq!(image(&restored.tables()[0]), image(&live.tables()[0]));
}

#[test]
fn only_one_cut_is_open_and_a_forgotten_one_is_over() {
    let mut folder = checkpoints(&SimulatedDisk::new(0));
    let mut live = grown(config(), 10);
    let first = folder
        .prepare(&mut live, "first", CutOptions::default())
        .unwrap();
    assert!(
        refusal(folder.prepare(&mut live, "second", CutOptions::default()))
            .contains("'first' is open")
    );
    drop(first);
    cut(&mut folder, &mut live, "second", false);
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint_and_training_alone() {
    let disk = SimulatedDisk::new(0);
    let mut folder = checkpoints(&disk);
    let mut live = grown(config(), 100);
    cut(&mut folder, &mut live, "first", false);
    let first = image(&live.tables()[0]);
    disk.set_capacity(Some(20_000));
    train(&mut live, 0..3000);
    let open = folder
        .prepare(&mut live, "second", CutOptions::default())
        .unwrap();
    assert!(refusal(folder.commit(open, &mut live)).contains("writing it failed"));
    assert_eq!(disk.names().unwrap().len(), 1);
    let restored = folder
        .newest()
        .unwrap()
        .unwrap()
        .restore(store(config()), 0..4096)
        .unwrap();
    assert_eq!(image(&restored.tables()[0]), first);
    disk.set_capacity(None);
    let third = cut(&mut folder, &mut live, "third", false);
    assert_eq!(
        (third.parent, third.rows),
        (Some(1), 3000),
        "it builds on the one that lasted"
    );
}
