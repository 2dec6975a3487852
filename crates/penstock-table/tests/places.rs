//! Rows in place: what a trainer that steps them itself may rely on.

use penstock_table::hash::mix;
use penstock_table::{Admission, Optimizer, Place, Table, TableConfig};

fn config(dim: usize) -> TableConfig {
    TableConfig::new("t", dim, Optimizer::Sgd, 0.1)
}

fn keys(n: u64) -> Vec<u64> {
    (0..n).map(|k| (k * k) ^ (k << 52)).collect()
}

#[test]
fn a_place_is_where_lookup_reads() {
    let mut table = Table::in_place(config(3)).unwrap();
    let keys = keys(20_000);
    for (i, &key) in keys.iter().enumerate() {
        let place = table.sight(mix(key)).unwrap();
        // SAFETY: a row of three floats that nobody else uses.
        unsafe { *place.values().add(1) = i as f32 };
    }
    assert_eq!(table.rows(), 20_000);
    let mut found = vec![Place::NONE; keys.len()];
    let hashes: Vec<u64> = keys.iter().map(|&key| mix(key)).collect();
    table.find_to_read(&hashes, &mut found);
    let mut read = vec![0.0; 3 * keys.len()];
    table.lookup(&keys, &mut read).unwrap();
    for (i, place) in found.iter().enumerate() {
        // SAFETY: as above, read only.
        assert_eq!(unsafe { *place.values().add(1) }, i as f32);
        assert_eq!(read[3 * i..][..3], [0.0, i as f32, 0.0]);
    }
}

#[test]
fn places_stay_while_the_table_grows() {
    let mut table = Table::in_place(config(1)).unwrap();
    let first = table.sight(mix(7)).unwrap();
    for &key in &keys(50_000) {
        table.sight(mix(key)).unwrap();
    }
    assert_eq!(table.sight(mix(7)).unwrap(), first);
}

#[test]
fn an_absent_key_has_no_place_until_it_was_seen_often_enough() {
    let mut config = config(2);
    config.admission = Admission::Count {
        least: 3,
        sketch_bytes: 1 << 16,
        halve_every: 1 << 40,
    };
    let mut table = Table::in_place(config).unwrap();
    let told: Vec<bool> = (0..4)
        .map(|_| table.sight(mix(5)).unwrap().is_none())
        .collect();
    assert_eq!(told, [true, true, false, false]);
    let mut found = [Place::NONE; 2];
    table.find_to_read(&[mix(5), mix(6)], &mut found);
    assert!(!found[0].is_none() && found[1].is_none());
    assert!(!table.insert(6).unwrap().is_none());
    assert_eq!(table.rows(), 2);
}

#[test]
fn what_evicts_or_is_half_is_refused() {
    let mut evicting = config(1);
    evicting.eviction.ttl_s = Some(1);
    assert!(Table::in_place(evicting).is_err());
    let mut half = config(1);
    half.dtype = penstock_table::Dtype::Bf16;
    assert!(Table::in_place(half).is_err());
    assert!(Table::in_place(config(1)).is_ok());
}
