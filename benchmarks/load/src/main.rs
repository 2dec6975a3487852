//! Load for benchmarks of servers: raw HTTP/1.1 requests over connections that stay open, on one thread.
//!
//! `penstock-load ADDRESS REQUESTS --connections N --seconds S [--rate R] [--warm S]`
//!
//! REQUESTS holds whole requests, each after its length (u32, little-endian); they are sent in turn. With `--rate` the
//! loop is open: sends are intended at random moments (Poisson, R a second), and a latency counts from that moment,
//! whether a connection was free or not. Without it, each connection sends its next request when its last is answered.
//! Prints one line of JSON; anything but a 200 is an error, and the first is quoted.

mod connection;
mod options;
mod report;
mod schedule;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use connection::{Connection, Progress};
use mio::{Events, Poll, Token};
use options::Options;
use report::Report;
use schedule::Schedule;

/// How long the last requests are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let outcome = Options::parse(std::env::args().skip(1)).and_then(|options| {
        let requests = options.read_requests()?;
        run(&options, &requests).map_err(|error| format!("{}: {error}", options.address))
    });
    match outcome {
        Ok(report) => println!("{}", report.json()),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(2);
        }
    }
}

fn run(options: &Options, requests: &[Vec<u8>]) -> io::Result<Report> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut connections = Vec::with_capacity(options.connections);
    for token in 0..options.connections {
        connections.push(Connection::open(
            options.address,
            poll.registry(),
            Token(token),
        )?);
    }
    let began = Instant::now();
    let counted_from = began + options.warm;
    let last = counted_from + options.measured;
    let mut schedule = Schedule::new(options.rate, began);
    let mut report = Report::new(counted_from, last);
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let mut idle: Vec<usize> = (0..connections.len()).collect();
    let mut number = 0;
    loop {
        let now = Instant::now();
        if now < last {
            match &mut schedule {
                Schedule::Open(arrivals) => waiting.extend(arrivals.until(now.min(last))),
                Schedule::Closed => waiting.resize(idle.len(), now),
            }
        } else if idle.len() == connections.len() && waiting.is_empty() {
            break;
        } else if now > last + PATIENCE {
            report.abandoned(waiting.len() + connections.len() - idle.len());
            break;
        }
        while let (Some(&intended), Some(at)) = (waiting.front(), idle.last().copied()) {
            waiting.pop_front();
            idle.pop();
            let request = &requests[number % requests.len()];
            number += 1;
            connections[at].send(request, intended, poll.registry())?;
        }
        // An open loop spins: epoll counts in milliseconds, and this core has nothing else to do.
        let pause = match schedule {
            Schedule::Open(_) => Duration::ZERO,
            Schedule::Closed => Duration::from_millis(10),
        };
        poll.poll(&mut events, Some(pause))?;
        for event in &events {
            let Token(at) = event.token();
            match connections[at].advance(poll.registry())? {
                Progress::Waiting => {}
                Progress::Answered { intended, fault } => {
                    report.answered(intended, Instant::now(), fault);
                    idle.push(at);
                }
            }
        }
    }
    Ok(report)
}
