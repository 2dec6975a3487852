//! What a checkpoint gives back, and to whom.

use penstock_table::disk::Disk;
use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::{Admission, Checkpoints, Dtype, Engine, Keys, Optimizer, Store, TableConfig};

use super::promises::{config, grown, refusal, train};
use super::{checkpoints, cut, image, shared, store, update};

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
    // The same where memory was taken for more rows than came: lines are what the cut says.
    for (before, after) in [(0, 0), (100_000, 100_000), (0, 100_000), (100_000, 0)] {
        sweeps_visit_the_same_rows(before, after);
    }
}

fn sweeps_visit_the_same_rows(expected_before: u64, expected_after: u64) {
    let mut config = config();
    config.expected_rows = expected_before;
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
    config.expected_rows = expected_after;
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
