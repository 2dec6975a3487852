//! XXH3-64 as its authors publish it: the sanity vectors of xxHash 0.8 (`tests/sanity_test_vectors.h`).

use xxhash_rust::xxh3::xxh3_64_with_seed;

const PRIME32: u64 = 2_654_435_761;
const PRIME64: u64 = 11_400_714_785_074_694_797;

/// The buffer of the published test: a weak generator, fixed for good.
fn sanity_buffer(length: usize) -> Vec<u8> {
    let mut state = PRIME32;
    let mut next = || {
        let byte = (state >> 56) as u8;
        state = state.wrapping_mul(PRIME64);
        byte
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn the_published_vectors_hold() {
    // (length, seed, hash)
    let vectors = [
        (0, 0, 0x2D06_8005_38D3_94C2),
        (0, PRIME64, 0xA8A6_B918_B2F0_364A),
        (1, 0, 0xC44B_DFF4_074E_ECDB),
        (1, PRIME64, 0x032B_E332_DD76_6EF8),
        (6, 0, 0x27B5_6A84_CD2D_7325),
        (6, PRIME64, 0x8458_9C11_6AB5_9AB9),
        (12, 0, 0xA713_DAF0_DFBB_77E7),
        (12, PRIME64, 0xE730_3E1B_2336_DE0E),
        (24, 0, 0xA3FE_70BF_9D35_10EB),
        (24, PRIME64, 0x850E_80FC_35BD_D690),
        (48, 0, 0x397D_A259_ECBA_1F11),
        (48, PRIME64, 0xADC2_CBAA_44AC_C616),
        (80, 0, 0xBCDE_FBBB_2C47_C90A),
        (80, PRIME64, 0xC6DD_0CB6_9953_2E73),
        (195, 0, 0xCD94_217E_E362_EC3A),
        (195, PRIME64, 0xBA68_003D_370C_B3D9),
        (403, 0, 0xCDEB_804D_65C6_DEA4),
        (403, PRIME64, 0x6259_F6EC_FD64_43FD),
        (512, 0, 0x617E_4959_9013_CB6B),
        (512, PRIME64, 0x3CE4_57DE_14C2_7708),
        (2048, 0, 0xDD59_E2C3_A5F0_38E0),
        (2048, PRIME64, 0x66F8_1670_669A_BABC),
        (2240, 0, 0x6E73_A905_39CF_2948),
        (2240, PRIME64, 0x757B_A848_7D1B_5247),
        (2367, 0, 0xCB37_AEB9_E5D3_61ED),
        (2367, PRIME64, 0xD2DB_3415_B942_B42A),
    ];
    let buffer = sanity_buffer(2367);
    for (length, seed, hash) in vectors {
        assert_eq!(
            xxh3_64_with_seed(&buffer[..length], seed),
            hash,
            "length {length}, seed {seed:x}"
        );
    }
}
