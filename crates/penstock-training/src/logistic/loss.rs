//! The logistic loss of rows by their margins, summed in an order that no thread count changes.

use rayon::prelude::*;

use crate::fields::CHUNK;

/// The first and second derivative of each row's loss by its margin.
pub(super) fn derivatives(margins: &[f64], labels: &[f64], sample: &[f64]) -> (Vec<f64>, Vec<f64>) {
    (0..margins.len())
        .into_par_iter()
        .with_min_len(4096)
        .map(|i| {
            let p = 1.0 / (1.0 + (-margins[i]).exp());
            (sample[i] * (p - labels[i]), sample[i] * (p * (1.0 - p)))
        })
        .unzip()
}

pub(super) fn loss(margins: &[f64], labels: &[f64], sample: &[f64]) -> f64 {
    let partials: Vec<f64> = margins
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(chunk, margins)| {
            let start = chunk * CHUNK;
            let row = |(k, &m): (usize, &f64)| {
                let i = start + k;
                // log(1 + exp(m)) - t m, without overflow.
                sample[i] * (m.max(0.0) + (-m.abs()).exp().ln_1p() - labels[i] * m)
            };
            margins.iter().enumerate().map(row).sum()
        })
        .collect();
    partials.iter().sum()
}

pub(super) fn ordered_sum(values: &[f64]) -> f64 {
    let partials: Vec<f64> = values.par_chunks(CHUNK).map(|c| c.iter().sum()).collect();
    partials.iter().sum()
}
