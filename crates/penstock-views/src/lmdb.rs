//! The store in an LMDB file of this machine: one writer at a time, readers that never wait.

use std::collections::HashMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use heed::types::{Bytes, Str};
use heed::{Database, Env, EnvOpenOptions, RoRange, RwTxn, WithTls};

use crate::Fault;
use crate::keys::{Wanted, entity_end, is_of};
use crate::store::{About, Blobs, Store, Told};
use crate::view::View;

pub struct Lmdb {
    env: Env<WithTls>,
    blobs: Database<Bytes, Bytes>,
    /// `declared/VIEW` and `position/VIEW`.
    about: Database<Str, Str>,
}

/// LMDB takes a file once a process; whoever opens it again shares it.
static OPEN: Mutex<Option<HashMap<PathBuf, Weak<Lmdb>>>> = Mutex::new(None);

fn told_by(error: heed::Error) -> Fault {
    match error {
        heed::Error::Mdb(heed::MdbError::MapFull) => {
            Fault::Store("the store is full: open it with more room (?size=)".into())
        }
        other => Fault::Store(other.to_string()),
    }
}

impl Lmdb {
    /// Opens the store in a folder, of at most `bytes`; makes one where there is none and `create` says so.
    pub fn open(path: &Path, create: bool, bytes: usize) -> Result<Arc<Lmdb>, Fault> {
        let io = |error| Fault::Io(path.display().to_string(), error);
        if create {
            std::fs::create_dir_all(path).map_err(io)?;
        }
        if !create && !path.join("data.mdb").exists() {
            return Err(Fault::Store(format!(
                "there is no store in {}",
                path.display()
            )));
        }
        let whole = path.canonicalize().map_err(io)?;
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        if let Some(store) = open.get(&whole).and_then(Weak::upgrade) {
            return Ok(store);
        }
        // SAFETY: the file is changed by LMDB alone (its folder says whose it is), and this process has it open once.
        let env = unsafe {
            EnvOpenOptions::new()
                .map_size(bytes)
                .max_dbs(4)
                .max_readers(1024)
                .open(&whole)
        };
        let env = env.map_err(told_by)?;
        let mut write = env.write_txn().map_err(told_by)?;
        let blobs = env
            .create_database(&mut write, Some("blobs"))
            .map_err(told_by)?;
        let about = env
            .create_database(&mut write, Some("about"))
            .map_err(told_by)?;
        write.commit().map_err(told_by)?;
        // Readers that were killed hold pages no longer.
        env.clear_stale_readers().map_err(told_by)?;
        let store = Arc::new(Lmdb { env, blobs, about });
        open.insert(whole, Arc::downgrade(&store));
        Ok(store)
    }

    fn about(
        &self,
        txn: &heed::RoTxn<'_, heed::AnyTls>,
        view: &str,
    ) -> Result<Option<About>, Fault> {
        let get = |what: &str| {
            self.about
                .get(txn, &format!("{what}/{view}"))
                .map_err(told_by)
        };
        let position = get("position")?.unwrap_or_default().to_owned();
        Ok(get("declared")?.map(|declared| About {
            declared: declared.to_owned(),
            position,
        }))
    }
}

impl Store for Lmdb {
    fn read(
        &self,
        views: &[&str],
        keys: &Wanted,
        told: Told<'_>,
    ) -> Result<Vec<Option<About>>, Fault> {
        let txn = self.env.read_txn().map_err(told_by)?;
        let mut near: Option<Near<'_>> = None;
        for key in keys.iter() {
            let mut near_by = near.take().filter(|near| near.has_entity_of(key));
            let found = match &mut near_by {
                Some(near) => near.upto(key)?,
                None => {
                    let from = (Bound::Included(key), Bound::Unbounded);
                    let entries = self.blobs.range(&txn, &from).map_err(told_by)?;
                    near_by.insert(Near { entries, at: None }).upto(key)?
                }
            };
            told(found)?;
            near = near_by;
        }
        views.iter().map(|view| self.about(&txn, view)).collect()
    }

    fn write(
        &self,
        view: &View,
        expected: &str,
        position: &str,
        blobs: &mut dyn FnMut(&mut dyn Blobs) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut txn = self.env.write_txn().map_err(told_by)?;
        let about = self
            .about(&txn, &view.name)?
            .ok_or_else(|| Fault::Unknown(view.name.clone()))?;
        if about.position != expected {
            return Err(Fault::Moved {
                view: view.name.clone(),
                expected: expected.to_owned(),
                found: about.position,
            });
        }
        blobs(&mut Writing {
            blobs: self.blobs,
            txn: &mut txn,
        })?;
        let name = format!("position/{}", view.name);
        self.about.put(&mut txn, &name, position).map_err(told_by)?;
        txn.commit().map_err(told_by)
    }

    fn declare(&self, view: &View, json: &str, anew: bool) -> Result<(), Fault> {
        let mut txn = self.env.write_txn().map_err(told_by)?;
        if let Some(about) = self.about(&txn, &view.name)? {
            let same = View::parse(&about.declared).is_ok_and(|known| known == *view);
            if same && !anew {
                return Ok(());
            }
            if !anew {
                return Err(Fault::Redeclared(view.name.clone()));
            }
            let mut own = Vec::new();
            for entry in self.blobs.iter(&txn).map_err(told_by)? {
                let (key, _) = entry.map_err(told_by)?;
                if is_of(key, &view.name) {
                    own.push(key.to_vec());
                }
            }
            for key in own {
                self.blobs.delete(&mut txn, &key).map_err(told_by)?;
            }
            self.about
                .delete(&mut txn, &format!("position/{}", view.name))
                .map_err(told_by)?;
        }
        self.about
            .put(&mut txn, &format!("declared/{}", view.name), json)
            .map_err(told_by)?;
        txn.commit().map_err(told_by)
    }

    fn waits(&self) -> bool {
        false
    }

    fn views(&self) -> Result<Vec<(String, About)>, Fault> {
        let txn = self.env.read_txn().map_err(told_by)?;
        let mut found = Vec::new();
        for entry in self.about.prefix_iter(&txn, "declared/").map_err(told_by)? {
            let name = entry
                .map_err(told_by)?
                .0
                .trim_start_matches("declared/")
                .to_owned();
            if let Some(about) = self.about(&txn, &name)? {
                found.push((name, about));
            }
        }
        Ok(found)
    }
}

/// A place among the blobs, moved forward through those of one entity: a search from the root for all of its views.
struct Near<'t> {
    entries: RoRange<'t, Bytes, Bytes>,
    /// The entry it stands at; None: before the first.
    at: Option<(&'t [u8], &'t [u8])>,
}

impl<'t> Near<'t> {
    /// Whether it stands before `key`, at most its entity's views away.
    fn has_entity_of(&self, key: &[u8]) -> bool {
        let entity = &key[..entity_end(key).min(key.len())];
        self.at
            .is_some_and(|(at, _)| at <= key && at.starts_with(entity))
    }

    /// The blob of `key`, which is not before where it stands.
    fn upto(&mut self, key: &[u8]) -> Result<Option<&'t [u8]>, Fault> {
        while self.at.is_none_or(|(at, _)| at < key) {
            match self.entries.next().transpose().map_err(told_by)? {
                Some(entry) => self.at = Some(entry),
                None => return Ok(None),
            }
        }
        Ok(self.at.filter(|(at, _)| *at == key).map(|(_, blob)| blob))
    }
}

struct Writing<'t, 'e> {
    blobs: Database<Bytes, Bytes>,
    txn: &'t mut RwTxn<'e>,
}

impl Blobs for Writing<'_, '_> {
    fn get(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let get = |key: &Vec<u8>| {
            Ok(self
                .blobs
                .get(self.txn, key)
                .map_err(told_by)?
                .map(<[u8]>::to_vec))
        };
        keys.iter().map(get).collect()
    }

    fn put(&mut self, blobs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Fault> {
        for (key, blob) in blobs {
            self.blobs.put(self.txn, &key, &blob).map_err(told_by)?;
        }
        Ok(())
    }
}
