//! Reading rows: hash, then index line, then row, each asked for well before it is needed.

use crate::config::Missing;
use crate::half::Dtype;
use crate::hash::mix;
use crate::index::SHARDS;
use crate::line::{Line, Search, prefetch};
use crate::rows::Row;
use crate::shard::{Shard, Shared};
use crate::simd::at_each_level;

/// Keys that are on their way together.
pub(crate) const BLOCK: usize = 32;
/// Lines of a row that are asked for; hardware fetches what follows.
const AHEAD: usize = 4;

/// What beside values a lookup gives. Columns are those of `Optimizer::columns`, by number.
#[derive(Default)]
pub struct Extras<'a> {
    /// One a key; 0 for a key without a row.
    pub versions: Option<&'a mut [u32]>,
    /// The chosen columns of each key side by side; a key without a row has fresh state.
    pub state: Option<(&'a [usize], &'a mut [f32])>,
}

#[inline(always)]
pub(crate) fn shard_of(hash: u64) -> usize {
    (hash >> (64 - SHARDS.ilog2())) as usize
}

#[inline(always)]
pub(crate) fn prefetch_values(shared: &Shared, row: Row) {
    let stride = shared.layout.value_stride;
    prefetch(row.values);
    let mut at = 64;
    while at < stride.min(64 * AHEAD) {
        prefetch(row.values.wrapping_add(at));
        at += 64;
    }
}

/// Keys between their index line and their row.
#[derive(Clone, Copy)]
struct Flight {
    hash: [u64; BLOCK],
    line: [*const Line; BLOCK],
}

const NO_ROW: Row = Row { values: std::ptr::null_mut(), side: std::ptr::null_mut() };

#[inline(always)]
unsafe fn read_body<S: Search, F: FnMut(usize, u64, Option<Row>)>(
    shared: &Shared,
    shards: &[Shard],
    keys: &[u64],
    mask: u64,
    side_too: bool,
    mut give: F,
) {
    let start = |from: usize, flight: &mut Flight| {
        for (i, &key) in keys[from.min(keys.len())..].iter().take(BLOCK).enumerate() {
            let hash = mix(key & mask);
            let line = shards[shard_of(hash)].buckets.home_line(&shared.lines, hash);
            prefetch(line);
            flight.hash[i] = hash;
            flight.line[i] = line;
        }
    };
    let find = |from: usize, flight: &Flight, rows: &mut [Row; BLOCK], hashes: &mut [u64; BLOCK]| {
        let n = keys.len().saturating_sub(from).min(BLOCK);
        for i in 0..n {
            let hash = flight.hash[i];
            let shard = &shards[shard_of(hash)];
            hashes[i] = hash;
            // SAFETY: the line is this hash's; the caller vouches for S.
            let found = unsafe { shard.buckets.find_from::<S>(&shared.lines, flight.line[i], hash) };
            rows[i] = match found {
                Some(number) => {
                    let row = shard.rows.row(&shared.layout, number);
                    prefetch_values(shared, row);
                    if side_too {
                        prefetch(row.side);
                    }
                    row
                }
                None => NO_ROW,
            };
        }
    };
    let mut flight = Flight { hash: [0; BLOCK], line: [std::ptr::null(); BLOCK] };
    let (mut rows, mut hashes) = ([[NO_ROW; BLOCK]; 2], [[0; BLOCK]; 2]);
    start(0, &mut flight);
    find(0, &flight, &mut rows[0], &mut hashes[0]);
    start(BLOCK, &mut flight);
    let mut from = 0;
    let mut turn = 0;
    while from < keys.len() {
        find(from + BLOCK, &flight, &mut rows[1 - turn], &mut hashes[1 - turn]);
        start(from + 2 * BLOCK, &mut flight);
        for i in 0..(keys.len() - from).min(BLOCK) {
            let row = rows[turn][i];
            give(from + i, hashes[turn][i], (!row.values.is_null()).then_some(row));
        }
        from += BLOCK;
        turn = 1 - turn;
    }
}

#[inline(always)]
unsafe fn values_body<S: Search>(shared: &Shared, shards: &[Shard], keys: &[u64], mask: u64, out: &mut [f32]) -> usize {
    let dim = shared.layout.dim;
    let mut found = 0;
    macro_rules! read {
        ($give:expr) => {
            // SAFETY: the caller's promise. Rows that are given are present, and nobody writes while shards are borrowed.
            unsafe { read_body::<S, _>(shared, shards, keys, mask, false, $give) }
        };
    }
    // The commonest shape gets a copy of known length.
    if dim == 16 && shared.layout.dtype == Dtype::F32 {
        let out = out.as_chunks_mut::<16>().0;
        read!(|i, hash, row: Option<Row>| match row {
            // SAFETY: sixteen aligned floats of a present row.
            Some(row) => {
                out[i] = unsafe { *row.values.cast::<[f32; 16]>() };
                found += 1;
            }
            None => absent(shared, hash, &mut out[i]),
        });
    } else {
        read!(|i, hash, row: Option<Row>| {
            let out = &mut out[i * dim..][..dim];
            match row {
                // SAFETY: a present row of this layout.
                Some(row) => {
                    unsafe { row.load(&shared.layout, out) };
                    found += 1;
                }
                None => absent(shared, hash, out),
            }
        });
    }
    found
}

at_each_level! {
    /// The values of `keys`; returns how many have a row.
    ///
    /// # Safety
    /// `level` is available; `shards` are all of the table's; `out` is `dim` floats a key.
    pub(crate) unsafe fn values(shared: &Shared, shards: &[Shard], keys: &[u64], mask: u64, out: &mut [f32]) -> usize
        = values_body
}

/// What a key without a row reads.
#[inline(never)]
fn absent(shared: &Shared, hash: u64, out: &mut [f32]) {
    match shared.config.missing() {
        Missing::Zeros => out.fill(0.0),
        Missing::Init => {
            shared.config.init.fill(hash, shared.config.seed, out);
            if shared.layout.dtype != Dtype::F32 {
                // As the row would hold it.
                for value in out {
                    let half = shared.layout.dtype;
                    *value = half.widen(half.narrow(*value, 0x8000_0000));
                }
            }
        }
    }
}

/// Versions and state columns of `keys`, as `Extras` says; lengths were checked.
pub(crate) fn extras(shared: &Shared, shards: &[Shard], keys: &[u64], mask: u64, extras: Extras) {
    let layout = &shared.layout;
    let columns = shared.config.optimizer.columns(layout.dim);
    let starts: Vec<usize> = columns
        .iter()
        .scan(0, |next, column| Some(std::mem::replace(next, *next + column.width)))
        .collect();
    let mut values = vec![0.0; layout.dim];
    let mut fresh = vec![0.0; layout.state_len];
    let (mut versions, mut state) = (extras.versions, extras.state);
    let give = |i: usize, hash: u64, row: Option<Row>| {
        if let Some(versions) = versions.as_deref_mut() {
            versions[i] = match (row, layout.version) {
                // SAFETY: a present row of this layout, not written while shards are borrowed.
                (Some(row), Some(version)) => unsafe { row.get(version) },
                _ => 0,
            };
        }
        let Some((chosen, out)) = state.as_mut() else { return };
        let all: &[f32] = match row {
            // SAFETY: as above; the slice is only read.
            Some(row) => unsafe { row.state(layout) },
            None => {
                shared.config.init.fill(hash, shared.config.seed, &mut values);
                shared.config.optimizer.begin(shared.rate, &values, &mut fresh);
                &fresh
            }
        };
        let width: usize = chosen.iter().map(|&column| columns[column].width).sum();
        let mut out = &mut out[i * width..][..width];
        for &column in chosen.iter() {
            let (here, rest) = out.split_at_mut(columns[column].width);
            here.copy_from_slice(&all[starts[column]..][..here.len()]);
            out = rest;
        }
    };
    // SAFETY: `Plain` needs no instructions.
    unsafe { read_body::<crate::line::Plain, _>(shared, shards, keys, mask, true, give) };
}
