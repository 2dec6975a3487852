//! The doors over sockets, against a fake service.

mod bounds;
mod rest;
mod tls;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Doors, Open, Settings};
use crate::fake::Fake;

/// Settings as the configuration hands them over.
fn settings(text: serde_json::Value) -> Settings {
    serde_json::from_value(text).expect("settings that a configuration could hold")
}

fn open(settings: Settings) -> (SocketAddr, Open) {
    let doors = Doors::bind(settings).expect("a free port");
    let address = doors.http();
    (
        address,
        doors.serve(Arc::new(Fake::default())).expect("threads"),
    )
}

fn token(name: &str, secret: &str, scopes: &[&str], models: Option<&[&str]>) -> serde_json::Value {
    let sha256: String = Sha256::digest(secret)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    serde_json::json!({"name": name, "sha256": sha256, "scopes": scopes, "models": models})
}

/// A reply, its head in lower case.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a JSON body")
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    }

    /// Is exactly the error that the contract wants, with this in its message.
    fn assert_error(&self, status: u16, says: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let json = self.json();
        let object = json.as_object().expect("an object");
        assert_eq!(object.len(), 1);
        assert!(
            object["error"].as_str().expect("a text").contains(says),
            "{json}"
        );
    }
}

struct Client<T> {
    stream: T,
}

fn client(address: SocketAddr) -> Client<TcpStream> {
    let stream = TcpStream::connect(address).expect("the door is open");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    Client { stream }
}

impl<T: Read + Write> Client<T> {
    fn ask(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.stream
            .write_all(head.as_bytes())
            .expect("an open connection");
        // A server that refuses by the head alone may have closed by now.
        let _ = self.stream.write_all(body);
        self.answer().expect("a reply")
    }

    fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, "", b"")
    }

    fn post(&mut self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, "", body.as_bytes())
    }

    /// None: the connection was closed.
    fn answer(&mut self) -> Option<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if self.stream.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head)
            .expect("an ASCII head")
            .to_lowercase();
        let status = head
            .split(' ')
            .nth(1)
            .expect("a status line")
            .parse()
            .expect("a status");
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |text| text.parse().expect("a length"));
        answer.body.resize(length, 0);
        self.stream.read_exact(&mut answer.body).ok()?;
        Some(answer)
    }
}
