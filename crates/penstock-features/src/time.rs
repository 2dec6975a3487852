//! Parts of a moment as a clock on the wall of some time zone shows it.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::civil::{self, DAY_US};

/// Years 1 to 9999, as Python's and SQL's calendars have them.
const FIRST_US: i64 = -62_135_596_800_000_000;
const LAST_US: i64 = 253_402_300_799_999_999;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Hour,
    Weekday,
    Day,
    Month,
    HourOfWeek,
}

impl Part {
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "hour" => Self::Hour,
            "weekday" => Self::Weekday,
            "day" => Self::Day,
            "month" => Self::Month,
            "hour_of_week" => Self::HourOfWeek,
            other => return Err(format!("'{other}' is not a part of time")),
        })
    }

    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Weekday => "weekday",
            Self::Day => "day",
            Self::Month => "month",
            Self::HourOfWeek => "hour of week",
        }
    }

    /// The part of a local time, in microseconds since the local epoch.
    pub(crate) fn of(self, local_us: i64) -> u64 {
        let days = local_us.div_euclid(DAY_US);
        let hour = (local_us.rem_euclid(DAY_US) / (DAY_US / 24)) as u32;
        u64::from(match self {
            Self::Hour => hour,
            Self::Weekday => civil::weekday(days),
            Self::Day => civil::from_days(days).2,
            Self::Month => civil::from_days(days).1,
            Self::HourOfWeek => civil::weekday(days) * 24 + hour,
        })
    }
}

/// The unit of numbers that are moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Millis,
    Micros,
}

impl Unit {
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "s" => Self::Seconds,
            "ms" => Self::Millis,
            "us" => Self::Micros,
            other => return Err(format!("'{other}' is not a unit of time (s, ms, us)")),
        })
    }

    fn micros(self) -> i64 {
        match self {
            Self::Seconds => 1_000_000,
            Self::Millis => 1_000,
            Self::Micros => 1,
        }
    }

    pub(crate) fn of_int(self, number: i64) -> i64 {
        number.saturating_mul(self.micros())
    }

    /// Down to the microsecond; beyond i64 it saturates, which `Clock` refuses.
    pub(crate) fn of_float(self, number: f64) -> i64 {
        libm::floor(number * self.micros() as f64) as i64
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Zone {
    Utc,
    Named(TimeZone),
}

impl Zone {
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        if name == "UTC" {
            return Ok(Self::Utc);
        }
        let found = jiff::tz::TimeZoneDatabase::bundled().get(name);
        found
            .map(Self::Named)
            .map_err(|_| format!("'{name}' is not a time zone of the IANA database"))
    }
}

/// Turns instants into local times, remembering the last stretch without a change of offset.
pub(crate) struct Clock<'z> {
    zone: &'z Zone,
    stretch: std::ops::Range<i64>,
    offset_us: i64,
}

impl<'z> Clock<'z> {
    pub(crate) fn of(zone: &'z Zone) -> Self {
        Self {
            zone,
            stretch: 0..0,
            offset_us: 0,
        }
    }

    /// Local microseconds of an instant; None outside the years 1 to 9999.
    pub(crate) fn local(&mut self, us: i64) -> Option<i64> {
        if !(FIRST_US..=LAST_US).contains(&us) {
            return None;
        }
        let Zone::Named(zone) = self.zone else {
            return Some(us);
        };
        if !self.stretch.contains(&us) {
            // jiff's last instants lie a day inside of year 9999; no zone changes there.
            let inside = us.clamp(
                Timestamp::MIN.as_microsecond() + 1,
                Timestamp::MAX.as_microsecond() - 1,
            );
            let at = Timestamp::from_microsecond(inside).ok()?;
            self.offset_us = i64::from(zone.to_offset(at).seconds()) * 1_000_000;
            // `preceding` excludes its start, so ask from just after it; transitions fall on whole seconds.
            let start = Timestamp::from_microsecond(inside + 1)
                .ok()
                .and_then(|after| zone.preceding(after).next());
            let end = zone.following(at).next();
            let start = start.map_or(FIRST_US, |transition| {
                transition.timestamp().as_microsecond()
            });
            let end = end.map_or(LAST_US + 1, |transition| {
                transition.timestamp().as_microsecond()
            });
            self.stretch = start..end;
        }
        Some(us + self.offset_us)
    }
}
