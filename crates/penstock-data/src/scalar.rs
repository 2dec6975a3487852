//! Text to numbers, booleans, dates and timestamps; the same rules for CSV and JSON, for parsing and for inference.

/// A column's type in a text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Int,
    UInt,
    Float,
    Bool,
    Date,
    Timestamp,
    Str,
}

impl Kind {
    /// The name that `types=` uses and messages show.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Int => "int",
            Kind::UInt => "uint",
            Kind::Float => "float",
            Kind::Bool => "bool",
            Kind::Date => "date",
            Kind::Timestamp => "timestamp",
            Kind::Str => "str",
        }
    }

    pub fn named(name: &str) -> Option<Kind> {
        [
            Kind::Int,
            Kind::UInt,
            Kind::Float,
            Kind::Bool,
            Kind::Date,
            Kind::Timestamp,
            Kind::Str,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}

/// Decimal digits with an optional sign; None where it is no integer or does not fit.
pub fn int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = signed(text);
    let magnitude = uint(digits)?;
    if negative {
        0_i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Decimal digits only.
pub fn uint(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut value = 0_u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// A decimal number, or `nan`, `inf`, `infinity` in any case. A number beyond f64 is None.
pub fn float(text: &[u8]) -> Option<f64> {
    if let Some(value) = short_decimal(text) {
        return Some(value);
    }
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    (value.is_finite() || !text.bytes().any(|b| b.is_ascii_digit())).then_some(value)
}

/// Up to 15 digits and no exponent: mantissa and power of ten are exact in f64, so one division rounds once.
fn short_decimal(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let (negative, digits) = signed(text);
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let (mut mantissa, mut count, mut point) = (0_u64, 0_usize, None);
    for &byte in digits {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa * 10 + u64::from(byte - b'0');
                count += 1;
            }
            b'.' if point.is_none() => point = Some(count),
            _ => return None,
        }
    }
    if count == 0 || count > 15 {
        return None;
    }
    let value = mantissa as f64 / POWERS[count - point.unwrap_or(count)];
    Some(if negative { -value } else { value })
}

fn signed(text: &[u8]) -> (bool, &[u8]) {
    match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

/// `true` or `false` in any case, `1` or `0`.
pub fn boolean(text: &[u8]) -> Option<bool> {
    if text == b"1" || text.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else if text == b"0" || text.eq_ignore_ascii_case(b"false") {
        Some(false)
    } else {
        None
    }
}

/// `YYYY-MM-DD` as days since 1970-01-01.
pub fn date(text: &[u8]) -> Option<i32> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let (year, month, day) = (
        uint(&text[..4])? as i64,
        uint(&text[5..7])?,
        uint(&text[8..])?,
    );
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=length)
        .contains(&day)
        .then(|| days_from_civil(year, month as i64, day as i64))
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era - 719_468) as i32
}

/// `YYYY-MM-DD`, then optionally `T` or a space, `HH:MM[:SS[.fraction]]` and `Z` or `+HH:MM`, as microseconds since
/// the epoch in UTC. Digits beyond microseconds are cut.
pub fn timestamp(text: &[u8]) -> Option<i64> {
    let midnight = i64::from(date(text.get(..10)?)?) * 86_400_000_000;
    let rest = &text[10..];
    if rest.is_empty() {
        return Some(midnight);
    }
    if !matches!(rest[0], b'T' | b't' | b' ') {
        return None;
    }
    let (clock, offset_minutes) = offset(&rest[1..])?;
    let two = |at: usize| clock.get(at..at + 2).and_then(uint);
    let (hours, minutes) = (two(0)?, two(3)?);
    let mut micros = 0_i64;
    let mut seconds = 0;
    if clock.len() > 5 {
        seconds = two(6).filter(|_| clock[5] == b':')?;
        if clock.len() > 8 {
            let digits = clock[9..].get(..9.min(clock.len() - 9))?;
            if clock[8] != b'.' || clock.len() > 18 || digits.is_empty() || uint(digits).is_none() {
                return None;
            }
            micros = (0..6).fold(0, |sum, i| {
                sum * 10 + digits.get(i).map_or(0, |d| i64::from(d - b'0'))
            });
        }
    }
    if clock.get(2) != Some(&b':') || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let seconds = (hours * 3600 + minutes * 60 + seconds) as i64 - offset_minutes * 60;
    midnight.checked_add(seconds * 1_000_000 + micros)
}

/// Split a time from its zone: minutes east of UTC, 0 where none is written.
fn offset(text: &[u8]) -> Option<(&[u8], i64)> {
    match text.last()? {
        b'Z' | b'z' => return Some((&text[..text.len() - 1], 0)),
        _ => {}
    }
    let Some(at) = text.iter().rposition(|b| matches!(b, b'+' | b'-')) else {
        return Some((text, 0));
    };
    let zone = &text[at + 1..];
    let (hours, minutes) = match zone.len() {
        2 => (uint(zone)?, 0),
        4 => (uint(&zone[..2])?, uint(&zone[2..])?),
        5 if zone[2] == b':' => (uint(&zone[..2])?, uint(&zone[3..])?),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let east = (hours * 60 + minutes) as i64;
    Some((&text[..at], if text[at] == b'-' { -east } else { east }))
}

/// Without the spaces and tabs around it.
pub fn trim(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|b| !matches!(b, b' ' | b'\t'))
        .unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|b| !matches!(b, b' ' | b'\t'))
        .map_or(start, |at| at + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges_of_each_type() {
        assert_eq!(int(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(int(b"9223372036854775808"), None);
        assert_eq!(int(b"+"), None);
        assert_eq!(float(b"1e999"), None);
        assert_eq!(float(b"-Inf"), Some(f64::NEG_INFINITY));
        assert!(float(b"-0.0").unwrap().is_sign_negative());
        assert_eq!(date(b"2000-02-29"), Some(11016));
        assert_eq!(date(b"1900-02-29"), None);
        assert_eq!(date(b"1969-12-31"), Some(-1));
        assert_eq!(timestamp(b"1970-01-01T00:00:01.5Z"), Some(1_500_000));
        assert_eq!(timestamp(b"1970-01-01 02:00+01:30"), Some(1_800_000_000));
        assert_eq!(timestamp(b"1970-01-01 25:00"), None);
        assert_eq!(timestamp(b"1970-01-01T00:00:00.123456789"), Some(123_456));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (int(&bytes), float(&bytes), boolean(&bytes), date(&bytes), timestamp(&bytes), trim(&bytes));
        }

        #[test]
        fn near_timestamps_do_not_panic(text in "[0-9]{4}-[01][0-9]-[0-3][0-9][T ]?[0-9:.+Z-]{0,20}") {
            let _ = timestamp(text.as_bytes());
        }

        #[test]
        fn floats_read_back_the_same_bits(value in any::<f64>()) {
            let read = float(format!("{value}").as_bytes()).unwrap();
            prop_assert!(read.to_bits() == value.to_bits() || value.is_nan());
        }

        #[test]
        fn short_decimals_round_like_the_standard_library(text in "-?[0-9]{1,9}\\.[0-9]{0,6}") {
            prop_assert_eq!(float(text.as_bytes()).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits());
        }
    }
}
