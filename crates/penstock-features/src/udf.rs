//! The user's own functions: C functions compiled by numba, called by address on every path.

use crate::spec::Takes;

pub(crate) const MAX_ARGUMENTS: usize = 4;

/// A C function of one to four arguments, all f64 to f64 or all u64 to u64.
///
/// The address comes from `numba.cfunc` in this process and is trusted as a dynamic library's symbol is: whoever
/// made the plan keeps the compiled function alive and says truly what it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Udf {
    address: usize,
    pub takes: Takes,
    arity: usize,
}

macro_rules! call {
    ($self:ident, $type:ty, $args:ident) => {{
        let address = $self.address as *const ();
        // SAFETY: `address` is not null (checked when attached), and the plan's maker promises that it is a C
        // function of `arity` arguments of this type that does not unwind and may be called from any thread.
        unsafe {
            match $args {
                [a] => std::mem::transmute::<*const (), extern "C" fn($type) -> $type>(address)(*a),
                [a, b] => std::mem::transmute::<*const (), extern "C" fn($type, $type) -> $type>(address)(*a, *b),
                [a, b, c] => std::mem::transmute::<*const (), extern "C" fn($type, $type, $type) -> $type>(address)(
                    *a, *b, *c,
                ),
                [a, b, c, d] => std::mem::transmute::<
                    *const (),
                    extern "C" fn($type, $type, $type, $type) -> $type,
                >(address)(*a, *b, *c, *d),
                _ => Default::default(),
            }
        }
    }};
}

impl Udf {
    pub(crate) fn at(address: usize, takes: Takes, arity: usize) -> Result<Self, String> {
        match arity {
            1..=MAX_ARGUMENTS => Ok(Self {
                address,
                takes,
                arity,
            }),
            _ => Err(format!(
                "a function takes 1 to {MAX_ARGUMENTS} inputs, not {arity}"
            )),
        }
    }

    #[inline]
    pub(crate) fn call_f64(&self, args: &[f64]) -> f64 {
        debug_assert_eq!(args.len(), self.arity);
        call!(self, f64, args)
    }

    #[inline]
    pub(crate) fn call_u64(&self, args: &[u64]) -> u64 {
        debug_assert_eq!(args.len(), self.arity);
        call!(self, u64, args)
    }
}
