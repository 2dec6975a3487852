//! The command line, and the file of requests.

use std::net::SocketAddr;
use std::time::Duration;

pub struct Options {
    pub address: SocketAddr,
    requests: String,
    pub connections: usize,
    pub measured: Duration,
    /// Sent before anything counts.
    pub warm: Duration,
    /// Requests a second; None: as fast as they are answered.
    pub rate: Option<f64>,
}

impl Options {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let address = arguments.next().ok_or("which ADDRESS?")?;
        let mut options = Options {
            address: address
                .parse()
                .map_err(|error| format!("{address}: {error}"))?,
            requests: arguments.next().ok_or("which file of REQUESTS?")?,
            connections: 16,
            measured: Duration::from_secs(3),
            warm: Duration::ZERO,
            rate: None,
        };
        while let Some(name) = arguments.next() {
            let text = arguments.next().ok_or_else(|| format!("{name} what?"))?;
            let number = text.parse::<f64>().ok().filter(|n| *n > 0.0 && *n < 1e9);
            let number = number.ok_or_else(|| format!("{name} {text} is not a number above 0"))?;
            match name.as_str() {
                "--connections" => options.connections = (number as usize).max(1),
                "--seconds" => options.measured = Duration::from_secs_f64(number),
                "--warm" => options.warm = Duration::from_secs_f64(number),
                "--rate" => options.rate = Some(number),
                _ => return Err(format!("{name} is not an option")),
            }
        }
        Ok(options)
    }

    pub fn read_requests(&self) -> Result<Vec<Vec<u8>>, String> {
        let path = &self.requests;
        let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
        let mut rest = bytes.as_slice();
        let mut requests = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let request = after.get(..length);
            requests.push(
                request
                    .ok_or_else(|| format!("{path} ends too early"))?
                    .to_vec(),
            );
            rest = &after[length..];
        }
        if requests.is_empty() {
            return Err(format!("{path} has no request"));
        }
        Ok(requests)
    }
}
