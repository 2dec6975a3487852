//! The store in an LMDB file of this machine: one writer at a time, readers that never wait.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use heed::types::{Bytes, Str};
use heed::{Database, Env, EnvOpenOptions, RwTxn, WithTls};

use crate::Fault;
use crate::keys::is_of;
use crate::store::{About, Blobs, Kept, Store};
use crate::view::View;

pub struct Lmdb {
    env: Env<WithTls>,
    blobs: Database<Bytes, Bytes>,
    /// `declared/VIEW` and `position/VIEW`.
    about: Database<Str, Str>,
}

/// LMDB takes a file once a process; whoever opens it again shares it.
static OPEN: Mutex<Option<HashMap<PathBuf, Weak<Lmdb>>>> = Mutex::new(None);

fn told(error: heed::Error) -> Fault {
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
        let env = env.map_err(told)?;
        let mut write = env.write_txn().map_err(told)?;
        let blobs = env
            .create_database(&mut write, Some("blobs"))
            .map_err(told)?;
        let about = env
            .create_database(&mut write, Some("about"))
            .map_err(told)?;
        write.commit().map_err(told)?;
        // Readers that were killed hold pages no longer.
        env.clear_stale_readers().map_err(told)?;
        let store = Arc::new(Lmdb { env, blobs, about });
        open.insert(whole, Arc::downgrade(&store));
        Ok(store)
    }

    fn about(
        &self,
        txn: &heed::RoTxn<'_, heed::AnyTls>,
        view: &str,
    ) -> Result<Option<About>, Fault> {
        let get = |what: &str| self.about.get(txn, &format!("{what}/{view}")).map_err(told);
        let position = get("position")?.unwrap_or_default().to_owned();
        Ok(get("declared")?.map(|declared| About {
            declared: declared.to_owned(),
            position,
        }))
    }
}

impl Store for Lmdb {
    fn read(&self, views: &[&str], keys: &[Vec<u8>]) -> Result<Kept, Fault> {
        let txn = self.env.read_txn().map_err(told)?;
        let about = views
            .iter()
            .map(|view| self.about(&txn, view))
            .collect::<Result<_, _>>()?;
        let get = |key: &Vec<u8>| Ok(self.blobs.get(&txn, key).map_err(told)?.map(<[u8]>::to_vec));
        let blobs = keys.iter().map(get).collect::<Result<_, Fault>>()?;
        Ok((about, blobs))
    }

    fn write(
        &self,
        view: &View,
        expected: &str,
        position: &str,
        blobs: &mut dyn FnMut(&mut dyn Blobs) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut txn = self.env.write_txn().map_err(told)?;
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
        self.about.put(&mut txn, &name, position).map_err(told)?;
        txn.commit().map_err(told)
    }

    fn declare(&self, view: &View, json: &str, anew: bool) -> Result<(), Fault> {
        let mut txn = self.env.write_txn().map_err(told)?;
        if let Some(about) = self.about(&txn, &view.name)? {
            let same = View::parse(&about.declared).is_ok_and(|known| known == *view);
            if same && !anew {
                return Ok(());
            }
            if !anew {
                return Err(Fault::Redeclared(view.name.clone()));
            }
            let mut own = Vec::new();
            for entry in self.blobs.iter(&txn).map_err(told)? {
                let (key, _) = entry.map_err(told)?;
                if is_of(key, &view.name) {
                    own.push(key.to_vec());
                }
            }
            for key in own {
                self.blobs.delete(&mut txn, &key).map_err(told)?;
            }
            self.about
                .delete(&mut txn, &format!("position/{}", view.name))
                .map_err(told)?;
        }
        self.about
            .put(&mut txn, &format!("declared/{}", view.name), json)
            .map_err(told)?;
        txn.commit().map_err(told)
    }

    fn waits(&self) -> bool {
        false
    }

    fn views(&self) -> Result<Vec<(String, About)>, Fault> {
        let txn = self.env.read_txn().map_err(told)?;
        let mut found = Vec::new();
        for entry in self.about.prefix_iter(&txn, "declared/").map_err(told)? {
            let name = entry
                .map_err(told)?
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
                .map_err(told)?
                .map(<[u8]>::to_vec))
        };
        keys.iter().map(get).collect()
    }

    fn put(&mut self, blobs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Fault> {
        for (key, blob) in blobs {
            self.blobs.put(self.txn, &key, &blob).map_err(told)?;
        }
        Ok(())
    }
}
