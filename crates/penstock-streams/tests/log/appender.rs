//! The queue before a log.

use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};

use penstock_streams::{Ack, Appender, Log, Options, Refused, partition_of};

use super::promises::Place;
use super::read_over_damage;

#[test]
fn records_of_many_threads_are_told_their_place_and_are_there() {
    let place = Place::new();
    let log = Arc::new(Log::open(&place.0, Some(3), true, Options::default()).unwrap());
    let (tell, told) = channel();
    let appender = Arc::new(Appender::start(log.clone(), Ack::Synced, 64 << 20).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (appender, tell) = (appender.clone(), tell.clone());
            scope.spawn(move || {
                for number in 0..500u16 {
                    let key = vec![thread];
                    let value = number.to_be_bytes().to_vec();
                    let tell = tell.clone();
                    let done = Box::new(move |place: Result<(usize, u64), _>| {
                        tell.send((thread, number, place.unwrap())).unwrap();
                    });
                    assert!(appender.offer(Some(key), value, 0, done).is_ok());
                }
            });
        }
    });
    drop(appender);
    drop(tell);
    let told: Vec<(u8, u16, (usize, u64))> = told.iter().collect();
    assert_eq!(told.len(), 2000);
    for (thread, number, (partition, offset)) in told {
        assert_eq!(partition, partition_of(&[thread], 3));
        let (found, _) = read_over_damage(&mut log.partition(partition).unwrap().reader(offset));
        assert_eq!(found[&offset], number.to_be_bytes());
    }
}

#[test]
fn a_full_queue_refuses_at_once_and_takes_again_when_there_is_room() {
    let place = Place::new();
    let log = Arc::new(Log::open(&place.0, Some(1), true, Options::default()).unwrap());
    let appender = Appender::start(log.clone(), Ack::Written, 4_000).unwrap();
    let held = Arc::new(Barrier::new(2));
    let theirs = held.clone();
    // The appender's thread waits in this call, so the queue fills.
    let first = Box::new(move |_: Result<_, _>| {
        theirs.wait();
    });
    assert!(appender.offer(None, vec![1; 100], 0, first).is_ok());
    let mut taken = 1;
    loop {
        match appender.offer(None, vec![1; 100], 0, Box::new(|_| {})) {
            Ok(()) => taken += 1,
            Err(Refused::Full(_)) => break,
            Err(_) => panic!("neither closed nor too large"),
        }
        assert!(taken < 100);
    }
    held.wait();
    while appender.waiting_bytes() > 0 {
        std::thread::yield_now();
    }
    assert!(
        appender
            .offer(None, vec![1; 100], 0, Box::new(|_| {}))
            .is_ok()
    );
    drop(appender);
    assert_eq!(log.partition(0).unwrap().end().unwrap(), taken + 1);
}
