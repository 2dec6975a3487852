//! One connection that stays open: a request out, its reply in.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// What was read of a reply before its end is known.
enum Body {
    Head,
    /// Of so many bytes altogether, head included.
    Sized(usize),
    /// Chunks from this place on.
    Chunked(usize),
}

pub struct Connection {
    address: SocketAddr,
    token: Token,
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    body: Body,
    intended: Option<Instant>,
}

pub enum Progress {
    Waiting,
    Answered {
        intended: Instant,
        /// What came instead of a 200.
        fault: Option<String>,
    },
}

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

impl Connection {
    pub fn open(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<Connection> {
        Ok(Connection {
            address,
            token,
            stream: connect(address, registry, token)?,
            out: Vec::new(),
            written: 0,
            input: Vec::with_capacity(64 << 10),
            body: Body::Head,
            intended: None,
        })
    }

    pub fn send(
        &mut self,
        request: &[u8],
        intended: Instant,
        registry: &Registry,
    ) -> io::Result<()> {
        self.out.clear();
        self.out.extend_from_slice(request);
        self.written = 0;
        self.input.clear();
        self.body = Body::Head;
        self.intended = Some(intended);
        if self.write().is_err() {
            self.again(registry)?;
        }
        Ok(())
    }

    /// What the socket has made possible. A connection that the server has closed is opened again.
    pub fn advance(&mut self, registry: &Registry) -> io::Result<Progress> {
        let Some(intended) = self.intended else {
            if self.read()? {
                self.again(registry)?;
            }
            return Ok(Progress::Waiting);
        };
        let ended = self.write().and_then(|()| self.read()).unwrap_or(true);
        if let Some(fault) = self.reply() {
            self.intended = None;
            if ended {
                self.again(registry)?;
            }
            return Ok(Progress::Answered { intended, fault });
        }
        if ended {
            self.intended = None;
            self.again(registry)?;
            let fault = Some("the server closed the connection".to_owned());
            return Ok(Progress::Answered { intended, fault });
        }
        Ok(Progress::Waiting)
    }

    fn again(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.stream)?;
        self.stream = connect(self.address, registry, self.token)?;
        self.written = 0;
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what there is; true at the end of the stream.
    fn read(&mut self) -> io::Result<bool> {
        let mut part = [0_u8; 64 << 10];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(true),
                Ok(count) => self.input.extend_from_slice(&part[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Once the reply is whole: what is wrong with it, if anything.
    fn reply(&mut self) -> Option<Option<String>> {
        if let Body::Head = self.body {
            let end = find(&self.input, b"\r\n\r\n")? + 4;
            self.body = framing(&self.input[..end], end);
        }
        match &mut self.body {
            Body::Head => return None,
            Body::Sized(length) => (self.input.len() >= *length).then_some(())?,
            Body::Chunked(at) => chunks_end(&self.input, at)?,
        }
        let good = self.input.get(9..12) == Some(b"200");
        let quoted =
            || String::from_utf8_lossy(&self.input[..self.input.len().min(2000)]).into_owned();
        Some((!good).then(quoted))
    }
}

fn connect(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    registry.register(&mut stream, token, BOTH)?;
    Ok(stream)
}

fn framing(head: &[u8], end: usize) -> Body {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    if value("transfer-encoding:") == Some("chunked") {
        return Body::Chunked(end);
    }
    let length = value("content-length:").and_then(|text| text.parse::<usize>().ok());
    Body::Sized(end + length.unwrap_or(0))
}

/// Some once the last chunk is there; `at` moves over whole chunks.
fn chunks_end(input: &[u8], at: &mut usize) -> Option<()> {
    loop {
        let line = find(&input[*at..], b"\r\n")?;
        let size = std::str::from_utf8(&input[*at..*at + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        let next = *at + line + 2 + size + 2;
        if next > input.len() {
            return None;
        }
        if size == 0 {
            return Some(());
        }
        *at = next;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_end_where_their_heads_say() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert!(matches!(framing(head, head.len()), Body::Sized(n) if n == head.len() + 5));
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(matches!(framing(head, head.len()), Body::Chunked(n) if n == head.len()));
        let whole = b"5\r\nhello\r\n3;x=y\r\n...\r\n0\r\n\r\n";
        let ends = (0..=whole.len()).find(|&n| chunks_end(&whole[..n], &mut 0).is_some());
        assert_eq!(ends, Some(whole.len()));
    }
}
