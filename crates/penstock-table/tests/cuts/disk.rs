//! Ten thousand disks that fail or lose power at some operation: the newest committed cut is there, or an attempted later one.

use penstock_table::disk::simulated::{Fault, SimulatedDisk};
use penstock_table::{CutOptions, Optimizer, Store, TableConfig};

use super::{Image, checkpoints, image, store, update};

/// Unoptimised, a disk takes tens of milliseconds.
const SEEDS: u64 = if cfg!(debug_assertions) { 300 } else { 10_000 };

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = penstock_table::hash::mix(self.0);
        self.0 % bound
    }
}

fn fresh() -> Store {
    let adagrad = Optimizer::RowwiseAdagrad {
        epsilon: 1e-8,
        initial: 0.0,
    };
    store(TableConfig::new("t", 2, adagrad, 0.5))
}

fn train(store: &mut Store, random: &mut Random) {
    let keys: Vec<u64> = (0..random.below(4)).map(|_| random.below(12)).collect();
    let grads: Vec<f32> = keys.iter().flat_map(|&key| [key as f32, 1.0]).collect();
    update(store, &keys, &grads, 0);
    if random.below(3) == 0 {
        store.tables_mut()[0].evict(random.below(12));
    }
}

/// One life of a disk. Returns whether the fault was met and whether an attempted cut was found rather than a committed one.
fn live(seed: u64) -> (bool, bool) {
    let random = &mut Random(seed);
    let disk = SimulatedDisk::new(seed);
    let mut folder = checkpoints(&disk);
    let mut live = fresh();
    let kind = [Fault::Fails, Fault::PowerGoes][random.below(2) as usize];
    if random.below(8) == 0 {
        disk.set_capacity(Some(random.below(12_000) as usize));
    } else {
        disk.fault(random.below(45), kind);
    }
    // What `newest` may be: the last committed, or anything attempted since. None: nothing was ever committed.
    let mut allowed: Vec<Option<(String, Image)>> = vec![None];
    let mut met = false;
    for number in 0..4 {
        train(&mut live, random);
        let options = CutOptions {
            full: random.below(3) == 0,
            ..CutOptions::default()
        };
        let id = format!("{seed} {number}");
        let wanted = Some((id.clone(), image(&live.tables()[0])));
        let mut open = folder.prepare(&mut live, &id, options).unwrap();
        open.section("id", id.as_bytes());
        let stepped = open.step(&live, random.below(6)).is_ok();
        train(&mut live, random);
        let done = if stepped {
            folder.commit(open, &mut live).is_ok()
        } else {
            open.abort(&mut live);
            false
        };
        if done {
            allowed = vec![wanted];
        } else {
            met = true;
            allowed.push(wanted);
        }
        met |= folder.prune().is_err();
    }
    disk.reboot();
    disk.set_capacity(None);
    let mut folder = checkpoints(&disk);
    let found = folder.newest().unwrap();
    let restored = found.as_ref().map(|found| {
        found.verify().unwrap();
        let id = String::from_utf8(found.sections().unwrap()["id"].clone()).unwrap();
        assert_eq!(id, found.cut_id());
        (id, folder.resume(found, fresh()).unwrap())
    });
    let seen = restored
        .as_ref()
        .map(|(id, store)| (id.clone(), image(&store.tables()[0])));
    assert!(
        allowed.contains(&seen),
        "seed {seed}: found {seen:?}, allowed {allowed:?}"
    );
    // Life goes on, on top of what was found.
    let mut live = restored.map_or_else(fresh, |(_, store)| store);
    train(&mut live, random);
    super::cut(&mut folder, &mut live, "after", false);
    folder.prune().unwrap();
    let last = checkpoints(&disk).newest().unwrap().unwrap();
    let again = last.restore(fresh(), 0..4096).unwrap();
    assert_eq!(
        image(&again.tables()[0]),
        image(&live.tables()[0]),
        "seed {seed}"
    );
    (met, allowed.len() > 1 && seen == allowed[allowed.len() - 1])
}

#[test]
fn after_any_crash_the_newest_committed_checkpoint_loads_whole_or_one_attempted_since() {
    let (mut met, mut attempted) = (0, 0);
    for seed in 0..SEEDS {
        let (failed, found) = live(seed);
        met += u64::from(failed);
        attempted += u64::from(found);
    }
    // The disks must have been bad enough to mean something.
    assert!(met > SEEDS / 2, "only {met} seeds met their fault");
    assert!(
        attempted > SEEDS / 100,
        "only {attempted} cuts in doubt survived"
    );
}

#[test]
fn an_unsynced_file_does_not_survive_whole() {
    // The simulation itself: without syncs something must be lost, or the test above proves nothing.
    use penstock_table::disk::Disk;
    let (mut torn, mut gone) = (0, 0);
    for seed in 0..100 {
        let disk = SimulatedDisk::new(seed);
        let mut file = disk.create("a").unwrap();
        file.append(&[7; 4000]).unwrap();
        disk.reboot();
        match disk.with_bytes("a", |bytes| bytes.clone()) {
            None => gone += 1,
            Some(bytes) => torn += u32::from(bytes != [7; 4000]),
        }
    }
    assert!(gone > 20 && torn > 20, "{gone} gone, {torn} torn");
}
