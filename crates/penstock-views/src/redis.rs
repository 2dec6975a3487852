//! The store in Redis: a string an entity and view, read by one MGET, written by one transaction.
//!
//! Speaks RESP 2 itself: five commands, and one round trip for all that a request reads.

use std::io::{BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::Fault;
use crate::store::{About, Blobs, Kept, Store};
use crate::view::View;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait to be used again.
const KEPT: usize = 64;
const LARGEST_REPLY: usize = 512 << 20;

pub struct Redis {
    place: (String, u16),
    login: Vec<Vec<Vec<u8>>>,
    idle: Mutex<Vec<Connection>>,
}

struct Connection(BufReader<TcpStream>);

enum Reply {
    Nothing,
    Bytes(Vec<u8>),
    List(Vec<Reply>),
    Refused(String),
}

fn io(error: std::io::Error) -> Fault {
    Fault::Store(format!("redis: {error}"))
}

fn strange() -> Fault {
    Fault::Store("redis: the reply is no reply to what was asked".into())
}

fn position(view: &str) -> Vec<u8> {
    format!("penstock:view:{view}:position").into_bytes()
}

fn declared(view: &str) -> Vec<u8> {
    format!("penstock:view:{view}:declared").into_bytes()
}

impl Redis {
    /// `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`. Connects once, to say at once what is wrong.
    pub fn open(address: &str) -> Result<Redis, Fault> {
        let wrong = || {
            Fault::Store("redis://[USER:PASSWORD@]HOST[:PORT][/DB] is how Redis is named".into())
        };
        let rest = address.strip_prefix("redis://").ok_or_else(wrong)?;
        let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (place, db) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = place.rsplit_once(':').unwrap_or((place, "6379"));
        let mut first = Vec::new();
        if let Some((user, password)) = login.split_once(':') {
            let words = [user, password].into_iter().filter(|word| !word.is_empty());
            first.push(
                [b"AUTH".to_vec()]
                    .into_iter()
                    .chain(words.map(|w| w.as_bytes().to_vec()))
                    .collect(),
            );
        }
        if !db.is_empty() {
            db.parse::<u32>().map_err(|_| wrong())?;
            first.push(vec![b"SELECT".to_vec(), db.as_bytes().to_vec()]);
        }
        let place = (host.to_owned(), port.parse().map_err(|_| wrong())?);
        let redis = Redis {
            place,
            login: first,
            idle: Mutex::default(),
        };
        let connection = redis.connect()?;
        redis.give_back(connection);
        Ok(redis)
    }

    fn connect(&self) -> Result<Connection, Fault> {
        let places = self.place.to_socket_addrs().map_err(io)?;
        let mut last = std::io::Error::other("its name has no address");
        for place in places {
            match TcpStream::connect_timeout(&place, TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(io)?;
                    stream.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
                    stream.set_write_timeout(Some(TIMEOUT)).map_err(io)?;
                    let mut connection = Connection(BufReader::with_capacity(64 << 10, stream));
                    for command in &self.login {
                        connection.ask(command)?;
                    }
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(io(last))
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
    }

    /// A connection that did not end well is not used again; one that had been idle is tried anew once.
    fn with<T>(&self, work: impl Fn(&mut Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        if let Some(mut connection) = idle
            && let Ok(done) = work(&mut connection)
        {
            self.give_back(connection);
            return Ok(done);
        }
        let mut connection = self.connect()?;
        let done = work(&mut connection)?;
        self.give_back(connection);
        Ok(done)
    }
}

impl Connection {
    fn ask(&mut self, words: &[Vec<u8>]) -> Result<Reply, Fault> {
        self.send(words)?;
        match self.reply()? {
            Reply::Refused(said) => Err(Fault::Store(format!("redis: {said}"))),
            reply => Ok(reply),
        }
    }

    fn send(&mut self, words: &[Vec<u8>]) -> Result<(), Fault> {
        let size = words.iter().map(|word| word.len() + 16).sum::<usize>();
        let mut bytes = Vec::with_capacity(size + 16);
        let head = |bytes: &mut Vec<u8>, kind: u8, length: usize| {
            bytes.push(kind);
            bytes.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            bytes.extend_from_slice(b"\r\n");
        };
        head(&mut bytes, b'*', words.len());
        for word in words {
            head(&mut bytes, b'$', word.len());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&bytes).map_err(io)
    }

    fn reply(&mut self) -> Result<Reply, Fault> {
        let line = self.line()?;
        let (kind, said) = line.split_at_checked(1).ok_or_else(strange)?;
        let length = || said.parse::<i64>().map_err(|_| strange());
        Ok(match kind {
            "+" | ":" => Reply::Bytes(said.as_bytes().to_vec()),
            "-" => Reply::Refused(said.to_owned()),
            "$" => match usize::try_from(length()?) {
                Err(_) => Reply::Nothing,
                Ok(length) if length > LARGEST_REPLY => return Err(strange()),
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.0.read_exact(&mut bytes).map_err(io)?;
                    bytes.truncate(length);
                    Reply::Bytes(bytes)
                }
            },
            "*" => match usize::try_from(length()?) {
                Err(_) => Reply::Nothing,
                Ok(length) => Reply::List(
                    (0..length)
                        .map(|_| self.reply())
                        .collect::<Result<_, _>>()?,
                ),
            },
            _ => return Err(strange()),
        })
    }

    fn line(&mut self) -> Result<String, Fault> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).map_err(io)?;
            line.push(byte[0]);
            if line.len() > 64 << 10 {
                return Err(strange());
            }
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(|_| strange())
    }

    /// Values of keys, as they are at one instant.
    fn get(&mut self, keys: impl Iterator<Item = Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let words: Vec<Vec<u8>> = [b"MGET".to_vec()].into_iter().chain(keys).collect();
        let wanted = words.len() - 1;
        if wanted == 0 {
            return Ok(vec![]);
        }
        let Reply::List(replies) = self.ask(&words)? else {
            return Err(strange());
        };
        if replies.len() != wanted {
            return Err(strange());
        }
        let value = |reply| match reply {
            Reply::Bytes(bytes) => Ok(Some(bytes)),
            Reply::Nothing => Ok(None),
            _ => Err(strange()),
        };
        replies.into_iter().map(value).collect()
    }
}

fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| Fault::Damaged)
}

impl Store for Redis {
    fn read(&self, views: &[&str], keys: &[Vec<u8>]) -> Result<Kept, Fault> {
        self.with(|connection| {
            let about = views
                .iter()
                .flat_map(|view| [declared(view), position(view)]);
            let mut found = connection
                .get(about.chain(keys.iter().cloned()))?
                .into_iter();
            let mut about = Vec::with_capacity(views.len());
            for _ in views {
                let (declared, position) = (found.next().flatten(), found.next().flatten());
                let position = position.map_or(Ok(String::new()), text)?;
                let declared = declared.map(text).transpose()?;
                about.push(declared.map(|declared| About { declared, position }));
            }
            Ok((about, found.collect()))
        })
    }

    fn write(
        &self,
        view: &View,
        expected: &str,
        to: &str,
        blobs: &mut dyn FnMut(&mut dyn Blobs) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut connection = self.connect()?;
        connection.ask(&[
            b"WATCH".to_vec(),
            position(&view.name),
            declared(&view.name),
        ])?;
        let mut about = connection.get([declared(&view.name), position(&view.name)].into_iter())?;
        let at = about.pop().flatten().map_or(Ok(String::new()), text)?;
        if about.pop().flatten().is_none() {
            return Err(Fault::Unknown(view.name.clone()));
        }
        let moved = |found: String| Fault::Moved {
            view: view.name.clone(),
            expected: expected.to_owned(),
            found,
        };
        if at != expected {
            return Err(moved(at));
        }
        let mut writing = Writing {
            connection: &mut connection,
            put: vec![],
        };
        blobs(&mut writing)?;
        let put = writing.put;
        let pairs = put
            .into_iter()
            .chain([(position(&view.name), to.as_bytes().to_vec())]);
        let words = [b"MSET".to_vec()]
            .into_iter()
            .chain(pairs.flat_map(|(key, blob)| [key, blob]));
        connection.ask(&[b"MULTI".to_vec()])?;
        connection.ask(&words.collect::<Vec<_>>())?;
        match connection.ask(&[b"EXEC".to_vec()])? {
            Reply::List(_) => Ok(()),
            _ => Err(moved("another position by now".into())),
        }
    }

    fn declare(&self, view: &View, json: &str, anew: bool) -> Result<(), Fault> {
        let mut connection = self.connect()?;
        let known = connection
            .get([declared(&view.name)].into_iter())?
            .pop()
            .flatten();
        if let Some(known) = known {
            let same = View::parse(&text(known)?).is_ok_and(|known| known == *view);
            if same && !anew {
                return Ok(());
            }
            if !anew {
                return Err(Fault::Redeclared(view.name.clone()));
            }
            connection.forget(&view.name)?;
        }
        let set = [
            b"SET".to_vec(),
            declared(&view.name),
            json.as_bytes().to_vec(),
        ];
        connection.ask(&set).map(|_| ())
    }

    fn waits(&self) -> bool {
        true
    }

    fn views(&self) -> Result<Vec<(String, About)>, Fault> {
        let mut connection = self.connect()?;
        let names = connection.scan(b"penstock:view:*:declared".to_vec())?;
        let mut found = Vec::new();
        for name in names {
            let name = text(name)?;
            let name = name
                .trim_start_matches("penstock:view:")
                .trim_end_matches(":declared");
            let mut values = connection.get([declared(name), position(name)].into_iter())?;
            let position = values.pop().flatten().map_or(Ok(String::new()), text)?;
            if let Some(declared) = values.pop().flatten() {
                found.push((
                    name.to_owned(),
                    About {
                        declared: text(declared)?,
                        position,
                    },
                ));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }
}

impl Connection {
    fn scan(&mut self, pattern: Vec<u8>) -> Result<Vec<Vec<u8>>, Fault> {
        let (mut found, mut cursor) = (Vec::new(), b"0".to_vec());
        loop {
            let words = [
                b"SCAN".to_vec(),
                cursor,
                b"MATCH".to_vec(),
                pattern.clone(),
                b"COUNT".to_vec(),
                b"1000".to_vec(),
            ];
            let Reply::List(mut parts) = self.ask(&words)? else {
                return Err(strange());
            };
            let (Some(Reply::List(keys)), Some(Reply::Bytes(next))) = (parts.pop(), parts.pop())
            else {
                return Err(strange());
            };
            found.extend(keys.into_iter().filter_map(|key| match key {
                Reply::Bytes(key) => Some(key),
                _ => None,
            }));
            if next == b"0" {
                found.sort_unstable();
                found.dedup();
                return Ok(found);
            }
            cursor = next;
        }
    }

    /// Its blobs, then its position: cut off in between, it begins at the start all the same.
    fn forget(&mut self, view: &str) -> Result<(), Fault> {
        self.ask(&[b"DEL".to_vec(), position(view)])?;
        let own = self.scan(format!("*{view}").into_bytes())?;
        let own = own.into_iter().filter(|key| crate::keys::is_of(key, view));
        for key in own {
            self.ask(&[b"DEL".to_vec(), key])?;
        }
        Ok(())
    }
}

struct Writing<'c> {
    connection: &'c mut Connection,
    put: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Blobs for Writing<'_> {
    fn get(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        self.connection.get(keys.iter().cloned())
    }

    fn put(&mut self, blobs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Fault> {
        self.put.extend(blobs);
        Ok(())
    }
}
