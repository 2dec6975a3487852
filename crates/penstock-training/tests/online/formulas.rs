//! The trainer against a slow reference in f64.

use std::collections::HashMap;

use penstock_training::online::{Factors, Optimizer, Rates, Settings};

use crate::data::{Data, data, settings};

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
