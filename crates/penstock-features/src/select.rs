//! Functions that choose elements of lists: hit, sequence, multi_hot; split, which makes lists; overlap, which counts.

use crate::block::{Block, Kind};
use crate::emit;
use crate::eval::{Buffers, Faults, Inputs};
use crate::functions::Function;
use crate::keys::hashed_value;
use crate::numeric;
use crate::plan::Role;

pub(crate) fn compute<'a>(
    inputs: &Inputs<'_, 'a>,
    buffers: &mut Buffers,
    faults: &mut Faults<'_>,
    role: Role,
    out: &mut Block<'a>,
) -> Result<(), String> {
    match &inputs.item.function {
        Function::Split { separator } => {
            return split(inputs.block(0), separator, inputs.rows, out);
        }
        Function::Overlap => {
            overlap(inputs, buffers, out);
            numeric::finish(role, out);
            return Ok(());
        }
        Function::Hit => hit(inputs, buffers),
        Function::Sequence { length } => sequence(inputs, *length, buffers),
        _ => multi_hot(inputs, buffers),
    }
    let block = inputs.block(0);
    if role == Role::Define {
        gather(block, &buffers.picks, &buffers.pick_ends, out);
        return Ok(());
    }
    let hashes = inputs.hashes(0);
    emit::list(inputs, faults, out, |i, row| {
        let start = if i == 0 { 0 } else { buffers.pick_ends[i - 1] };
        let elements = block.row(i);
        row.length = elements.len();
        row.held = held(block, i);
        for e in &buffers.picks[start..buffers.pick_ends[i]] {
            row.null = false;
            row.found(e - elements.start, hashed_value(hashes[*e]), *e);
        }
    });
    Ok(())
}

/// Whether row `i` holds a list or a value at all.
fn held(block: &Block<'_>, i: usize) -> bool {
    if block.lists {
        block.rows.bits[i]
    } else {
        block.valid.bits[i]
    }
}

/// Short lists are compared pair by pair, long ones through a set.
const SHORT: usize = 16;

/// Elements of a that are also in b: the order of a, duplicates kept.
fn hit(inputs: &Inputs<'_, '_>, buffers: &mut Buffers) {
    let (a, b) = (inputs.block(0), inputs.block(1));
    let (hashes_a, hashes_b) = (inputs.hashes(0), inputs.hashes(1));
    buffers.picks.clear();
    buffers.pick_ends.clear();
    for i in 0..inputs.rows {
        let wanted = b.row(i).filter(|e| b.valid.bits[*e]).map(|e| hashes_b[e]);
        let candidates = a.row(i).filter(|e| a.valid.bits[*e]);
        if b.row(i).len() <= SHORT {
            buffers
                .picks
                .extend(candidates.filter(|e| wanted.clone().any(|hash| hash == hashes_a[*e])));
        } else {
            buffers.seen.clear();
            buffers.seen.extend(wanted);
            buffers
                .picks
                .extend(candidates.filter(|e| buffers.seen.contains(&hashes_a[*e])));
        }
        buffers.pick_ends.push(buffers.picks.len());
    }
}

/// The last `length` elements that have a value.
fn sequence(inputs: &Inputs<'_, '_>, length: usize, buffers: &mut Buffers) {
    let block = inputs.block(0);
    buffers.picks.clear();
    buffers.pick_ends.clear();
    for i in 0..inputs.rows {
        let start = buffers.picks.len();
        buffers.picks.extend(
            block
                .row(i)
                .rev()
                .filter(|e| block.valid.bits[*e])
                .take(length),
        );
        buffers.picks[start..].reverse();
        buffers.pick_ends.push(buffers.picks.len());
    }
}

/// Each distinct element where it first appears.
fn multi_hot(inputs: &Inputs<'_, '_>, buffers: &mut Buffers) {
    let (block, hashes) = (inputs.block(0), inputs.hashes(0));
    buffers.picks.clear();
    buffers.pick_ends.clear();
    for i in 0..inputs.rows {
        let start = buffers.picks.len();
        let candidates = block.row(i).filter(|e| block.valid.bits[*e]);
        if block.row(i).len() <= SHORT {
            for e in candidates {
                if buffers.picks[start..]
                    .iter()
                    .all(|earlier| hashes[*earlier] != hashes[e])
                {
                    buffers.picks.push(e);
                }
            }
        } else {
            buffers.seen.clear();
            buffers
                .picks
                .extend(candidates.filter(|e| buffers.seen.insert(hashes[*e])));
        }
        buffers.pick_ends.push(buffers.picks.len());
    }
}

/// The number of distinct elements that both lists have; null where either has none.
fn overlap(inputs: &Inputs<'_, '_>, buffers: &mut Buffers, out: &mut Block<'_>) {
    let (a, b) = (inputs.block(0), inputs.block(1));
    let (hashes_a, hashes_b) = (inputs.hashes(0), inputs.hashes(1));
    out.reset(Kind::Float, false);
    for i in 0..inputs.rows {
        buffers.seen.clear();
        buffers
            .seen
            .extend(b.row(i).filter(|e| b.valid.bits[*e]).map(|e| hashes_b[e]));
        let empty = buffers.seen.is_empty() || !a.row(i).any(|e| a.valid.bits[e]);
        // Each hash leaves the set when it is met, so that duplicates in a count once.
        let common = a
            .row(i)
            .filter(|e| a.valid.bits[*e] && buffers.seen.remove(&hashes_a[*e]))
            .count();
        out.floats
            .push(if empty { f64::NAN } else { common as f64 });
    }
}

/// The pieces of strings, as many as there are separators and one more.
fn split<'a>(
    block: &Block<'a>,
    separator: &str,
    rows: usize,
    out: &mut Block<'a>,
) -> Result<(), String> {
    match block.kind {
        Kind::Text | Kind::Null => {}
        other => return Err(format!("split takes strings, not {}", other.name())),
    }
    out.reset(Kind::Text, true);
    let finder = memchr::memmem::Finder::new(separator);
    for i in 0..rows {
        for e in block.row(i).filter(|e| block.valid.bits[*e]) {
            let text = block.bytes[e];
            let mut start = 0;
            for end in finder.find_iter(text) {
                out.bytes.push(&text[start..end]);
                start = end + separator.len();
            }
            out.bytes.push(&text[start..]);
        }
        out.ends.push(out.bytes.len());
        out.rows.push(held(block, i));
    }
    out.valid.fill(out.bytes.len(), true);
    Ok(())
}

/// The block as it is: a define of identity.
pub(crate) fn all<'a>(block: &Block<'a>, out: &mut Block<'a>) {
    out.reset(block.kind, block.lists);
    out.bytes.extend_from_slice(&block.bytes);
    out.ints.extend_from_slice(&block.ints);
    out.words.extend_from_slice(&block.words);
    out.floats.extend_from_slice(&block.floats);
    out.valid.copy_from(&block.valid);
    out.ends.extend_from_slice(&block.ends);
    out.rows.copy_from(&block.rows);
}

/// The chosen elements, as lists.
fn gather<'a>(block: &Block<'a>, picks: &[usize], ends: &[usize], out: &mut Block<'a>) {
    out.reset(block.kind, true);
    match block.kind {
        Kind::Text | Kind::Binary => out.bytes.extend(picks.iter().map(|e| block.bytes[*e])),
        Kind::Int | Kind::Date | Kind::Time => {
            out.ints.extend(picks.iter().map(|e| block.ints[*e]))
        }
        Kind::UInt | Kind::Bool => out.words.extend(picks.iter().map(|e| block.words[*e])),
        Kind::Float => out.floats.extend(picks.iter().map(|e| block.floats[*e])),
        Kind::Null => {}
    }
    out.ends.extend_from_slice(ends);
    (0..ends.len()).for_each(|i| out.rows.push(held(block, i)));
    out.valid.fill(picks.len(), true);
}
