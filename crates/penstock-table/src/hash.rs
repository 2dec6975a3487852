//! The mixed hash: part of the format for good (ADR 0030).

pub const BUCKET_BITS: u32 = 12;
/// Virtual buckets of every table, whatever its number of shards.
pub const BUCKETS: usize = 1 << BUCKET_BITS;
/// Bits of a hash below its bucket.
pub const REMAINDER_BITS: u32 = 64 - BUCKET_BITS;
pub const REMAINDER_MASK: u64 = (1 << REMAINDER_BITS) - 1;

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
const FIRST: u64 = 0xbf58_476d_1ce4_e5b9;
const SECOND: u64 = 0x94d0_49bb_1331_11eb;

/// The hash of a key. A bijection: `unmix` gives the key back.
#[inline(always)]
pub const fn mix(key: u64) -> u64 {
    let mut z = key.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(FIRST);
    z = (z ^ (z >> 27)).wrapping_mul(SECOND);
    z ^ (z >> 31)
}

/// The key of a hash.
pub const fn unmix(hash: u64) -> u64 {
    let mut z = unshift(hash, 31).wrapping_mul(inverse(SECOND));
    z = unshift(z, 27).wrapping_mul(inverse(FIRST));
    unshift(z, 30).wrapping_sub(GAMMA)
}

/// A hash's virtual bucket, 0..4096.
#[inline(always)]
pub const fn bucket(hash: u64) -> usize {
    (hash >> REMAINDER_BITS) as usize
}

/// Undoes `z ^= z >> by`.
const fn unshift(value: u64, by: u32) -> u64 {
    let mut z = value;
    let mut known = by;
    while known < 64 {
        z = value ^ (z >> by);
        known += by;
    }
    z
}

/// The inverse of an odd number modulo 2^64: each Newton step doubles the bits that are right.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut step = 0;
    while step < 5 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}
