//! The progressive trainer of regressions and factorisation machines.

mod chain;
mod cuts;
mod data;
mod formulas;
mod promises;
