//! Rows that take a step together: their gradients changed, their halves widened, the optimizer called, halves narrowed.

use crate::batch::Update;
use crate::half::{Dtype, rounding_bits, rounding_seed};
use crate::lookup::BLOCK;
use crate::optimizers::{Group, Step};
use crate::rows::Row;
use crate::shard::Shared;
use crate::update::Moment;

/// At most one block of rows, which take their step together.
pub(crate) struct Gathered {
    len: usize,
    values: [*mut f32; BLOCK],
    state: [*mut f32; BLOCK],
    grads: [*const f32; BLOCK],
    hash: [u64; BLOCK],
    rows: [*mut u8; BLOCK],
    /// Of each row: its first place in the batch.
    first: [u32; BLOCK],
    /// Changed gradients, widened halves, a user's gradients.
    changed: Vec<f32>,
    widened: Vec<f32>,
    user: Vec<f32>,
}

impl Default for Gathered {
    fn default() -> Gathered {
        Gathered {
            len: 0,
            values: [std::ptr::null_mut(); BLOCK],
            state: [std::ptr::null_mut(); BLOCK],
            grads: [std::ptr::null(); BLOCK],
            hash: [0; BLOCK],
            rows: [std::ptr::null_mut(); BLOCK],
            first: [0; BLOCK],
            changed: Vec::new(),
            widened: Vec::new(),
            user: Vec::new(),
        }
    }
}

// SAFETY: the pointers are only alive within one call of `work`, on one thread.
unsafe impl Send for Gathered {}
// SAFETY: as above; `&Gathered` reads nothing through them.
unsafe impl Sync for Gathered {}

impl Gathered {
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// One row more; a block has room for each of its keys.
    #[inline(always)]
    pub fn push(&mut self, shared: &Shared, row: Row, hash: u64, grad: *const f32, first: u32) {
        let at = self.len % BLOCK;
        self.values[at] = row.values.cast();
        self.state[at] = row.side.wrapping_add(shared.layout.state).cast();
        self.grads[at] = grad;
        self.hash[at] = hash;
        self.rows[at] = row.values;
        self.first[at] = first;
        self.len += 1;
    }

    #[inline(always)]
    pub fn step(&mut self, shared: &Shared, batch: &Update, moment: Moment) {
        let layout = &shared.layout;
        let half = layout.dtype != Dtype::F32;
        // SAFETY: the rows are distinct rows of shards that the worker holds by `&mut`; gradients belong to the batch
        // or to its sums; scratch is not resized until the step is done. The table's level is available.
        unsafe {
            if half {
                self.widen(shared);
            }
            if !shared.config.gradient.is_none() {
                self.change_gradients(shared, batch);
            }
            let step = Step {
                rate: shared.rate,
                update: moment.update,
            };
            let group = Group {
                dim: layout.dim,
                state_len: layout.state_len,
                values: &self.values[..self.len],
                state: &self.state[..self.len],
                grads: &self.grads[..self.len],
            };
            shared
                .config
                .optimizer
                .apply(shared.level, step, &group, &mut self.user);
            if half {
                self.narrow(shared, moment.update);
            }
        }
    }

    /// # Safety
    /// As in `step`.
    #[inline(never)]
    unsafe fn widen(&mut self, shared: &Shared) {
        let (dim, half) = (shared.layout.dim, shared.layout.dtype);
        self.widened.resize(self.len * dim, 0.0);
        for (i, wide) in self.widened.chunks_exact_mut(dim).enumerate() {
            // SAFETY: the row's values are `dim` halves.
            let stored = unsafe { std::slice::from_raw_parts(self.rows[i].cast::<u16>(), dim) };
            for (wide, &stored) in wide.iter_mut().zip(stored) {
                *wide = half.widen(stored);
            }
            self.values[i] = wide.as_mut_ptr();
        }
    }

    /// # Safety
    /// As in `step`, and `widen` came before.
    #[inline(never)]
    unsafe fn narrow(&self, shared: &Shared, update: u64) {
        let (dim, half) = (shared.layout.dim, shared.layout.dtype);
        for (i, wide) in self.widened.chunks_exact(dim).enumerate() {
            let seed = rounding_seed(self.hash[i], update);
            // SAFETY: the row's values are `dim` halves.
            let stored = unsafe { std::slice::from_raw_parts_mut(self.rows[i].cast::<u16>(), dim) };
            for (element, (stored, &wide)) in stored.iter_mut().zip(wide).enumerate() {
                *stored = half.narrow(wide, rounding_bits(seed, element));
            }
        }
    }

    /// # Safety
    /// As in `step`.
    #[inline(never)]
    unsafe fn change_gradients(&mut self, shared: &Shared, batch: &Update) {
        let dim = shared.layout.dim;
        self.changed.clear();
        for &grad in &self.grads[..self.len] {
            // SAFETY: a gradient is `dim` floats.
            self.changed
                .extend_from_slice(unsafe { std::slice::from_raw_parts(grad, dim) });
        }
        for (i, grad) in self.changed.chunks_exact_mut(dim).enumerate() {
            // SAFETY: values are `dim` floats (halves were widened), no two alike.
            let values = unsafe { std::slice::from_raw_parts_mut(self.values[i], dim) };
            let pulled = batch
                .pulled
                .map(|pulled| &pulled.values[self.first[i] as usize * dim..][..dim]);
            shared
                .config
                .gradient
                .apply(shared.rate, values, grad, pulled);
            self.grads[i] = grad.as_ptr();
        }
    }
}
