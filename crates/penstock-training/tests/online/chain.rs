//! What a chain is told is what the trainer has: whoever lays it over the rows that it began with scores with the same bits.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use penstock_table::delta::{
    Block, Content, Mark, Pack, PackError, Packer, Record, Weight, dense_parts, part,
};
use penstock_training::online::{
    Columns, Cuts, Factors, Laid, Model, Offsets, Optimizer, Sections, Settings, Slot, Trainer,
};

use crate::data::{Data, data, settings};

const ROWS: usize = 4_000;

fn below(state: &mut u64, end: usize) -> usize {
    *state = penstock_table::hash::mix(state.wrapping_add(1));
    (*state % end as u64) as usize
}

/// Keys grow with the row: those of before do not come again, so that some are evicted.
fn drifting(rows: usize) -> Data {
    let mut data = data(rows);
    let offsets = data.offsets.clone();
    for (keys, offsets) in data.keys.iter_mut().zip(&offsets) {
        for row in 0..rows {
            for key in &mut keys[offsets[row] as usize..offsets[row + 1] as usize] {
                *key += 40 * (row / 500) as u64;
            }
        }
    }
    data
}

fn trainer(settings: Settings) -> Trainer {
    let mut made = Trainer::new(Model::new(settings, 2, 1, false, false).unwrap()).unwrap();
    made.begin_pass();
    made
}

/// Each row's weight and factors, by field and key.
fn scoring(model: &Model, rank: usize) -> BTreeMap<(usize, u64), Vec<f32>> {
    let rows = model.rows();
    let each = rows.values.chunks(model.width());
    let each = rows.fields.iter().zip(&rows.keys).zip(each);
    each.filter(|((field, _), _)| **field >= 0)
        .map(|((&field, &key), row)| {
            let mut told = vec![row[0]];
            told.extend(&row[row.len().min(5)..row.len().min(5 + rank)]);
            ((field as usize, key), told)
        })
        .collect()
}

/// The records of a pack, as they go over the wire.
fn records(pack: &Pack) -> Vec<Vec<u8>> {
    let bodies = (0..).zip(&pack.bodies);
    bodies
        .map(|(number, body)| part(Mark::default(), number, body))
        .collect()
}

fn blocks(records: &[Vec<u8>]) -> Vec<Block<'_>> {
    let read = records.iter().map(|record| Record::read(record).unwrap());
    read.flat_map(|record| match record.content {
        Content::Rows { blocks, .. } => blocks,
        other => panic!("{other:?}"),
    })
    .collect()
}

fn own(model: &Model) -> Vec<Vec<u8>> {
    let weights = model.own_weights();
    let weights = weights.iter().map(|(n, s, v)| (*n, &s[..], &v[..]));
    dense_parts(Mark::default(), 0, 8, weights).unwrap()
}

fn weights(records: &[Vec<u8>]) -> Vec<Weight<'_>> {
    let read = records.iter().map(|record| Record::read(record).unwrap());
    read.flat_map(|record| match record.content {
        Content::Dense { weights, .. } => weights,
        other => panic!("{other:?}"),
    })
    .collect()
}

/// A host: both as a plain map, and as it serves.
struct Host {
    rows: BTreeMap<(usize, u64), Vec<f32>>,
    laid: Laid,
}

impl Host {
    fn of(learner: &Trainer, settings: Settings, rank: usize) -> Host {
        let mut base = Model::new(settings, 2, 1, false, false).unwrap();
        base.put(&learner.model.rows()).unwrap();
        Host {
            rows: scoring(&learner.model, rank),
            laid: Laid::new(Arc::new(base), 1 << 20).unwrap(),
        }
    }

    fn apply(&mut self, learner: &Trainer, pack: &Pack) -> usize {
        let (rows, own) = (records(pack), own(&learner.model));
        let mut gone = 0;
        for block in blocks(&rows) {
            for (number, key) in block.keys().enumerate() {
                let mut row = vec![0.0; block.dim];
                block.load(number, &mut row);
                self.rows.insert((block.table, key), row);
            }
            for key in block.gone() {
                gone += usize::from(self.rows.remove(&(block.table, key)).is_some());
            }
        }
        let weights = self.laid.with(&weights(&own)).unwrap();
        self.laid.lay(&blocks(&rows)).unwrap();
        self.laid.set(weights);
        gone
    }

    fn is(&self, learner: &Trainer, data: &Data, rank: usize) {
        assert_eq!(self.rows, scoring(&learner.model, rank));
        let slots = data.slots();
        let columns = Columns {
            rows: data.labels.len(),
            slots: &slots,
            numbers: &data.numbers,
        };
        let bits =
            |margins: Vec<f64>| -> Vec<u64> { margins.into_iter().map(f64::to_bits).collect() };
        let served = bits(self.laid.margins(&columns).unwrap());
        assert!(served == bits(learner.model.margins(&columns).unwrap()));
    }
}

/// Distinct keys of some rows, by slot.
fn named(data: &Data, rows: Range<usize>) -> Vec<HashSet<u64>> {
    let each = data.offsets.iter().zip(&data.keys);
    each.map(|(offsets, keys)| {
        let keys = &keys[offsets[rows.start] as usize..offsets[rows.end] as usize];
        keys.iter().copied().collect()
    })
    .collect()
}

#[test]
fn deltas_make_a_host_the_trainer_whatever_is_published_twice_or_fails() {
    let data = drifting(ROWS);
    let (mut gone, mut lost) = (0, 0);
    for case in 0..6 {
        let (rank, threads) = ([0, 3][case % 2], [1, 2, 1][case / 2]);
        let optimizer = [Optimizer::Ftrl, Optimizer::Adagrad][case % 3 % 2];
        let mut settings = settings(optimizer, rank, threads);
        settings.evict_after = 300;
        settings.least = [1, 2][case % 2];
        let mut learner = trainer(settings);
        data.learn_rows(&mut learner, 0..700);
        learner.finish().unwrap();
        learner.track("chain");
        let mut host = Host::of(&learner, settings, rank);
        let (mut chance, mut row) = (case as u64, 700);
        while row < ROWS {
            let end = (row + 1 + below(&mut chance, 300)).min(ROWS);
            data.learn_rows(&mut learner, row..end);
            learner.finish().unwrap();
            let most = if case < 3 { 200 } else { 1 << 20 };
            let (pack, epochs) = learner
                .pack("chain", vec![], Packer::new(false, most))
                .unwrap();
            if below(&mut chance, 4) == 0 {
                // It did not get to the topic: the next delta has this one's changes too.
                lost += 1;
            } else {
                gone += host.apply(&learner, &pack);
                learner.tell("chain", &epochs);
                host.is(&learner, &data, rank);
                let again = learner
                    .pack("chain", vec![], Packer::new(false, most))
                    .unwrap()
                    .0;
                assert_eq!((again.rows, again.gone, again.visited), (0, 0, 0));
            }
            row = end;
        }
    }
    assert!(gone > 500 && lost > 20, "{gone} tombstones, {lost} lost");
}

#[test]
fn a_delta_costs_what_changed_and_nothing_else() {
    let data = data(ROWS);
    let settings = settings(Optimizer::Ftrl, 0, 1);
    let mut learner = trainer(settings);
    data.learn(&mut learner, ROWS);
    learner.track("chain");
    data.learn_rows(&mut learner, 0..20);
    learner.finish().unwrap();
    let changed: usize = named(&data, 0..20).iter().map(HashSet::len).sum();
    let (pack, _) = learner
        .pack("chain", vec![], Packer::new(false, 1 << 20))
        .unwrap();
    assert_eq!((pack.rows, pack.visited), (changed as u64, changed as u64));
    assert!((changed as u64) < learner.model.keys() / 3);
}

#[test]
fn a_recovered_trainer_takes_back_what_was_told_after_its_cut() {
    let data = drifting(ROWS);
    for rank in [0, 3] {
        let mut settings = settings(Optimizer::Ftrl, rank, 1);
        settings.evict_after = 400;
        let disk = penstock_table::disk::simulated::SimulatedDisk::new(rank as u64);
        let mut cuts = Cuts::open(Arc::new(disk.clone()), "plan").unwrap();
        let mut learner = trainer(settings);
        learner.track("chain");
        let mut host = Host::of(&learner, settings, rank);
        let mut publish = |learner: &mut Trainer, named| {
            let (pack, epochs) = learner
                .pack("chain", named, Packer::new(false, 512))
                .unwrap();
            host.apply(learner, &pack);
            learner.tell("chain", &epochs);
            host.is(learner, &data, rank);
        };
        data.learn_rows(&mut learner, 0..1_500);
        learner.finish().unwrap();
        publish(&mut learner, vec![]);
        cuts.prepare(&mut learner, Sections::new()).unwrap();
        while cuts.write(&mut learner, 1 << 20).unwrap().is_none() {}
        data.learn_rows(&mut learner, 1_500..2_600);
        learner.finish().unwrap();
        publish(&mut learner, vec![]);

        let mut again = trainer(settings);
        let mut cuts = Cuts::open(Arc::new(disk), "plan").unwrap();
        assert!(cuts.resume(&mut again).unwrap().is_some());
        assert!(again.model.rows() != learner.model.rows());
        // Every key that the lost deltas named: stepped, or of rows that went.
        publish(&mut again, named(&data, 0..2_600));
        data.learn_rows(&mut again, 1_500..ROWS);
        again.finish().unwrap();
        publish(&mut again, vec![]);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_changes_nothing() {
    let data = data(400);
    let settings = settings(Optimizer::Ftrl, 3, 1);
    let learner = data.trained(settings, 400);
    let mut host = Host::of(&learner, settings, 3);
    let other = |fields: usize, rank: usize| {
        let mut settings = settings;
        settings.factors = settings.factors.map(|f| Factors { rank, ..f });
        let mut other =
            Trainer::new(Model::new(settings, fields, 0, false, false).unwrap()).unwrap();
        other.track("chain");
        let keys = [7];
        let slot = Slot {
            offsets: Offsets::Wide(&[0, 1]),
            keys: &keys,
            values: None,
        };
        let slots = vec![slot; fields];
        let columns = Columns {
            rows: 1,
            slots: &slots,
            numbers: &[],
        };
        other.learn(&columns, &[1.0], None).unwrap();
        other.finish().unwrap();
        other
            .pack("chain", vec![], Packer::new(false, 1 << 20))
            .unwrap()
            .0
    };
    for (pack, said) in [
        (other(3, 3), "the delta is of table 2, the model has 2"),
        (
            other(2, 4),
            "rows of the delta have 5 values, the model's 4",
        ),
    ] {
        let refused = host.laid.lay(&blocks(&records(&pack))).unwrap_err();
        assert_eq!(refused.to_string(), said);
        host.is(&learner, &data, 3);
    }
    for (name, shape, said) in [
        ("c", 1, "the model has no weight 'c'"),
        (
            "numbers",
            2,
            "weight 'numbers' is of shape [1], in the delta [2]",
        ),
    ] {
        let given = vec![1.0; shape];
        let made = dense_parts(
            Mark::default(),
            0,
            64,
            [(name, &[shape as u64][..], &given[..])],
        );
        let made = made.unwrap();
        let Err(refused) = host.laid.with(&weights(&made)) else {
            panic!("{name} was taken");
        };
        assert_eq!(refused.to_string(), said);
    }
    let mut small = Laid::new(
        Arc::new(Model::new(settings, 2, 1, false, false).unwrap()),
        800,
    )
    .unwrap();
    let mut all = data.trained(settings, 400);
    let named = named(&data, 0..400);
    all.track("chain");
    let (pack, _) = all
        .pack("chain", named, Packer::new(false, 1 << 20))
        .unwrap();
    let refused = small.lay(&blocks(&records(&pack))).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("the overlay is full (10 rows)"),
        "{refused}"
    );
    assert_eq!(small.laid(), (0, 10));
}

#[test]
fn a_row_that_is_no_number_is_not_told() {
    let mut settings = settings(Optimizer::Sgd, 0, 1);
    settings.rates.alpha = 1e30;
    let mut learner = Trainer::new(Model::new(settings, 1, 0, false, false).unwrap()).unwrap();
    let pack = |learner: &mut Trainer| learner.pack("chain", vec![], Packer::new(false, 64));
    assert!(matches!(
        pack(&mut learner),
        Err(PackError::Untracked { .. })
    ));
    learner.track("chain");
    let slot = Slot {
        offsets: Offsets::Wide(&[0, 1]),
        keys: &[7],
        values: None,
    };
    let columns = Columns {
        rows: 1,
        slots: &[slot],
        numbers: &[],
    };
    learner.learn(&columns, &[1.0], Some(&[1e30])).unwrap();
    learner.finish().unwrap();
    let refused = pack(&mut learner).err().map(|error| error.to_string());
    let said = "table 0: the row of key 7 holds a number that is none";
    assert_eq!(refused.as_deref(), Some(said));
}
