//! The store in Redis: a string an entity and view, read by one MGET, written by one transaction.

use std::sync::{Mutex, PoisonError};

use crate::Fault;
use crate::keys::Wanted;
use crate::redis_place::Place;
use crate::resp::{Connection, Reply, strange};
use crate::store::{About, Blobs, Store, Told};
use crate::view::View;

/// Connections that wait to be used again.
const KEPT: usize = 64;

pub struct Redis {
    place: Place,
    idle: Mutex<Vec<Connection>>,
}

fn position(view: &str) -> Vec<u8> {
    format!("penstock:view:{view}:position").into_bytes()
}

fn declared(view: &str) -> Vec<u8> {
    format!("penstock:view:{view}:declared").into_bytes()
}

impl Redis {
    /// `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, or `rediss://` with TLS. Connects once, to say at once what is wrong.
    pub fn open(address: &str) -> Result<Redis, Fault> {
        let redis = Redis {
            place: Place::parse(address)?,
            idle: Mutex::default(),
        };
        let connection = redis.connect()?;
        redis.give_back(connection);
        Ok(redis)
    }

    fn connect(&self) -> Result<Connection, Fault> {
        let mut connection = Connection::new(self.place.connect()?);
        for command in self.place.greeting() {
            connection.ask(command)?;
        }
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
    }

    /// What a connection did, and that connection. One that had been idle and is broken is tried anew once.
    fn with<T>(
        &self,
        work: impl Fn(&mut Connection) -> Result<T, Fault>,
    ) -> Result<(Connection, T), Fault> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        if let Some(mut connection) = idle
            && let Ok(done) = work(&mut connection)
        {
            return Ok((connection, done));
        }
        let mut connection = self.connect()?;
        let done = work(&mut connection)?;
        Ok((connection, done))
    }
}

fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| Fault::Damaged)
}

impl Store for Redis {
    fn read(
        &self,
        views: &[&str],
        keys: &Wanted,
        told: Told<'_>,
    ) -> Result<Vec<Option<About>>, Fault> {
        let about = views
            .iter()
            .flat_map(|view| [declared(view), position(view)]);
        let about: Vec<Vec<u8>> = about.collect();
        let mut words = Vec::with_capacity(1 + about.len() + keys.iter().len());
        words.push(&b"MGET"[..]);
        words.extend(about.iter().map(Vec::as_slice));
        words.extend(keys.iter());
        let (connection, values) =
            self.with(|connection| connection.values(words.iter().copied()))?;
        let mut values = values.each();
        let mut about = Vec::with_capacity(views.len());
        for _ in views {
            let mut next = || {
                let value = connection.bytes(values.next().flatten());
                value.map(|value| text(value.to_vec())).transpose()
            };
            let (declared, position) = (next()?, next()?.unwrap_or_default());
            about.push(declared.map(|declared| About { declared, position }));
        }
        for value in values {
            told(connection.bytes(value))?;
        }
        self.give_back(connection);
        Ok(about)
    }

    fn write(
        &self,
        view: &View,
        expected: &str,
        to: &str,
        blobs: &mut dyn FnMut(&mut dyn Blobs) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut connection = self.connect()?;
        let keys = [declared(&view.name), position(&view.name)];
        connection.ask([&b"WATCH"[..], &keys[0], &keys[1]])?;
        let mut about = connection.get(&keys)?;
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
        let mut words = vec![&b"MSET"[..]];
        words.extend(put.iter().flat_map(|(key, blob)| [&key[..], &blob[..]]));
        words.extend([&keys[1][..], to.as_bytes()]);
        connection.ask([&b"MULTI"[..]])?;
        connection.ask(words)?;
        match connection.ask([&b"EXEC"[..]])? {
            Reply::List(_) => Ok(()),
            _ => Err(moved("another position by now".into())),
        }
    }

    fn declare(&self, view: &View, json: &str, anew: bool) -> Result<(), Fault> {
        let mut connection = self.connect()?;
        let known = connection.get(&[declared(&view.name)])?.pop().flatten();
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
        let declared = declared(&view.name);
        let set = [&b"SET"[..], &declared, json.as_bytes()];
        connection.ask(set).map(|_| ())
    }

    fn waits(&self) -> bool {
        true
    }

    fn views(&self) -> Result<Vec<(String, About)>, Fault> {
        let mut connection = self.connect()?;
        let names = connection.scan(b"penstock:view:*:declared")?;
        let mut found = Vec::new();
        for name in names {
            let name = text(name)?;
            let name = name
                .trim_start_matches("penstock:view:")
                .trim_end_matches(":declared");
            let mut values = connection.get(&[declared(name), position(name)])?;
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
    /// Values of keys, as they are at one instant.
    fn get(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let words: Vec<&[u8]> = [&b"MGET"[..]]
            .into_iter()
            .chain(keys.iter().map(Vec::as_slice))
            .collect();
        let values = self.values(words.into_iter())?;
        let value = |value| self.bytes(value).map(<[u8]>::to_vec);
        Ok(values.each().map(value).collect())
    }

    fn scan(&mut self, pattern: &[u8]) -> Result<Vec<Vec<u8>>, Fault> {
        let (mut found, mut cursor) = (Vec::new(), b"0".to_vec());
        loop {
            let words = [b"SCAN", &cursor[..], b"MATCH", pattern, b"COUNT", b"1000"];
            let Reply::List(mut parts) = self.ask(words)? else {
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
        self.ask([&b"DEL"[..], &position(view)])?;
        let own = self.scan(format!("*{view}").as_bytes())?;
        let own = own.into_iter().filter(|key| crate::keys::is_of(key, view));
        for key in own {
            self.ask([&b"DEL"[..], &key])?;
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
        self.connection.get(keys)
    }

    fn put(&mut self, blobs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Fault> {
        self.put.extend(blobs);
        Ok(())
    }
}
