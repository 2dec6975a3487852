//! Optimizers: what one summed gradient does to one row's values and state.
//!
//! A kernel sees groups of rows through pointers, the same shape that a user's C function sees (`user.rs`).
//! Loops are elementwise, or sums in sixteen fixed lanes, so every vector width gives the same bits.

pub mod adagrad;
pub mod adam;
pub mod ftrl;
pub mod rules;
pub mod sgd;
pub mod user;

use crate::line::Search;
use crate::simd::{Level, at_each_level};
use user::UserFunction;

#[derive(Clone, Copy, Debug)]
pub enum Optimizer {
    /// `w -= rate * g`
    Sgd,
    /// `m = momentum * m + g; w -= rate * m` (`g + momentum * m` if nesterov), for touched rows only.
    Momentum {
        momentum: f32,
        nesterov: bool,
    },
    /// torch's: `sum += g^2; w -= rate * g / (sqrt(sum) + epsilon)`
    Adagrad {
        epsilon: f32,
        initial: f32,
    },
    /// FBGEMM's: one sum a row, of the mean of g^2.
    RowwiseAdagrad {
        epsilon: f32,
        initial: f32,
    },
    /// torch's SparseAdam; with `per_row` the bias correction counts the row's own updates (one more state column).
    Adam {
        beta1: f32,
        beta2: f32,
        epsilon: f32,
        per_row: bool,
    },
    /// FTRL-proximal (McMahan et al. 2013), the learning rate being alpha.
    Ftrl {
        beta: f32,
        l1: f32,
        l2: f32,
    },
    User(UserFunction),
}

/// A named part of a row's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub width: usize,
}

impl Optimizer {
    /// What files call it, whatever its numbers.
    pub fn name(&self) -> &'static str {
        match self {
            Optimizer::Sgd => "Sgd",
            Optimizer::Momentum { .. } => "Momentum",
            Optimizer::Adagrad { .. } => "Adagrad",
            Optimizer::RowwiseAdagrad { .. } => "RowwiseAdagrad",
            Optimizer::Adam { .. } => "Adam",
            Optimizer::Ftrl { .. } => "Ftrl",
            Optimizer::User(_) => "User",
        }
    }

    /// The columns of a row's state, in their order.
    pub fn columns(&self, dim: usize) -> Vec<Column> {
        let column = |name, width| Column { name, width };
        match *self {
            Optimizer::Sgd => vec![],
            Optimizer::Momentum { .. } => vec![column("momentum", dim)],
            Optimizer::Adagrad { .. } => vec![column("sum", dim)],
            Optimizer::RowwiseAdagrad { .. } => vec![column("sum", 1)],
            Optimizer::Adam { per_row, .. } => {
                let mut columns = vec![column("mean", dim), column("square", dim)];
                if per_row {
                    columns.push(column("steps", 1));
                }
                columns
            }
            Optimizer::Ftrl { .. } => vec![column("z", dim), column("n", dim)],
            Optimizer::User(function) => vec![column("user", function.state_len)],
        }
    }

    pub fn state_len(&self, dim: usize) -> usize {
        self.columns(dim).iter().map(|column| column.width).sum()
    }

    /// The state of a new row with these values.
    pub fn begin(&self, rate: f32, values: &[f32], state: &mut [f32]) {
        match *self {
            Optimizer::Adagrad { initial, .. } | Optimizer::RowwiseAdagrad { initial, .. } => {
                state.fill(initial)
            }
            Optimizer::Ftrl { beta, l1, l2 } => ftrl::begin(
                &ftrl::Ftrl {
                    alpha: rate,
                    beta,
                    l1,
                    l2,
                },
                values,
                state,
            ),
            Optimizer::User(function) => state.fill(function.initial),
            _ => state.fill(0.0),
        }
    }

    pub(crate) fn unsound(&self) -> Option<String> {
        let (numbers, name): (&[f32], &str) = match self {
            Optimizer::Sgd => (&[], "sgd"),
            Optimizer::Momentum { momentum, .. } => (&[*momentum], "momentum"),
            Optimizer::Adagrad { epsilon, initial } => (&[*epsilon, *initial], "adagrad"),
            Optimizer::RowwiseAdagrad { epsilon, initial } => {
                (&[*epsilon, *initial], "row-wise adagrad")
            }
            Optimizer::Adam { beta1, beta2, .. } if *beta1 >= 1.0 || *beta2 >= 1.0 => {
                return Some("adam: the betas must be below 1".into());
            }
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                ..
            } => (&[*beta1, *beta2, *epsilon], "adam"),
            Optimizer::Ftrl { beta, l1, l2 } => (&[*beta, *l1, *l2], "ftrl"),
            Optimizer::User(function) => (&[function.initial.abs()], "user optimizer"),
        };
        numbers
            .iter()
            .any(|x| !x.is_finite() || *x < 0.0)
            .then(|| format!("{name}: its numbers must be finite and not negative"))
    }
}

/// Rows that take a step together. The pointers of different rows do not overlap.
pub struct Group<'a> {
    pub dim: usize,
    pub state_len: usize,
    pub values: &'a [*mut f32],
    pub state: &'a [*mut f32],
    pub grads: &'a [*const f32],
}

/// What the rows' step depends on beside themselves.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub rate: f32,
    /// Which update of the table this is, from 1.
    pub update: u64,
}

/// One row's step, in plain elementwise loops.
pub(crate) trait Kernel {
    fn row(&self, w: &mut [f32], s: &mut [f32], g: &[f32]);
}

#[inline(always)]
unsafe fn each_row<S: Search, K: Kernel>(kernel: &K, group: &Group) {
    macro_rules! rows {
        ($dim:expr) => {
            for ((&w, &s), &g) in group.values.iter().zip(group.state).zip(group.grads) {
                // SAFETY: the caller's promise.
                unsafe {
                    kernel.row(
                        std::slice::from_raw_parts_mut(w, $dim),
                        std::slice::from_raw_parts_mut(s, group.state_len),
                        std::slice::from_raw_parts(g, $dim),
                    )
                }
            }
        };
    }
    // A known length makes straight-line code of the commonest shapes (17: an embedding and its key's own weight).
    match group.dim {
        8 => rows!(8),
        16 => rows!(16),
        17 => rows!(17),
        32 => rows!(32),
        _ => rows!(group.dim),
    }
}

at_each_level! {
    /// Every row of the group takes its step.
    ///
    /// # Safety
    /// `level` is available. Each pointer is valid for its length (`dim`, `state_len`, `dim`), aligned, and no other
    /// reference to a row's values or state is alive.
    unsafe fn steps<K: Kernel>(kernel: &K, group: &Group<'_>) = each_row
}

impl Optimizer {
    /// One step for each row of the group.
    ///
    /// # Safety
    /// As for `steps`.
    pub(crate) unsafe fn apply(
        &self,
        level: Level,
        step: Step,
        group: &Group,
        gathered: &mut Vec<f32>,
    ) {
        let rate = step.rate;
        // SAFETY: the caller's promise.
        unsafe {
            match *self {
                Optimizer::Sgd => steps(level, &sgd::Sgd { rate }, group),
                Optimizer::Momentum { momentum, nesterov } => {
                    steps(
                        level,
                        &sgd::Momentum {
                            rate,
                            momentum,
                            nesterov,
                        },
                        group,
                    );
                }
                Optimizer::Adagrad { epsilon, .. } => {
                    steps(level, &adagrad::Adagrad { rate, epsilon }, group)
                }
                Optimizer::RowwiseAdagrad { epsilon, .. } => {
                    steps(
                        level,
                        &adagrad::Rowwise {
                            rate,
                            epsilon,
                            dim: group.dim as f32,
                        },
                        group,
                    );
                }
                Optimizer::Adam {
                    beta1,
                    beta2,
                    epsilon,
                    per_row: false,
                } => {
                    steps(
                        level,
                        &adam::Adam::new(rate, beta1, beta2, epsilon, step.update),
                        group,
                    );
                }
                Optimizer::Adam {
                    beta1,
                    beta2,
                    epsilon,
                    per_row: true,
                } => {
                    steps(
                        level,
                        &adam::PerRow {
                            rate,
                            beta1,
                            beta2,
                            epsilon,
                        },
                        group,
                    );
                }
                Optimizer::Ftrl { beta, l1, l2 } => steps(
                    level,
                    &ftrl::Ftrl {
                        alpha: rate,
                        beta,
                        l1,
                        l2,
                    },
                    group,
                ),
                Optimizer::User(function) => function.step(step, group, gathered),
            }
        }
    }
}

/// The sum of `f` over elements in sixteen fixed lanes: element i goes to lane i mod 16, lanes are added in halves.
#[inline(always)]
pub(crate) fn lane_sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for chunk in whole {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    let mut width = 8;
    while width > 0 {
        let (low, high) = lanes.split_at_mut(width);
        low.iter_mut()
            .zip(high)
            .for_each(|(low, high)| *low += *high);
        width /= 2;
    }
    lanes[0]
}
