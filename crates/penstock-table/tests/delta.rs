//! Deltas: packed from a store's epochs, read back the same, refused where a byte is another.

use std::collections::HashSet;
use std::sync::Arc;

use penstock_table::delta::{
    Block, Content, DeltaError, Mark, Packer, Record, announcement, commit, dense_parts, pack,
    part, tell, track,
};
use penstock_table::disk::Disk;
use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::{
    Bag, Engine, Eviction, Init, Keys, Optimizer, Pooling, Snapshot, Store, TableConfig, Update,
    View, prepare_snapshot,
};

const MARK: Mark = Mark {
    generation: 3,
    from: 7,
    to: 8,
    writer: 99,
};
const ABOUT: [&str; 4] = ["ctr", "plan", "base", "{}"];

fn store() -> Store {
    let mut store = Store::default();
    for (name, dim) in [("items", 3), ("users", 2)] {
        let mut config = TableConfig::new(name, dim, Optimizer::Sgd, 1.0);
        config.init = Init::Uniform {
            low: -1.0,
            high: 1.0,
        };
        config.eviction = Eviction {
            ttl_s: Some(10),
            ..Eviction::default()
        };
        let table = store.add_table(config, Engine::default()).unwrap();
        store.add_slot(table as u32, table, Keys::Raw).unwrap();
    }
    store
}

fn step(store: &mut Store, slot: u32, keys: std::ops::Range<u64>, at: i64) {
    let keys: Vec<u64> = keys.collect();
    let dim = store.tables()[slot as usize].config().dim;
    let grads: Vec<f32> = (0..keys.len() * dim)
        .map(|i| 0.01 * (i % 97) as f32)
        .collect();
    let batch = Update {
        keys: &keys,
        grads: &grads,
        occurrences: None,
        shows: None,
        clicks: None,
        event_time_s: at,
        pulled: None,
    };
    store.update(slot, &batch).unwrap();
}

/// The parts of what changed, and its commit record.
fn packed(store: &mut Store, half: bool, most: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (packed, epochs) = pack(store, "chain", vec![], Packer::new(half, most)).unwrap();
    tell(store, "chain", &epochs);
    let bodies = (0..).zip(&packed.bodies);
    let parts: Vec<_> = bodies.map(|(n, body)| part(MARK, n, body)).collect();
    let record = commit(MARK, &parts, packed.rows, packed.gone, ABOUT);
    (parts, record)
}

fn blocks(parts: &[Vec<u8>]) -> Vec<Block<'_>> {
    let read = parts
        .iter()
        .map(|part| match Record::read(part).unwrap().content {
            Content::Rows { blocks, .. } => blocks,
            other => panic!("{other:?}"),
        });
    read.flatten().collect()
}

#[test]
fn a_view_that_applied_the_deltas_pools_as_the_table_does() {
    let mut live = store();
    step(&mut live, 0, 0..3000, 0);
    step(&mut live, 1, 0..500, 0);
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new(0));
    let open = prepare_snapshot(&disk, "s", "plan", &mut live, 1 << 20).unwrap();
    track(&mut live, "chain");
    open.commit(&mut live).unwrap();
    let snapshot = Arc::new(Snapshot::read(&*disk, "s", Some((&live, "plan"))).unwrap());
    let view = View::new(snapshot.clone(), 1 << 20).unwrap();
    let pools = |live: &Store, turn: u32| {
        let keys: Vec<u64> = (0..4400).map(|i| i * 7919 % 4400).collect();
        let ones: Vec<i64> = (0..=4400).collect();
        let weights: Vec<f32> = (0..4400).map(|i| 0.5 + (i % 5) as f32).collect();
        let bags = [0, 1].map(|slot| Bag {
            slot,
            keys: &keys,
            offsets: &ones,
            weights: (slot == 1).then_some(&weights),
        });
        let (mut wanted, mut found) = (vec![0.0; 4400 * 5], vec![f32::NAN; 4400 * 5]);
        // Both ways of pooling: few keys at once, and many.
        for bags in [&bags[..1], &bags[..]] {
            let width = 4400
                * bags
                    .iter()
                    .map(|bag| [3, 2][bag.slot as usize])
                    .sum::<usize>();
            let (wanted, found) = (&mut wanted[..width], &mut found[..width]);
            live.pool(bags, Pooling::Mean, 1, wanted).unwrap();
            view.pool(bags, Pooling::Mean, 1, found).unwrap();
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(found) == bits(wanted), "turn {turn}");
            if turn == 0 {
                snapshot.pool(bags, Pooling::Mean, 1, found).unwrap();
                assert!(bits(found) == bits(wanted));
            }
        }
    };
    pools(&live, 0);
    for turn in 1..4 {
        step(
            &mut live,
            0,
            2000..3200 + 300 * u64::from(turn),
            20 * i64::from(turn),
        );
        step(&mut live, 1, 100..u64::from(600 + turn), 1);
        live.tables_mut()[0].sweep(1 << 20);
        let (parts, _) = packed(&mut live, false, 5000);
        assert!(parts.len() > 3);
        view.apply_blocks(&blocks(&parts)).unwrap();
        pools(&live, turn);
    }
}

#[test]
fn every_byte_of_a_record_is_under_its_checksum() {
    let mut live = store();
    track(&mut live, "chain");
    step(&mut live, 0, 0..20, 0);
    let (parts, last) = packed(&mut live, true, 1 << 20);
    for record in [&parts[0], &last, &announcement(MARK, ABOUT)] {
        Record::read(record).unwrap();
        for at in 0..record.len() {
            let mut bad = record.clone();
            bad[at] ^= 0x10;
            assert!(Record::read(&bad).is_err(), "byte {at}");
            assert!(Record::read(&record[..at]).is_err(), "cut to {at}");
        }
    }
}

#[test]
fn a_commit_covers_its_parts_in_their_order_and_no_others() {
    let mut live = store();
    track(&mut live, "chain");
    step(&mut live, 0, 0..2000, 0);
    let (parts, last) = packed(&mut live, false, 4000);
    let sums: Vec<u64> = parts
        .iter()
        .map(|part| Record::read(part).unwrap().sum)
        .collect();
    let Content::Commit(said) = Record::read(&last).unwrap().content else {
        panic!()
    };
    assert_eq!((said.rows, said.gone, said.model), (2000, 0, "ctr"));
    assert!(said.covers(&sums));
    let mut swapped = sums.clone();
    swapped.swap(0, 1);
    assert!(!said.covers(&swapped) && !said.covers(&sums[1..]) && !said.covers(&[]));
}

#[test]
fn a_weight_larger_than_a_record_goes_in_slices() {
    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let parts = dense_parts(MARK, 4, 400, [("w", &[10, 100][..], &values[..])]).unwrap();
    assert_eq!(parts.len(), 10);
    let mut found = vec![0.0; 1000];
    for (number, record) in (4..).zip(&parts) {
        let Content::Dense { part, weights } = Record::read(record).unwrap().content else {
            panic!()
        };
        assert_eq!(
            (part, weights[0].shape.as_slice()),
            (number, &[10, 100][..])
        );
        let at = weights[0].first;
        for (i, value) in weights[0].values.as_chunks::<4>().0.iter().enumerate() {
            found[at + i] = f32::from_le_bytes(*value);
        }
    }
    assert_eq!(found, values);
    let bad = dense_parts(MARK, 0, 400, [("w", &[1][..], &[f32::NAN][..])]);
    assert_eq!(bad.unwrap_err(), DeltaError::WeightNotFinite("w".into()));
}

#[test]
fn named_keys_go_along_and_none_goes_twice() {
    let mut live = store();
    step(&mut live, 0, 0..100, 0);
    track(&mut live, "chain");
    step(&mut live, 0, 10..20, 0);
    let named = vec![(15..30).chain(500..503).collect::<HashSet<u64>>()];
    let (packed, _) = pack(&mut live, "chain", named, Packer::new(false, 1 << 20)).unwrap();
    assert_eq!((packed.rows, packed.gone, packed.visited), (20, 3, 10));
}

#[test]
fn what_was_not_told_is_packed_again() {
    let mut live = store();
    track(&mut live, "chain");
    step(&mut live, 0, 0..10, 0);
    let first = pack(&mut live, "chain", vec![], Packer::new(false, 1 << 20)).unwrap();
    step(&mut live, 0, 5..15, 0);
    let (again, epochs) = pack(&mut live, "chain", vec![], Packer::new(false, 1 << 20)).unwrap();
    assert_eq!((first.0.rows, again.rows), (10, 15));
    tell(&mut live, "chain", &epochs);
    let (none, _) = pack(&mut live, "chain", vec![], Packer::new(false, 1 << 20)).unwrap();
    assert_eq!((none.rows, none.gone, none.bodies.len()), (0, 0, 0));
}
