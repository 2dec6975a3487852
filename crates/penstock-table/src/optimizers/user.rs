//! A user's own optimizer or policy: a C function over a group of rows, such as a numba cfunc.

use std::ffi::c_void;

use super::{Group, Step};

/// `(n, rows, state, grads, context)`: `rows[i]` is row i's values (fp32, `dim`), `state[i]` its state.
///
/// An optimizer reads gradient i at `grads + i * dim`. A policy is given four numbers a row at `grads + i * 4`: count, seconds since
/// last seen, score (0 without one) and 0; it writes 1 into the fourth to drop the row.
pub type UserCall = unsafe extern "C" fn(
    n: i64,
    rows: *const *mut f32,
    state: *const *mut f32,
    grads: *mut f32,
    context: *const UserContext,
);

/// What a user's function is told.
#[repr(C)]
pub struct UserContext {
    pub dim: i64,
    pub state_len: i64,
    pub learning_rate: f32,
    /// Keeps `update` at the same offset for every compiler.
    pub reserved: u32,
    /// The table's update number, from 1.
    pub update: u64,
    pub user: *mut c_void,
}

#[derive(Clone, Copy, Debug)]
pub struct UserFunction {
    call: UserCall,
    user: *mut c_void,
    /// Floats of state a row, and what they are at first. Ignored for a policy, which sees the optimizer's.
    pub state_len: usize,
    pub initial: f32,
}

// SAFETY: `UserFunction::new`'s caller promised that the function may be called from any thread.
unsafe impl Send for UserFunction {}
// SAFETY: as above.
unsafe impl Sync for UserFunction {}

impl UserFunction {
    /// # Safety
    /// `call` may be called from any thread, from several at once, as long as the table lives; it touches only what
    /// `UserCall` describes, and `user`, which outlives the table.
    pub unsafe fn new(
        call: UserCall,
        user: *mut c_void,
        state_len: usize,
        initial: f32,
    ) -> UserFunction {
        UserFunction {
            call,
            user,
            state_len,
            initial,
        }
    }

    fn context(&self, step: Step, dim: usize, state_len: usize) -> UserContext {
        UserContext {
            dim: dim as i64,
            state_len: state_len as i64,
            learning_rate: step.rate,
            reserved: 0,
            update: step.update,
            user: self.user,
        }
    }

    /// # Safety
    /// As for `Optimizer::apply`.
    pub(super) unsafe fn step(&self, step: Step, group: &Group, gathered: &mut Vec<f32>) {
        gathered.clear();
        for &grad in group.grads {
            // SAFETY: a gradient is `dim` floats (the caller's promise).
            gathered.extend_from_slice(unsafe { std::slice::from_raw_parts(grad, group.dim) });
        }
        let context = self.context(step, group.dim, group.state_len);
        // SAFETY: as many rows, states and gradients as said; the rest is `new`'s promise.
        unsafe {
            (self.call)(
                group.values.len() as i64,
                group.values.as_ptr(),
                group.state.as_ptr(),
                gathered.as_mut_ptr(),
                &context,
            );
        }
    }

    /// Asks a policy about rows; `facts` is four numbers a row, the fourth of them the answer.
    ///
    /// # Safety
    /// The pointers are valid for `dim` and `state_len` floats, and nobody else uses the rows meanwhile.
    pub(crate) unsafe fn judge(
        &self,
        dim: usize,
        state_len: usize,
        rows: &[*mut f32],
        state: &[*mut f32],
        facts: &mut [f32],
    ) {
        debug_assert!(rows.len() == state.len() && facts.len() == 4 * rows.len());
        let context = self.context(
            Step {
                rate: 0.0,
                update: 0,
            },
            dim,
            state_len,
        );
        // SAFETY: as many rows, states and facts as said; the rest is `new`'s promise.
        unsafe {
            (self.call)(
                rows.len() as i64,
                rows.as_ptr(),
                state.as_ptr(),
                facts.as_mut_ptr(),
                &context,
            )
        };
    }
}
