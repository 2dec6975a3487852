//! The progressive trainer of regressions and factorisation machines.

mod cuts;
mod data;
mod formulas;
mod promises;
