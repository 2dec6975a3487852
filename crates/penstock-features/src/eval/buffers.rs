//! Working memory that functions share, one after another.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};

use crate::block::Mask;

/// Working memory of single functions.
#[derive(Default)]
pub(crate) struct Buffers {
    pub values: Vec<u64>,
    pub words: Vec<u64>,
    pub present: Mask,
    pub picks: Vec<usize>,
    pub pick_ends: Vec<usize>,
    pub parts: Vec<u8>,
    pub stack: Vec<Vec<f64>>,
    pub seen: HashSet<u64, Prehashed>,
}

/// The elements of these sets are XXH3 hashes already.
#[derive(Default, Clone)]
pub(crate) struct Prehashed(u64);

impl BuildHasher for Prehashed {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
