//! What the log promises, over disks that fail, lose power and rot, and over the real one.

mod appender;
mod damage;
mod power;
mod promises;
mod races;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use penstock_disk::simulated::SimulatedDisk;
use penstock_streams::{Fault, Limit, Message, Options, Partition, Reader};

pub const ALL: Limit = Limit {
    records: usize::MAX,
    bytes: usize::MAX,
};

/// By offset.
pub type Values = BTreeMap<u64, Vec<u8>>;

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

pub fn options(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        sync_every: None,
        lock_wait: Duration::from_millis(0),
        ..Options::default()
    }
}

pub fn partition(disk: &SimulatedDisk, segment_bytes: u64) -> Partition {
    Partition::new(Arc::new(disk.clone()), "topic/0", options(segment_bytes))
}

pub fn messages(values: &[Vec<u8>]) -> Vec<Message<'_>> {
    let message = |value| Message {
        key: None,
        value,
        time_ms: 7,
    };
    values.iter().map(|value| message(&value[..])).collect()
}

/// All records from `reader`'s position on, and what was said to be lost.
pub fn read_over_damage(reader: &mut Reader) -> (Values, Vec<(u64, u64)>) {
    let (mut found, mut lost) = (BTreeMap::new(), Vec::new());
    loop {
        let read = reader.read(ALL, |record| {
            let last = found.last_key_value().map(|(&offset, _)| offset);
            assert!(
                last < Some(record.offset),
                "{last:?}, then {}",
                record.offset
            );
            found.insert(record.offset, record.value.to_vec());
        });
        match read {
            Ok(0) => return (found, lost),
            Ok(_) => {}
            Err(Fault::Damaged { first, next, .. }) => {
                assert!(first < next);
                lost.push((first, next));
                reader.seek(next);
            }
            Err(other) => panic!("{other}"),
        }
    }
}
