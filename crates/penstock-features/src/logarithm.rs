//! The natural logarithm without branches, to the last bit what `libm::log` gives.
//!
//! The same operations in the same order as FreeBSD's e_log.c (which `libm` follows; the method and its constants are
//! explained there), so that the compiler can work on several numbers in one register. Numbers that need another way
//! (those that are not positive, normal and finite) are left to `libm`.

const LN2_HI: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN2_LO: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
/// Coefficients of the minimax polynomial for (log(1+f) - f + f^2/2 - ...)/s, odd powers of s left out.
const LG: [f64; 7] = [
    f64::from_bits(0x3fe5_5555_5555_5593),
    f64::from_bits(0x3fd9_9999_9997_fa04),
    f64::from_bits(0x3fd2_4924_9422_9359),
    f64::from_bits(0x3fcc_71c5_1d8e_78af),
    f64::from_bits(0x3fc7_4664_96cb_03de),
    f64::from_bits(0x3fc3_9a09_d078_c69f),
    f64::from_bits(0x3fc2_f112_df3e_5244),
];
/// The upper half of sqrt(2)/2 and of 1.0.
const ROOT: u64 = 0x3fe6_a09e;
const ONE: u64 = 0x3ff0_0000;

/// Whether `of_normal` does not hold for `x`.
#[inline(always)]
pub(crate) fn is_special(x: f64) -> bool {
    !(f64::MIN_POSITIVE..f64::INFINITY).contains(&x)
}

/// For positive, normal, finite numbers: x = 2^k (1 + f) with sqrt(2)/2 < 1 + f < sqrt(2).
#[inline(always)]
pub(crate) fn of_normal(x: f64) -> f64 {
    let bits = x.to_bits();
    let high = (bits >> 32) + (ONE - ROOT);
    let k = (high >> 20) as i32 - 0x3ff;
    let mantissa = (high & 0x000f_ffff) + ROOT;
    let f = f64::from_bits(mantissa << 32 | bits & 0xffff_ffff) - 1.0;
    let half_square = 0.5 * f * f;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let even = w * (LG[1] + w * (LG[3] + w * LG[5]));
    let odd = z * (LG[0] + w * (LG[2] + w * (LG[4] + w * LG[6])));
    let r = odd + even;
    let k = f64::from(k);
    s * (half_square + r) + k * LN2_LO - half_square + f + k * LN2_HI
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_logarithm_of_libm_to_the_last_bit() {
        let special = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            f64::MIN_POSITIVE / 2.0,
            f64::from_bits(1),
            f64::MAX,
            f64::EPSILON,
            1.0 - f64::EPSILON / 2.0,
            1.0 + f64::EPSILON,
            std::f64::consts::SQRT_2,
            std::f64::consts::FRAC_1_SQRT_2,
        ];
        let mut state = 1_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state ^ state >> 29
        };
        // Any bits at all, then numbers around 1, then every other special one among ordinary ones.
        let mut numbers: Vec<f64> = (0..200_000).map(|_| f64::from_bits(random())).collect();
        numbers.extend((0..200_000).map(|_| (random() >> 11) as f64 / (1_u64 << 52) as f64));
        numbers.extend((0..20_000).map(|_| (random() >> 40) as f64 / 4.0));
        for number in special {
            numbers.extend([2.5, number, 0.1]);
        }
        let mut found = Vec::new();
        crate::wide::logarithms(&numbers, &mut found);
        assert_eq!(found.len(), numbers.len());
        for (x, found) in numbers.iter().zip(found) {
            let expected = libm::log(*x);
            let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
            assert!(same, "log({x:e}) is {expected:e}, not {found:e}");
        }
    }
}
