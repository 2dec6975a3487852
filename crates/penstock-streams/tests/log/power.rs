//! Ten thousand disks that fail or lose power at some operation, under two processes that append and one that reads.

use std::collections::BTreeMap;

use penstock_disk::simulated::{Fault as DiskFault, SimulatedDisk};
use penstock_streams::{Ack, Fault, Partition, Reader};

use super::{ALL, Random, messages, partition, read_over_damage};

/// Unoptimised, a disk takes milliseconds.
const SEEDS: u64 = if cfg!(debug_assertions) { 500 } else { 10_000 };
const GROUP: &str = "joiner";

/// What is known of a disk's life from outside.
#[derive(Default)]
struct Known {
    /// Values that were acknowledged, by offset.
    written: BTreeMap<u64, Vec<u8>>,
    /// All before it were acknowledged as synced.
    synced: u64,
    /// What the reader saw.
    seen: BTreeMap<u64, Vec<u8>>,
    committed: u64,
    attempted_commit: u64,
    trimmed: u64,
    count: u64,
}

impl Known {
    fn values(&mut self, random: &mut Random) -> Vec<Vec<u8>> {
        let records = 1 + random.below(4);
        let value = |_| {
            self.count += 1;
            let mut value = self.count.to_be_bytes().to_vec();
            value.resize(8 + random.below(90) as usize, b'.');
            value
        };
        (0..records).map(value).collect()
    }

    fn see(&mut self, offset: u64, value: &[u8], seed: u64) {
        let before = self.seen.insert(offset, value.to_vec());
        let same = before.as_ref().is_none_or(|before| before == value);
        assert!(same, "seed {seed}: offset {offset} names two records");
    }
}

/// Errors of the disk are what the test is about; of the log's own, none may come.
fn of_the_disk(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Io { .. } | Fault::Full { .. } | Fault::NotSynced { .. }
    )
}

fn read(reader: &mut Reader, known: &mut Known, seed: u64) {
    let mut got = Vec::new();
    match reader.read(ALL, |record| {
        got.push((record.offset, record.value.to_vec()))
    }) {
        Ok(_) => {}
        Err(Fault::Trimmed { start, .. }) => reader.seek(start),
        Err(fault) => assert!(of_the_disk(&fault), "seed {seed}: {fault}"),
    }
    for (offset, value) in got {
        known.see(offset, &value, seed);
    }
}

fn live(seed: u64) -> (bool, bool, bool) {
    let random = &mut Random(seed);
    let disk = SimulatedDisk::new(seed);
    let segment_bytes = 150 + random.below(1200);
    let open = |_: u64| partition(&disk, segment_bytes);
    let mut processes: Vec<Partition> = (0..2).map(open).collect();
    let mut reader = open(0).reader(0);
    let known = &mut Known::default();
    if random.below(6) == 0 {
        disk.set_capacity(Some(random.below(4_000) as usize));
    } else {
        let kind = [DiskFault::Fails, DiskFault::PowerGoes][random.below(2) as usize];
        disk.fault(random.below(160), kind);
    }
    let mut met = false;
    let mut last_order = 0;
    for _ in 0..24 {
        let who = random.below(2) as usize;
        let outcome = match random.below(10) {
            0..5 => {
                let values = known.values(random);
                let ack = [Ack::Written, Ack::Synced][random.below(2) as usize];
                processes[who]
                    .append(&messages(&values), ack)
                    .map(|offsets| {
                        assert_eq!(offsets.end - offsets.start, values.len() as u64);
                        assert!(offsets.start >= last_order, "seed {seed}");
                        last_order = offsets.end;
                        known.written.extend(offsets.clone().zip(values));
                        if ack == Ack::Synced {
                            known.synced = offsets.end;
                        }
                    })
            }
            5 => processes[who].sync(),
            6 => {
                read(&mut reader, known, seed);
                Ok(())
            }
            7 => {
                let position = reader.position();
                known.attempted_commit = known.attempted_commit.max(position);
                let done = processes[who].commit(GROUP, position);
                if done.is_ok() {
                    known.committed = position;
                    known.synced = known.synced.max(position);
                }
                done
            }
            8 => {
                let before = known.committed.min(known.synced);
                known.trimmed = known.trimmed.max(before);
                processes[who].trim(before).map(drop)
            }
            _ => {
                // Killed, and started anew.
                processes[who] = open(0);
                Ok(())
            }
        };
        if let Err(fault) = outcome {
            met = true;
            assert!(of_the_disk(&fault), "seed {seed}: {fault}");
        }
    }
    // With the power on nothing acknowledged is missing, synced or not.
    let off = disk.is_down();
    if !off {
        disk.clear_fault();
        let (found, lost) = read_over_damage(&mut open(0).reader(open(0).start().unwrap()));
        assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
        for (offset, value) in known.written.range(known.trimmed..) {
            assert_eq!(
                found.get(offset),
                Some(value),
                "seed {seed}: offset {offset}"
            );
        }
    }
    let positions = (reader.position(), known.committed);
    drop((processes, reader));
    disk.reboot();
    disk.set_capacity(None);
    after(seed, &disk, segment_bytes, known, positions);
    let gone = known.written.range(known.trimmed..).next_back();
    let gone = gone.is_some_and(|(offset, _)| *offset >= known.synced);
    (met, off, gone)
}

/// The power is back.
fn after(
    seed: u64,
    disk: &SimulatedDisk,
    segment_bytes: u64,
    known: &mut Known,
    (position, committed): (u64, u64),
) {
    let log = partition(disk, segment_bytes);
    let group = log.committed(GROUP).unwrap().unwrap_or(0);
    assert!(
        (committed..=known.attempted_commit.max(committed)).contains(&group),
        "seed {seed}: committed {committed}, found {group}"
    );
    // Somebody who reads before anybody has written again must not see what will be gone.
    let mut early = log.reader(log.start().unwrap());
    let (before, lost) = read_over_damage(&mut early);
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
    let values: Vec<Vec<Vec<u8>>> = (0..3).map(|_| known.values(&mut Random(seed))).collect();
    let mut appended = BTreeMap::new();
    for values in values {
        let offsets = log.append(&messages(&values), Ack::Synced).unwrap();
        appended.extend(offsets.zip(values));
    }
    let (found, lost) = read_over_damage(&mut log.reader(log.start().unwrap()));
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
    for (offset, value) in known.written.range(known.trimmed..known.synced) {
        assert_eq!(
            found.get(offset),
            Some(value),
            "seed {seed}: offset {offset} was synced"
        );
    }
    for (offset, value) in before.iter().chain(&appended) {
        assert_eq!(
            found.get(offset),
            Some(value),
            "seed {seed}: offset {offset} was there"
        );
    }
    let mut last = 0;
    for (&offset, value) in &found {
        known.see(offset, value, seed);
        let number = u64::from_be_bytes(value[..8].try_into().unwrap());
        assert!(number > last, "seed {seed}: out of order at {offset}");
        last = number;
    }
    // Whoever was reading goes on where it was, though that may have been lost, and misses nothing of what came since.
    for from in [position, group] {
        let mut reader = log.reader(from.max(log.start().unwrap()));
        let (rest, lost) = read_over_damage(&mut reader);
        assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
        assert!(
            appended
                .iter()
                .all(|(offset, value)| rest.get(offset) == Some(value)),
            "seed {seed}: from {from} {:?} of {:?}",
            rest.keys(),
            appended.keys()
        );
    }
    let (rest, lost) = read_over_damage(&mut early);
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
    assert_eq!(rest, appended, "seed {seed}: who was at the end before");
}

#[test]
fn after_any_crash_what_was_synced_is_there_in_order_and_no_offset_names_two_records() {
    let (mut met, mut off, mut gone) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (failed, dark, unsynced) = live(seed);
        met += u64::from(failed);
        off += u64::from(dark);
        gone += u64::from(unsynced);
    }
    // The disks must have been bad enough to mean something.
    assert!(met > SEEDS / 3, "only {met} seeds met their fault");
    assert!(off > SEEDS / 5, "only {off} seeds lost power");
    assert!(gone > SEEDS / 5, "only {gone} seeds had anything to lose");
}
