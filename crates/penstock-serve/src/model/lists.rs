//! Lists, which come as JSON text, and dates.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::cells::{Cells, List, Values};
use super::kinds::Kind;
use crate::error::{Fault, Result};
use crate::tensor::Texts;

/// A JSON array a row; `null` and rows marked null are null lists.
pub(super) fn read(
    name: &str,
    texts: &Texts,
    inner: &Kind,
    nulls: Option<&[bool]>,
) -> Result<List> {
    let mut offsets = vec![0];
    let mut elements: Vec<Json> = vec![];
    for (row, text) in texts.iter().enumerate() {
        if !nulls.is_some_and(|nulls| nulls[row]) {
            match serde_json::from_slice::<Option<Vec<Json>>>(text) {
                Ok(list) => elements.extend(list.unwrap_or_default()),
                Err(error) => {
                    return Err(Fault::invalid(format!(
                        "input '{name}', row {row}: a list is a JSON array in BYTES ({error})"
                    )));
                }
            }
        }
        offsets.push(elements.len() as i64);
    }
    let missing: Vec<bool> = elements.iter().map(Json::is_null).collect();
    let nulls = missing.contains(&true).then_some(missing);
    let refuse = |at: usize, what: &str| {
        let row = offsets.partition_point(|&end| end as usize <= at) - 1;
        Fault::invalid(format!(
            "input '{name}', row {row}: {} is not {what}",
            elements[at]
        ))
    };
    let kind = match inner {
        Kind::Any => guessed(&elements),
        known => known.clone(),
    };
    let values = match kind {
        Kind::Text | Kind::Any => {
            let mut built = Texts::default();
            for (at, json) in elements.iter().enumerate() {
                match json {
                    Json::String(text) => built.push(text.as_bytes()),
                    Json::Null => built.push(b""),
                    _ => return Err(refuse(at, "a string")),
                }
            }
            Values::Text(Cow::Owned(built))
        }
        Kind::Int => Values::Int(each(
            &elements,
            0,
            |json| {
                // Keys of 64 bits are held as i64 of the same bits.
                json.as_i64()
                    .or_else(|| json.as_u64().map(u64::cast_signed))
            },
            |at| refuse(at, "an integer"),
        )?),
        Kind::UInt => Values::UInt(each(&elements, 0, Json::as_u64, |at| {
            refuse(at, "an integer")
        })?),
        Kind::F32 => Values::Float(each(
            &elements,
            f64::NAN,
            |json| json.as_f64().map(|v| f64::from(v as f32)),
            |at| refuse(at, "a number"),
        )?),
        Kind::F64 => Values::Float(each(&elements, f64::NAN, Json::as_f64, |at| {
            refuse(at, "a number")
        })?),
        Kind::Bool => Values::Bool(each(&elements, false, Json::as_bool, |at| {
            refuse(at, "a boolean")
        })?),
        Kind::Time => Values::Time(each(&elements, 0, Json::as_i64, |at| {
            refuse(at, "microseconds")
        })?),
        Kind::Date => {
            let days = each(
                &elements,
                0,
                |json| json.as_str().and_then(day),
                |at| refuse(at, "a date like 2026-11-22"),
            )?;
            Values::Date(days.into_owned())
        }
        Kind::List(_) => return Err(Fault::invalid(format!("input '{name}' has nested lists"))),
    };
    Ok(List {
        offsets,
        elements: Box::new(Cells { values, nulls }),
    })
}

fn each<T: Clone>(
    elements: &[Json],
    missing: T,
    read: impl Fn(&Json) -> Option<T>,
    refuse: impl Fn(usize) -> Fault,
) -> Result<Cow<'static, [T]>> {
    let one = |(at, json): (usize, &Json)| match json {
        Json::Null => Ok(missing.clone()),
        json => read(json).ok_or_else(|| refuse(at)),
    };
    let found: Result<Vec<T>> = elements.iter().enumerate().map(one).collect();
    Ok(Cow::Owned(found?))
}

/// Of a list that nobody declared: what its elements are.
fn guessed(elements: &[Json]) -> Kind {
    let given: Vec<&Json> = elements.iter().filter(|json| !json.is_null()).collect();
    match given.first() {
        Some(Json::Bool(_)) => Kind::Bool,
        Some(Json::Number(_)) if given.iter().all(|json| json.is_i64() || json.is_u64()) => {
            Kind::Int
        }
        Some(Json::Number(_)) => Kind::F64,
        _ => Kind::Text,
    }
}

/// Days since the epoch of `YYYY-MM-DD`.
pub(super) fn day(text: &str) -> Option<i32> {
    let mut parts = text.splitn(3, '-');
    let mut next = |width: usize| {
        let part = parts.next()?;
        (part.len() == width && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<i32>().ok())?
    };
    let (year, month, day) = (next(4)?, next(2)?, next(2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=longest).contains(&day) || year < 1 {
        return None;
    }
    // Years from March on, so that the leap day is a year's last (H. Hinnant, chrono-compatible date algorithms).
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_count_from_the_epoch() {
        assert_eq!(day("1970-01-01"), Some(0));
        assert_eq!(day("2000-02-29"), Some(11_016));
        assert_eq!(day("1969-12-31"), Some(-1));
        for bad in ["2001-02-29", "2001-2-3", "x", "2001-13-01", "2001-01-32"] {
            assert_eq!(day(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_are_json_and_faults_name_their_row() {
        let mut texts = Texts::default();
        for row in ["[1, null]", "null", "[]", "[18446744073709551615]"] {
            texts.push(row.as_bytes());
        }
        let list = read("tags", &texts, &Kind::Any, None).unwrap();
        assert_eq!(list.offsets, [0, 2, 2, 2, 3]);
        let Values::Int(values) = &list.elements.values else {
            panic!("{list:?}");
        };
        assert_eq!(values[..], [1, 0, -1]);
        let said = read("tags", &texts, &Kind::Text, None).unwrap_err().message;
        assert_eq!(said, "input 'tags', row 0: 1 is not a string");
        texts.push(b"{");
        let said = read("tags", &texts, &Kind::Int, None).unwrap_err().message;
        assert!(said.starts_with("input 'tags', row 4"), "{said}");
    }
}
