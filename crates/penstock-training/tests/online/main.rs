//! The progressive trainer of regressions and factorisation machines.

mod data;
mod formulas;
mod promises;
