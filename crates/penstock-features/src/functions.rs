//! The functions a feature file can name: their parameters compiled and checked, and where each may stand.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::dictionary::Dictionary;
use crate::formula::Program;
use crate::spec::{ItemSpec, RoleSpec, Takes, Tree};
use crate::time::{Part, Unit, Zone};
use crate::udf::Udf;

const DEFAULT_CROSS: u64 = 10_000;

/// A function with its parameters, ready to run.
#[derive(Debug)]
pub(crate) enum Function {
    Hash,
    Identity,
    Pickcat {
        dictionary: Arc<Dictionary>,
        unknown: Option<u64>,
    },
    Piecewise {
        bounds: Vec<f64>,
    },
    Time {
        part: Part,
        zone: Zone,
        unit: Option<Unit>,
    },
    Combine,
    Descartes {
        max: usize,
    },
    Hit,
    Sequence {
        length: usize,
    },
    MultiHot,
    Split {
        separator: String,
    },
    Overlap,
    /// log, log10, log1p, sqrt, abs.
    Log,
    Unary(fn(f64) -> f64),
    Clip {
        min: Option<f64>,
        max: Option<f64>,
    },
    /// `(x - subtract) / divide`.
    Normalize {
        subtract: f64,
        divide: f64,
    },
    Formula(Program),
    Udf(Udf),
}

/// What a function's results are, before its item's role makes keys or f32 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// A value an element: hash, pickcat, piecewise, time parts, identity.
    Values,
    /// One value from several parts, or one a combination.
    Crosses,
    /// Some of the elements of a list.
    Selections,
    /// f64s.
    Numbers,
}

impl Function {
    pub(crate) fn family(&self) -> Family {
        match self {
            Self::Hash
            | Self::Identity
            | Self::Pickcat { .. }
            | Self::Piecewise { .. }
            | Self::Time { .. } => Family::Values,
            Self::Combine | Self::Descartes { .. } => Family::Crosses,
            Self::Hit
            | Self::Sequence { .. }
            | Self::MultiHot
            | Self::Split { .. }
            | Self::Overlap => Family::Selections,
            Self::Udf(udf) if udf.takes == Takes::U64 => Family::Values,
            Self::Log
            | Self::Unary(_)
            | Self::Clip { .. }
            | Self::Normalize { .. }
            | Self::Formula(_)
            | Self::Udf(_) => Family::Numbers,
        }
    }

    /// Whether its inputs are numbers or moments, which keys are not.
    pub(crate) fn reads_numbers(&self) -> bool {
        self.family() == Family::Numbers
            || matches!(
                self,
                Self::Identity | Self::Piecewise { .. } | Self::Time { .. }
            )
    }

    pub(crate) fn compile(
        item: &ItemSpec,
        dictionaries: &HashMap<&str, Arc<Dictionary>>,
        functions: &HashMap<&str, (Takes, usize)>,
    ) -> Result<Self, String> {
        let params = Params(&item.params);
        Ok(match item.function.as_str() {
            "hash" => Self::Hash,
            "identity" => Self::Identity,
            "pickcat" => {
                let name = params.text("dict")?;
                let found = dictionaries
                    .get(name)
                    .ok_or_else(|| format!("dictionary '{name}' is not in the plan"))?;
                Self::Pickcat {
                    dictionary: Arc::clone(found),
                    unknown: params.unknown()?,
                }
            }
            "piecewise" => Self::Piecewise {
                bounds: params.bounds()?,
            },
            "bucketize_time" => Self::Time {
                part: Part::named(params.text("part")?)?,
                zone: Zone::named(params.optional_text("tz")?.unwrap_or("UTC"))?,
                unit: params.optional_text("unit")?.map(Unit::named).transpose()?,
            },
            "combine" => Self::Combine,
            "descartes" => Self::Descartes {
                max: params.count("max", DEFAULT_CROSS)?,
            },
            "hit" => Self::Hit,
            "sequence" => Self::Sequence {
                length: params.count("length", 0)?,
            },
            "multi_hot" => Self::MultiHot,
            "split" => match params.text("sep")? {
                "" => return Err("sep is empty".into()),
                separator => Self::Split {
                    separator: separator.into(),
                },
            },
            "overlap" => Self::Overlap,
            "log" => Self::Log,
            "log10" => Self::Unary(libm::log10),
            "log1p" => Self::Unary(libm::log1p),
            "sqrt" => Self::Unary(libm::sqrt),
            "abs" => Self::Unary(libm::fabs),
            "clip" => {
                let (min, max) = (
                    params.optional_number("min")?,
                    params.optional_number("max")?,
                );
                if let (Some(min), Some(max)) = (min, max)
                    && min > max
                {
                    return Err(format!("min {min} is above max {max}"));
                }
                Self::Clip { min, max }
            }
            "normalize" => params.normalize()?,
            "formula" => {
                let tree = params
                    .0
                    .get("expr")
                    .ok_or("the parameter 'expr' is missing")?;
                let tree = Tree::deserialize_from(tree)?;
                Self::Formula(Program::compile(&tree, item.from.len())?)
            }
            "udf" => {
                let name = params.text("function")?;
                let (takes, address) = functions
                    .get(name)
                    .ok_or_else(|| format!("function '{name}' is not in the plan"))?;
                Self::Udf(Udf::at(*address, *takes, item.from.len())?)
            }
            other => return Err(format!("'{other}' is not a function")),
        })
    }

    /// Whether it may stand as a define, slot or dense, over so many inputs.
    pub(crate) fn check_place(
        &self,
        name: &str,
        role: RoleSpec,
        inputs: usize,
    ) -> Result<(), String> {
        let role_fits = match self {
            Self::Hash | Self::Combine | Self::Descartes { .. } => role != RoleSpec::Dense,
            Self::Hit | Self::Sequence { .. } | Self::MultiHot => role != RoleSpec::Dense,
            Self::Split { .. } => role == RoleSpec::Define,
            Self::Overlap
            | Self::Log
            | Self::Unary(_)
            | Self::Clip { .. }
            | Self::Normalize { .. }
            | Self::Formula(_) => role != RoleSpec::Slot,
            Self::Identity
            | Self::Pickcat { .. }
            | Self::Piecewise { .. }
            | Self::Time { .. }
            | Self::Udf(_) => true,
        };
        if !role_fits {
            let role = match role {
                RoleSpec::Define => "define",
                RoleSpec::Slot => "slot",
                RoleSpec::Dense => "dense",
            };
            return Err(format!("{name} may not stand as a {role}"));
        }
        let wanted = match self {
            Self::Combine | Self::Descartes { .. } => (inputs < 1).then_some("at least one input"),
            Self::Hit | Self::Overlap => (inputs != 2).then_some("two inputs"),
            Self::Formula(_) | Self::Udf(_) => None,
            _ => (inputs != 1).then_some("one input"),
        };
        wanted.map_or(Ok(()), |wanted| {
            Err(format!("{name} takes {wanted}, not {inputs}"))
        })
    }
}

impl Tree {
    fn deserialize_from(value: &Value) -> Result<Self, String> {
        serde::Deserialize::deserialize(value)
            .map_err(|_| "the formula's tree is malformed".to_string())
    }
}

/// An item's parameters, read with messages that name them.
struct Params<'a>(&'a Map<String, Value>);

impl<'a> Params<'a> {
    fn given(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Result<&'a Value, String> {
        self.given(name)
            .ok_or_else(|| format!("the parameter '{name}' is missing"))
    }

    fn optional_text(&self, name: &str) -> Result<Option<&'a str>, String> {
        let text = |value: &'a Value| {
            value
                .as_str()
                .ok_or_else(|| format!("'{name}' is not a string"))
        };
        self.given(name).map(text).transpose()
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        self.required(name)?;
        Ok(self.optional_text(name)?.unwrap_or_default())
    }

    fn optional_number(&self, name: &str) -> Result<Option<f64>, String> {
        let number = |value: &Value| match value.as_f64() {
            Some(number) if number.is_finite() => Ok(number),
            _ => Err(format!("'{name}' is not a number")),
        };
        self.given(name).map(number).transpose()
    }

    fn number(&self, name: &str) -> Result<f64, String> {
        self.required(name)?;
        Ok(self.optional_number(name)?.unwrap_or_default())
    }

    /// A whole number from 1; `otherwise` 0 means that it must be given.
    fn count(&self, name: &str, otherwise: u64) -> Result<usize, String> {
        let count = match self.given(name) {
            Some(value) => value.as_u64().unwrap_or(0),
            None => otherwise,
        };
        match usize::try_from(count) {
            Ok(count @ 1..) => Ok(count),
            _ => Err(format!("'{name}' is not a whole number from 1")),
        }
    }

    fn unknown(&self) -> Result<Option<u64>, String> {
        match self.given("unknown") {
            None => Ok(Some(0)),
            Some(Value::String(skip)) if skip == "skip" => Ok(None),
            Some(value) => match value.as_u64() {
                Some(index) if index < crate::keys::NULL_VALUE => Ok(Some(index)),
                _ => Err("'unknown' is neither an index nor 'skip'".into()),
            },
        }
    }

    fn bounds(&self) -> Result<Vec<f64>, String> {
        let list = self
            .required("bounds")?
            .as_array()
            .ok_or("'bounds' is not a list")?;
        let bounds: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
        let bounds = bounds
            .filter(|bounds| !bounds.is_empty())
            .ok_or("'bounds' is not a list of numbers")?;
        if let Some(pair) = bounds.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(format!(
                "the bounds are not in order: {} comes before {}",
                pair[0], pair[1]
            ));
        }
        Ok(bounds)
    }

    fn normalize(&self) -> Result<Function, String> {
        Ok(match self.text("method")? {
            "zscore" => Function::Normalize {
                subtract: self.number("mean")?,
                divide: self.number("std")?,
            },
            "minmax" => {
                let (min, max) = (self.number("min")?, self.number("max")?);
                Function::Normalize {
                    subtract: min,
                    divide: max - min,
                }
            }
            other => return Err(format!("normalize has no method '{other}'")),
        })
    }
}
