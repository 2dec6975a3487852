//! A run that is killed anywhere and goes on from its newest cut ends as if nothing had been.

use std::sync::Arc;

use penstock_table::disk::simulated::SimulatedDisk;
use penstock_training::online::{
    Columns, Cuts, Model, Offsets, Optimizer, Sections, Settings, Slot, Trainer,
};

use crate::data::{Data, data, settings};

const ROWS: usize = 6_000;

fn below(state: &mut u64, end: usize) -> usize {
    *state = penstock_table::hash::mix(state.wrapping_add(1));
    (*state % end as u64) as usize
}

fn trainer(settings: Settings) -> Trainer {
    Trainer::new(Model::new(settings, 2, 1, false, false).unwrap()).unwrap()
}

/// Two passes over the rows, cut now and then, killed at `kills` instants. Returns the trainer, and how often it went on
/// from rows that it had learnt from.
fn interrupted(data: &Data, settings: Settings, kills: usize, seed: u64) -> (Trainer, usize) {
    let (mut chance, disk, mut went_on) = (seed, SimulatedDisk::new(seed), 0);
    for life in 0..=kills {
        let mut learner = trainer(settings);
        let mut cuts = Cuts::open(Arc::new(disk.clone()), "plan").unwrap();
        let found = cuts.resume(&mut learner).unwrap();
        let mut pass = 1;
        let mut row = 0;
        if let Some(sections) = found {
            pass = sections["pass"][0];
            row = learner.progress().rows as usize;
            went_on += usize::from(pass > 1 || row > 0);
        } else {
            learner.begin_pass();
        }
        let mut until = if life < kills {
            below(&mut chance, 25)
        } else {
            usize::MAX
        };
        'life: loop {
            while row < ROWS {
                if until == 0 {
                    break 'life;
                }
                until -= 1;
                let end = (row + 1 + below(&mut chance, 700)).min(ROWS);
                data.learn_rows(&mut learner, row..end);
                row = end;
                let written = cuts.write(&mut learner, 50).unwrap();
                if written.is_some() || below(&mut chance, 3) == 0 {
                    while cuts.write(&mut learner, 1 << 20).unwrap().is_none() {
                        let sections = Sections::from([("pass".into(), vec![pass])]);
                        cuts.prepare(&mut learner, sections).unwrap();
                        if below(&mut chance, 2) == 0 {
                            break;
                        }
                    }
                }
            }
            learner.finish().unwrap();
            if pass == 2 {
                return (learner, went_on);
            }
            pass = 2;
            row = 0;
            learner.begin_pass();
        }
        disk.reboot();
    }
    unreachable!("the last life is not killed");
}

#[test]
fn killed_and_resumed_is_undisturbed_to_the_bit() {
    let data = data(ROWS);
    let mut went_on = 0;
    for (number, threads) in [1, 1, 2, 3, 1, 2, 1, 1].into_iter().enumerate() {
        let mut settings = settings(Optimizer::Ftrl, [0, 3][number % 2], threads);
        if number >= 4 {
            settings.least = 2;
            settings.evict_after = 1_500;
        }
        let mut whole = trainer(settings);
        for _ in 0..2 {
            whole.begin_pass();
            data.learn(&mut whole, ROWS);
        }
        for seed in 0..3 {
            let (other, times) = interrupted(&data, settings, 6, seed);
            went_on += times;
            assert!(
                other.model.rows() == whole.model.rows(),
                "case {number}, seed {seed}"
            );
            assert_eq!(other.progress(), whole.progress());
        }
    }
    assert!(went_on > 30, "only {went_on} lives went on from a cut");
}

#[test]
fn a_list_that_grows_longer_gets_a_full_cut() {
    let disk = SimulatedDisk::new(1);
    let mut cuts = Cuts::open(Arc::new(disk.clone()), "plan").unwrap();
    let model = || Model::new(settings(Optimizer::Ftrl, 0, 1), 1, 0, false, true).unwrap();
    let mut learner = Trainer::new(model()).unwrap();
    learner.begin_pass();
    let mut parents = vec![];
    for keys in [&[5u64][..], &[5, 6], &[5, 7, 8], &[5, 7, 9]] {
        let slots = [Slot {
            offsets: Offsets::Wide(&[0, keys.len() as i64]),
            keys,
            values: None,
        }];
        let columns = Columns {
            rows: 1,
            slots: &slots,
            numbers: &[],
        };
        learner.learn(&columns, &[1.0], None).unwrap();
        cuts.prepare(&mut learner, Sections::new()).unwrap();
        let done = cuts.write(&mut learner, 1 << 20).unwrap().unwrap();
        parents.push(done.parent);
    }
    assert_eq!(parents, [None, None, None, Some(3)]);
    let mut again = Trainer::new(model()).unwrap();
    let mut cuts = Cuts::open(Arc::new(disk), "plan").unwrap();
    assert!(cuts.resume(&mut again).unwrap().is_some());
    assert_eq!(again.model.rows(), learner.model.rows());
}

#[test]
fn another_model_is_refused_and_the_trainer_stays_as_it_was() {
    let disk = SimulatedDisk::new(1);
    let mut cuts = Cuts::open(Arc::new(disk.clone()), "plan").unwrap();
    let mut learner = trainer(settings(Optimizer::Ftrl, 0, 1));
    data(500).learn(&mut learner, 500);
    cuts.prepare(&mut learner, Sections::new()).unwrap();
    cuts.write(&mut learner, 1 << 20).unwrap().unwrap();
    let mut other = trainer(settings(Optimizer::Ftrl, 3, 1));
    let before = other.model.rows();
    let mut cuts = Cuts::open(Arc::new(disk), "plan").unwrap();
    let said = cuts.resume(&mut other).unwrap_err().to_string();
    assert!(said.contains("dim"), "{said}");
    assert_eq!(other.model.rows(), before);
}
