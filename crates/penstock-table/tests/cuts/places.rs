//! Rows that are written in place are cut like all others.

use penstock_table::disk::simulated::SimulatedDisk;
use penstock_table::hash::mix;
use penstock_table::{Admission, CutOptions, Optimizer, Place, Store, Table, TableConfig};

use super::{checkpoints, image};

fn empty() -> Store {
    let mut config = TableConfig::new("t", 2, Optimizer::Sgd, 0.1);
    config.init = penstock_table::Init::Constant(0.0);
    config.admission = Admission::Count {
        least: 2,
        sketch_bytes: 1 << 16,
        halve_every: 1 << 40,
    };
    let mut store = Store::default();
    store.add(Table::in_place(config).unwrap());
    store
}

struct Noise(u64);

impl Noise {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = mix(self.0.wrapping_add(1));
        self.0 % end
    }
}

/// A batch as a trainer takes it: rows found and stepped, others sighted, now and then a part of the index swept.
fn batch(store: &mut Store, noise: &mut Noise) {
    let table = &mut store.tables_mut()[0];
    let hashes: Vec<u64> = (0..200).map(|_| mix(noise.below(3_000))).collect();
    let mut places = vec![Place::NONE; hashes.len()];
    table.find_to_write(&hashes, &mut places);
    if table.is_being_cut() {
        table.keep_places(&hashes);
    }
    for (&hash, place) in hashes.iter().zip(&mut places) {
        if place.is_none() {
            *place = table.sight(hash).unwrap();
        }
        if !place.is_none() {
            // SAFETY: a row of two floats that nobody else uses.
            unsafe { *place.values() += (noise.below(100) + 1) as f32 };
        }
    }
    if noise.below(3) == 0 {
        // SAFETY: as above, read only.
        table.sweep_places(200, |row| (unsafe { *row } as u64).is_multiple_of(5));
    }
}

#[test]
fn a_cut_that_was_open_while_rows_were_written_is_the_instant_it_was_taken_at() {
    for seed in 0..40 {
        let (mut noise, disk) = (Noise(seed), SimulatedDisk::new(seed));
        let (mut store, mut folder) = (empty(), checkpoints(&disk));
        let mut incremental = 0;
        for round in 0..8 {
            for _ in 0..noise.below(4) {
                batch(&mut store, &mut noise);
            }
            let options = CutOptions::default();
            let mut cut = folder.prepare(&mut store, "", options).unwrap();
            let at_the_cut = image(&store.tables()[0]);
            let clock = store.tables()[0].clock();
            while !cut.step(&store, noise.below(150)).unwrap() {
                batch(&mut store, &mut noise);
            }
            let committed = folder.commit(cut, &mut store).unwrap();
            assert_eq!(committed.parent.is_some(), round > 0);
            if committed.parent.is_some() && committed.rows < at_the_cut.len() as u64 {
                incremental += 1;
            }
            let newest = folder.newest().unwrap().unwrap();
            let again = checkpoints(&disk).resume(&newest, empty()).unwrap();
            assert!(image(&again.tables()[0]) == at_the_cut, "seed {seed}");
            let found = again.tables()[0].clock();
            assert_eq!(
                (found.sightings, found.cursor),
                (clock.sightings, clock.cursor)
            );
        }
        assert!(incremental > 0, "no cut of seed {seed} left anything out");
    }
}

#[test]
fn what_goes_on_from_a_cut_is_what_went_on_beside_it() {
    for seed in 0..20 {
        let (mut noise, disk) = (Noise(seed), SimulatedDisk::new(seed));
        let (mut store, mut folder) = (empty(), checkpoints(&disk));
        for _ in 0..3 {
            (0..10).for_each(|_| batch(&mut store, &mut noise));
            let cut = folder.prepare(&mut store, "", CutOptions::default());
            folder.commit(cut.unwrap(), &mut store).unwrap();
        }
        let newest = folder.newest().unwrap().unwrap();
        let mut again = checkpoints(&disk).resume(&newest, empty()).unwrap();
        let mut same = Noise(noise.0);
        for _ in 0..30 {
            batch(&mut store, &mut noise);
            batch(&mut again, &mut same);
        }
        let [one, other] = [&store, &again].map(|store| image(&store.tables()[0]));
        assert!(one == other, "seed {seed}");
    }
}
