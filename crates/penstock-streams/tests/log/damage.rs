//! Files that rot, are cut, are of another make: said, with what is lost, and never a crash.

use std::collections::BTreeMap;

use penstock_disk::Disk;
use penstock_disk::simulated::SimulatedDisk;
use penstock_streams::{Ack, Fault};

use super::{ALL, Random, messages, partition, read_over_damage};

const SEGMENT_HEAD: usize = 88;

fn filled(disk: &SimulatedDisk, segment_bytes: u64, records: u64) -> BTreeMap<u64, Vec<u8>> {
    let log = partition(disk, segment_bytes);
    let mut written = BTreeMap::new();
    for number in 0..records {
        let value = vec![number as u8; 10 + number as usize % 50];
        let offsets = log
            .append(&messages(std::slice::from_ref(&value)), Ack::Synced)
            .unwrap();
        written.insert(offsets.start, value);
    }
    written
}

fn segments(disk: &SimulatedDisk) -> Vec<String> {
    let mut names = disk.names().unwrap();
    names.retain(|name| name.ends_with(".log"));
    names
}

#[test]
fn rotten_bytes_cost_the_records_they_hit_which_are_named_and_nothing_else() {
    let mut named = 0;
    for seed in 0..2_000 {
        let random = &mut Random(seed);
        let disk = SimulatedDisk::new(seed);
        let written = filled(&disk, 200 + random.below(2000), 40);
        let names = segments(&disk);
        let name = &names[random.below(names.len() as u64) as usize];
        disk.with_bytes(name, |bytes| {
            if bytes.len() <= SEGMENT_HEAD {
                return;
            }
            let body = (bytes.len() - SEGMENT_HEAD) as u64;
            let at = SEGMENT_HEAD + random.below(body) as usize;
            for byte in bytes[at..].iter_mut().take(1 + random.below(60) as usize) {
                *byte ^= 1 + random.below(255) as u8;
            }
        });
        // The power goes in between, or not: what was synced is damaged, not torn.
        let rebooted = random.below(3) == 0;
        if rebooted {
            disk.reboot();
        }
        let check = |extra: &BTreeMap<u64, Vec<u8>>| {
            let (found, lost) = read_over_damage(&mut partition(&disk, 1000).reader(0));
            let mut missing = 0;
            for (offset, value) in written.iter().chain(extra) {
                let said = lost
                    .iter()
                    .any(|(first, next)| (first..next).contains(&offset));
                match found.get(offset) {
                    Some(read) => assert_eq!(read, value, "seed {seed}"),
                    None if said => missing += 1,
                    // Where the end of the last segment rotted, nothing tells what was there.
                    None => assert!(
                        Some(name) == names.last() && (extra.is_empty() || rebooted),
                        "seed {seed}: {offset} is missing, {lost:?} was said"
                    ),
                }
            }
            missing
        };
        named += check(&BTreeMap::new());
        let more = one_more(&disk);
        // An offset whose record rotted beyond recognition, at the very end, is given again.
        if more.keys().all(|offset| !written.contains_key(offset)) {
            check(&more);
        }
    }
    assert!(
        named > 2_000,
        "only {named} records were lost: the test proves little"
    );
}

fn one_more(disk: &SimulatedDisk) -> BTreeMap<u64, Vec<u8>> {
    let log = partition(disk, 1000);
    let value = b"after".to_vec();
    let offsets = log
        .append(&messages(std::slice::from_ref(&value)), Ack::Written)
        .unwrap();
    offsets.map(|offset| (offset, value.clone())).collect()
}

#[test]
fn a_segment_that_is_cut_under_reader_and_writer_costs_what_was_in_it_and_no_offset_twice() {
    for seed in 0..300 {
        let random = &mut Random(seed);
        let disk = SimulatedDisk::new(seed);
        let log = partition(&disk, 1 << 20);
        let values: Vec<Vec<u8>> = (0..20).map(|n| vec![n; 30]).collect();
        log.append(&messages(&values), Ack::Synced).unwrap();
        let mut reader = log.reader(0);
        let few = super::Limit { records: 5, ..ALL };
        assert_eq!(reader.read(few, |_| {}).unwrap(), 5);
        let name = segments(&disk).remove(0);
        disk.with_bytes(&name, |bytes| {
            bytes.truncate(random.below(bytes.len() as u64) as usize)
        });
        match reader.read(ALL, |_| {}) {
            Ok(_) | Err(Fault::NotALog { .. }) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
        let offsets = log.append(&messages(&values[..1]), Ack::Synced).unwrap();
        assert_eq!(offsets, 20..21, "seed {seed}");
        let mut got = Vec::new();
        loop {
            match reader.read(ALL, |record| got.push(record.offset)) {
                Ok(0) => break,
                Ok(_) => {}
                Err(Fault::Damaged { next, .. }) => reader.seek(next),
                Err(other) => panic!("seed {seed}: {other}"),
            }
        }
        assert_eq!(got.last(), Some(&20), "seed {seed}: {got:?}");
    }
}

#[test]
fn garbage_in_place_of_segments_and_positions_is_refused_and_never_crashes() {
    for seed in 0..500 {
        let random = &mut Random(seed);
        let disk = SimulatedDisk::new(seed);
        filled(&disk, 300, 12);
        let log = partition(&disk, 300);
        log.commit("g", 3).unwrap();
        for name in disk.names().unwrap() {
            if random.below(2) == 0 {
                let length = random.below(400) as usize;
                disk.with_bytes(&name, |bytes| {
                    *bytes = (0..length).map(|_| random.below(256) as u8).collect();
                });
            }
        }
        let _ = log.committed("g");
        let _ = log.start();
        let _ = log.end();
        let _ = log.at_time(7);
        let _ = log.append(&messages(&[b"x".to_vec()]), Ack::Written);
        let mut reader = log.reader(random.below(14));
        for _ in 0..40 {
            match reader.read(ALL, |_| {}) {
                Err(Fault::Damaged { next, .. }) => reader.seek(next),
                Err(Fault::Trimmed { start, .. }) => reader.seek(start),
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
}

#[test]
fn a_newer_format_is_refused_by_readers_and_writers_and_left_alone() {
    let disk = SimulatedDisk::new(1);
    filled(&disk, 1 << 20, 3);
    let name = segments(&disk).remove(0);
    let before = disk.with_bytes(&name, |bytes| {
        bytes[8] = 2;
        bytes.clone()
    });
    let log = partition(&disk, 1 << 20);
    let is_newer = |fault: Fault| {
        matches!(
            fault,
            Fault::Version {
                found: 2,
                known: 1,
                ..
            }
        )
    };
    assert!(is_newer(log.reader(0).read(ALL, |_| {}).unwrap_err()));
    assert!(is_newer(
        log.append(&messages(&[b"x".to_vec()]), Ack::Written)
            .unwrap_err()
    ));
    assert!(is_newer(log.end().unwrap_err()));
    assert_eq!(disk.with_bytes(&name, |bytes| bytes.clone()), before);
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_and_the_log_goes_on_once_there_is_room() {
    let disk = SimulatedDisk::new(1);
    let log = partition(&disk, 1 << 20);
    disk.set_capacity(Some(2_000));
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for number in 0..60u8 {
        let value = vec![number; 50];
        match log.append(&messages(std::slice::from_ref(&value)), Ack::Written) {
            Ok(offsets) => acknowledged.push((offsets.start, value)),
            Err(fault) => {
                assert!(matches!(fault, Fault::Full { .. }), "{fault}");
                refused += 1;
            }
        }
    }
    assert!(refused > 20);
    assert!(disk.names().unwrap().len() < 5, "{:?}", disk.names());
    disk.set_capacity(None);
    let offsets = log
        .append(&messages(&[b"room".to_vec()]), Ack::Written)
        .unwrap();
    acknowledged.push((offsets.start, b"room".to_vec()));
    let (found, lost) = read_over_damage(&mut log.reader(0));
    assert!(lost.is_empty());
    assert_eq!(found.into_iter().collect::<Vec<_>>(), acknowledged);
}
