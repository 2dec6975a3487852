//! The parameters of requests, inputs and outputs, whichever door they come through.

use std::borrow::Cow;
use std::time::Duration;

use super::Call;
use crate::error::{Fault, Kind, Result};

/// Parameters of a request or tensor, and names in one of them.
pub const PARAMETERS: usize = 256;

/// A parameter's value, as far as any of ours goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter<'a> {
    Bool(bool),
    Int(i64),
    Text(Cow<'a, str>),
    /// Something that no parameter of ours takes.
    Other,
}

impl Parameter<'_> {
    fn flag(&self, name: &str) -> Result<bool> {
        match self {
            Parameter::Bool(value) => Ok(*value),
            _ => Err(wrong(name, "true or false")),
        }
    }

    fn count(&self, name: &str) -> Result<usize> {
        match self {
            Parameter::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
        .ok_or_else(|| wrong(name, "an integer that is not negative"))
    }
}

fn wrong(name: &str, what: &str) -> Fault {
    Fault::invalid(format!("parameter '{name}' must be {what}"))
}

fn unserved(name: &str, what: &str) -> Fault {
    Fault::new(
        Kind::Unsupported,
        format!("parameter '{name}': {what} not served here"),
    )
}

/// Takes a request's parameter. Names that are not known are left alone, as the protocol says.
pub fn of_request(call: &mut Call, name: &str, value: &Parameter) -> Result<()> {
    match name {
        "timeout" => {
            let micros = value.count(name)? as u64;
            call.timeout = (micros > 0).then(|| Duration::from_micros(micros));
        }
        "broadcast" => match value {
            Parameter::Text(names) => {
                let separators = |c: char| c == ',' || c.is_ascii_whitespace();
                let names = names.split(separators).filter(|name| !name.is_empty());
                if names.clone().nth(PARAMETERS).is_some() {
                    return Err(wrong(name, &format!("at most {PARAMETERS} names")));
                }
                call.broadcast = names.map(str::to_owned).collect();
            }
            _ => {
                return Err(wrong(
                    name,
                    "a string of input names, separated by spaces or commas",
                ));
            }
        },
        "binary_data_output" => call.binary = value.flag(name)?,
        "sequence_id" if *value != Parameter::Int(0) => {
            return Err(unserved(name, "sequences are"));
        }
        _ => {}
    }
    Ok(())
}

/// Takes an input's parameter: how many bytes of the binary tail are its own. The fault does not name the input.
pub fn of_input(size_bytes: &mut Option<usize>, name: &str, value: &Parameter) -> Result<()> {
    match name {
        "binary_data_size" => *size_bytes = Some(value.count(name)?),
        _ if name.starts_with("shared_memory_") => {
            return Err(unserved(name, "shared memory is"));
        }
        _ => {}
    }
    Ok(())
}

/// Takes a requested output's parameter: whether it goes out as binary. The fault does not name the output.
pub fn of_output(binary: &mut Option<bool>, name: &str, value: &Parameter) -> Result<()> {
    match name {
        "binary_data" => *binary = Some(value.flag(name)?),
        "classification" if *value != Parameter::Int(0) => {
            return Err(unserved(name, "classification is"));
        }
        _ if name.starts_with("shared_memory_") => {
            return Err(unserved(name, "shared memory is"));
        }
        _ => {}
    }
    Ok(())
}
