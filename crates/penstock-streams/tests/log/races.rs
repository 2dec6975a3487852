//! What a reader sees while a writer begins, look by look.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use penstock_disk::simulated::SimulatedDisk;
use penstock_disk::{Disk, Lock, Source, Unfinished};
use penstock_streams::{Ack, Partition};

use super::{ALL, messages, options, partition};

/// A folder whose files come after so many looks at what is in it.
struct Late {
    disk: SimulatedDisk,
    looks: AtomicUsize,
}

impl Disk for Late {
    fn names(&self) -> io::Result<Vec<String>> {
        let early = |looks: usize| looks.checked_sub(1);
        match self
            .looks
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, early)
        {
            Ok(_) => Ok(Vec::new()),
            Err(_) => self.disk.names(),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Unfinished>> {
        self.disk.create(name)
    }

    fn extend(&self, name: &str) -> io::Result<Box<dyn Unfinished>> {
        self.disk.extend(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Source>> {
        self.disk.open(name)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.disk.exists(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(name)
    }

    fn boot(&self) -> u128 {
        self.disk.boot()
    }
}

#[test]
fn a_log_that_begins_between_two_looks_is_empty_or_begun_and_nothing_else() {
    let disk = SimulatedDisk::new(1);
    let value = vec![b"first".to_vec()];
    partition(&disk, 4096)
        .append(&messages(&value), Ack::Synced)
        .unwrap();
    for looks in 0..6 {
        let late = Late {
            disk: disk.clone(),
            looks: AtomicUsize::new(looks),
        };
        let mut reader = Partition::new(Arc::new(late), "topic/0", options(4096)).reader(0);
        let (mut found, mut reads) = (Vec::new(), 0);
        while found.is_empty() {
            reads += 1;
            reader
                .read(ALL, |record| found.push(record.value.to_vec()))
                .unwrap();
        }
        assert_eq!(found, value);
        assert!(reads <= looks + 1, "{reads} reads after {looks} looks");
    }
}
