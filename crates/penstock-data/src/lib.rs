//! Readers that keep what they reject: CSV, JSON lines and libsvm into Arrow, with a reason for every row left out.
