//! RESP 2 over one connection: a command goes out, its reply comes back.

use std::io::{Read, Write};
use std::ops::Range;

use crate::Fault;

const LARGEST_REPLY: usize = 512 << 20;
const LARGEST_LINE: usize = 64 << 10;
/// A buffer that became larger for one reply is not kept.
const KEPT: usize = 1 << 20;

pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

pub struct Connection {
    stream: Box<dyn Stream>,
    /// The bytes up to `end` are of the reply under way, those before `at` are understood. Nothing moves until the next.
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    sent: Vec<u8>,
}

pub enum Reply {
    Nothing,
    Bytes(Vec<u8>),
    List(Vec<Reply>),
    Refused(String),
}

/// What MGET found, in the buffer of its connection.
#[derive(Default)]
pub struct Values(Vec<Option<Range<usize>>>);

pub fn io(error: std::io::Error) -> Fault {
    use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
    let hint = match error.kind() {
        ConnectionReset | UnexpectedEof => {
            ": it ended, or it speaks TLS (rediss://) and this does not"
        }
        _ => "",
    };
    Fault::Store(format!("redis: {error}{hint}"))
}

pub fn strange() -> Fault {
    Fault::Store("redis: the reply is no reply to what was asked".into())
}

impl Connection {
    pub fn new(stream: Box<dyn Stream>) -> Connection {
        Connection {
            stream,
            buffer: vec![0; 64 << 10],
            at: 0,
            end: 0,
            sent: Vec::new(),
        }
    }

    /// What Redis refuses is a fault.
    pub fn ask<'w>(
        &mut self,
        words: impl IntoIterator<Item = &'w [u8], IntoIter: ExactSizeIterator>,
    ) -> Result<Reply, Fault> {
        self.send(words.into_iter())?;
        match self.reply()? {
            Reply::Refused(said) => Err(Fault::Store(format!("redis: {said}"))),
            reply => Ok(reply),
        }
    }

    /// The words of an MGET, a value for each but the first. What they are stays readable until the next command.
    pub fn values<'w>(
        &mut self,
        words: impl ExactSizeIterator<Item = &'w [u8]>,
    ) -> Result<Values, Fault> {
        let wanted = words.len().saturating_sub(1);
        if wanted == 0 {
            return Ok(Values::default());
        }
        self.send(words)?;
        match self.head()? {
            (b'*', said) if self.number(said.clone())? == wanted as i64 => {}
            (b'-', said) => {
                let said = String::from_utf8_lossy(&self.buffer[said]);
                return Err(Fault::Store(format!("redis: {said}")));
            }
            _ => return Err(strange()),
        }
        let mut values = Vec::with_capacity(wanted);
        for _ in 0..wanted {
            values.push(match self.head()? {
                (b'$', length) => self.bulk(length)?,
                _ => return Err(strange()),
            });
        }
        Ok(Values(values))
    }

    pub fn bytes(&self, value: Option<Range<usize>>) -> Option<&[u8]> {
        value.map(|value| &self.buffer[value])
    }

    fn send<'w>(&mut self, words: impl ExactSizeIterator<Item = &'w [u8]>) -> Result<(), Fault> {
        fn head(bytes: &mut Vec<u8>, kind: u8, length: usize) {
            bytes.push(kind);
            bytes.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        (self.at, self.end) = (0, 0);
        if self.buffer.len() > KEPT {
            self.buffer = vec![0; KEPT];
        }
        self.sent.clear();
        head(&mut self.sent, b'*', words.len());
        for word in words {
            head(&mut self.sent, b'$', word.len());
            self.sent.extend_from_slice(word);
            self.sent.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&self.sent).map_err(io)?;
        self.stream.flush().map_err(io)?;
        self.sent.shrink_to(KEPT);
        Ok(())
    }

    fn reply(&mut self) -> Result<Reply, Fault> {
        let (kind, said) = self.head()?;
        Ok(match kind {
            b'+' | b':' => Reply::Bytes(self.buffer[said].to_vec()),
            b'-' => Reply::Refused(String::from_utf8_lossy(&self.buffer[said]).into_owned()),
            b'$' => match self.bulk(said)? {
                Some(value) => Reply::Bytes(self.buffer[value].to_vec()),
                None => Reply::Nothing,
            },
            b'*' => match usize::try_from(self.number(said)?) {
                Err(_) => Reply::Nothing,
                Ok(length) => {
                    let replies = (0..length).map(|_| self.reply());
                    Reply::List(replies.collect::<Result<_, _>>()?)
                }
            },
            _ => return Err(strange()),
        })
    }

    /// A line: its kind, and where the rest of it is.
    fn head(&mut self) -> Result<(u8, Range<usize>), Fault> {
        let mut seen = self.at;
        let end = loop {
            let found = self.buffer[seen..self.end].iter().position(|b| *b == b'\n');
            match found {
                Some(found) => break seen + found,
                None if self.end - self.at > LARGEST_LINE => return Err(strange()),
                None => seen = self.end,
            }
            self.fill(1)?;
        };
        if end < self.at + 2 || self.buffer[end - 1] != b'\r' {
            return Err(strange());
        }
        let line = (self.buffer[self.at], self.at + 1..end - 1);
        self.at = end + 1;
        Ok(line)
    }

    fn number(&self, said: Range<usize>) -> Result<i64, Fault> {
        let said = std::str::from_utf8(&self.buffer[said]).map_err(|_| strange())?;
        said.parse().map_err(|_| strange())
    }

    /// Where a value of that length is; None for a length of -1.
    fn bulk(&mut self, length: Range<usize>) -> Result<Option<Range<usize>>, Fault> {
        let Ok(length) = usize::try_from(self.number(length)?) else {
            return Ok(None);
        };
        if length > LARGEST_REPLY {
            return Err(strange());
        }
        let value = self.at..self.at + length;
        let missing = (value.end + 2).saturating_sub(self.end);
        if missing > 0 {
            self.fill(missing)?;
        }
        self.at = value.end + 2;
        Ok(Some(value))
    }

    /// Reads so many bytes at least.
    fn fill(&mut self, bytes: usize) -> Result<(), Fault> {
        let wanted = self.end + bytes;
        if wanted > self.buffer.len() {
            let room = wanted.max(2 * self.buffer.len());
            self.buffer.resize(room, 0);
        }
        while self.end < wanted {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(io(std::io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io(error)),
            }
        }
        Ok(())
    }
}

impl Values {
    pub fn each(self) -> impl Iterator<Item = Option<Range<usize>>> {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says what it was given, a few bytes at a time.
    struct Said(Vec<u8>, usize);

    impl Read for Said {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let length = self.1.min(self.0.len()).min(to.len());
            to[..length].copy_from_slice(&self.0[..length]);
            self.0.drain(..length);
            Ok(length)
        }
    }

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn mget(said: &[u8], at_once: usize, keys: usize) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let mut connection = Connection::new(Box::new(Said(said.to_vec(), at_once)));
        let values = connection.values(vec![&b"MGET"[..]; keys + 1].into_iter())?;
        Ok(values
            .each()
            .map(|value| connection.bytes(value).map(<[u8]>::to_vec))
            .collect())
    }

    #[test]
    fn values_are_read_however_they_are_cut_and_however_long_they_are() {
        let long = vec![b'\n'; 300_000];
        let mut said = b"*4\r\n$2\r\n\r\n\r\n$-1\r\n$0\r\n\r\n$300000\r\n".to_vec();
        said.extend_from_slice(&long);
        said.extend_from_slice(b"\r\n");
        for at_once in [1, 7, 65_536] {
            let values = mget(&said, at_once, 4).unwrap();
            let wanted = vec![
                Some(b"\r\n".to_vec()),
                None,
                Some(vec![]),
                Some(long.clone()),
            ];
            assert_eq!(values, wanted);
        }
    }

    #[test]
    fn what_is_no_reply_is_a_fault_and_no_panic() {
        let replies: [&[u8]; 9] = [
            b"",
            b"*1\r\n$5\r\nab\r\n",
            b"*2\r\n$-1\r\n",
            b"*1\r\n:1\r\n",
            b"*1\r\n$x\r\n",
            b"\n\n",
            b"*1\n$-1\n",
            b"*1\r\n$99999999999999\r\n",
            b"$\xff\r\n",
        ];
        for said in replies {
            assert!(matches!(mget(said, 3, 1), Err(Fault::Store(_))), "{said:?}");
        }
        let refused = mget(b"-NOAUTH Authentication required.\r\n", 64, 1);
        assert!(refused.unwrap_err().to_string().contains("NOAUTH"));
    }
}
