//! What a key is: `slot << 52 | value`, and which values stand for null.

pub const VALUE_BITS: u32 = 52;
/// The value of a slot's null key; a hash that lands here becomes one less.
pub const NULL_VALUE: u64 = (1 << VALUE_BITS) - 1;
pub const MAX_SLOT: u64 = 2047;

/// A hash's low 52 bits, never the null value.
#[inline]
pub fn hashed_value(hash: u64) -> u64 {
    let value = hash & NULL_VALUE;
    value - u64::from(value == NULL_VALUE)
}
