//! Records from what they say.

use xxhash_rust::xxh3::xxh3_64;

use super::{
    BASE, BEGIN, COMMIT, DENSE, DeltaError, HEAD, MAGIC, Mark, ROWS, SUMMED, VERSION, checksum,
};

/// One part of a delta: rows, as `Packer` packed them.
pub fn part(mark: Mark, number: u32, body: &[u8]) -> Vec<u8> {
    record(ROWS, mark, number, body)
}

/// Dense weights by name, of any shape, as parts of at most about `most` bytes, numbered from `first` on. A weight that is
/// larger goes in slices.
pub fn dense_parts<'a>(
    mark: Mark,
    first: u32,
    most: usize,
    weights: impl IntoIterator<Item = (&'a str, &'a [u64], &'a [f32])>,
) -> Result<Vec<Vec<u8>>, DeltaError> {
    let (mut parts, mut body) = (vec![], vec![]);
    for (name, shape, values) in weights {
        if values.iter().any(|value| !value.is_finite()) {
            return Err(DeltaError::WeightNotFinite(name.into()));
        }
        let slices = values.chunks((most / 4).max(1));
        for (number, slice) in slices.enumerate() {
            if !body.is_empty() && body.len() + 4 * slice.len() > most {
                parts.push(std::mem::take(&mut body));
            }
            let first = number * (most / 4).max(1);
            text(&mut body, name);
            body.extend((shape.len() as u32).to_le_bytes());
            for n in shape.iter().chain(&[first as u64, slice.len() as u64]) {
                body.extend(n.to_le_bytes());
            }
            slice.iter().for_each(|x| body.extend(x.to_le_bytes()));
        }
    }
    if !body.is_empty() {
        parts.push(body);
    }
    let numbered = (first..).zip(&parts);
    Ok(numbered
        .map(|(number, body)| record(DENSE, mark, number, body))
        .collect())
}

/// The record that makes the delta of these parts count. `about`: model, plan, base and what the caller adds.
pub fn commit(mark: Mark, parts: &[Vec<u8>], rows: u64, gone: u64, about: [&str; 4]) -> Vec<u8> {
    let mut body = vec![];
    body.extend(sum(parts.iter().map(|part| xxh3_64(&part[HEAD..]))).to_le_bytes());
    body.extend(rows.to_le_bytes());
    body.extend(gone.to_le_bytes());
    about.iter().for_each(|said| text(&mut body, said));
    record(COMMIT, mark, parts.len() as u32, &body)
}

/// Where a materialised base of the chain as of `mark.to` is: model, plan, base and what the caller adds.
pub fn announcement(mark: Mark, about: [&str; 4]) -> Vec<u8> {
    said(BASE, mark, about)
}

/// From here on only this generation counts.
pub fn beginning(mark: Mark, about: [&str; 4]) -> Vec<u8> {
    said(BEGIN, mark, about)
}

fn said(kind: u16, mark: Mark, about: [&str; 4]) -> Vec<u8> {
    let mut body = vec![];
    about.iter().for_each(|said| text(&mut body, said));
    record(kind, mark, 0, &body)
}

/// Of the bodies' sums, in order.
pub(super) fn sum(bodies: impl Iterator<Item = u64>) -> u64 {
    let sums: Vec<u8> = bodies.flat_map(u64::to_le_bytes).collect();
    xxh3_64(&sums)
}

fn text(body: &mut Vec<u8>, said: &str) {
    body.extend((said.len() as u32).to_le_bytes());
    body.extend(said.as_bytes());
}

fn record(kind: u16, mark: Mark, part: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(part.to_le_bytes());
    for number in [mark.generation, mark.from, mark.to, mark.writer] {
        out.extend(number.to_le_bytes());
    }
    out.extend((body.len() as u32).to_le_bytes());
    out.extend([0; 4]);
    let sum = checksum(&out[..SUMMED], body);
    out.extend(sum.to_le_bytes());
    out.extend(body);
    out
}
