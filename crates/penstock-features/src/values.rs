//! Functions that give each element a value: hash, identity, pickcat, piecewise, time parts, keys of user functions.

use crate::block::{Block, Kind};
use crate::canonical::{self, Writer};
use crate::civil::DAY_US;
use crate::dictionary::Dictionary;
use crate::eval::{Buffers, Faults, Inputs};
use crate::functions::Function;
use crate::keys::{NULL_VALUE, hashed_value};
use crate::plan::Role;
use crate::time::{Clock, Part, Unit, Zone};
use crate::udf::{MAX_ARGUMENTS, Udf};

/// Fill `buffers.values`, and `buffers.present` with which elements have one.
pub(crate) fn compute(
    inputs: &Inputs<'_, '_>,
    buffers: &mut Buffers,
    faults: &mut Faults<'_>,
) -> Result<(), String> {
    let block = inputs.block(0);
    buffers.values.clear();
    buffers.present.copy_from(&block.valid);
    match &inputs.item.function {
        Function::Hash => buffers
            .values
            .extend(inputs.hashes(0).iter().map(|hash| hashed_value(*hash))),
        Function::Identity => identity(inputs, buffers, faults),
        Function::Pickcat {
            dictionary,
            unknown,
        } => pickcat(block, dictionary, *unknown, buffers)?,
        Function::Piecewise { bounds } => piecewise(inputs.numbers(0), bounds, &mut buffers.values),
        Function::Time { part, zone, unit } => moments(block, *part, zone, *unit, buffers, faults)?,
        Function::Udf(udf) => keys(inputs, udf, buffers)?,
        _ => {}
    }
    Ok(())
}

/// The number of bounds <= x. Elements that are NaN are not valid, so what they get here is not seen.
fn piecewise(numbers: &[f64], bounds: &[f64], out: &mut Vec<u64>) {
    /// Up to here comparing with all bounds, several numbers at once, beats searching.
    const FEW: usize = 32;
    if bounds.len() > FEW {
        let index = |x: &f64| bounds.partition_point(|bound| *bound <= *x) as u64;
        out.extend(numbers.iter().map(index));
    } else {
        crate::wide::count_bounds(numbers, bounds, out);
    }
}

fn identity(inputs: &Inputs<'_, '_>, buffers: &mut Buffers, faults: &mut Faults<'_>) {
    let block = inputs.block(0);
    for e in 0..block.len() {
        let index = match block.kind {
            _ if !block.valid.bits[e] => Ok(0),
            Kind::Int => u64::try_from(block.ints[e]).map_err(|_| block.ints[e].to_string()),
            Kind::UInt | Kind::Bool => Ok(block.words[e]),
            _ => whole(block.floats[e]).ok_or_else(|| block.floats[e].to_string()),
        };
        buffers.values.push(checked(index, e, block, faults));
    }
}

/// A float that is a whole number from 0.
fn whole(x: f64) -> Option<u64> {
    (x >= 0.0 && x < NULL_VALUE as f64 && libm::floor(x) == x).then_some(x as u64)
}

fn checked(
    index: Result<u64, String>,
    e: usize,
    block: &Block<'_>,
    faults: &mut Faults<'_>,
) -> u64 {
    let text = match index {
        Ok(index) if index < NULL_VALUE => return index,
        Ok(index) => index.to_string(),
        Err(text) => text,
    };
    faults.add_at(
        block,
        e,
        format!("is {text}, which is not an index (a whole number from 0, below 2^52 - 1)"),
    );
    0
}

/// The indices that numbers already are, for user functions that give f64.
pub(crate) fn whole_numbers(
    numbers: &[f64],
    block: &Block<'_>,
    buffers: &mut Buffers,
    faults: &mut Faults<'_>,
) {
    buffers.values.clear();
    buffers.present.clear();
    for (e, x) in numbers.iter().enumerate() {
        buffers.present.push(!x.is_nan());
        let index = if x.is_nan() {
            Ok(0)
        } else {
            whole(*x).ok_or_else(|| x.to_string())
        };
        let index = checked(index, e, block, faults);
        buffers.values.push(index);
    }
}

fn pickcat(
    block: &Block<'_>,
    dictionary: &Dictionary,
    unknown: Option<u64>,
    buffers: &mut Buffers,
) -> Result<(), String> {
    canonical::hashable(block.kind)?;
    let Buffers {
        values,
        words,
        present,
        ..
    } = buffers;
    if matches!(block.kind, Kind::Text | Kind::Binary) {
        dictionary.get_many(&block.bytes, words, values);
    } else {
        let mut writer = Writer::default();
        let index = |e| dictionary.get(writer.bytes(block, e)).map_or(0, u64::from);
        values.extend((0..block.len()).map(index));
    }
    match unknown {
        Some(0) => {}
        Some(unknown) => values
            .iter_mut()
            .filter(|index| **index == 0)
            .for_each(|index| *index = unknown),
        None => {
            for (e, index) in values.iter().enumerate() {
                if *index == 0 {
                    present.set(e, false);
                }
            }
        }
    }
    Ok(())
}

fn moments(
    block: &Block<'_>,
    part: Part,
    zone: &Zone,
    unit: Option<Unit>,
    buffers: &mut Buffers,
    faults: &mut Faults<'_>,
) -> Result<(), String> {
    let number_unit = || unit.ok_or("numbers need a unit (s, ms, us) to be moments".to_string());
    if block.kind == Kind::Date {
        // A date is a day on the calendar, the same in every zone.
        buffers.values.extend(
            block
                .ints
                .iter()
                .map(|days| part.of(days.saturating_mul(DAY_US))),
        );
        return Ok(());
    }
    let mut clock = Clock::of(zone);
    let mut add = |e: usize, us: i64| match clock.local(us) {
        Some(local) => buffers.values.push(part.of(local)),
        None => {
            buffers.values.push(0);
            if block.valid.bits[e] {
                faults.add_at(block, e, "is not a moment in the years 1 to 9999");
            }
        }
    };
    match block.kind {
        Kind::Time => block
            .ints
            .iter()
            .enumerate()
            .for_each(|(e, us)| add(e, *us)),
        Kind::Int => {
            let unit = number_unit()?;
            block
                .ints
                .iter()
                .enumerate()
                .for_each(|(e, v)| add(e, unit.of_int(*v)));
        }
        Kind::UInt => {
            let unit = number_unit()?;
            let signed = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
            block
                .words
                .iter()
                .enumerate()
                .for_each(|(e, v)| add(e, unit.of_int(signed(*v))));
        }
        Kind::Float => {
            let unit = number_unit()?;
            block
                .floats
                .iter()
                .enumerate()
                .for_each(|(e, v)| add(e, unit.of_float(*v)));
        }
        Kind::Null => buffers.values.resize(block.len(), 0),
        other => return Err(format!("a {} is not a moment", other.name())),
    }
    Ok(())
}

/// u64 user functions: keys of slots and integers as they are, anything else as its hash.
fn keys(inputs: &Inputs<'_, '_>, udf: &Udf, buffers: &mut Buffers) -> Result<(), String> {
    let arity = inputs.item.from.len();
    let first = inputs.block(0);
    if arity > 1 {
        inputs.require_scalars()?;
    }
    let mut hashes = Vec::new();
    let mut columns: [Vec<u64>; MAX_ARGUMENTS] = Default::default();
    for (input, column) in columns.iter_mut().enumerate().take(arity) {
        let block = inputs.block(input);
        match block.kind {
            Kind::UInt | Kind::Bool => column.extend_from_slice(&block.words),
            Kind::Int => column.extend(block.ints.iter().map(|v| *v as u64)),
            _ => {
                canonical::hash_elements(block, inputs.plan.seed, &mut hashes)?;
                column.extend_from_slice(&hashes);
            }
        }
    }
    let slot = matches!(inputs.item.role, Role::Slot { .. });
    let mut args = [0; MAX_ARGUMENTS];
    for e in 0..first.len() {
        let mut known = true;
        for (input, column) in columns.iter().enumerate().take(arity) {
            known &= inputs.block(input).valid.bits[e];
            args[input] = column[e];
        }
        let result = if known {
            udf.call_u64(&args[..arity])
        } else {
            0
        };
        buffers.present.set(e, known);
        buffers
            .values
            .push(if slot { hashed_value(result) } else { result });
    }
    Ok(())
}
