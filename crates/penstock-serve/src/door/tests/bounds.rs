//! What ends, and what is refused, so that no client can hold the doors.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{client, open, settings};
use crate::door::Doors;
use crate::error::Kind;

const ONE_ROW: &str = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[0.5]}]}"#;

#[test]
fn draining_answers_what_is_there_and_takes_no_more() {
    let (address, open) = open(settings(json!({"threads": 2})));
    let mut idle = client(address);
    assert_eq!(idle.get("/v2").status, 200);
    let asked = std::thread::spawn(move || client(address).post("/v2/models/slow/infer", ONE_ROW));
    std::thread::sleep(Duration::from_millis(200));
    let drained =
        std::thread::spawn(move || open.drain(Duration::from_millis(400), Duration::from_secs(10)));
    std::thread::sleep(Duration::from_millis(200));
    let mut new = client(address);
    let ready = new.get("/v2/health/ready");
    assert_eq!((ready.status, ready.text()), (503, r#"{"ready":false}"#));
    assert_eq!(ready.header("connection"), Some("close"));
    assert_eq!(asked.join().expect("a reply").status, 200);
    assert!(drained.join().expect("an end"));
    assert!(TcpStream::connect(address).is_err());
    assert!(idle.answer().is_none());
}

#[test]
fn a_drain_ends_though_a_request_does_not() {
    let (address, open) = open(settings(json!({})));
    let asked = std::thread::spawn(move || {
        let mut client = client(address);
        client
            .stream
            .write_all(
                b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
            )
            .expect("a socket");
        client.answer()
    });
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    assert!(!open.drain(Duration::ZERO, Duration::from_millis(300)));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(asked.join().expect("an end").is_none());
}

#[test]
fn what_says_nothing_is_closed() {
    let (address, _open) = open(settings(json!({"idle_s": 0.3, "arrival_s": 0.3})));
    let mut quiet = client(address);
    let mut half = client(address);
    half.stream
        .write_all(b"GET /v2 HTTP/1.1\r\nhos")
        .expect("a socket");
    assert!(quiet.answer().is_none_or(|answer| answer.status == 408));
    assert!(half.answer().is_none_or(|answer| answer.status == 408));
    let mut slow = client(address);
    slow.stream
        .write_all(b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        .expect("a socket");
    slow.answer()
        .expect("a reply")
        .assert_error(400, "did not arrive");
    let mut busy = client(address);
    assert_eq!(
        busy.post("/v2/models/slow/infer", ONE_ROW).status,
        200,
        "a request may take longer than idleness may"
    );
}

#[test]
fn more_connections_than_allowed_wait() {
    let (address, _open) = open(settings(json!({"connections": 1})));
    let mut first = client(address);
    assert_eq!(first.get("/v2").status, 200);
    let second = std::thread::spawn(move || client(address).get("/v2").status);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.join().expect("a reply"), 200);
}

#[test]
fn bodies_beyond_what_may_be_held_are_told_to_come_again() {
    let (address, _open) = open(settings(json!({"held_bytes": 1000})));
    let mut client = client(address);
    let large = client.post("/v2/models/echo/infer", &" ".repeat(2000));
    large.assert_error(429, "held");
    assert_eq!(large.header("retry-after"), Some("1"));
    assert_eq!(
        super::client(address)
            .post("/v2/models/echo/infer", ONE_ROW)
            .status,
        200,
        "what was held is let go"
    );
}

#[test]
fn a_large_body_is_answered_too() {
    let (address, _open) = open(settings(json!({})));
    let rows = 90_000;
    let body = json!({"inputs": [{"name": "x", "shape": [rows], "datatype": "FP64", "data": vec![1.25; rows]}]});
    let answer = client(address).post("/v2/models/echo/infer", &body.to_string());
    assert_eq!(
        answer.json()["outputs"][0]["data"].as_array().map(Vec::len),
        Some(rows)
    );
}

#[test]
fn what_cannot_be_bound_is_said() {
    let refused = |text: serde_json::Value| Doors::bind(settings(text)).err().expect("a refusal");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let fault = refused(json!({"grpc": address}));
    assert!(
        fault.kind == Kind::Unavailable
            && fault
                .message
                .contains(&format!("listen.grpc = \"{address}\"")),
        "{fault}"
    );
    let fault = refused(json!({"http": "0.0.0.0:0"}));
    assert!(
        fault.kind == Kind::Invalid && fault.message.contains("insecure"),
        "{fault}"
    );
    assert!(Doors::bind(settings(json!({"http": "0.0.0.0:0", "insecure": true}))).is_ok());
    assert!(
        refused(json!({"http": "nonsense"}))
            .message
            .contains("HOST:PORT")
    );
}
