//! The proleptic Gregorian calendar over day numbers, exact for every i64 of microseconds.

pub(crate) const DAY_US: i64 = 86_400_000_000;

/// Day number (0 = 1970-01-01) to year, month 1-12, day 1-31.
///
/// Years begin in March here, so that the leap day is the last of its year, and 400 years are one cycle of days.
pub(crate) fn from_days(days: i64) -> (i64, u32, u32) {
    const CYCLE: i64 = 146_097;
    let shifted = days + 719_468;
    let cycle = shifted.div_euclid(CYCLE);
    let day = shifted.rem_euclid(CYCLE);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (
        cycle * 400 + year + i64::from(month <= 2),
        month as u32,
        day_of_month as u32,
    )
}

/// Monday is 0.
pub(crate) fn weekday(days: i64) -> u32 {
    (days + 3).rem_euclid(7) as u32
}

/// A moment as people read it, in UTC.
pub(crate) fn show(us: i64) -> String {
    let (year, month, day) = from_days(us.div_euclid(DAY_US));
    let of_day = us.rem_euclid(DAY_US);
    let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = if micros == 0 {
        String::new()
    } else {
        format!(".{micros:06}")
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_numbers_follow_the_calendar() {
        assert_eq!(from_days(0), (1970, 1, 1));
        assert_eq!(from_days(-1), (1969, 12, 31));
        assert_eq!(from_days(11_016), (2000, 2, 29));
        assert_eq!(from_days(-719_162), (1, 1, 1));
        assert_eq!(from_days(2_932_896), (9999, 12, 31));
        assert_eq!(weekday(0), 3);
        assert_eq!(weekday(-4), 6);
        assert_eq!(show(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(show(951_782_400_000_000), "2000-02-29T00:00:00Z");
    }
}
