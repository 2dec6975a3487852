//! The feature kernel: a plan is compiled once, then runs over Arrow columns and over single rows with the same code.
