//! The log on a real disk: offsets, keys, times, retention, several writers.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use penstock_streams::{Ack, Fault, Limit, Log, MOST_VALUE, Message, Options, partition_of};

use super::{ALL, read_over_damage};

/// A folder that goes with the test.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Place {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("penstock-log-{}-{number}", std::process::id());
        Place(std::env::temp_dir().join(name))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn small() -> Options {
    Options {
        segment_bytes: 4096,
        ..Options::default()
    }
}

fn message(value: &[u8], time_ms: i64) -> Message<'_> {
    Message {
        key: None,
        value,
        time_ms,
    }
}

#[test]
fn what_is_appended_reads_back_from_any_offset() {
    let place = Place::new();
    let log = Log::open(&place.0, Some(2), true, small()).unwrap();
    for number in 0..500u64 {
        let key = number.to_le_bytes();
        let value = vec![number as u8; number as usize % 200];
        let one = Message {
            key: (number % 3 > 0).then_some(&key[..]),
            value: &value,
            time_ms: number as i64,
        };
        assert_eq!(
            log.append(1, &[one], Ack::Written).unwrap(),
            number..number + 1
        );
    }
    let partition = log.partition(1).unwrap();
    assert_eq!(
        (partition.start().unwrap(), partition.end().unwrap()),
        (0, 500)
    );
    assert!(partition.size().unwrap().0 > 10);
    for from in [0, 1, 77, 250, 499] {
        let mut expected = from;
        let mut reader = partition.reader(from);
        let few = Limit {
            records: 7,
            bytes: 900,
        };
        while reader
            .read(few, |record| {
                assert_eq!(record.offset, expected);
                assert_eq!(record.time_ms, expected as i64);
                assert_eq!(record.value, vec![expected as u8; expected as usize % 200]);
                let key = expected.to_le_bytes();
                assert_eq!(record.key, (expected % 3 > 0).then_some(&key[..]));
                expected += 1;
            })
            .unwrap()
            > 0
        {}
        assert_eq!(expected, 500);
    }
    let beyond = partition.reader(501).read(ALL, |_| {}).unwrap_err();
    assert!(
        matches!(
            beyond,
            Fault::Beyond {
                asked: 501,
                end: 500,
                ..
            }
        ),
        "{beyond}"
    );
    assert_eq!(log.partition(0).unwrap().end().unwrap(), 0);
}

#[test]
fn a_time_finds_the_first_record_that_is_as_late_even_where_times_are_out_of_order() {
    let place = Place::new();
    let log = Log::open(&place.0, None, true, small()).unwrap();
    let times: Vec<i64> = (0..800).map(|n| (n * 7919) % 1000 + n * 2).collect();
    for &time in &times {
        log.append(0, &[message(&[0; 40], time)], Ack::Written)
            .unwrap();
    }
    let partition = log.partition(0).unwrap();
    for wanted in (-5..2700).step_by(13) {
        let found = times
            .iter()
            .position(|&time| time >= wanted)
            .unwrap_or(times.len());
        assert_eq!(partition.at_time(wanted).unwrap(), found as u64, "{wanted}");
    }
    partition.trim(400).unwrap();
    let start = partition.start().unwrap() as usize;
    assert!(0 < start && start <= 400);
    for wanted in (-5..2700).step_by(13) {
        let found = times[start..].iter().position(|&time| time >= wanted);
        let found = found.map_or(times.len(), |found| found + start);
        assert_eq!(partition.at_time(wanted).unwrap(), found as u64, "{wanted}");
    }
}

#[test]
fn retention_takes_whole_segments_from_the_front_and_readers_are_told() {
    let place = Place::new();
    let options = Options {
        retention_bytes: Some(20_000),
        ..small()
    };
    let log = Log::open(&place.0, None, true, options).unwrap();
    let partition = log.partition(0).unwrap();
    let mut reader = partition.reader(0);
    log.append(0, &[message(&[1; 100], 0)], Ack::Written)
        .unwrap();
    let one = Limit { records: 1, ..ALL };
    assert_eq!(reader.read(one, |_| {}).unwrap(), 1);
    for _ in 0..1000 {
        log.append(0, &[message(&[1; 100], 0)], Ack::Written)
            .unwrap();
    }
    let (_, bytes) = partition.size().unwrap();
    assert!((15_000..30_000).contains(&bytes), "{bytes}");
    let start = partition.start().unwrap();
    let trimmed = loop {
        match reader.read(ALL, |_| {}) {
            Ok(count) => assert!(count > 0),
            Err(fault) => break fault,
        }
    };
    match trimmed {
        Fault::Trimmed {
            start: said, asked, ..
        } => assert!(said == start && asked < start),
        other => panic!("{other}"),
    }
    reader.seek(start);
    assert_eq!(read_over_damage(&mut reader).0.len() as u64, 1001 - start);
}

#[test]
fn old_records_go_by_their_age() {
    let place = Place::new();
    let options = Options {
        retention_ms: Some(0),
        ..small()
    };
    let log = Log::open(&place.0, None, true, options).unwrap();
    for _ in 0..300 {
        log.append(0, &[message(&[1; 100], 0)], Ack::Written)
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(300));
    }
    assert!(log.partition(0).unwrap().size().unwrap().0 <= 3);
}

#[test]
fn threads_that_append_to_two_handles_keep_their_order_and_share_syncs() {
    let place = Place::new();
    let logs: Vec<Arc<Log>> = (0..2)
        .map(|_| Arc::new(Log::open(&place.0, Some(1), true, small()).unwrap()))
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..6u8 {
            let log = logs[thread as usize % 2].clone();
            scope.spawn(move || {
                for number in 0..200u8 {
                    let ack = if thread < 4 {
                        Ack::Written
                    } else {
                        Ack::Synced
                    };
                    log.append(0, &[message(&[thread, number], 0)], ack)
                        .unwrap();
                }
            });
        }
    });
    let (found, lost) = read_over_damage(&mut logs[0].partition(0).unwrap().reader(0));
    assert!(lost.is_empty());
    assert_eq!(found.len(), 1200);
    for thread in 0..6u8 {
        let of = found
            .values()
            .filter(|value| value[0] == thread)
            .map(|value| value[1]);
        assert!(of.eq(0..200));
    }
}

#[test]
fn groups_keep_their_positions_until_they_are_forgotten() {
    let place = Place::new();
    let log = Log::open(&place.0, None, true, small()).unwrap();
    let partition = log.partition(0).unwrap();
    log.append(0, &[message(b"a", 0), message(b"b", 0)], Ack::Written)
        .unwrap();
    assert_eq!(partition.committed("g").unwrap(), None);
    partition.commit("g", 1).unwrap();
    partition.commit("h", 2).unwrap();
    partition.commit("g", 2).unwrap();
    assert_eq!(partition.committed("g").unwrap(), Some(2));
    assert_eq!(partition.groups().unwrap(), ["g", "h"]);
    partition.forget("g").unwrap();
    assert_eq!(partition.committed("g").unwrap(), None);
    assert!(matches!(
        partition.commit("g", 3),
        Err(Fault::Beyond { .. })
    ));
    for name in ["", "../g", "a b", &"x".repeat(101)] {
        assert!(
            matches!(partition.commit(name, 1), Err(Fault::Setting(_))),
            "{name}"
        );
    }
}

#[test]
fn what_a_topic_cannot_be_is_refused() {
    let place = Place::new();
    let open = |partitions, create| Log::open(&place.0, partitions, create, small()).err();
    assert!(matches!(open(None, false), Some(Fault::Missing(_))));
    assert!(matches!(open(Some(0), true), Some(Fault::Setting(_))));
    assert!(matches!(open(Some(5000), true), Some(Fault::Setting(_))));
    assert!(open(Some(3), true).is_none());
    assert!(open(None, false).is_none());
    let other = open(Some(2), true);
    assert!(
        matches!(
            other,
            Some(Fault::Mismatch {
                found: 3,
                asked: 2,
                ..
            })
        ),
        "{other:?}"
    );
    let log = Log::open(&place.0, None, false, small()).unwrap();
    assert!(matches!(
        log.append(3, &[message(b"", 0)], Ack::Written),
        Err(Fault::NoPartition {
            partition: 3,
            partitions: 3
        })
    ));
    let large = vec![0; MOST_VALUE + 1];
    assert!(matches!(
        log.append(0, &[message(&large, 0)], Ack::Written),
        Err(Fault::TooLarge { .. })
    ));
    let largest = vec![0; MOST_VALUE];
    log.append(0, &[message(&largest, 0)], Ack::Written)
        .unwrap();
    assert_eq!(
        read_over_damage(&mut log.partition(0).unwrap().reader(0)).0[&0].len(),
        MOST_VALUE
    );
    let batch = [message(&largest, 0); 5];
    assert!(matches!(
        log.append(0, &batch, Ack::Written),
        Err(Fault::TooLarge { .. })
    ));
    std::fs::write(
        place.0.join("topic.json"),
        b"{\"penstock\":\"log/9\",\"partitions\":3,\"made_ms\":0}",
    )
    .unwrap();
    assert!(matches!(
        open(None, false),
        Some(Fault::Version { found: 9, .. })
    ));
    std::fs::write(place.0.join("topic.json"), b"{").unwrap();
    assert!(matches!(open(None, false), Some(Fault::NotALog { .. })));
}

#[test]
fn keys_have_their_partition_for_good() {
    // Written down: records of a key would part if this ever changed.
    let found: Vec<usize> = ["", "a", "user-1", "user-2", "ü"]
        .map(|key| partition_of(key.as_bytes(), 16))
        .to_vec();
    assert_eq!(found, [2, 15, 9, 4, 14]);
}

#[cfg(unix)]
#[test]
fn a_file_that_is_cut_while_it_is_mapped_is_an_error_and_no_crash() {
    let place = Place::new();
    let log = Log::open(
        &place.0,
        None,
        true,
        Options {
            segment_bytes: 1 << 20,
            ..small()
        },
    )
    .unwrap();
    for _ in 0..300 {
        log.append(0, &[message(&[1; 8000], 0)], Ack::Written)
            .unwrap();
    }
    let mut reader = log.partition(0).unwrap().reader(0);
    let one = Limit { records: 1, ..ALL };
    reader.read(one, |_| {}).unwrap();
    let first = place.0.join("0").join(format!("{:020}.log", 1));
    std::fs::OpenOptions::new()
        .write(true)
        .open(first)
        .unwrap()
        .set_len(5000)
        .unwrap();
    let mut lost = 0;
    loop {
        match reader.read(ALL, |_| {}) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Fault::Damaged { next, .. }) => {
                lost += 1;
                reader.seek(next);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((lost, reader.position()), (1, 300));
}
