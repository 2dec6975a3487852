//! Rows in place: a trainer with a step of its own finds each key of a batch once, then reads and writes its row there.
//!
//! The general `lookup` and `update` copy values out and gradients in, count and stamp. What lies here is for an owner
//! that does all of that itself, or does not need it: rows found this way are neither counted nor stamped, and the table
//! is not swept while places are held. Its owner says which rows go. Rows that it will write are found by `find_to_write`
//! (and given to `keep_places` while a cut is open), so that cuts see what changed.

use crate::config::{Admission, Engine, TableConfig};
use crate::error::{Result, TableError};
use crate::half::Dtype;
use crate::hash::mix;
use crate::index::Home;
use crate::line::{Line, Plain, Search, prefetch};
use crate::lookup::shard_of;
use crate::shard::{Shard, Shared};
use crate::simd::at_each_level;
use crate::table::Table;

/// Keys whose index lines are on their way while others are looked at.
const AHEAD: usize = 32;
const BLOCK: usize = 256;

/// Where a row's fp32 values lie, or nowhere. Rows never move: a place is good as long as its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(*mut f32);

// SAFETY: an address; who may read or write through it is decided by its users.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    pub const NONE: Place = Place(std::ptr::null_mut());

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.0.is_null()
    }

    /// The first of the row's `dim` values.
    #[inline(always)]
    pub fn values(self) -> *mut f32 {
        self.0
    }

    /// A row outside any table: one that its owner keeps itself.
    pub fn at(values: *mut f32) -> Place {
        Place(values)
    }
}

/// Rows in place: fp32, of a table that `in_place` made.
impl Table {
    /// A table whose rows are read and written in place. Values must be fp32, and nothing may evict.
    pub fn in_place(config: TableConfig) -> Result<Table> {
        let refuse = |what: &str| {
            Err(TableError::Config {
                table: config.name.clone(),
                what: what.into(),
            })
        };
        if config.dtype != Dtype::F32 {
            return refuse("rows in place are fp32");
        }
        if !config.eviction.is_none() {
            return refuse("rows in place cannot be evicted");
        }
        Table::new(config, Engine::default())
    }

    /// The place of each key by its mixed hash; `Place::NONE` for a key without a row. The rows' first lines are asked for.
    pub fn find_to_read(&self, hashes: &[u64], places: &mut [Place]) {
        self.find_places(hashes, places, false);
    }

    /// The same of rows that are written before the next cut: they count as changed.
    pub fn find_to_write(&self, hashes: &[u64], places: &mut [Place]) {
        self.find_places(hashes, places, true);
    }

    fn find_places(&self, hashes: &[u64], places: &mut [Place], mark: bool) {
        assert_eq!(hashes.len(), places.len());
        let (shared, shards) = (&self.shared, &self.shards[..]);
        for (hashes, places) in hashes.chunks(BLOCK).zip(places.chunks_mut(BLOCK)) {
            // SAFETY: the table's level is available, the shards are all of them, lengths are equal.
            unsafe { find(shared.level, shared, shards, hashes, places, mark) }
        }
    }

    /// Whether a cut is open: what is written has to be kept before.
    pub fn is_being_cut(&mut self) -> bool {
        self.end_given_up_cut();
        self.shards[0].keep.is_some()
    }

    /// Keeps the rows of these keys as they are for the open cut: they are about to be written.
    pub fn keep_places(&mut self, hashes: &[u64]) {
        let Table { shared, shards, .. } = self;
        for &hash in hashes {
            let shard = &mut shards[shard_of(hash)];
            if let Some(row) = shard.buckets.find(&shared.lines, hash) {
                shard.save(&shared.layout, row, hash);
            }
        }
    }

    /// A sighting of a key by its mixed hash: its row, to be written, if it has one or this sighting admits it. The row is
    /// new as `config` says.
    pub fn sight(&mut self, hash: u64) -> Result<Place> {
        let shard = &self.shards[shard_of(hash)];
        let line = shard.buckets.home_line(&self.shared.lines, hash);
        // A home line knows of most absent keys that they are nowhere: no walk over the full lines behind it.
        // SAFETY: the line is this hash's; `Plain` needs no instructions.
        let found = match unsafe { shard.buckets.find_at_home::<Plain>(line, hash) } {
            Home::Row(row) => Some(row),
            Home::Absent => None,
            Home::Beyond => shard.buckets.find(&self.shared.lines, hash),
        };
        match found {
            Some(row) => Ok(self.written_at(hash, row)),
            None => self.sight_absent(hash),
        }
    }

    /// The same of a key that has no row.
    pub fn sight_absent(&mut self, hash: u64) -> Result<Place> {
        let Table {
            shared,
            shards,
            clock,
            ..
        } = self;
        let shard = &mut shards[shard_of(hash)];
        clock.sightings += 1;
        match shared.config.admission {
            Admission::Count {
                least, halve_every, ..
            } if least > 1 => {
                let halvings = (clock.sightings / halve_every) as u32;
                if let Some(keep) = &mut shard.keep {
                    keep.save_sketch(&shard.sketch, hash);
                }
                if shard.sketch.add(hash, 1, halvings) < least {
                    return Ok(Place::NONE);
                }
            }
            Admission::Probability(p) => {
                let draw = mix(hash ^ clock.sightings) >> 11;
                if draw as f64 >= p * (1u64 << 53) as f64 {
                    return Ok(Place::NONE);
                }
            }
            _ => {}
        }
        self.make(hash)
    }

    /// A key's row, to be written, made now whatever admission says.
    pub fn insert(&mut self, key: u64) -> Result<Place> {
        let hash = mix(key);
        let shard = &self.shards[shard_of(hash)];
        match shard.buckets.find(&self.shared.lines, hash) {
            Some(row) => Ok(self.written_at(hash, row)),
            None => self.make(hash),
        }
    }

    /// Lines of the index.
    pub fn lines(&self) -> u64 {
        let lines = self.shards.iter().map(|shard| shard.buckets.bytes());
        lines.sum::<u64>() / size_of::<Line>() as u64
    }

    /// Visits the next `lines` lines of the index, at most to its end, and drops each row that `condemned` says so of, given
    /// its values. Places that were found before are void.
    pub fn sweep_places(&mut self, lines: u64, mut condemned: impl FnMut(*const f32) -> bool) {
        let swept = self.judge.sweep_by(
            &self.shared,
            &mut self.shards,
            &mut self.clock.cursor,
            lines,
            |values| condemned(values.cast()),
        );
        if swept.evicted > 0 {
            self.bound_tombstones();
        }
    }

    fn written_at(&mut self, hash: u64, row: u32) -> Place {
        let shard = &mut self.shards[shard_of(hash)];
        if shard.keep.is_some() {
            shard.save(&self.shared.layout, row, hash);
        }
        shard.changes.mark(row);
        Place(shard.rows.row(&self.shared.layout, row).values.cast())
    }

    fn make(&mut self, hash: u64) -> Result<Place> {
        let Table {
            shared,
            shards,
            clock,
            workers,
            ..
        } = self;
        let by = &mut workers[0].inserting;
        match shards[shard_of(hash)].create(shared, hash, 1, clock.now_s, by) {
            Some(row) => Ok(Place(row.values.cast())),
            None => Err(TableError::OutOfMemory {
                table: shared.config.name.clone(),
                refused: 1,
            }),
        }
    }
}

#[inline(always)]
unsafe fn find_body<S: Search>(
    shared: &Shared,
    shards: &[Shard],
    hashes: &[u64],
    places: &mut [Place],
    mark: bool,
) {
    let mut lines = [std::ptr::null::<Line>(); AHEAD];
    let mut beyond = [0u8; BLOCK];
    let mut farther = 0;
    for i in 0..hashes.len() + AHEAD {
        let turn = i % AHEAD;
        if i >= AHEAD {
            let at = i - AHEAD;
            let hash = hashes[at];
            let shard = &shards[shard_of(hash)];
            // SAFETY: the line is this hash's; the caller vouches for S.
            places[at] = match unsafe { shard.buckets.find_at_home::<S>(lines[turn], hash) } {
                Home::Row(number) => approach(shared, shard, number, mark),
                Home::Absent => Place::NONE,
                Home::Beyond => {
                    prefetch(lines[turn].wrapping_add(1));
                    beyond[farther] = at as u8;
                    farther += 1;
                    Place::NONE
                }
            };
        }
        if i < hashes.len() {
            let hash = hashes[i];
            let line = shards[shard_of(hash)]
                .buckets
                .home_line(&shared.lines, hash);
            prefetch(line);
            lines[turn] = line;
        }
    }
    for &at in &beyond[..farther] {
        let hash = hashes[at as usize];
        let shard = &shards[shard_of(hash)];
        if let Some(number) = shard.buckets.find(&shared.lines, hash) {
            places[at as usize] = approach(shared, shard, number, mark);
        }
    }
}

#[inline(always)]
fn approach(shared: &Shared, shard: &Shard, number: u32, mark: bool) -> Place {
    if mark {
        shard.changes.mark_beside(number);
    }
    let row = shard.rows.row(&shared.layout, number);
    prefetch(row.values);
    if shared.layout.value_stride > 64 {
        prefetch(row.values.wrapping_add(64));
    }
    Place(row.values.cast())
}

at_each_level! {
    /// # Safety
    /// `level` is available; `shards` are all of the table's; at most `BLOCK` hashes, and a place each.
    unsafe fn find(shared: &Shared, shards: &[Shard], hashes: &[u64], places: &mut [Place], mark: bool) = find_body
}
