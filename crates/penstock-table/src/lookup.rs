//! Reading rows: hash, then index line, then row, each asked for well before it is needed.

use crate::config::Missing;
use crate::found::NONE;
use crate::half::Dtype;
use crate::hash::mix;
use crate::index::{Home, SHARDS};
use crate::line::{Line, Search, prefetch};
use crate::optimizers::Column;
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

#[inline(always)]
pub(crate) fn prefetch_side(shared: &Shared, row: Row) {
    prefetch(row.side);
    let mut at = 64;
    while at < shared.layout.side_stride.min(64 * AHEAD) {
        prefetch(row.side.wrapping_byte_add(at));
        at += 64;
    }
    // Its last word: a side begins anywhere in a line.
    prefetch(
        row.side
            .wrapping_byte_add(shared.layout.side_stride.min(64 * AHEAD) - 4),
    );
}

const NO_ROW: (u32, Row) = (
    NONE,
    Row {
        values: std::ptr::null_mut(),
        side: std::ptr::null_mut(),
    },
);

/// Keys between their index line and their row.
struct Flight {
    hashes: [u64; BLOCK],
    lines: [*const Line; BLOCK],
}

/// Keys whose rows are on their way.
struct Landing {
    hashes: [u64; BLOCK],
    rows: [(u32, Row); BLOCK],
}

/// Takes what is read, key by key in order.
trait Sink {
    fn give(&mut self, shared: &Shared, place: usize, hash: u64, row: Option<Row>);

    /// The number of a key's row, or `NONE`; before the row itself.
    #[inline(always)]
    fn number(&mut self, _place: usize, _number: u32) {}
}

// Functions rather than closures: only what is inlined is compiled for the level.

#[inline(always)]
fn ask(
    shared: &Shared,
    shards: &[Shard],
    keys: &[u64],
    mask: u64,
    from: usize,
    flight: &mut Flight,
) {
    for (i, &key) in keys[from.min(keys.len())..].iter().take(BLOCK).enumerate() {
        let hash = mix(key & mask);
        let line = shards[shard_of(hash)]
            .buckets
            .home_line(&shared.lines, hash);
        prefetch(line);
        flight.hashes[i] = hash;
        flight.lines[i] = line;
    }
}

#[inline(always)]
unsafe fn land<S: Search>(
    shared: &Shared,
    shards: &[Shard],
    n: usize,
    side: bool,
    flight: &Flight,
    landing: &mut Landing,
) {
    let mut beyond = [0u8; BLOCK];
    let mut farther = 0;
    for i in 0..n {
        let hash = flight.hashes[i];
        let shard = &shards[shard_of(hash)];
        landing.hashes[i] = hash;
        // SAFETY: the line is this hash's; the caller vouches for S.
        landing.rows[i] = match unsafe { shard.buckets.find_at_home::<S>(flight.lines[i], hash) } {
            Home::Row(number) => approach(shared, shard, number, side),
            Home::Absent => NO_ROW,
            Home::Beyond => {
                prefetch(flight.lines[i].wrapping_add(1));
                beyond[farther] = i as u8;
                farther += 1;
                NO_ROW
            }
        };
    }
    for &i in &beyond[..farther] {
        let hash = landing.hashes[i as usize];
        let shard = &shards[shard_of(hash)];
        if let Some(number) = shard.buckets.find(&shared.lines, hash) {
            landing.rows[i as usize] = approach(shared, shard, number, side);
        }
    }
}

#[inline(always)]
fn approach(shared: &Shared, shard: &Shard, number: u32, side: bool) -> (u32, Row) {
    let row = shard.rows.row(&shared.layout, number);
    prefetch_values(shared, row);
    if side {
        prefetch_side(shared, row);
    }
    (number, row)
}

#[inline(always)]
unsafe fn read<S: Search, T: Sink>(
    shared: &Shared,
    shards: &[Shard],
    keys: &[u64],
    mask: u64,
    side: bool,
    sink: &mut T,
) {
    let mut flight = Flight {
        hashes: [0; BLOCK],
        lines: [std::ptr::null(); BLOCK],
    };
    let empty = || Landing {
        hashes: [0; BLOCK],
        rows: [NO_ROW; BLOCK],
    };
    let mut landings = [empty(), empty()];
    let left = |from: usize| keys.len().saturating_sub(from).min(BLOCK);
    let (mut from, mut turn) = (0, 0);
    // SAFETY (both): the flight holds the block's home lines; the caller vouches for S.
    ask(shared, shards, keys, mask, 0, &mut flight);
    unsafe { land::<S>(shared, shards, left(0), side, &flight, &mut landings[0]) };
    ask(shared, shards, keys, mask, BLOCK, &mut flight);
    while from < keys.len() {
        unsafe {
            land::<S>(
                shared,
                shards,
                left(from + BLOCK),
                side,
                &flight,
                &mut landings[1 - turn],
            )
        };
        ask(shared, shards, keys, mask, from + 2 * BLOCK, &mut flight);
        let landing = &landings[turn];
        for i in 0..left(from) {
            let (number, row) = landing.rows[i];
            sink.number(from + i, number);
            sink.give(
                shared,
                from + i,
                landing.hashes[i],
                (!row.values.is_null()).then_some(row),
            );
        }
        from += BLOCK;
        turn = 1 - turn;
    }
}

/// Values of any shape, and the numbers of rows where there is room for them.
struct Values<'a> {
    out: &'a mut [f32],
    numbers: &'a mut [u32],
    found: usize,
}

impl Sink for Values<'_> {
    #[inline(always)]
    fn number(&mut self, place: usize, number: u32) {
        if let Some(kept) = self.numbers.get_mut(place) {
            *kept = number;
        }
    }

    #[inline(always)]
    fn give(&mut self, shared: &Shared, place: usize, hash: u64, row: Option<Row>) {
        let dim = shared.layout.dim;
        let out = &mut self.out[place * dim..][..dim];
        match row {
            Some(row) => {
                // SAFETY: a present row of this layout, not written while shards are borrowed.
                unsafe { row.load(&shared.layout, out) };
                self.found += 1;
            }
            None => absent(shared, hash, out),
        }
    }
}

/// The commonest shapes, in straight lines.
struct Fixed<'a, const DIM: usize> {
    out: &'a mut [[f32; DIM]],
    numbers: &'a mut [u32],
    found: usize,
}

impl<const DIM: usize> Sink for Fixed<'_, DIM> {
    #[inline(always)]
    fn number(&mut self, place: usize, number: u32) {
        if let Some(kept) = self.numbers.get_mut(place) {
            *kept = number;
        }
    }

    #[inline(always)]
    fn give(&mut self, shared: &Shared, place: usize, hash: u64, row: Option<Row>) {
        match row {
            Some(row) => {
                // SAFETY: the aligned floats of a present row, not written while shards are borrowed.
                self.out[place] = unsafe { *row.values.cast::<[f32; DIM]>() };
                self.found += 1;
            }
            None => absent(shared, hash, &mut self.out[place]),
        }
    }
}

#[inline(always)]
unsafe fn values_body<S: Search>(
    shared: &Shared,
    shards: &[Shard],
    keys: &[u64],
    mask: u64,
    out: &mut [f32],
    numbers: &mut [u32],
) -> usize {
    macro_rules! fixed {
        ($dim:literal) => {{
            let out = out.as_chunks_mut::<$dim>().0;
            let found = 0;
            let mut sink = Fixed {
                out,
                numbers,
                found,
            };
            // SAFETY: the caller vouches for S.
            unsafe { read::<S, _>(shared, shards, keys, mask, false, &mut sink) };
            sink.found
        }};
    }
    match (shared.layout.dtype, shared.layout.dim) {
        (Dtype::F32, 8) => fixed!(8),
        (Dtype::F32, 16) => fixed!(16),
        (Dtype::F32, 17) => fixed!(17),
        (Dtype::F32, 32) => fixed!(32),
        _ => {
            let found = 0;
            let mut sink = Values {
                out,
                numbers,
                found,
            };
            // SAFETY: the caller vouches for S.
            unsafe { read::<S, _>(shared, shards, keys, mask, false, &mut sink) };
            sink.found
        }
    }
}

at_each_level! {
    /// The values of `keys`; returns how many have a row. `numbers`: a place a key for its row's number (`NONE` without
    /// one), or empty.
    ///
    /// # Safety
    /// `level` is available; `shards` are all of the table's; `out` is `dim` floats a key.
    pub(crate) unsafe fn values(
        shared: &Shared, shards: &[Shard], keys: &[u64], mask: u64, out: &mut [f32], numbers: &mut [u32],
    ) -> usize = values_body
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

/// Versions and state columns, as `Extras` says.
struct Beside<'a> {
    versions: Option<&'a mut [u32]>,
    state: Option<(&'a [usize], &'a mut [f32])>,
    columns: Vec<Column>,
    starts: Vec<usize>,
    values: Vec<f32>,
    fresh: Vec<f32>,
}

impl Sink for Beside<'_> {
    fn give(&mut self, shared: &Shared, place: usize, hash: u64, row: Option<Row>) {
        if let Some(versions) = self.versions.as_deref_mut() {
            versions[place] = match (row, shared.layout.version) {
                // SAFETY: a present row of this layout, not written while shards are borrowed.
                (Some(row), Some(version)) => unsafe { row.get(version) },
                _ => 0,
            };
        }
        let Some((chosen, out)) = self.state.as_mut() else {
            return;
        };
        let all: &[f32] = match row {
            // SAFETY: as above; the slice is only read.
            Some(row) => unsafe { row.state(&shared.layout) },
            None => {
                shared
                    .config
                    .init
                    .fill(hash, shared.config.seed, &mut self.values);
                shared
                    .config
                    .optimizer
                    .begin(shared.rate, &self.values, &mut self.fresh);
                &self.fresh
            }
        };
        let width: usize = chosen
            .iter()
            .map(|&column| self.columns[column].width)
            .sum();
        let mut out = &mut out[place * width..][..width];
        for &column in chosen.iter() {
            let (here, rest) = out.split_at_mut(self.columns[column].width);
            here.copy_from_slice(&all[self.starts[column]..][..here.len()]);
            out = rest;
        }
    }
}

/// Versions and state columns of `keys`, as `Extras` says; lengths were checked.
pub(crate) fn extras(shared: &Shared, shards: &[Shard], keys: &[u64], mask: u64, extras: Extras) {
    let layout = &shared.layout;
    let columns = shared.config.optimizer.columns(layout.dim);
    let starts = columns
        .iter()
        .scan(0, |next, column| {
            Some(std::mem::replace(next, *next + column.width))
        })
        .collect();
    let (values, fresh) = (vec![0.0; layout.dim], vec![0.0; layout.state_len]);
    let mut sink = Beside {
        versions: extras.versions,
        state: extras.state,
        columns,
        starts,
        values,
        fresh,
    };
    // SAFETY: `Plain` needs no instructions.
    unsafe { read::<crate::line::Plain, _>(shared, shards, keys, mask, true, &mut sink) };
}
