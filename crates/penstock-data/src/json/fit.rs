//! A value made to fit its column's shape, or the sentence that says why it does not.

use std::borrow::Cow;

use super::shape::Shape;
use super::value::Json;
use crate::scalar::{self, Kind};

/// Make `value` fit `shape`, or say why it cannot; `path` then names the part at fault.
pub(super) fn fit<'a>(
    value: Json<'a>,
    shape: &Shape,
    path: &mut String,
) -> Result<Json<'a>, String> {
    let kind = match (shape, value) {
        (_, Json::Null) => return Ok(Json::Null),
        (Shape::Struct(fields), Json::Object(items)) => {
            let mut row = vec![(Cow::Borrowed(""), Json::Null); fields.len()];
            for (key, value) in items {
                if let Some(at) = fields.iter().position(|(name, _)| *name == key) {
                    let length = path.len();
                    path.push('.');
                    path.push_str(&key);
                    row[at].1 = fit(value, &fields[at].1, path)?;
                    path.truncate(length);
                }
            }
            return Ok(Json::Object(row));
        }
        (Shape::List(inner), Json::Array(items)) => {
            return items
                .into_iter()
                .map(|item| fit(item, inner, path))
                .collect::<Result<_, _>>()
                .map(Json::Array);
        }
        (Shape::Scalar(kind), value) if !matches!(value, Json::Array(_) | Json::Object(_)) => {
            (*kind, value)
        }
        (Shape::Empty, value @ Json::Str(_)) => return Ok(value),
        (shape, value) => {
            return Err(format!(
                "{} is not of type {}",
                value.describe(),
                shape.name()
            ));
        }
    };
    let (kind, value) = kind;
    let said = value.describe();
    let fitted = match (kind, value) {
        (Kind::Int | Kind::Timestamp, Json::Int(v)) => Some(Json::Int(v)),
        (Kind::UInt, Json::Int(v)) => u64::try_from(v).ok().map(Json::UInt),
        (Kind::UInt, Json::UInt(v)) => Some(Json::UInt(v)),
        (Kind::Int, Json::Float(v)) if v.fract() == 0.0 && v.abs() < 9e15 => {
            Some(Json::Int(v as i64))
        }
        (Kind::Float, Json::Int(v)) => Some(Json::Float(v as f64)),
        (Kind::Float, Json::UInt(v)) => Some(Json::Float(v as f64)),
        (Kind::Float, Json::Float(v)) => Some(Json::Float(v)),
        (Kind::Float, Json::Str(v)) => named_float(&v).map(Json::Float),
        (Kind::Bool, Json::Bool(v)) => Some(Json::Bool(v)),
        (Kind::Bool, Json::Int(v @ (0 | 1))) => Some(Json::Bool(v == 1)),
        (Kind::Date, Json::Str(v)) => scalar::date(v.as_bytes()).map(|days| Json::Int(days.into())),
        (Kind::Timestamp, Json::Str(v)) => scalar::timestamp(v.as_bytes()).map(Json::Int),
        (Kind::Str, Json::Str(v)) => Some(Json::Str(v)),
        (Kind::Str, Json::Bool(_) | Json::Int(_) | Json::UInt(_) | Json::Float(_)) => {
            Some(Json::Str(said.clone().into()))
        }
        _ => None,
    };
    fitted.ok_or_else(|| format!("{said} is not of type {}", kind.name()))
}

/// What JSON has no number for, as other programs spell it.
fn named_float(text: &str) -> Option<f64> {
    match text {
        "NaN" | "nan" => Some(f64::NAN),
        "Infinity" | "inf" => Some(f64::INFINITY),
        "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}
