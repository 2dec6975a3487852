//! CPU time of a request in the doors alone: decode, HTTP, encode, around a service that does nothing.
//!
//! `cargo run --release -p penstock-serve --example door_speed -- [seconds]`. One connection, one request at a time, 39
//! inputs (13 FP64, 26 BYTES); the server's thread is measured by the kernel's own clock of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_serve::door::{Doors, Settings};
use penstock_serve::{
    Config, Data, Description, Fault, IndexEntry, Reply, Request, Result, Service, Statistics,
    Tensor, Timings,
};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One score a row.
struct Nothing;

impl Service for Nothing {
    fn ready(&self) -> bool {
        true
    }

    async fn infer(&self, request: Request) -> Result<Reply> {
        let rows = request.tensors[0].rows();
        Ok(Reply {
            model: request.model,
            version: Arc::from("1"),
            bundle: Arc::from(
                "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            outputs: vec![Tensor::new(
                "score",
                vec![rows],
                Data::F32(vec![0.25; rows]),
            )],
            timings: Timings::default(),
            position: None,
        })
    }

    fn encoded(&self, _: &Reply, _: Duration) {}

    fn model_ready(&self, _: &str, _: Option<&str>) -> bool {
        true
    }

    fn describe(&self, _: &str, _: Option<&str>) -> Result<Description> {
        Err(Fault::internal("not asked here"))
    }

    fn config(&self, _: &str, _: Option<&str>) -> Result<Config> {
        Err(Fault::internal("not asked here"))
    }

    fn index(&self) -> Vec<IndexEntry> {
        Vec::new()
    }

    async fn load(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn unload(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn statistics(&self, _: Option<&str>, _: Option<&str>) -> Result<Vec<Statistics>> {
        Ok(Vec::new())
    }

    fn metrics(&self) -> String {
        String::new()
    }
}

/// A request of so many rows, head and body.
fn request(rows: usize, binary: bool) -> Vec<u8> {
    let mut tail = Vec::new();
    let mut inputs = Vec::new();
    for column in 0..39 {
        let (name, begin) = (format!("c{column}"), tail.len());
        let numbers: Vec<f64> = (0..rows)
            .map(|row| (row * 39 + column) as f64 * 0.37)
            .collect();
        let texts: Vec<String> = (0..rows)
            .map(|row| format!("{:08x}", (row * 39 + column) * 7_919_993))
            .collect();
        let datatype = if column < 13 { "FP64" } else { "BYTES" };
        if !binary {
            let data = if column < 13 {
                json!(numbers)
            } else {
                json!(texts)
            };
            inputs.push(json!({"name": name, "shape": [rows], "datatype": datatype, "data": data}));
            continue;
        }
        if column < 13 {
            numbers
                .iter()
                .for_each(|number| tail.extend_from_slice(&number.to_le_bytes()));
        } else {
            for text in texts {
                tail.extend_from_slice(&(text.len() as u32).to_le_bytes());
                tail.extend_from_slice(text.as_bytes());
            }
        }
        let size = json!({"binary_data_size": tail.len() - begin});
        inputs
            .push(json!({"name": name, "shape": [rows], "datatype": datatype, "parameters": size}));
    }
    let parameters = if binary {
        json!({"binary_data_output": true})
    } else {
        json!({})
    };
    let json = json!({"id": "1", "inputs": inputs, "parameters": parameters}).to_string();
    let mut head = format!(
        "POST /v2/models/ctr/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n",
        json.len() + tail.len()
    );
    if binary {
        head += &format!("inference-header-content-length: {}\r\n", json.len());
    }
    [head.as_bytes(), b"\r\n", json.as_bytes(), &tail].concat()
}

/// CPU time of the server's thread so far.
fn server_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let mut nanos = 0;
    for task in tasks.flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").starts_with("penstock-doors") {
            nanos += read("schedstat")
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
        }
    }
    Duration::from_nanos(nanos)
}

fn measure(address: SocketAddr, request: &[u8], lasts: Duration) -> (f64, f64) {
    let mut stream = TcpStream::connect(address).expect("the door is open");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut buffer = vec![0; 1 << 20];
    let mut ask = || {
        stream.write_all(request).expect("an open connection");
        let length = stream.read(&mut buffer).expect("a reply");
        assert!(
            buffer[..length].starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&buffer[..length])
        );
    };
    (0..1000).for_each(|_| ask());
    let (began, before, mut count) = (Instant::now(), server_time(), 0);
    while began.elapsed() < lasts {
        ask();
        count += 1;
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(count);
    (micros(server_time() - before), micros(began.elapsed()))
}

fn main() -> Result<()> {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(2.0);
    let doors = Doors::bind(Settings::default())?;
    let address = doors.http();
    let _open = doors.serve(Arc::new(Nothing))?;
    for (rows, form) in [(1, "json"), (1, "binary"), (100, "json"), (100, "binary")] {
        let request = request(rows, form == "binary");
        let (cpu, wall) = measure(address, &request, Duration::from_secs_f64(seconds));
        println!(
            "{rows:>4} rows {form:<6} {:>6} bytes: {cpu:6.1} us of server CPU, {wall:6.1} us round trip",
            request.len()
        );
    }
    Ok(())
}
