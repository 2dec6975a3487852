//! What the format fixes for good: hash, init, rounding. The numbers come from a separate implementation in Python.

use penstock_table::half::{Dtype, rounding_bits, rounding_seed};
use penstock_table::hash::{bucket, mix, unmix};
use penstock_table::{Engine, Init, Optimizer, Table, TableConfig};

const MAPPED: u64 = 7 << 52 | 12345;

#[test]
fn the_hash_is_what_it_was() {
    for (key, hash, its_bucket) in [
        (0, 0xe220_a839_7b1d_cdaf, 3618),
        (1, 0x910a_2dec_8902_5cc1, 2320),
        (65536, 0x09aa_b36c_fda2_d1b3, 154),
        (MAPPED, 0x136a_bfdd_f22d_13ea, 310),
        (0x0123_4567_89ab_cdef, 0x157a_3807_a48f_aa9d, 343),
        (u64::MAX - 1, 0xf320_3e90_39f4_a821, 3890),
        (u64::MAX, 0xe4d9_7177_1b65_2c20, 3661),
    ] {
        assert_eq!(
            (mix(key), bucket(mix(key)), unmix(hash)),
            (hash, its_bucket, key)
        );
    }
}

#[test]
fn init_is_what_it_was() {
    let uniform = Init::Uniform {
        low: -0.05,
        high: 0.05,
    };
    let normal = Init::Normal {
        mean: 0.0,
        deviation: 0.01,
    };
    let truncated = Init::Truncated {
        mean: 1.0,
        deviation: 0.01,
    };
    for (init, key, seed, bits) in [
        (
            uniform,
            0,
            0,
            [0xbd3a_b82c, 0x3c2c_2e7f, 0x3c7b_f6fd, 0x3d0e_f3aa],
        ),
        (
            normal,
            0,
            0,
            [0xbc8b_a25c, 0x3b2e_af4c, 0x3b81_9e6a, 0x3c29_1c4a],
        ),
        (
            truncated,
            0,
            0,
            [0x3f7c_1f1e, 0x3f80_5348, 0x3f80_7b6d, 0x3f81_3cbb],
        ),
        (
            uniform,
            MAPPED,
            0,
            [0xbd21_675a, 0x3cd5_4eaf, 0xbd10_0c2d, 0x3ae3_6aa8],
        ),
        (
            normal,
            MAPPED,
            0,
            [0xbc4c_8866, 0x3be7_d8df, 0xbc2a_fe44, 0x39e4_176d],
        ),
        (
            truncated,
            MAPPED,
            0,
            [0x3f7d_0a86, 0x3f80_db83, 0x3f7d_7fd1, 0x3f80_0d9b],
        ),
        (
            uniform,
            u64::MAX,
            42,
            [0xbd35_38bc, 0xbc12_8b3b, 0x3d33_5036, 0xbd20_83de],
        ),
        (
            normal,
            u64::MAX,
            42,
            [0xbc81_11bd, 0xbb14_2f7d, 0x3c7b_b831, 0xbc4a_9ad9],
        ),
        (
            truncated,
            u64::MAX,
            42,
            [0x3f7c_5ce6, 0x3f7f_72aa, 0x3f81_c7bd, 0x3f7d_111e],
        ),
    ] {
        let mut config = TableConfig::new("golden", 4, Optimizer::Sgd, 0.1);
        (config.init, config.seed) = (init, seed);
        let table = Table::new(config, Engine::default()).unwrap();
        let mut out = [0.0; 4];
        table.lookup(&[key], &mut out).unwrap();
        assert_eq!(
            out.map(f32::to_bits),
            bits,
            "{init:?} of {key:#x}, seed {seed}"
        );
    }
}

#[test]
fn rounding_is_what_it_was() {
    let seed = rounding_seed(mix(12345), 3);
    let round = |dtype: Dtype, x: f32, i: usize| dtype.narrow(x, rounding_bits(seed, i));
    let tenths = [
        0x3dcc_cccd,
        0x3de1_47ae,
        0x3df5_c28f,
        0x3e05_1eb8,
        0x3e0f_5c29,
        0x3e19_999a,
    ]
    .map(f32::from_bits);
    let bf16: Vec<u16> = tenths
        .iter()
        .enumerate()
        .map(|(i, &x)| round(Dtype::Bf16, x, i))
        .collect();
    assert_eq!(bf16, [0x3dcc, 0x3de1, 0x3df6, 0x3e05, 0x3e0f, 0x3e1a]);
    let several = [0.1, -0.37, 3.25, 1e-5, -2.5e-6, 1000.3];
    let f16: Vec<u16> = several
        .iter()
        .enumerate()
        .map(|(i, &x)| round(Dtype::F16, x, i))
        .collect();
    assert_eq!(f16, [0x2e66, 0xb5ec, 0x4280, 0x00a8, 0x802a, 0x63d1]);
}

#[test]
fn every_half_comes_back_whatever_the_draw() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        for stored in 0..=u16::MAX {
            let wide = dtype.widen(stored);
            for random in [0, 0x8000_0000, u32::MAX] {
                let back = dtype.narrow(wide, random);
                if wide.is_nan() {
                    assert!(dtype.widen(back).is_nan());
                } else if wide.is_infinite() {
                    assert!(
                        dtype.widen(back).is_finite(),
                        "infinity becomes the largest finite number"
                    );
                } else {
                    assert_eq!(back, stored, "{dtype:?} {stored:#x}");
                }
            }
        }
    }
}

#[test]
fn halves_are_right_on_average_and_never_more_than_a_step_away() {
    for (dtype, x, step) in [
        (Dtype::F16, 0.1f32, 2f32.powi(-14)),
        (Dtype::F16, 3e-6, 2f32.powi(-24)),
        (Dtype::F16, -100.03, 2f32.powi(-4)),
        (Dtype::Bf16, 0.1, 2f32.powi(-11)),
        (Dtype::Bf16, -1e30, 2f32.powi(92)),
    ] {
        let draws = 20_000;
        let sum: f64 = (0..draws)
            .map(|i| {
                let rounded = dtype.widen(dtype.narrow(x, rounding_bits(7, i)));
                assert!((rounded - x).abs() < step, "{dtype:?} {x}: {rounded}");
                f64::from(rounded)
            })
            .sum();
        let off = (sum / draws as f64 - f64::from(x)).abs();
        assert!(off < f64::from(step) * 0.02, "{dtype:?} {x}: off by {off}");
    }
}

#[test]
fn keys_that_are_alike_spread_over_the_buckets() {
    let n = 1u64 << 20;
    type Stream = (&'static str, fn(u64) -> u64);
    let streams: [Stream; 4] = [
        ("sequential", |i| i),
        ("equal high bits", |i| 0xfeed << 40 | i),
        ("multiples of 65,536", |i| i << 16),
        ("high bits only", |i| i << 44),
    ];
    for (name, stream) in streams {
        let mut counts = vec![0u32; penstock_table::hash::BUCKETS];
        (0..n).for_each(|i| counts[bucket(mix(stream(i)))] += 1);
        // 256 a bucket; six deviations of a Poisson count.
        assert!(
            counts.iter().all(|&count| (160..=352).contains(&count)),
            "{name}"
        );
    }
}
