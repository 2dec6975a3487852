//! Snapshots and views: what serves reads as its table did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::disk::{Disk, Folder};
use penstock_table::{
    Admission, Bag, Change, Checkpoints, Dtype, Nearing, Pooling, RowParts, Snapshot, Store, View,
    prepare_snapshot,
};

use super::promises::{config, grown, refusal, train};
use super::{cut, image, shared, store};

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

#[test]
fn rows_that_are_brought_near_read_as_before_and_no_reader_waits() {
    let (path, disk) = folder("near");
    let mut live = grown(config(), 300_000);
    let open = prepare_snapshot(&disk, "serving", "plan", &mut live, 1 << 20).unwrap();
    open.commit(&mut live).unwrap();
    let snapshot = Arc::new(Snapshot::open(&path.join("serving"), None).unwrap());
    let length = std::fs::metadata(path.join("serving")).unwrap().len();
    assert!(
        Nearing::begin(&snapshot, Some(length - 1)).is_none(),
        "it takes more than it may"
    );
    let same = || same_values(&live, |keys, out| snapshot.lookup(1, keys, out).unwrap());
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                same();
            }
        });
        let (mut nearing, mut steps) = (Nearing::begin(&snapshot, None), 0);
        while let Some(under_way) = nearing {
            assert_eq!(snapshot.near_bytes(), 0);
            nearing = under_way.step();
            steps += 1;
        }
        assert_eq!(steps, length.div_ceil(1 << 20));
        same();
        over.store(true, Ordering::Relaxed);
    });
    assert!(snapshot.near_bytes() >= length);
    snapshot.verify().unwrap();
    assert!(
        Nearing::begin(&snapshot, None).is_none(),
        "it was brought near before"
    );
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

#[test]
fn a_snapshot_pools_as_its_table_did_few_keys_or_many_and_counts_them() {
    let disk = shared(&SimulatedDisk::new(0));
    let mut live = grown(config(), 5000);
    let open = prepare_snapshot(&disk, "s", "plan", &mut live, 1 << 24).unwrap();
    open.commit(&mut live).unwrap();
    let snapshot = Snapshot::read(&*disk, "s", Some((&live, "plan"))).unwrap();
    let dim = live.tables()[0].config().dim;
    // One row, a request's rows, and more keys than are asked for at once; a tenth of them have no row.
    for samples in [1, 100, 9000] {
        let keys: Vec<u64> = (0..2 * samples).map(|i| i * 7919 % 5556).collect();
        let weights: Vec<f32> = keys.iter().map(|&key| (key % 5) as f32 - 1.0).collect();
        let mut ends: Vec<i64> = (0..=samples as i64).map(|sample| 2 * sample).collect();
        let one_each: Vec<i64> = (0..=samples as i64).collect();
        // An empty bag, and one of four.
        ends[samples as usize / 2] = ends[samples as usize / 2].min(2 * samples as i64 - 2);
        let bag = |offsets, keys, weights| Bag {
            slot: 1,
            keys,
            offsets,
            weights,
        };
        let bags = [
            bag(&one_each, &keys[..samples as usize], None),
            bag(&ends, &keys, Some(&weights)),
            bag(&ends, &keys, None),
        ];
        for pooling in [Pooling::Sum, Pooling::Mean, Pooling::Sqrtn] {
            let mut wanted = vec![0.0; samples as usize * 3 * dim];
            let mut found = vec![f32::NAN; wanted.len()];
            live.pool(&bags, pooling, 1, &mut wanted).unwrap();
            snapshot.pool(&bags, pooling, 1, &mut found).unwrap();
            assert_eq!(super::bits(&found), super::bits(&wanted), "{pooling:?}");
        }
        let short = snapshot.pool(&bags, Pooling::Sum, 1, &mut [0.0; 5]);
        assert!(refusal(short).contains("5 "));
    }
    let (found, absent) = snapshot.lookups();
    assert!(absent > 0 && found > 7 * absent, "{found} and {absent}");
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
