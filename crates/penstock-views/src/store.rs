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
use crate::keys::{Keys, stored};
use crate::lmdb::Lmdb;
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

/// Of each view asked for, what is kept of it; of each key, its blob.
pub type Kept = (Vec<Option<About>>, Vec<Option<Vec<u8>>>);

/// Blobs by key.
pub trait Store: Send + Sync {
    /// Of each view, what is kept of it, and of each key, its blob: all of one instant.
    fn read(&self, views: &[&str], keys: &[Vec<u8>]) -> Result<Kept, Fault>;

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

/// `lmdb:PATH` or `redis://...`. `bytes`: how large an LMDB file may become; `create`: whether to make one.
pub fn open(address: &str, create: bool, bytes: usize) -> Result<Arc<dyn Store>, Fault> {
    match address.strip_prefix("lmdb:") {
        Some(path) => Ok(Lmdb::open(path.as_ref(), create, bytes)?),
        None if address.starts_with("redis://") => Ok(Arc::new(Redis::open(address)?)),
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

/// Reads views of one entity each: `asked` pairs a view with the keys of its rows. All as of one instant of the store.
pub fn read(store: &dyn Store, asked: &[(&View, &Keys)], at_us: i64) -> Result<Vec<Found>, Fault> {
    let names: Vec<&str> = asked.iter().map(|(view, _)| view.name.as_str()).collect();
    let (mut wanted, mut key) = (Vec::new(), Vec::new());
    // Entity by entity, so that neighbours are read together; a row without key asks for nothing.
    let mut places = vec![Vec::new(); asked.len()];
    let rows = asked
        .iter()
        .map(|(_, keys)| keys.len())
        .max()
        .unwrap_or_default();
    for row in 0..rows {
        for ((view, keys), places) in asked.iter().zip(&mut places) {
            if row >= keys.len() {
                continue;
            }
            places.push(keys.write(row, &mut key).then_some(wanted.len()));
            if places.last().is_some_and(Option::is_some) {
                let mut full = Vec::with_capacity(key.len() + 32);
                stored(&view.entity, &key, &view.name, &mut full);
                wanted.push(full);
            }
        }
    }
    let (about, blobs) = store.read(&names, &wanted)?;
    let mut found = Vec::with_capacity(asked.len());
    for (((view, _), about), places) in asked.iter().zip(about).zip(places) {
        let about = about.ok_or_else(|| Fault::Unknown(view.name.clone()))?;
        let mut building = Building::new(view.outputs());
        let (mut row, mut as_of_us) = (Vec::<Cell>::new(), Vec::with_capacity(places.len()));
        for place in places {
            let blob = place.and_then(|place| blobs[place].as_deref());
            let state = blob.map_or(Ok(State::default()), |blob| State::decode(view, blob))?;
            row.clear();
            state.read(view, at_us, &mut row);
            building.push(&row);
            as_of_us.push(state.newest_us().map_or(at_us, |newest| newest.max(at_us)));
        }
        let (values, position) = (building.finish()?, about.position);
        found.push(Found {
            values,
            position,
            as_of_us,
        });
    }
    Ok(found)
}
