//! Algorithms that never touch Python per row: sparse logistic regression and FP-growth.
