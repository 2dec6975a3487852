//! combine and descartes: XXH3-64 over the parts in order, 8 little-endian bytes each.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::block::Block;
use crate::emit::{self, Nulls};
use crate::eval::{Buffers, Faults, Inputs};
use crate::functions::Function;
use crate::keys::hashed_value;

pub(crate) fn compute(
    inputs: &Inputs<'_, '_>,
    buffers: &mut Buffers,
    faults: &mut Faults<'_>,
    out: &mut Block<'_>,
) -> Result<(), String> {
    match inputs.item.function {
        Function::Descartes { max } => {
            descartes(inputs, max, buffers, faults, out);
            Ok(())
        }
        _ => combine(inputs, buffers, faults, out),
    }
}

/// A part's 64 bits: a slot's key as it is, anything else hashed.
fn part<'r>(inputs: &Inputs<'r, '_>, input: usize) -> &'r [u64] {
    if inputs.is_slot(input) {
        &inputs.block(input).words
    } else {
        inputs.hashes(input)
    }
}

fn combine(
    inputs: &Inputs<'_, '_>,
    buffers: &mut Buffers,
    faults: &mut Faults<'_>,
    out: &mut Block<'_>,
) -> Result<(), String> {
    let parts = inputs.item.from.len();
    if let Some(source) = inputs
        .item
        .from
        .iter()
        .find(|source| inputs.blocks[**source].lists)
    {
        return Err(format!(
            "'{}' is a list: combine takes one value a part (descartes takes lists)",
            inputs.plan.source_name(*source)
        ));
    }
    let seed = inputs.plan.seed;
    let Buffers {
        values,
        present,
        parts: bytes,
        ..
    } = &mut *buffers;
    values.clear();
    present.copy_from(&inputs.block(0).valid);
    for input in 1..parts {
        let valid = &inputs.block(input).valid;
        if valid.missing > 0 {
            for (i, here) in valid.bits.iter().enumerate() {
                if !here {
                    present.set(i, false);
                }
            }
        }
    }
    if let (2, [first, second]) = (parts, [part(inputs, 0), part(inputs, parts - 1)]) {
        let pair = |(a, b): (&u64, &u64)| {
            let whole = u128::from(*a) | u128::from(*b) << 64;
            hashed_value(xxh3_64_with_seed(&whole.to_le_bytes(), seed))
        };
        values.extend(first.iter().zip(second).map(pair));
    } else {
        for i in 0..inputs.rows {
            bytes.clear();
            (0..parts)
                .for_each(|input| bytes.extend_from_slice(&part(inputs, input)[i].to_le_bytes()));
            values.push(hashed_value(xxh3_64_with_seed(bytes, seed)));
        }
    }
    emit::scalar(inputs, buffers, Nulls::WhereAbsent, faults, out);
    Ok(())
}

fn descartes(
    inputs: &Inputs<'_, '_>,
    max: usize,
    buffers: &mut Buffers,
    faults: &mut Faults<'_>,
    out: &mut Block<'_>,
) {
    let parts = inputs.item.from.len();
    let seed = inputs.plan.seed;
    let Buffers {
        picks,
        pick_ends,
        parts: bytes,
        ..
    } = buffers;
    let mut over = Vec::new();
    emit::list(inputs, faults, out, |i, row| {
        // The elements with a value, part after part.
        picks.clear();
        pick_ends.clear();
        let mut size = 1usize;
        for input in 0..parts {
            let block = inputs.block(input);
            let before = picks.len();
            picks.extend(block.row(i).filter(|e| block.valid.bits[*e]));
            pick_ends.push(picks.len());
            size = size.saturating_mul(picks.len() - before);
        }
        row.null = size == 0;
        row.held = size > 0;
        row.length = size;
        if size > max {
            over.push((i, size));
            row.held = false;
            return;
        }
        for ordinal in 0..size {
            bytes.clear();
            let (mut stride, mut rest, mut factor, mut start) = (size, ordinal, 1.0, 0);
            for (input, end) in pick_ends.iter().enumerate() {
                let count = end - start;
                stride /= count;
                let e = picks[start + rest / stride];
                rest %= stride;
                bytes.extend_from_slice(&part(inputs, input)[e].to_le_bytes());
                let block = inputs.block(input);
                if block.weighted && inputs.is_slot(input) {
                    factor *= block.weights[e];
                }
                start = *end;
            }
            row.found_weighted(
                ordinal,
                hashed_value(xxh3_64_with_seed(bytes, seed)),
                ordinal,
                factor,
            );
        }
    });
    for (i, size) in over {
        faults.add(
            i,
            format!("crosses into {size} keys, more than its max of {max}"),
        );
    }
}
