//! Any byte of either artefact, flipped: an error that names the file and the place. Any bytes at all: no panic.

use penstock_table::disk::Disk;
use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::{
    Admission, ArtefactError, Init, Optimizer, Snapshot, Store, TableConfig, hash, prepare_snapshot,
};

use super::{checkpoints, cut, shared, store, update};

#[path = "../../fuzz/fuzz_targets/reseal.rs"]
mod reseal;
use reseal::reseal;

const FILE: &str = "000000000001.cut";

fn config() -> TableConfig {
    let mut config = TableConfig::new("t", 3, Optimizer::Sgd, 0.5);
    config.init = Init::Constant(0.25);
    config.admission = Admission::Count {
        least: 2,
        sketch_bytes: 64 * 64,
        halve_every: 1000,
    };
    config
}

/// A store, its checkpoint and its snapshot.
fn artefacts(rows: u64) -> (Store, SimulatedDisk) {
    let disk = SimulatedDisk::new(0);
    let mut live = store(config());
    let keys: Vec<u64> = (0..rows).collect();
    let grads = vec![0.5; keys.len() * 3];
    for _ in 0..2 {
        update(&mut live, &keys, &grads, 5);
    }
    update(&mut live, &[rows + 1], &[0.0; 3], 5);
    live.tables_mut()[0].evict(0);
    cut(&mut checkpoints(&disk), &mut live, "a", true);
    let open = prepare_snapshot(&shared(&disk), "s", "plan", &mut live, 1 << 20).unwrap();
    open.commit(&mut live).unwrap();
    (live, disk)
}

fn flip(disk: &SimulatedDisk, name: &str, at: usize, mask: u8) {
    disk.with_bytes(name, |bytes| bytes[at] ^= mask).unwrap();
}

fn length(disk: &SimulatedDisk, name: &str) -> usize {
    disk.with_bytes(name, |bytes| bytes.len()).unwrap()
}

fn read_checkpoint(disk: &SimulatedDisk) -> Result<(), ArtefactError> {
    let found = checkpoints(disk).at(1)?;
    found.sections()?;
    found.restore(store(config()), 0..4096)?;
    found.verify()
}

fn read_snapshot(disk: &SimulatedDisk, keys: &[u64]) -> Result<Vec<f32>, ArtefactError> {
    let snapshot = Snapshot::read(disk, "s", None)?;
    let mut out = vec![0.0; keys.len() * 3];
    snapshot.lookup(1, keys, &mut out)?;
    Ok(out)
}

fn names_a_place(error: &ArtefactError, name: &str, at: usize) {
    let said = error.to_string();
    let right = matches!(error, ArtefactError::Damaged { file, section, .. } if file == name && !section.is_empty());
    assert!(right, "byte {at} of {name}: {said}");
}

#[test]
fn every_flipped_byte_of_a_small_file_is_told() {
    let (_, disk) = artefacts(9);
    read_checkpoint(&disk).unwrap();
    for at in 0..length(&disk, FILE) {
        let mask = 1 << (at % 8);
        flip(&disk, FILE, at, mask);
        let found = checkpoints(&disk).at(1).and_then(|found| found.verify());
        names_a_place(&found.unwrap_err(), FILE, at);
        flip(&disk, FILE, at, mask);
    }
    let snapshot = |disk: &SimulatedDisk| {
        Snapshot::read(disk, "s", None).and_then(|snapshot| snapshot.verify())
    };
    snapshot(&disk).unwrap();
    for at in 0..length(&disk, "s") {
        flip(&disk, "s", at, 1 << (at % 8));
        names_a_place(&snapshot(&disk).unwrap_err(), "s", at);
        flip(&disk, "s", at, 1 << (at % 8));
    }
}

#[test]
fn flipped_bytes_of_a_larger_file_are_never_wrong_weights() {
    let (live, disk) = artefacts(3000);
    let keys: Vec<u64> = (0..3100).collect();
    let mut wanted = vec![0.0; keys.len() * 3];
    live.lookup(1, &keys, &mut wanted).unwrap();
    let (mut caught, mut random) = (0, 1);
    for _ in 0..60 {
        random = hash::mix(random);
        let at = (random as usize >> 8) % length(&disk, FILE);
        flip(&disk, FILE, at, random as u8 | 1);
        names_a_place(&read_checkpoint(&disk).unwrap_err(), FILE, at);
        flip(&disk, FILE, at, random as u8 | 1);
        let at = (random as usize >> 8) % length(&disk, "s");
        flip(&disk, "s", at, random as u8 | 1);
        // A lookup touches every block that holds a row, and may err; what it gives is right.
        match read_snapshot(&disk, &keys) {
            Ok(values) => assert_eq!(values, wanted),
            Err(error) => {
                names_a_place(&error, "s", at);
                caught += 1;
            }
        }
        flip(&disk, "s", at, random as u8 | 1);
    }
    assert!(caught > 30, "{caught}");
}

#[test]
fn a_bad_block_stays_bad_and_the_scrub_finds_it() {
    let (_, disk) = artefacts(3000);
    let size = length(&disk, "s");
    // The last block lies before contents of 48 bytes a section.
    let at = (64..size).rev().find(|&at| {
        disk.with_bytes("s", |bytes| bytes[at] != 0).unwrap() && at < size - 64 - 3000 * 24
    });
    flip(&disk, "s", at.unwrap(), 4);
    let snapshot = Snapshot::read(&disk, "s", None).unwrap();
    let (mut cursor, mut bad) = (0, 0);
    loop {
        match snapshot.scrub(&mut cursor) {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                names_a_place(&error, "s", at.unwrap());
                bad += 1;
                if cursor == 0 {
                    break;
                }
            }
        }
    }
    assert_eq!(bad, 1);
    let keys: Vec<u64> = (0..3000).collect();
    let mut out = vec![0.0; 9000];
    for _ in 0..2 {
        assert!(snapshot.lookup(1, &keys, &mut out).is_err());
    }
}

#[test]
fn older_and_newer_formats_are_refused_with_what_to_do() {
    let (_, disk) = artefacts(3);
    for (version, hint) in [(0u8, "write it again"), (2, "update Penstock")] {
        for name in [FILE, "s"] {
            disk.with_bytes(name, |bytes| {
                bytes[12] = version;
                reseal(bytes).unwrap();
            });
        }
        for said in [
            read_checkpoint(&disk).unwrap_err(),
            Snapshot::read(&disk, "s", None).err().unwrap(),
        ] {
            let said = said.to_string();
            assert!(
                said.contains(&format!(
                    "has format {version}, this version reads 1; {hint}"
                )),
                "{said}"
            );
        }
    }
}

#[test]
fn one_artefact_is_not_taken_for_the_other() {
    let (_, disk) = artefacts(3);
    disk.rename("s", FILE).unwrap();
    let said = read_checkpoint(&disk).unwrap_err().to_string();
    assert!(
        said.contains("another kind of artefact, here it is to be a training checkpoint"),
        "{said}"
    );
}

/// Bytes that are anything but have their checksums right: readers err or give something, and never panic.
#[test]
fn readers_take_any_bytes() {
    let (_, disk) = artefacts(40);
    let keys: Vec<u64> = (0..50).collect();
    let originals = [FILE, "s"].map(|name| disk.with_bytes(name, |bytes| bytes.clone()).unwrap());
    let mut random = 7u64;
    let mut draw = |below: usize| {
        random = hash::mix(random);
        (random >> 16) as usize % below
    };
    for turn in 0..if cfg!(debug_assertions) { 300 } else { 4000 } {
        for (name, original) in [FILE, "s"].into_iter().zip(&originals) {
            let mut bytes = original.clone();
            match turn % 4 {
                0 => bytes = (0..draw(400)).map(|_| draw(256) as u8).collect(),
                1 => bytes.truncate(draw(original.len())),
                _ => {
                    // Contents and trailer lie at the end, and are the most of a small file's meaning.
                    for _ in 0..1 + draw(4) {
                        let from = if draw(2) == 0 { 0 } else { bytes.len() * 3 / 4 };
                        let at = from + draw(bytes.len() - from);
                        bytes[at] = [0, 1, 0xff, 0x80, draw(256) as u8][draw(5)];
                    }
                }
            }
            reseal(&mut bytes);
            disk.with_bytes(name, |held| *held = bytes);
        }
        let _ = read_checkpoint(&disk);
        let _ = read_snapshot(&disk, &keys);
    }
    // Lengths that a file does not have are refused before memory is asked for: see `Frame::open`.
    assert!(disk.open(FILE).is_ok());
}

/// Files that once made a reader panic, with checksums that fit: the fuzz target begins with them too.
#[test]
fn what_fuzzing_found_is_told() {
    let seed = include_bytes!("../../fuzz/seeds/snapshot/block-of-no-table");
    let mut bytes = seed.to_vec();
    reseal(&mut bytes).unwrap();
    let disk = SimulatedDisk::new(0);
    disk.create("s").unwrap().append(&bytes).unwrap();
    let error = Snapshot::read(&disk, "s", None).err().unwrap().to_string();
    assert!(error.contains("there is no such table"), "{error}");
}
