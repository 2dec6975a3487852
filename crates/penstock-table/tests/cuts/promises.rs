//! Single promises of cuts, checkpoints, snapshots and views.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::disk::{Disk, Folder};
use penstock_table::{
    Admission, ArtefactError, Change, Checkpoints, CutOptions, Dtype, Engine, Init, Keys,
    Optimizer, RowParts, Snapshot, Store, TableConfig, View, prepare_snapshot,
};

use super::{checkpoints, cut, image, shared, store, update};

fn config() -> TableConfig {
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

fn grown(config: TableConfig, rows: u64) -> Store {
    let mut store = store(config);
    train(&mut store, 0..rows);
    store
}

fn train(store: &mut Store, keys: std::ops::Range<u64>) {
    let keys: Vec<u64> = keys.collect();
    let dim = store.tables()[0].config().dim;
    let grads: Vec<f32> = (0..keys.len() * dim)
        .map(|i| (i % 7) as f32 - 3.0)
        .collect();
    update(store, &keys, &grads, 10);
}

fn refusal<T>(result: Result<T, ArtefactError>) -> String {
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

#[test]
fn another_configuration_is_named() {
    let disk = SimulatedDisk::new(0);
    cut(
        &mut checkpoints(&disk),
        &mut grown(config(), 10),
        "a",
        false,
    );
    let found = checkpoints(&disk).newest().unwrap().unwrap();
    let with = |change: fn(&mut TableConfig)| {
        let mut other = config();
        change(&mut other);
        refusal(found.restore(store(other), 0..4096))
    };
    let said = with(|config| config.dim = 8);
    assert!(
        said.contains("000000000001.cut: table 'users': dim is 4, here it is 8"),
        "{said}"
    );
    let said = with(|config| config.optimizer = Optimizer::Sgd);
    assert!(
        said.contains("optimizer is RowwiseAdagrad, here it is Sgd"),
        "{said}"
    );
    assert!(with(|config| config.versions = true).contains("versions is false"));
    assert!(with(|config| config.dtype = Dtype::Bf16).contains("values is F32, here it is Bf16"));
    let count = |config: &mut TableConfig| {
        config.admission = Admission::Count {
            least: 2,
            sketch_bytes: 4096,
            halve_every: 10,
        };
    };
    assert!(with(count).contains("sketch bytes is not set, here it is 4096"));
    let mut slots = Store::default();
    slots.add_table(config(), Engine::default()).unwrap();
    slots.add_slot(1, 0, Keys::Mapped).unwrap();
    assert!(
        refusal(found.restore(slots, 0..4096))
            .contains("slot 1 is table 0, raw keys, here it is table 0, mapped keys")
    );
    let other = Checkpoints::open(shared(&disk), "another")
        .unwrap()
        .newest()
        .unwrap()
        .unwrap();
    assert!(
        refusal(other.restore(store(config()), 0..4096))
            .contains("plan is plan, here it is another")
    );
}

#[test]
fn a_replaced_parent_is_noticed() {
    let disk = SimulatedDisk::new(0);
    let mut folder = checkpoints(&disk);
    let mut live = grown(config(), 10);
    cut(&mut folder, &mut live, "first", false);
    train(&mut live, 5..15);
    cut(&mut folder, &mut live, "second", false);
    let other = SimulatedDisk::new(0);
    cut(
        &mut checkpoints(&other),
        &mut grown(config(), 11),
        "first",
        false,
    );
    let foreign = other
        .with_bytes("000000000001.cut", |bytes| bytes.clone())
        .unwrap();
    disk.with_bytes("000000000001.cut", |bytes| *bytes = foreign);
    assert!(
        refusal(folder.newest())
            .contains("builds on 000000000001.cut, which is not there or was replaced")
    );
    disk.remove("000000000001.cut").unwrap();
    assert!(refusal(folder.newest()).contains("builds on 000000000001.cut"));
}

#[test]
fn sweeps_of_a_restored_table_visit_the_same_rows_step_by_step() {
    let mut config = config();
    config.eviction.ttl_s = Some(50);
    let disk = SimulatedDisk::new(0);
    let mut live = store(config.clone());
    // Buckets grow to several lines, are thinned and filled again: where entries lie tells of all that.
    for turn in 0..40u64 {
        let keys: Vec<u64> = (0..1500).map(|i| turn * 1000 + i * 7).collect();
        update(
            &mut live,
            &keys,
            &vec![0.5; keys.len() * 4],
            10 + turn as i64,
        );
        for key in keys.iter().filter(|key| (*key + turn) % 3 == 0) {
            live.tables_mut()[0].evict(*key);
        }
    }
    live.tables_mut()[0].sweep(1001);
    let mut folder = checkpoints(&disk);
    cut(&mut folder, &mut live, "a", false);
    let found = folder.newest().unwrap().unwrap();
    let mut restored = found.restore(store(config), 0..4096).unwrap();
    for turn in 0..300 {
        for store in [&mut live, &mut restored] {
            update(
                store,
                &[turn, 900_000 + turn],
                &[1.0; 8],
                60 + turn as i64 / 10,
            );
        }
        let [a, b] = [&mut live, &mut restored]
            .map(|store| (store.tables_mut()[0].sweep(37), store.tables()[0].clock()));
        assert_eq!((a.0, a.1.cursor), (b.0, b.1.cursor), "turn {turn}");
    }
    let evicted = live.tables()[0].tombstones();
    assert!(evicted > 1000, "{evicted}");
    assert_eq!(image(&restored.tables()[0]), image(&live.tables()[0]));
}

#[test]
fn tombstones_outlive_a_restart_where_no_row_is_left() {
    let disk = SimulatedDisk::new(0);
    let mut folder = checkpoints(&disk);
    let mut live = grown(config(), 3);
    let first = live.tables()[0].clock().epoch;
    live.tables_mut()[0].register("serving", first);
    (0..3).for_each(|key| {
        live.tables_mut()[0].evict(key);
    });
    let gone = super::changes(&live.tables()[0], first);
    assert_eq!(gone.len(), 3);
    cut(&mut folder, &mut live, "a", false);
    for restart in 0..2 {
        let mut folder = checkpoints(&disk);
        let found = folder.newest().unwrap().unwrap();
        let mut live = folder.resume(&found, store(config())).unwrap();
        assert_eq!(
            super::changes(&live.tables()[0], first),
            gone,
            "restart {restart}"
        );
        cut(&mut folder, &mut live, "again", true);
    }
}

fn folder(name: &str) -> (std::path::PathBuf, Arc<dyn Disk>) {
    let path = std::env::temp_dir().join(format!("penstock-table-{name}-{}", std::process::id()));
    let disk = Arc::new(Folder::new(&path).unwrap());
    (path, disk)
}

#[test]
fn a_real_folder_holds_checkpoints_and_snapshots() {
    let (path, disk) = folder("real");
    let mut folder = Checkpoints::open(disk.clone(), "plan").unwrap();
    let mut live = grown(config(), 3000);
    cut(&mut folder, &mut live, "a", false);
    train(&mut live, 0..10);
    cut(&mut folder, &mut live, "b", false);
    assert_eq!(folder.prune().unwrap(), 0);
    let restored = folder
        .newest()
        .unwrap()
        .unwrap()
        .restore(store(config()), 0..4096)
        .unwrap();
    assert_eq!(image(&restored.tables()[0]), image(&live.tables()[0]));
    let open = prepare_snapshot(&disk, "serving", "plan", &mut live, 1 << 20).unwrap();
    assert_eq!(open.commit(&mut live).unwrap(), 3000);
    let snapshot = Snapshot::open(&path.join("serving"), Some((&live, "plan"))).unwrap();
    same_values(&live, |keys, out| snapshot.lookup(1, keys, out).unwrap());
    std::fs::remove_dir_all(path).unwrap();
}

/// Keys with and without rows read the same bits from both.
fn same_values(live: &Store, lookup: impl Fn(&[u64], &mut [f32]) -> usize) {
    let keys: Vec<u64> = (0..6000).chain([u64::MAX]).collect();
    let dim = live.tables()[0].config().dim;
    let (mut wanted, mut found) = (
        vec![0f32; keys.len() * dim],
        vec![f32::NAN; keys.len() * dim],
    );
    let rows = live.lookup(1, &keys, &mut wanted).unwrap();
    assert_eq!(lookup(&keys, &mut found), rows);
    assert_eq!(super::bits(&found), super::bits(&wanted));
}

#[test]
fn a_snapshot_reads_as_its_table_did_while_that_trains_on() {
    for (dtype, admission) in [
        (Dtype::F32, Admission::Always),
        (Dtype::F16, Admission::Always),
        (Dtype::Bf16, Admission::Probability(0.5)),
    ] {
        let disk = SimulatedDisk::new(0);
        let disk = shared(&disk);
        let mut config = config();
        (config.dim, config.dtype, config.admission) = (40, dtype, admission);
        let mut live = grown(config.clone(), 5000);
        train(&mut live, 0..5000);
        let mut open = prepare_snapshot(&disk, "s", "plan", &mut live, 1 << 24).unwrap();
        let mut before = grown(config, 5000);
        train(&mut before, 0..5000);
        open.step(&live, 1000).unwrap();
        train(&mut live, 0..5500);
        open.commit(&mut live).unwrap();
        let snapshot = Snapshot::read(&*disk, "s", Some((&before, "plan"))).unwrap();
        snapshot.verify().unwrap();
        same_values(&before, |keys, out| snapshot.lookup(1, keys, out).unwrap());
    }
}

fn row(x: f32) -> RowParts {
    RowParts {
        values: vec![x; 4],
        state: vec![],
        count: 0,
        last_seen_s: 0,
        version: 0,
        score: 0.0,
    }
}

fn view(rows: u64, bytes: u64) -> (Store, View) {
    let disk = shared(&SimulatedDisk::new(0));
    let mut live = grown(config(), rows);
    let open = prepare_snapshot(&disk, "s", "plan", &mut live, 1 << 20).unwrap();
    open.commit(&mut live).unwrap();
    let snapshot = Snapshot::read(&*disk, "s", Some((&live, "plan"))).unwrap();
    (live, View::new(Arc::new(snapshot), bytes).unwrap())
}

#[test]
fn a_view_with_deltas_reads_as_the_table_does() {
    let (mut live, view) = view(4000, 1 << 20);
    same_values(&live, |keys, out| view.lookup(1, keys, out).unwrap());
    let mut since = live.tables()[0].clock().epoch;
    live.tables_mut()[0].register("serving", since);
    for turn in 0..3 {
        train(&mut live, 3000 + 500 * turn..4400 + 500 * turn);
        (turn..4000).step_by(100).for_each(|key| {
            live.tables_mut()[0].evict(key);
        });
        let mut delta = Vec::new();
        live.tables()[0]
            .changes(since, |change| delta.push(change))
            .unwrap();
        since = live.tables_mut()[0].flip();
        view.apply(0, &delta).unwrap();
        same_values(&live, |keys, out| view.lookup(1, keys, out).unwrap());
    }
}

#[test]
fn a_full_overlay_refuses_the_delta_whole() {
    let (_, view) = view(10, 100 * (4 * 8 + 32));
    let rows = |keys: std::ops::Range<u64>, x| {
        keys.map(|key| Change::Row(key, row(x))).collect::<Vec<_>>()
    };
    view.apply(0, &rows(0..60, 1.0)).unwrap();
    assert!(
        refusal(view.apply(0, &rows(50..101, 2.0)))
            .contains("'users' is full (100 rows); open a newer snapshot")
    );
    let mut out = [0.0; 4];
    view.lookup(1, &[55], &mut out).unwrap();
    assert_eq!(out, [1.0; 4]);
    view.apply(0, &rows(0..100, 3.0)).unwrap();
    assert_eq!(view.laid(0), (100, 100));
    // A tombstone of what is nowhere takes no room.
    view.apply(0, &[]).unwrap();
}

#[test]
fn a_row_is_read_whole_while_it_is_written() {
    let (_, view) = view(10, 1 << 16);
    let done = AtomicBool::new(false);
    view.apply(0, &[Change::Row(3, row(0.0))]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut last, mut out) = (0.0, [0f32; 4]);
                while !done.load(Ordering::Relaxed) {
                    let found = view.lookup(1, &[3], &mut out).unwrap();
                    if found == 1 {
                        assert!(
                            out.iter().all(|x| *x == out[0]) && out[0] >= last,
                            "{out:?} after {last}"
                        );
                        last = out[0];
                    }
                }
            });
        }
        for turn in 1..20_000u32 {
            let change = if turn % 16 == 0 {
                Change::Gone(3)
            } else {
                Change::Row(3, row(turn as f32))
            };
            view.apply(0, &[change]).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}
