//! Two-byte values: fp16 and bf16, written with stochastic rounding.
//!
//! The random bits of element `i` come from the seed (a key and an update number) and `i` alone. A number that the
//! format holds exactly never changes; what is beyond its range becomes the largest finite number.

use crate::hash::mix;

/// How values are stored. State is always fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
}

impl Dtype {
    /// By the name that files have.
    pub(crate) fn named(name: &str) -> Option<Dtype> {
        [Dtype::F32, Dtype::F16, Dtype::Bf16]
            .into_iter()
            .find(|dtype| format!("{dtype:?}") == name)
    }

    pub const fn size_bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// What one stored half stands for. Never called for fp32.
    #[inline(always)]
    pub fn widen(self, stored: u16) -> f32 {
        match self {
            Dtype::F16 => f16_to_f32(stored),
            _ => f32::from_bits(u32::from(stored) << 16),
        }
    }

    /// `value` as a half, up or down with the odds of its distance. Never called for fp32.
    #[inline(always)]
    pub fn narrow(self, value: f32, random: u32) -> u16 {
        match self {
            Dtype::F16 => f32_to_f16(value, random),
            _ => f32_to_bf16(value, random),
        }
    }
}

/// The seed of one key's rounding in one update.
#[inline(always)]
pub fn rounding_seed(hash: u64, update: u64) -> u64 {
    mix(hash ^ mix(update))
}

/// The random bits of element `i`.
#[inline(always)]
pub fn rounding_bits(seed: u64, element: usize) -> u32 {
    (mix(seed.wrapping_add(element as u64)) >> 32) as u32
}

fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let rest = u32::from(half & 0x7fff) << 13;
    if rest & 0x0f80_0000 == 0x0f80_0000 {
        return f32::from_bits(sign | rest | 0x7f80_0000);
    }
    // The exponent is 112 too small; a multiplication moves it and makes subnormals normal.
    f32::from_bits(sign | (f32::from_bits(rest) * f32::from_bits(0x7780_0000)).to_bits())
}

fn f32_to_f16(value: f32, random: u32) -> u16 {
    const LARGEST: u16 = 0x7bff;
    let sign = ((value.to_bits() >> 16) & 0x8000) as u16;
    let size = value.abs();
    if size.is_nan() {
        return sign | 0x7e00;
    }
    if size >= 65504.0 {
        return sign | LARGEST;
    }
    if size < 6.103_515_6e-5 {
        // Below 2^-14 the steps are 2^-24. Both products are exact.
        let steps = size * 16_777_216.0;
        let whole = steps as u32;
        let up = (steps - whole as f32) * 16_777_216.0 > (random >> 8) as f32;
        return sign | (whole + u32::from(up)) as u16;
    }
    let rounded = size.to_bits() + (random >> 19);
    sign | (((rounded >> 13) - (112 << 10)) as u16).min(LARGEST)
}

fn f32_to_bf16(value: f32, random: u32) -> u16 {
    const LARGEST: u32 = 0x7f7f;
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let size = bits & 0x7fff_ffff;
    if size > 0x7f80_0000 {
        return sign | 0x7fc0;
    }
    sign | ((size + (random >> 16)) >> 16).min(LARGEST) as u16
}
