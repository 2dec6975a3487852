//! One of a table's 64 shards: its buckets, rows, changes and sketch. Whoever holds `&mut Shard` is its only writer.

use crate::changes::Changes;
use crate::config::TableConfig;
use crate::cut::Keep;
use crate::index::{Buckets, Lines, Moving, locator};
use crate::rows::{COUNT, Extents, LAST_SEEN, LOCATOR, Layout, Row, Rows};
use crate::simd::Level;
use crate::sketch::Sketch;

/// What a table's shards have in common.
pub(crate) struct Shared {
    pub config: TableConfig,
    pub layout: Layout,
    pub lines: Lines,
    pub extents: Extents,
    pub level: Level,
    pub rate: f32,
}

pub(crate) struct Shard {
    pub buckets: Buckets,
    pub rows: Rows,
    pub changes: Changes,
    pub sketch: Sketch,
    /// This shard's side of an open cut.
    pub keep: Option<Box<Keep>>,
}

/// The work of growth and of fresh memory, counted by the table itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub entries_moved: u64,
    pub pages_faulted: u64,
    /// The most that one insert moved and faulted.
    pub worst_moved: u64,
    pub worst_faulted: u64,
}

impl Work {
    fn insert(&mut self, moved: u64, faulted: u64) {
        self.entries_moved += moved;
        self.pages_faulted += faulted;
        self.worst_moved = self.worst_moved.max(moved);
        self.worst_faulted = self.worst_faulted.max(faulted);
    }

    pub(crate) fn join(&mut self, other: Work) {
        self.entries_moved += other.entries_moved;
        self.pages_faulted += other.pages_faulted;
        self.worst_moved = self.worst_moved.max(other.worst_moved);
        self.worst_faulted = self.worst_faulted.max(other.worst_faulted);
    }
}

/// What a worker counts and reuses while it inserts.
#[derive(Default)]
pub(crate) struct Inserting {
    pub work: Work,
    pub moving: Moving,
    values: Vec<f32>,
}

impl Shard {
    pub fn new(number: usize, config: &TableConfig) -> Shard {
        let sketch = match config.admission {
            crate::config::Admission::Count { sketch_bytes, .. }
                if !config.admission.at_first_sight() =>
            {
                Sketch::new(sketch_bytes / crate::index::SHARDS)
            }
            _ => Sketch::default(),
        };
        Shard {
            buckets: Buckets::new(number),
            rows: Rows::new(),
            changes: Changes::default(),
            sketch,
            keep: None,
        }
    }

    /// A row for an absent hash: everything but its values and state is set, and it is marked. None without memory.
    pub fn attach(
        &mut self,
        shared: &Shared,
        hash: u64,
        count: u32,
        now: u32,
        by: &mut Inserting,
    ) -> Option<Row> {
        let (number, pages) = self.rows.allocate(&shared.layout, &shared.extents)?;
        self.changes.reach(self.rows.end());
        let Some(growth) = self
            .buckets
            .insert(&shared.lines, hash, number, &mut by.moving)
        else {
            self.rows.release(&shared.layout, number);
            return None;
        };
        by.work
            .insert(growth.entries_moved, growth.pages_faulted + pages);
        self.changes.mark(number);
        if let Some(keep) = &mut self.keep {
            keep.born(number);
        }
        let row = self.rows.row(&shared.layout, number);
        // SAFETY: the row is this shard's, held by `&mut`, and every word is within its side.
        unsafe {
            row.set(COUNT, count);
            row.set(LAST_SEEN, now);
            row.set(LOCATOR, locator(hash));
            if let Some(version) = shared.layout.version {
                row.set(version, 1);
            }
            if let Some(score) = shared.layout.score {
                row.set(score, 0f32.to_bits());
            }
        }
        Some(row)
    }

    /// A new row as init(key) with fresh state.
    pub fn create(
        &mut self,
        shared: &Shared,
        hash: u64,
        count: u32,
        now: u32,
        by: &mut Inserting,
    ) -> Option<Row> {
        let row = self.attach(shared, hash, count, now, by)?;
        let (layout, config) = (&shared.layout, &shared.config);
        // SAFETY: the row is this shard's, held by `&mut`; full values are `dim` floats.
        unsafe {
            let values = if layout.dtype == crate::half::Dtype::F32 {
                std::slice::from_raw_parts_mut(row.values.cast(), layout.dim)
            } else {
                by.values.resize(layout.dim, 0.0);
                &mut by.values[..]
            };
            config.init.fill(hash, config.seed, values);
            let state = row.state(layout);
            config.optimizer.begin(shared.rate, values, state);
            if layout.dtype != crate::half::Dtype::F32 {
                store_nearest(layout, row, values);
            }
        }
        Some(row)
    }

    /// A present row is about to change or go: an open cut may want it as it is.
    #[cold]
    pub fn save(&mut self, layout: &Layout, number: u32, hash: u64) {
        if let Some(keep) = &mut self.keep {
            keep.save(layout, number, hash, self.rows.row(layout, number));
        }
    }

    /// Takes a present hash out and leaves a tombstone.
    pub fn evict(&mut self, shared: &Shared, hash: u64) -> bool {
        let Some(number) = self.buckets.remove(&shared.lines, hash) else {
            return false;
        };
        if self.keep.is_some() {
            self.save(&shared.layout, number, hash);
        }
        self.rows.release(&shared.layout, number);
        self.changes.unmark(number);
        self.changes.bury(hash);
        true
    }
}

impl Row {
    /// # Safety
    /// The row is allocated in a table of this layout, and nobody else uses its state meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn state<'a>(self, layout: &Layout) -> &'a mut [f32] {
        // SAFETY: the side holds `state_len` floats from word `state` on.
        unsafe {
            std::slice::from_raw_parts_mut(self.side.add(layout.state).cast(), layout.state_len)
        }
    }

    /// The values as fp32.
    ///
    /// # Safety
    /// The row is allocated in a table of this layout, and nobody writes its values meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn load(self, layout: &Layout, out: &mut [f32]) {
        // SAFETY: the values are `dim` elements of the layout's type.
        unsafe {
            match layout.dtype {
                crate::half::Dtype::F32 => {
                    out.copy_from_slice(std::slice::from_raw_parts(self.values.cast(), layout.dim));
                }
                half => {
                    let stored = std::slice::from_raw_parts(self.values.cast::<u16>(), layout.dim);
                    out.iter_mut()
                        .zip(stored)
                        .for_each(|(out, &stored)| *out = half.widen(stored));
                }
            }
        }
    }
}

/// Values as they are, halves rounded to nearest (up from half way).
///
/// # Safety
/// The row is allocated in a table of this layout, and nobody else uses its values meanwhile.
pub(crate) unsafe fn store_nearest(layout: &Layout, row: Row, values: &[f32]) {
    // SAFETY: the values are `dim` elements of the layout's type.
    unsafe {
        match layout.dtype {
            crate::half::Dtype::F32 => {
                std::slice::from_raw_parts_mut(row.values.cast(), layout.dim)
                    .copy_from_slice(values);
            }
            half => {
                let stored = std::slice::from_raw_parts_mut(row.values.cast::<u16>(), layout.dim);
                stored
                    .iter_mut()
                    .zip(values)
                    .for_each(|(stored, &value)| *stored = half.narrow(value, 0x8000_0000));
            }
        }
    }
}
