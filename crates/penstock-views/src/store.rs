//! The online store: a packed blob an entity and view, and beside each view how far into its source that goes.
//!
//! Events, position and blobs are one transaction: killed at any instant, the store is at a position, and holds what the
//! events before it make.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::RecordBatch;

use crate::Fault;
use crate::cell::Cell;
use crate::columns::{Building, Events};
use crate::keys::{Keys, Wanted, stored};
use crate::lmdb::Lmdb;
use crate::packed::Reader;
use crate::redis::Redis;
use crate::state::State;
use crate::view::View;

/// What a store keeps of a view beside its blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its declaration, as JSON.
    pub declared: String,
    /// How far into its source its blobs go; "" at the start.
    pub position: String,
}

/// Takes one blob after the other, None where there is none.
pub type Told<'t> = &'t mut dyn FnMut(Option<&[u8]>) -> Result<(), Fault>;

/// Blobs by key.
pub trait Store: Send + Sync {
    /// Tells each key's blob, in order, and gives what is kept of each view: all of one instant. Keys of one entity that
    /// follow one another in the order of their views' names are read as the neighbours they are.
    fn read(
        &self,
        views: &[&str],
        keys: &Wanted,
        told: Told<'_>,
    ) -> Result<Vec<Option<About>>, Fault>;

    /// Writes blobs and the view's position at once, where the position is still `expected`; else `Moved`.
    fn write(
        &self,
        view: &View,
        expected: &str,
        position: &str,
        blobs: &mut dyn FnMut(&mut dyn Blobs) -> Result<(), Fault>,
    ) -> Result<(), Fault>;

    /// Makes the view known. `Redeclared` where another declaration is, unless `anew`: then its blobs and position go.
    fn declare(&self, view: &View, json: &str, anew: bool) -> Result<(), Fault>;

    /// Whether reading waits for another machine, or process.
    fn waits(&self) -> bool;

    /// Every view that is known, with what is kept of it.
    fn views(&self) -> Result<Vec<(String, About)>, Fault>;
}

/// What an updater does within its transaction. Keys are given sorted, each once.
pub trait Blobs {
    fn get(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Fault>;
    fn put(&mut self, blobs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), Fault>;
}

/// `lmdb:PATH`, `redis://...` or `rediss://...`. `bytes`: how large an LMDB file may become; `create`: whether to make one.
pub fn open(address: &str, create: bool, bytes: usize) -> Result<Arc<dyn Store>, Fault> {
    match address.strip_prefix("lmdb:") {
        Some(path) => Ok(Lmdb::open(path.as_ref(), create, bytes)?),
        None if address.starts_with("redis://") || address.starts_with("rediss://") => {
            Ok(Arc::new(Redis::open(address)?))
        }
        None => Err(Fault::Store(format!(
            "'{address}' is no store: lmdb:PATH or redis://HOST:PORT"
        ))),
    }
}

/// Adds events to a view, and says that the store now stands at `position`. Returns how many had no entity or no time.
pub fn add(
    store: &dyn Store,
    view: &View,
    batch: &RecordBatch,
    expected: &str,
    position: &str,
) -> Result<u64, Fault> {
    let events = Events::of(view, batch)?;
    let (mut by_key, mut rejected) = (HashMap::<Vec<u8>, Vec<u32>>::new(), 0);
    let (mut key, mut full) = (Vec::new(), Vec::new());
    for row in 0..batch.num_rows() {
        if events.time_us(row).is_none() || !events.keys.write(row, &mut key) {
            rejected += 1;
            continue;
        }
        full.clear();
        stored(&view.entity, &key, &view.name, &mut full);
        match by_key.get_mut(&full) {
            Some(rows) => rows.push(row as u32),
            None => drop(by_key.insert(full.clone(), vec![row as u32])),
        }
    }
    let mut by_key: Vec<(Vec<u8>, Vec<u32>)> = by_key.into_iter().collect();
    by_key.sort_unstable();
    let keys: Vec<Vec<u8>> = by_key.iter().map(|(key, _)| key.clone()).collect();
    store.write(view, expected, position, &mut |blobs| {
        let mut cells = Vec::new();
        let mut changed = Vec::with_capacity(keys.len());
        for ((key, rows), blob) in by_key.iter().zip(blobs.get(&keys)?) {
            let mut state = blob.map_or(Ok(State::default()), |blob| State::decode(view, &blob))?;
            for row in rows {
                events.row(*row as usize, &mut cells);
                let time = events.time_us(*row as usize).unwrap_or_default();
                state.add(view, time, &cells);
            }
            let mut blob = Vec::new();
            state.encode(view, &mut blob);
            changed.push((key.clone(), blob));
        }
        blobs.put(changed)
    })?;
    Ok(rejected)
}

/// What was read of one view.
pub struct Found {
    pub values: RecordBatch,
    /// How far into its source the store was.
    pub position: String,
    /// As of when each row is, in microseconds: the time asked for, or the newest event's where that is later.
    pub as_of_us: Vec<i64>,
}

/// The rows of one view as they come.
struct Rows<'v> {
    reader: Reader<'v>,
    building: Building,
    as_of_us: Vec<i64>,
    /// What an entity has that is unknown.
    nothing: Vec<Cell>,
}

impl<'v> Rows<'v> {
    fn new(view: &'v View, at_us: i64) -> Rows<'v> {
        let mut nothing = Vec::new();
        State::default().read(view, at_us, &mut nothing);
        Rows {
            reader: Reader::new(view),
            building: Building::new(view.outputs()),
            as_of_us: Vec::new(),
            nothing,
        }
    }

    fn push(&mut self, blob: Option<&[u8]>, at_us: i64) -> Result<(), Fault> {
        let as_of_us = match blob {
            None => {
                self.building.push(&self.nothing);
                at_us
            }
            Some(blob) => {
                let (building, mut column) = (&mut self.building, 0);
                self.reader.read(blob, at_us, |cell| {
                    building.put(column, cell);
                    column += 1;
                })?
            }
        };
        self.as_of_us.push(as_of_us);
        Ok(())
    }
}

/// Reads views of one entity each: `asked` pairs a view with the keys of its rows. All as of one instant of the store.
pub fn read(store: &dyn Store, asked: &[(&View, &Keys)], at_us: i64) -> Result<Vec<Found>, Fault> {
    let names: Vec<&str> = asked.iter().map(|(view, _)| view.name.as_str()).collect();
    // Entity by entity, each one's views by their names: neighbours are read together.
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by_key(|at| (&asked[*at].0.entity, &asked[*at].0.name));
    let rows = asked.iter().map(|(_, keys)| keys.len()).max();
    let (mut wanted, mut key, mut places) = (Wanted::default(), Vec::new(), Vec::new());
    for row in 0..rows.unwrap_or_default() {
        let mut written = None;
        for at in &order {
            let (view, keys) = asked[*at];
            if row < keys.len() {
                // Views of one entity are asked for by the same keys.
                let known = match written {
                    Some((of, known)) if std::ptr::eq(of, keys) => known,
                    _ => keys.write(row, &mut key),
                };
                written = Some((keys, known));
                places.push((*at, known));
                if known {
                    wanted.push(&view.entity, &key, &view.name);
                }
            }
        }
    }
    let each = asked.iter().map(|(view, _)| Rows::new(view, at_us));
    let mut found: Vec<Rows<'_>> = each.collect();
    let mut places = places.into_iter();
    let about = store.read(&names, &wanted, &mut |blob| {
        // A row without key asked for nothing.
        for (view, known) in places.by_ref() {
            found[view].push(blob.filter(|_| known), at_us)?;
            if known {
                break;
            }
        }
        Ok(())
    })?;
    for (view, _) in places {
        found[view].push(None, at_us)?;
    }
    let each = asked.iter().zip(about).zip(found);
    each.map(|(((view, _), about), mut rows)| {
        let about = about.ok_or_else(|| Fault::Unknown(view.name.clone()))?;
        Ok(Found {
            values: rows.building.finish()?,
            position: about.position,
            as_of_us: rows.as_of_us,
        })
    })
    .collect()
}
