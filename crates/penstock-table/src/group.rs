//! Rows that take a step together: their gradients changed, their halves widened, the optimizer called, halves narrowed.

use crate::batch::Update;
use crate::half::{Dtype, rounding_bits, rounding_seed};
use crate::optimizers::{Group, Step};
use crate::rows::Row;
use crate::shard::Shared;
use crate::update::Moment;

/// Rows that wait for their step together.
#[derive(Default)]
pub(crate) struct Gathered {
    hash: Vec<u64>,
    rows: Vec<Row>,
    values: Vec<*mut f32>,
    state: Vec<*mut f32>,
    grads: Vec<*const f32>,
    /// Of each row: its first place in the batch.
    first: Vec<u32>,
    /// Changed gradients, widened halves, a user's gradients.
    changed: Vec<f32>,
    widened: Vec<f32>,
    user: Vec<f32>,
}

// SAFETY: the pointers are only alive within one call of `work`, on one thread.
unsafe impl Send for Gathered {}
// SAFETY: as above; `&Gathered` reads nothing through them.
unsafe impl Sync for Gathered {}

impl Gathered {
    pub fn clear(&mut self) {
        self.hash.clear();
        self.rows.clear();
        self.values.clear();
        self.state.clear();
        self.grads.clear();
        self.first.clear();
    }

    #[inline(always)]
    pub fn push(&mut self, shared: &Shared, row: Row, hash: u64, grad: *const f32, first: u32) {
        self.values.push(row.values.cast());
        self.state
            .push(row.side.wrapping_add(shared.layout.state).cast());
        self.grads.push(grad);
        if shared.layout.dtype != Dtype::F32 || !shared.config.gradient.is_none() {
            self.hash.push(hash);
            self.rows.push(row);
            self.first.push(first);
        }
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
                values: &self.values,
                state: &self.state,
                grads: &self.grads,
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
        let dim = shared.layout.dim;
        self.widened.resize(self.rows.len() * dim, 0.0);
        for ((row, wide), pointer) in self
            .rows
            .iter()
            .zip(self.widened.chunks_exact_mut(dim))
            .zip(&mut self.values)
        {
            // SAFETY: the caller's promise.
            unsafe { row.load(&shared.layout, wide) };
            *pointer = wide.as_mut_ptr();
        }
    }

    /// # Safety
    /// As in `step`, and `widen` came before.
    #[inline(never)]
    unsafe fn narrow(&self, shared: &Shared, update: u64) {
        let (dim, half) = (shared.layout.dim, shared.layout.dtype);
        for ((row, wide), &hash) in self
            .rows
            .iter()
            .zip(self.widened.chunks_exact(dim))
            .zip(&self.hash)
        {
            let seed = rounding_seed(hash, update);
            // SAFETY: the row's values are `dim` halves.
            let stored = unsafe { std::slice::from_raw_parts_mut(row.values.cast::<u16>(), dim) };
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
        for &grad in &self.grads {
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
