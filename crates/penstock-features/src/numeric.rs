//! Numeric functions: f64 throughout, rounded once to f32 where a dense leaves.

use crate::block::{Block, Kind, Mask};
use crate::eval::{Buffers, Faults, Inputs};
use crate::functions::Function;
use crate::plan::Role;
use crate::udf::MAX_ARGUMENTS;

pub(crate) fn compute<'a>(
    inputs: &Inputs<'_, 'a>,
    buffers: &mut Buffers,
    faults: &mut Faults<'_>,
    out: &mut Block<'a>,
) -> Result<(), String> {
    out.reset(Kind::Float, false);
    let n = inputs.rows;
    let each = |function: &dyn Fn(f64) -> f64, floats: &mut Vec<f64>| {
        floats.extend(inputs.numbers(0).iter().map(|x| function(*x)));
    };
    match &inputs.item.function {
        Function::Log => crate::wide::logarithms(inputs.numbers(0), &mut out.floats),
        Function::Unary(function) => each(function, &mut out.floats),
        Function::Clip { min, max } => {
            let (min, max) = (
                min.unwrap_or(f64::NEG_INFINITY),
                max.unwrap_or(f64::INFINITY),
            );
            let clip = |x: f64| if x < min { min } else { x };
            out.floats.extend(
                inputs
                    .numbers(0)
                    .iter()
                    .map(|x| clip(*x))
                    .map(|x| if x > max { max } else { x }),
            );
        }
        Function::Normalize { subtract, divide } => {
            out.floats
                .extend(inputs.numbers(0).iter().map(|x| (x - subtract) / divide));
        }
        Function::Formula(program) => {
            let columns: Vec<&[f64]> = (0..inputs.item.from.len())
                .map(|input| inputs.numbers(input))
                .collect();
            program.run(n, &columns, &mut buffers.stack, &mut out.floats);
        }
        Function::Udf(udf) => {
            let arity = inputs.item.from.len();
            let mut args = [0.0; MAX_ARGUMENTS];
            for i in 0..n {
                (0..arity).for_each(|input| args[input] = inputs.numbers(input)[i]);
                out.floats.push(udf.call_f64(&args[..arity]));
            }
        }
        _ => out.floats.extend_from_slice(inputs.numbers(0)),
    }
    if matches!(inputs.item.role, Role::Slot { .. }) {
        let numbers = std::mem::take(&mut out.floats);
        crate::values::whole_numbers(&numbers, out, buffers, faults);
        crate::emit::scalar(
            inputs,
            buffers,
            crate::emit::Nulls::WhereAbsent,
            faults,
            out,
        );
        out.floats = numbers;
        return Ok(());
    }
    finish(inputs.item.role, out);
    Ok(())
}

/// A define keeps its f64s, NaN as null; a dense becomes f32, with its default where that has no finite value.
pub(crate) fn finish(role: Role, out: &mut Block<'_>) {
    match role {
        Role::Dense { default } => {
            for x in &mut out.floats {
                let rounded = *x as f32;
                *x = f64::from(if rounded.is_finite() {
                    rounded
                } else {
                    default
                });
            }
            out.valid.fill(out.floats.len(), true);
        }
        _ => out.floats.iter().for_each(|x| out.valid.push(!x.is_nan())),
    }
}

/// An index as a number.
pub(crate) fn dense_of_values(values: &[u64], present: &Mask, default: f32, out: &mut Block<'_>) {
    out.reset(Kind::Float, false);
    let number = |(value, present): (&u64, &bool)| if *present { *value as f64 } else { f64::NAN };
    out.floats
        .extend(values.iter().zip(&present.bits).map(number));
    finish(Role::Dense { default }, out);
}
