//! What a user may rely on: threads and cuts change no bit, keys come and go as the settings say, faults are refused.

use std::collections::HashSet;

use penstock_training::online::{Columns, Model, Offsets, Optimizer, RowOut, Slot, Trainer};

use crate::data::{data, settings};

#[test]
fn threads_and_cuts_change_no_bit() {
    let data = data(10_000);
    for rank in [0, 3] {
        let one = data.trained(settings(Optimizer::Ftrl, rank, 1), 10_000);
        for (threads, cut) in [(2, 3000), (3, 777), (1, 13), (5, 250)] {
            let other = data.trained(settings(Optimizer::Ftrl, rank, threads), cut);
            assert_eq!(other.model.rows(), one.model.rows());
            assert_eq!(other.progress(), one.progress());
        }
    }
}

#[test]
fn rows_put_into_another_model_score_the_same_bits() {
    let data = data(2000);
    for rank in [0, 4] {
        let trained = data.trained(settings(Optimizer::Ftrl, rank, 2), 500).model;
        let mut other = Model::new(settings(Optimizer::Ftrl, rank, 1), 2, 1, false, false).unwrap();
        other.put(&trained.rows()).unwrap();
        let slots = data.slots();
        let columns = Columns {
            rows: 2000,
            slots: &slots,
            numbers: &data.numbers,
        };
        let margins = trained.margins(&columns).unwrap();
        assert_eq!(other.margins(&columns).unwrap(), margins);
        assert_eq!(other.rows(), trained.rows());
        assert!(margins.iter().any(|&m| m != margins[0]));
    }
}

#[test]
fn a_key_is_admitted_at_its_third_sighting() {
    let mut rare = settings(Optimizer::Ftrl, 2, 1);
    rare.least = 3;
    let mut trainer = Trainer::new(Model::new(rare, 1, 0, true, false).unwrap()).unwrap();
    let mut known = vec![];
    for _ in 0..4 {
        let slots = [Slot {
            offsets: Offsets::Narrow(&[0, 1]),
            keys: &[9],
            values: None,
        }];
        let columns = Columns {
            rows: 1,
            slots: &slots,
            numbers: &[],
        };
        trainer.learn(&columns, &[1.0], None).unwrap();
        known.push(trainer.model.keys());
    }
    assert_eq!(known, [0, 0, 1, 1]);
    // The third sighting made the row, the fourth moved it.
    let rows = trainer.model.rows();
    assert!(rows.values.chunks(trainer.model.width()).nth(1).unwrap()[0] > 0.0);
}

#[test]
fn a_further_pass_makes_no_rows() {
    let mut rare = settings(Optimizer::Ftrl, 2, 1);
    rare.least = 2;
    let mut trainer = Trainer::new(Model::new(rare, 1, 0, true, false).unwrap()).unwrap();
    for _ in 0..3 {
        trainer.begin_pass();
        let slots = [Slot {
            offsets: Offsets::Narrow(&[0, 1, 2, 3]),
            keys: &[9, 8, 9],
            values: None,
        }];
        let columns = Columns {
            rows: 3,
            slots: &slots,
            numbers: &[],
        };
        trainer.learn(&columns, &[1.0, 0.0, 1.0], None).unwrap();
    }
    assert_eq!(trainer.model.keys(), 1);
}

#[test]
fn places_in_a_list_are_fields() {
    let mut one = settings(Optimizer::Ftrl, 0, 2);
    one.rates.l1 = 0.0;
    let mut trainer = Trainer::new(Model::new(one, 1, 0, false, true).unwrap()).unwrap();
    let slots = [Slot {
        offsets: Offsets::Narrow(&[0, 2, 3]),
        keys: &[7, 7, 7],
        values: None,
    }];
    let columns = Columns {
        rows: 2,
        slots: &slots,
        numbers: &[],
    };
    trainer.learn(&columns, &[1.0, 0.0], None).unwrap();
    trainer.finish().unwrap();
    let rows = trainer.model.rows();
    assert_eq!((rows.fields, rows.keys), (vec![-1, 0, 1], vec![0, 7, 7]));
}

#[test]
fn what_is_wrong_is_refused_before_anything_is_learnt() {
    let data = data(4);
    let model = Model::new(settings(Optimizer::Ftrl, 0, 1), 2, 1, false, false).unwrap();
    let mut trainer = Trainer::new(model).unwrap();
    let before: RowOut = trainer.model.rows();
    let slots = data.slots();
    let columns = Columns {
        rows: 4,
        slots: &slots,
        numbers: &data.numbers,
    };
    assert!(
        trainer
            .learn(&columns, &[0.0, 1.0, 2.0, 0.0], None)
            .is_err()
    );
    assert!(
        trainer
            .learn(&columns, &[0.0; 4], Some(&[f32::NAN; 4]))
            .is_err()
    );
    let strange = [f32::INFINITY; 4];
    let infinite = Columns {
        numbers: &strange,
        ..columns
    };
    assert!(trainer.learn(&infinite, &[0.0; 4], None).is_err());
    let short = Columns {
        slots: &slots[..1],
        ..columns
    };
    assert!(trainer.learn(&short, &[0.0; 4], None).is_err());
    trainer.finish().unwrap();
    assert_eq!(trainer.model.rows(), before);
    let mut wrong = settings(Optimizer::Ftrl, 0, 1);
    wrong.rates.alpha = 0.0;
    assert!(Model::new(wrong, 1, 0, true, false).is_err());
}

/// One key a row: `stays` all the time, `i` once.
fn passing_keys(evict_after: u32, threads: usize, cut: usize) -> (u64, RowOut) {
    let rows = 40_000;
    let mut settings = settings(Optimizer::Ftrl, 2, threads);
    settings.evict_after = evict_after;
    let mut trainer = Trainer::new(Model::new(settings, 1, 0, true, false).unwrap()).unwrap();
    let keys: Vec<u64> = (0..rows as u64).flat_map(|i| [u64::MAX, i]).collect();
    let offsets: Vec<i64> = (0..=rows as i64).map(|i| 2 * i).collect();
    let labels: Vec<f32> = (0..rows).map(|i| (i % 3 == 0) as u8 as f32).collect();
    let mut most = 0;
    for from in (0..rows).step_by(cut) {
        let to = (from + cut).min(rows);
        let slots = [Slot {
            offsets: Offsets::Wide(&offsets[from..=to]),
            keys: &keys,
            values: None,
        }];
        let columns = Columns {
            rows: to - from,
            slots: &slots,
            numbers: &[],
        };
        trainer.learn(&columns, &labels[from..to], None).unwrap();
        most = most.max(trainer.model.keys());
    }
    trainer.finish().unwrap();
    (most.max(trainer.model.keys()), trainer.model.rows())
}

#[test]
fn keys_that_do_not_come_back_leave_and_memory_is_bounded() {
    let (most, rows) = passing_keys(2000, 1, 500);
    assert!((2000..=4000).contains(&most), "{most} keys at most");
    assert!(rows.keys.contains(&u64::MAX));
    // What came in the last 2000 samples is all there; nothing is older than a quarter more, and a batch.
    let there: HashSet<u64> = rows.keys.iter().copied().collect();
    assert!((38_000..40_000).all(|key| there.contains(&key)));
    let oldest = rows.keys.iter().skip(1).min().unwrap();
    assert!(*oldest >= 40_000 - 2600, "{oldest}");
    assert_eq!(passing_keys(0, 1, 500).0, 40_001);
    for (threads, cut) in [(2, 500), (3, 777)] {
        assert_eq!(passing_keys(2000, threads, cut).1, rows);
    }
}

#[test]
fn a_key_that_left_begins_anew_when_it_is_back() {
    let mut settings = settings(Optimizer::Sgd, 0, 1);
    settings.evict_after = 100;
    settings.batch = 1;
    let mut trainer = Trainer::new(Model::new(settings, 1, 0, true, false).unwrap()).unwrap();
    let mut learn = |key: u64| {
        let slots = [Slot {
            offsets: Offsets::Narrow(&[0, 1]),
            keys: &[key],
            values: None,
        }];
        let columns = Columns {
            rows: 1,
            slots: &slots,
            numbers: &[],
        };
        trainer.learn(&columns, &[1.0], None).unwrap();
        let rows = trainer.model.rows();
        let at = rows.keys.iter().skip(1).position(|&k| k == key).unwrap() + 1;
        rows.values[at * trainer.model.width()]
    };
    let first = learn(1);
    assert!(learn(1) > 1.5 * first);
    for _ in 0..400 {
        learn(2);
    }
    assert!(learn(1) < first);
}
