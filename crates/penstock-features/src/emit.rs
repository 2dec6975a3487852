//! From values to keys: slot bits, null keys, weights, and lists without what has no key.

use crate::block::{Block, Kind};
use crate::eval::{Buffers, Faults, Inputs, Weight};
use crate::keys::NULL_VALUE;

/// Keys (or a define's values) of `buffers.values`, an element of the first input each.
pub(crate) fn values(
    inputs: &Inputs<'_, '_>,
    buffers: &mut Buffers,
    faults: &mut Faults<'_>,
    out: &mut Block<'_>,
) {
    let block = inputs.block(0);
    if block.lists && inputs.is_plain() {
        plain_lists(block, inputs.item.base(), buffers, out);
    } else if block.lists {
        let Buffers {
            values, present, ..
        } = buffers;
        list(inputs, faults, out, |i, row| {
            row.length = block.row(i).len();
            for e in block.row(i) {
                row.null &= !block.valid.bits[e];
                if present.bits[e] {
                    row.found(e - block.row(i).start, values[e], e);
                }
            }
            row.held = block.rows.bits[i];
        });
    } else {
        let nulls = if inputs.item.from.len() == 1 {
            Nulls::Of(&block.valid.bits)
        } else {
            Nulls::WhereAbsent
        };
        scalar(inputs, buffers, nulls, faults, out);
    }
}

/// A key for each element with a value, without weights or null keys.
fn plain_lists(block: &Block<'_>, base: u64, buffers: &mut Buffers, out: &mut Block<'_>) {
    let Buffers {
        values, present, ..
    } = buffers;
    out.reset(Kind::UInt, true);
    if present.missing == 0 {
        out.words.extend(values.iter().map(|value| value | base));
        out.ends.extend_from_slice(&block.ends);
    } else {
        let mut start = 0;
        for end in &block.ends {
            let elements = values[start..*end].iter().zip(&present.bits[start..*end]);
            let kept = elements.filter(|(_, present)| **present);
            out.words.extend(kept.map(|(value, _)| value | base));
            out.ends.push(out.words.len());
            start = *end;
        }
    }
    out.rows.copy_from(&block.rows);
    out.valid.fill(out.words.len(), true);
}

/// Which rows' input is null, so that `null="key"` gives the null key.
pub(crate) enum Nulls<'r> {
    /// Where these are false.
    Of(&'r [bool]),
    /// Where there is no value.
    WhereAbsent,
}

/// One value a row at most: `buffers.values` where `buffers.present`.
pub(crate) fn scalar(
    inputs: &Inputs<'_, '_>,
    buffers: &mut Buffers,
    nulls: Nulls<'_>,
    faults: &mut Faults<'_>,
    out: &mut Block<'_>,
) {
    let (base, weight) = (inputs.item.base(), inputs.weight());
    out.reset(Kind::UInt, false);
    std::mem::swap(&mut out.words, &mut buffers.values);
    out.words.iter_mut().for_each(|word| *word |= base);
    if inputs.is_plain() {
        std::mem::swap(&mut out.valid, &mut buffers.present);
        return;
    }
    out.valid.copy_from(&buffers.present);
    if inputs.item.null_key() && out.valid.missing > 0 {
        for i in 0..inputs.rows {
            let null = match nulls {
                Nulls::Of(valid) => !valid[i],
                Nulls::WhereAbsent => !out.valid.bits[i],
            };
            if null {
                out.words[i] = base | NULL_VALUE;
                out.valid.set(i, true);
            }
        }
    }
    if weight.is_given() {
        weigh(inputs, buffers, &weight, faults, out);
    }
}

fn weigh(
    inputs: &Inputs<'_, '_>,
    buffers: &Buffers,
    weight: &Weight<'_>,
    faults: &mut Faults<'_>,
    out: &mut Block<'_>,
) {
    out.weighted = true;
    for i in 0..inputs.rows {
        let own = buffers.present.bits[i];
        if own && let Err(reason) = weight.check(i, 1) {
            faults.add(i, reason);
        }
        let w = if own {
            weight.of(i, 0)
        } else {
            weight.of_null(i)
        };
        out.weights.push(w);
        if w.is_nan() {
            out.valid.set(i, false);
        }
    }
}

/// What one row of a list-shaped result holds.
pub(crate) struct Row<'r> {
    keys: &'r mut Vec<u64>,
    weights: &'r mut Vec<f64>,
    origins: &'r mut Vec<usize>,
    weight: &'r Weight<'r>,
    base: u64,
    trace: bool,
    index: usize,
    /// The elements that weights are counted against.
    pub length: usize,
    /// The input has no element with a value.
    pub null: bool,
    /// The input holds a list at all, however empty.
    pub held: bool,
}

impl Row<'_> {
    /// The key of the element at `place` in its list; `origin` is where explain finds it.
    #[inline]
    pub(crate) fn found(&mut self, place: usize, value: u64, origin: usize) {
        self.found_weighted(place, value, origin, 1.0);
    }

    #[inline]
    pub(crate) fn found_weighted(&mut self, place: usize, value: u64, origin: usize, factor: f64) {
        let w = if self.weight.is_given() {
            factor * self.weight.of(self.index, place)
        } else {
            factor
        };
        if !w.is_nan() {
            self.keys.push(value | self.base);
            self.weights.push(w);
            if self.trace {
                self.origins.push(origin);
            }
        }
    }
}

/// Any number of keys a row: `fill` gives each row's.
pub(crate) fn list(
    inputs: &Inputs<'_, '_>,
    faults: &mut Faults<'_>,
    out: &mut Block<'_>,
    mut fill: impl FnMut(usize, &mut Row<'_>),
) {
    let (base, weight) = (inputs.item.base(), inputs.weight());
    out.reset(Kind::UInt, true);
    out.weighted = inputs.plan.weighted(inputs.item);
    for i in 0..inputs.rows {
        let mut row = Row {
            keys: &mut out.words,
            weights: &mut out.weights,
            origins: &mut out.origins,
            weight: &weight,
            base,
            trace: inputs.trace,
            index: i,
            length: 0,
            null: true,
            held: true,
        };
        fill(i, &mut row);
        let Row {
            length, null, held, ..
        } = row;
        if held && let Err(reason) = weight.check(i, length) {
            faults.add(i, reason);
        }
        let null_weight = weight.of_null(i);
        if null && inputs.item.null_key() && !null_weight.is_nan() {
            out.words.push(base | NULL_VALUE);
            out.weights.push(null_weight);
            if inputs.trace {
                out.origins.push(usize::MAX);
            }
        }
        out.ends.push(out.words.len());
        out.rows.push(held);
    }
    if !out.weighted {
        out.weights.clear();
    }
    out.valid.fill(out.words.len(), true);
}
