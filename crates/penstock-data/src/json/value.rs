//! A line of JSON as a value.
//!
//! In: the lines of a chunk. Out: what each holds, its strings borrowed where they have no escapes, or why it holds no
//! object.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::chunk::Chunk;
use crate::column::Value;
use crate::scalar::Kind;

/// The longest text that is read as a list.
const LIST_BYTES: usize = 1 << 20;

/// A parsed value that borrows its strings where they have no escapes.
#[derive(Clone, Debug)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Beyond i64.
    UInt(u64),
    Float(f64),
    Str(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl Json<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Json::Bool(_) => Kind::Bool,
            Json::Int(_) => Kind::Int,
            Json::UInt(_) => Kind::UInt,
            Json::Float(_) => Kind::Float,
            _ => Kind::Str,
        }
    }

    /// What a column of scalars keeps of it: nothing of a list or an object.
    pub(super) fn scalar(&self) -> Value<'_> {
        match self {
            Json::Bool(v) => Value::Bool(*v),
            Json::Int(v) => Value::Int(*v),
            Json::UInt(v) => Value::UInt(*v),
            Json::Float(v) => Value::Float(*v),
            Json::Str(v) => Value::Str(v),
            Json::Null | Json::Array(_) | Json::Object(_) => Value::Null,
        }
    }

    /// The same, borrowing nothing.
    fn owned(self) -> Json<'static> {
        match self {
            Json::Null => Json::Null,
            Json::Bool(v) => Json::Bool(v),
            Json::Int(v) => Json::Int(v),
            Json::UInt(v) => Json::UInt(v),
            Json::Float(v) => Json::Float(v),
            Json::Str(v) => Json::Str(Cow::Owned(v.into_owned())),
            Json::Array(items) => Json::Array(items.into_iter().map(Json::owned).collect()),
            Json::Object(items) => Json::Object(
                items
                    .into_iter()
                    .map(|(key, value)| (Cow::Owned(key.into_owned()), value.owned()))
                    .collect(),
            ),
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Json::Null => "null".to_owned(),
            Json::Bool(v) => v.to_string(),
            Json::Int(v) => v.to_string(),
            Json::UInt(v) => v.to_string(),
            Json::Float(v) => v.to_string(),
            Json::Str(v) => format!("\"{}\"", v.chars().take(60).collect::<String>()),
            Json::Array(_) => "a list".to_owned(),
            Json::Object(_) => "an object".to_owned(),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Json<'de>, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Json<'de>, E> {
                Ok(Json::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Json<'de>, E> {
                Ok(Json::Int(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Json<'de>, E> {
                Ok(i64::try_from(v).map_or(Json::UInt(v), Json::Int))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Json<'de>, E> {
                Ok(Json::Float(v))
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Json<'de>, E> {
                Ok(Json::Str(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Json<'de>, E> {
                Ok(Json::Str(Cow::Owned(v.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Json::Array(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(Json::Str(key)) = map.next_key()? {
                    items.push((key, map.next_value()?));
                }
                Ok(Json::Object(items))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// The non-blank lines of a chunk with their numbers.
pub(super) fn lines(chunk: &Chunk) -> impl Iterator<Item = (&[u8], u64)> {
    chunk
        .data
        .split(|&b| b == b'\n')
        .zip(chunk.line..)
        .map(|(raw, line)| (raw.strip_suffix(b"\r").unwrap_or(raw), line))
        .filter(|(raw, _)| !raw.iter().all(u8::is_ascii_whitespace))
}

pub(super) type Items<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

/// The parts of the one object that a line holds, or why it holds none.
pub(super) fn object(raw: &[u8]) -> Result<Items<'_>, String> {
    let text = std::str::from_utf8(raw)
        .map_err(|_| "the line is not valid in the file's encoding".to_owned())?;
    match serde_json::from_str(text) {
        Ok(Json::Object(items)) => Ok(items),
        Ok(Json::Array(_)) => {
            Err("a JSON list, not an object: each line must hold one object".to_owned())
        }
        Ok(other) => Err(format!("{}, not an object", other.describe())),
        Err(_) if matches!(text.trim(), "[" | "{" | "]" | "}" | "},") => {
            Err("half a JSON value: each line must hold one whole object".to_owned())
        }
        Err(error) => Err(format!(
            "not JSON: {}",
            error.to_string().replace("line 1 column", "character")
        )),
    }
}

/// The list that stands in a string, `null` being none; or why there is none in it.
pub(super) fn list(text: &str) -> Result<Json<'static>, String> {
    if text.len() > LIST_BYTES {
        return Err(format!(
            "a text of {} bytes, more than a list may have ({LIST_BYTES})",
            text.len()
        ));
    }
    match serde_json::from_str::<Json<'_>>(text) {
        Ok(value @ (Json::Array(_) | Json::Null)) => Ok(value.owned()),
        _ => Err(format!(
            "{} is not the text of a list",
            Json::Str(text.into()).describe()
        )),
    }
}
