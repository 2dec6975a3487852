//! The progressive trainer against a slow reference, and its promises: threads and cuts change no bit.

use std::collections::HashMap;

use penstock_training::online::{
    Columns, Factors, Model, Offsets, Optimizer, Rates, RowOut, Settings, Slot, Trainer,
};

const RATES: Rates = Rates {
    alpha: 0.1,
    beta: 1.0,
    l1: 0.01,
    l2: 0.5,
};

fn settings(optimizer: Optimizer, rank: usize, threads: usize) -> Settings {
    Settings {
        optimizer,
        rates: RATES,
        factors: (rank > 0).then_some(Factors {
            rank,
            rates: Rates {
                alpha: 0.05,
                beta: 0.5,
                l1: 0.0,
                l2: 0.001,
            },
            spread: 0.1,
            seed: 3,
        }),
        least: 1,
        batch: 16,
        threads,
    }
}

/// A slot of one key, a weighted one of up to three, a number.
struct Data {
    offsets: [Vec<i64>; 2],
    keys: [Vec<u64>; 2],
    values: Vec<f32>,
    numbers: Vec<f32>,
    labels: Vec<f32>,
    sample: Vec<f32>,
}

fn noise(state: &mut u64) -> f64 {
    *state = state
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*state >> 11) as f64 / (1_u64 << 53) as f64
}

fn data(rows: usize) -> Data {
    let mut state = 5;
    let mut data = Data {
        offsets: [vec![0], vec![0]],
        keys: [vec![], vec![]],
        values: vec![],
        numbers: vec![],
        labels: vec![],
        sample: vec![],
    };
    for _ in 0..rows {
        let first = (noise(&mut state) * 30.0) as u64;
        data.keys[0].push(first);
        let many = (noise(&mut state) * 4.0) as usize;
        for _ in 0..many {
            data.keys[1].push((noise(&mut state) * 300.0) as u64);
            data.values.push(noise(&mut state) as f32 * 2.0 - 0.5);
        }
        for (offsets, keys) in data.offsets.iter_mut().zip(&data.keys) {
            offsets.push(keys.len() as i64);
        }
        let number = noise(&mut state) as f32 * 2.0 - 1.0;
        data.numbers.push(number);
        let p = 0.15 + 0.5 * (first % 2) as f64 + 0.1 * f64::from(number);
        data.labels.push(f32::from(noise(&mut state) < p));
        data.sample.push(0.5 + noise(&mut state) as f32);
    }
    data
}

impl Data {
    fn slots(&self) -> [Slot<'_>; 2] {
        let slot = |at: usize, values| Slot {
            offsets: Offsets::Wide(&self.offsets[at]),
            keys: &self.keys[at],
            values,
        };
        [slot(0, None), slot(1, Some(&self.values[..]))]
    }

    /// Learn in batches of `cut` rows.
    fn learn(&self, trainer: &mut Trainer, cut: usize) {
        let rows = self.labels.len();
        for from in (0..rows).step_by(cut) {
            let to = (from + cut).min(rows);
            let slots = self.slots().map(|slot| match slot.offsets {
                Offsets::Wide(offsets) => Slot {
                    offsets: Offsets::Wide(&offsets[from..=to]),
                    ..slot
                },
                Offsets::Narrow(_) => slot,
            });
            let columns = Columns {
                rows: to - from,
                slots: &slots,
                numbers: &self.numbers[from..to],
            };
            trainer
                .learn(
                    &columns,
                    &self.labels[from..to],
                    Some(&self.sample[from..to]),
                )
                .unwrap();
        }
        trainer.finish().unwrap();
    }

    fn trained(&self, settings: Settings, cut: usize) -> Trainer {
        let mut trainer = Trainer::new(Model::new(settings, 2, 1, false, false).unwrap()).unwrap();
        self.learn(&mut trainer, cut);
        trainer
    }
}

/// A row of the reference, in f64 throughout.
#[derive(Clone, Default)]
struct Row {
    w: f64,
    z: f64,
    n: f64,
    t: f64,
    v: Vec<f64>,
}

fn step(row: &mut Row, settings: &Settings, bias: bool, mut g: f64, gv: &[f64]) {
    let Rates {
        alpha,
        beta,
        l1,
        l2,
        ..
    } = settings.rates;
    let (l1, l2) = if bias { (0.0, 0.0) } else { (l1, l2) };
    let sign = |w: f64| if w == 0.0 { 0.0 } else { w.signum() };
    match settings.optimizer {
        Optimizer::Ftrl => {
            let sigma = ((row.n + g * g).sqrt() - row.n.sqrt()) / alpha;
            row.z += g - sigma * row.w;
            row.n += g * g;
            row.w = if row.z.abs() <= l1 {
                0.0
            } else {
                -(row.z - sign(row.z) * l1) / ((beta + row.n.sqrt()) / alpha + l2)
            };
        }
        Optimizer::Adagrad => {
            g += l2 * row.w + l1 * sign(row.w);
            row.n += g * g;
            row.w -= alpha * g / (beta + row.n.sqrt());
        }
        Optimizer::Sgd => row.w -= alpha * (g + l2 * row.w + l1 * sign(row.w)),
    }
    let Some(factors) = settings.factors.filter(|_| !bias) else {
        return;
    };
    let gv: Vec<f64> = gv
        .iter()
        .zip(&row.v)
        .map(|(g, v)| g + factors.rates.l2 * v)
        .collect();
    row.t += gv.iter().map(|g| g * g).sum::<f64>() / gv.len() as f64;
    let rate = if settings.optimizer == Optimizer::Sgd {
        factors.rates.alpha
    } else {
        factors.rates.alpha / (factors.rates.beta + row.t.sqrt())
    };
    row.v.iter_mut().zip(&gv).for_each(|(v, g)| *v -= rate * g);
}

type Starts = HashMap<(i32, u64), Vec<f64>>;

/// The same rows by the formulas alone. `starts` gives each row's first factors. Rows by (field, key), and the mean loss.
fn reference(data: &Data, settings: &Settings, starts: &Starts) -> (HashMap<(i32, u64), Row>, f64) {
    let rank = settings.rank();
    let mut rows: HashMap<(i32, u64), Row> = HashMap::new();
    let (mut loss, mut weight, mut at) = (0.0, 0.0, 0);
    while at < data.labels.len() {
        let end = (at + settings.rows_at(at as u64)).min(data.labels.len());
        let mut sums: Vec<((i32, u64), f64, Vec<f64>)> = vec![];
        for i in at..end {
            let mut entries = vec![((-1, 0), 1.0), ((-1, 1), f64::from(data.numbers[i]))];
            for field in 0..2 {
                for k in data.offsets[field][i] as usize..data.offsets[field][i + 1] as usize {
                    let x = if field == 1 {
                        f64::from(data.values[k])
                    } else {
                        1.0
                    };
                    entries.push(((field as i32, data.keys[field][k]), x));
                }
            }
            let mut total = vec![0.0; rank];
            let (mut margin, mut squares) = (0.0, 0.0);
            for (key, x) in &entries {
                // A key that was never learnt from reads zeros; the rows of numbers are there from the start.
                let v = match rows.get(key) {
                    Some(row) => {
                        margin += row.w * x;
                        row.v.clone()
                    }
                    None if key.0 < 0 => starts[key].clone(),
                    None => vec![0.0; rank],
                };
                if *key != (-1, 0) {
                    for f in 0..rank {
                        total[f] += v[f] * x;
                        squares += (v[f] * x).powi(2);
                    }
                }
            }
            margin += 0.5 * (total.iter().map(|s| s * s).sum::<f64>() - squares);
            let (y, s) = (f64::from(data.labels[i]), f64::from(data.sample[i]));
            let p = 1.0 / (1.0 + (-margin).exp());
            loss -= s * (y * p.ln() + (1.0 - y) * (1.0 - p).ln());
            weight += s;
            for (key, x) in &entries {
                let g = s * (p - y) * x;
                // The gradient is taken where the row begins.
                let v = rows.get(key).map_or(&starts[key], |row| &row.v);
                let gv: Vec<f64> = (0..rank).map(|f| g * (total[f] - v[f] * x)).collect();
                match sums.iter_mut().find(|(k, ..)| k == key) {
                    Some((_, sum, sum_v)) => {
                        *sum += g;
                        sum_v.iter_mut().zip(&gv).for_each(|(sum, g)| *sum += g);
                    }
                    None => sums.push((*key, g, gv)),
                }
            }
        }
        for (key, g, gv) in sums {
            let row = rows.entry(key).or_insert_with(|| Row {
                v: starts[&key].clone(),
                ..Row::default()
            });
            step(row, settings, key == (-1, 0), g, &gv);
        }
        at = end;
    }
    (rows, loss / weight)
}

/// The factors that every row begins with: those of a model whose rates are as good as nothing.
fn beginnings(data: &Data, settings: &Settings) -> Starts {
    let still = Rates {
        alpha: 1e-30,
        beta: 1.0,
        l1: 0.0,
        l2: 0.0,
    };
    let settings = Settings {
        rates: still,
        factors: settings.factors.map(|factors| Factors {
            rates: still,
            ..factors
        }),
        ..*settings
    };
    let rank = settings.rank();
    let rows = data.trained(settings, 1000).model.rows();
    let width = rows.values.len() / rows.keys.len();
    let each = rows
        .fields
        .iter()
        .zip(&rows.keys)
        .zip(rows.values.chunks(width));
    each.map(|((&field, &key), row)| {
        let factors = if rank > 0 { &row[5..5 + rank] } else { &[] };
        (
            (field, key),
            factors.iter().map(|&v| f64::from(v)).collect(),
        )
    })
    .collect()
}

fn assert_equals_reference(optimizer: Optimizer, rank: usize) {
    let data = data(6000);
    let settings = settings(optimizer, rank, 1);
    let trainer = data.trained(settings, 6000);
    let (expected, loss) = reference(&data, &settings, &beginnings(&data, &settings));
    let found = trainer.model.rows();
    assert_eq!(found.keys.len(), expected.len());
    let width = found.values.len() / found.keys.len();
    for (at, row) in found.values.chunks(width).enumerate() {
        let expected = &expected[&(found.fields[at], found.keys[at])];
        let near = |a: f32, b: f64| (f64::from(a) - b).abs() <= 1e-6 * (1.0 + b.abs());
        assert!(near(row[0], expected.w), "w {} {}", row[0], expected.w);
        for f in 0..rank {
            assert!(
                near(row[5 + f], expected.v[f]),
                "v {} {}",
                row[5 + f],
                expected.v[f]
            );
        }
    }
    assert!((trainer.progress().logloss - loss).abs() < 1e-6);
    assert_eq!(trainer.progress().rows, 6000);
}

#[test]
fn ftrl_is_the_papers() {
    assert_equals_reference(Optimizer::Ftrl, 0);
}

#[test]
fn adagrad_and_sgd_are_their_formulas() {
    assert_equals_reference(Optimizer::Adagrad, 0);
    assert_equals_reference(Optimizer::Sgd, 0);
}

#[test]
fn a_factorisation_machine_is_its_formulas() {
    assert_equals_reference(Optimizer::Ftrl, 3);
    assert_equals_reference(Optimizer::Adagrad, 4);
    assert_equals_reference(Optimizer::Sgd, 6);
}

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
