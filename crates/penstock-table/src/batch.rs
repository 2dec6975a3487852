//! What an update says, and how a batch becomes distinct keys with one summed gradient each.

use std::ops::Range;

use crate::error::{Result, TableError};
use crate::hash::mix;
use crate::index::SHARDS;
use crate::line::{Search, prefetch};
use crate::simd::{Level, at_each_level};

/// One batch of gradients. Slices are as long as `keys`; gradients and pulled values are `dim` floats a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Update<'a> {
    pub keys: &'a [u64],
    pub grads: &'a [f32],
    /// How often each key occurred; 1 if not given.
    pub occurrences: Option<&'a [u32]>,
    pub shows: Option<&'a [f32]>,
    pub clicks: Option<&'a [f32]>,
    /// Seconds since the epoch, in event time.
    pub event_time_s: i64,
    pub pulled: Option<Pulled<'a>>,
}

/// What the worker saw when it took the gradients.
#[derive(Clone, Copy, Debug)]
pub struct Pulled<'a> {
    pub versions: &'a [u32],
    pub values: &'a [f32],
    /// The whole state of each row, or empty.
    pub state: &'a [f32],
}

impl Update<'_> {
    /// Everything that can be wrong with a batch, found before the first write.
    pub(crate) fn check(&self, level: Level, dim: usize, state_len: usize) -> Result<()> {
        let n = self.keys.len();
        let length = |what, found, expected| {
            if found == expected {
                Ok(())
            } else {
                Err(TableError::Length {
                    what,
                    found,
                    expected,
                })
            }
        };
        length("grads", self.grads.len(), n * dim)?;
        length("occurrences", self.occurrences.map_or(n, <[u32]>::len), n)?;
        length("shows", self.shows.map_or(n, <[f32]>::len), n)?;
        length("clicks", self.clicks.map_or(n, <[f32]>::len), n)?;
        if let Some(pulled) = self.pulled {
            length("pulled versions", pulled.versions.len(), n)?;
            length("pulled values", pulled.values.len(), n * dim)?;
            if !pulled.state.is_empty() {
                length("pulled state", pulled.state.len(), n * state_len)?;
            }
        }
        // SAFETY: a table's level is available.
        if unsafe { all_finite(level, self.grads) } {
            return Ok(());
        }
        let element = self.grads.iter().position(|g| !g.is_finite()).unwrap_or(0);
        Err(TableError::NotFinite {
            position: element / dim,
            key: self.keys[element / dim],
        })
    }
}

#[inline(always)]
unsafe fn all_finite_body<S: Search>(x: &[f32]) -> bool {
    const INFINITE: u32 = 0x7f80_0000;
    let mut largest = [0u32; 32];
    let (whole, rest) = x.as_chunks::<32>();
    for chunk in whole {
        for (largest, x) in largest.iter_mut().zip(chunk) {
            *largest = (*largest).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    largest.iter().all(|&bits| bits < INFINITE) && rest.iter().all(|x| x.is_finite())
}

at_each_level! {
    /// # Safety
    /// `level` is available.
    unsafe fn all_finite(x: &[f32]) -> bool = all_finite_body
}

/// Gradients asked for ahead of a key that may have come before.
const AHEAD: usize = 12;

/// A distinct key of a batch.
#[derive(Clone, Copy, Default)]
pub(crate) struct Distinct {
    pub hash: u64,
    /// Below the batch's length: the place of its only gradient. From there on: which of the sums.
    pub grad: u32,
    pub occurrences: u32,
}

/// A batch's distinct keys. Kept between batches, so that none allocates.
#[derive(Default)]
pub(crate) struct DistinctKeys {
    pub keys: Vec<Distinct>,
    pub sums: Vec<f32>,
    /// Of each distinct key: its first place in the batch.
    pub first: Vec<u32>,
    /// Shows and clicks, where the batch has them.
    pub shows: Vec<[f32; 2]>,
    /// Of each distinct key its row's number or `NONE`, where they are known.
    pub rows: Vec<u32>,
    /// Open addressing: the low half of a hash, then 1 + its place in `keys`. In order of hash, so that keys that come
    /// shard by shard meet in the nearest caches.
    slots: Vec<u64>,
}

impl DistinctKeys {
    /// `order`: which places of the batch, shard by shard, each shard's in batch order; all if None. The keys belong to
    /// the shards `shards`.
    pub fn collect(
        &mut self,
        level: Level,
        batch: &Update,
        mask: u64,
        dim: usize,
        order: Option<&[u32]>,
        shards: Range<usize>,
    ) {
        // SAFETY: a table's level is available.
        unsafe { collect(level, self, batch, mask, dim, order, shards) }
    }

    /// As `collect` of a batch of distinct keys, with what is known of their `rows` (one a key of the batch, or empty).
    /// Shows and clicks it has none.
    pub fn take(&mut self, batch: &Update, rows: &[u32], order: Option<&[u32]>) {
        self.sums.clear();
        self.shows.clear();
        self.keys.clear();
        self.first.clear();
        self.rows.clear();
        match order {
            Some(order) => self.first.extend_from_slice(order),
            None => self.first.extend(0..batch.keys.len() as u32),
        }
        let occurrences = |place: usize| batch.occurrences.map_or(1, |each| each[place]);
        self.keys.extend(self.first.iter().map(|&place| Distinct {
            hash: mix(batch.keys[place as usize]),
            grad: place,
            occurrences: occurrences(place as usize),
        }));
        if !rows.is_empty() {
            let places = self.first.iter().map(|&place| rows[place as usize]);
            self.rows.extend(places);
        }
    }

    /// The gradient of a distinct key.
    #[inline(always)]
    pub fn gradient(&self, batch: &Update, dim: usize, key: &Distinct) -> *const f32 {
        let (at, n) = (key.grad as usize, batch.keys.len());
        if at < n {
            batch.grads[at * dim..].as_ptr()
        } else {
            self.sums[(at - n) * dim..].as_ptr()
        }
    }
}

#[inline(always)]
unsafe fn collect_body<S: Search>(
    this: &mut DistinctKeys,
    batch: &Update,
    mask: u64,
    dim: usize,
    order: Option<&[u32]>,
    shards: Range<usize>,
) {
    let n = order.map_or(batch.keys.len(), <[u32]>::len);
    this.sums.clear();
    this.shows.clear();
    this.rows.clear();
    this.slots.clear();
    this.slots.resize((2 * n).next_power_of_two(), 0);
    // As long as they can get; what is beyond the distinct keys goes at the end.
    this.keys.resize(n, Distinct::default());
    this.first.resize(n, 0);
    let mut distinct = 0;
    let slot_mask = this.slots.len() - 1;
    // The shards' part of all hashes, spread over the slots.
    let least = (shards.start as u64) << (64 - SHARDS.ilog2());
    let spread = this.slots.len() * SHARDS / shards.len();
    let with_shows = batch.shows.is_some() || batch.clicks.is_some();
    for i in 0..n {
        let place = match order {
            None => i,
            Some(order) => {
                let ahead = order[(i + AHEAD).min(n - 1)] as usize;
                prefetch(batch.grads.as_ptr().wrapping_add(ahead * dim));
                order[i] as usize
            }
        };
        let hash = mix(batch.keys[place] & mask);
        let tag = hash << 32;
        let occurrences = batch
            .occurrences
            .map_or(1, |occurrences| occurrences[place]);
        let shows = || {
            [
                batch.shows.map_or(0.0, |shows| shows[place]),
                batch.clicks.map_or(0.0, |clicks| clicks[place]),
            ]
        };
        let mut slot = ((u128::from(hash - least) * spread as u128) >> 64) as usize & slot_mask;
        loop {
            let entry = this.slots[slot];
            if entry == 0 {
                this.keys[distinct] = Distinct {
                    hash,
                    grad: place as u32,
                    occurrences,
                };
                this.first[distinct] = place as u32;
                distinct += 1;
                this.slots[slot] = tag | distinct as u64;
                if with_shows {
                    this.shows.push(shows());
                }
                break;
            }
            let at = (entry as u32 - 1) as usize;
            if entry & !0xffff_ffff == tag && this.keys[at].hash == hash {
                this.add(batch, dim, at, place, occurrences);
                if with_shows {
                    let [more_shows, more_clicks] = shows();
                    this.shows[at][0] += more_shows;
                    this.shows[at][1] += more_clicks;
                }
                break;
            }
            slot = (slot + 1) & slot_mask;
        }
    }
    this.keys.truncate(distinct);
    this.first.truncate(distinct);
}

impl DistinctKeys {
    #[inline(always)]
    fn add(&mut self, batch: &Update, dim: usize, at: usize, place: usize, occurrences: u32) {
        let n = batch.keys.len();
        let key = &mut self.keys[at];
        key.occurrences = key.occurrences.saturating_add(occurrences);
        let more = &batch.grads[place * dim..][..dim];
        if (key.grad as usize) < n {
            let first = &batch.grads[key.grad as usize * dim..][..dim];
            key.grad = (n + self.sums.len() / dim) as u32;
            self.sums.extend(first.iter().zip(more).map(|(a, b)| a + b));
        } else {
            let sum = &mut self.sums[(key.grad as usize - n) * dim..][..dim];
            sum.iter_mut()
                .zip(more)
                .for_each(|(sum, &more)| *sum += more);
        }
    }
}

at_each_level! {
    /// # Safety
    /// `level` is available.
    unsafe fn collect(
        this: &mut DistinctKeys, batch: &Update<'_>, mask: u64, dim: usize, order: Option<&[u32]>, shards: Range<usize>,
    ) = collect_body
}
