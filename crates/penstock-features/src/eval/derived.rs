//! What is derived of a source once a chunk: the hashes and the f64s of its elements.

use crate::block::{Block, Kind};
use crate::canonical;

/// What many items want of one source.
#[derive(Default)]
pub(super) struct Derived {
    hashes: Vec<Cached<u64>>,
    numbers: Vec<Cached<f64>>,
}

#[derive(Default)]
struct Cached<T> {
    ready: bool,
    values: Vec<T>,
}

impl Derived {
    pub(super) fn reset(&mut self, sources: usize) {
        self.hashes.resize_with(sources, Cached::default);
        self.numbers.resize_with(sources, Cached::default);
        self.hashes
            .iter_mut()
            .for_each(|cached| cached.ready = false);
        self.numbers
            .iter_mut()
            .for_each(|cached| cached.ready = false);
    }

    /// Have the hashes of a source's elements ready.
    pub(super) fn need_hashes(
        &mut self,
        source: usize,
        block: &Block<'_>,
        seed: u64,
    ) -> Result<(), String> {
        let cached = &mut self.hashes[source];
        if !cached.ready {
            canonical::hash_elements(block, seed, &mut cached.values)?;
            cached.ready = true;
        }
        Ok(())
    }

    /// Have a source's numbers ready. A block of floats is its own numbers.
    pub(super) fn need_numbers(&mut self, source: usize, block: &Block<'_>) -> Result<(), String> {
        if block.kind == Kind::Float {
            return Ok(());
        }
        let cached = &mut self.numbers[source];
        if !cached.ready {
            numbers(block, &mut cached.values)?;
            cached.ready = true;
        }
        Ok(())
    }

    pub(super) fn hashes(&self, source: usize) -> &[u64] {
        &self.hashes[source].values
    }

    pub(super) fn numbers<'r>(&'r self, source: usize, blocks: &'r [Block<'_>]) -> &'r [f64] {
        let block = &blocks[source];
        if block.kind == Kind::Float {
            &block.floats
        } else {
            &self.numbers[source].values
        }
    }
}

/// f64s of the elements of a block of anything but floats, NaN for those without a value. Integers beyond 2^53 round to the nearest.
fn numbers(block: &Block<'_>, out: &mut Vec<f64>) -> Result<(), String> {
    out.clear();
    match block.kind {
        Kind::Float => {}
        Kind::Int => out.extend(block.ints.iter().map(|v| *v as f64)),
        Kind::UInt | Kind::Bool => out.extend(block.words.iter().map(|v| *v as f64)),
        Kind::Null => out.resize(block.len(), f64::NAN),
        Kind::Text | Kind::Binary => return Err("a string is not a number".into()),
        Kind::Date | Kind::Time => {
            return Err("a date is not a number: bucketize_time takes its parts".into());
        }
    }
    if block.valid.missing > 0 {
        for (number, valid) in out.iter_mut().zip(&block.valid.bits) {
            *number = if *valid { *number } else { f64::NAN };
        }
    }
    Ok(())
}
