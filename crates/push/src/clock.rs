//! The clock on a wall: time zones, times of day, and when a clock shows them.
//!
//! Clocks are put forward and back. Everywhere in the product a time that the clock skips is the first moment after the gap (02:30
//! is 03:00 on that day), and a time that it shows twice is the first of the two.
//!
//! Zones come from the database in the binary, never from the machine: all nodes must agree on when a device's time comes, and a
//! container image often has no zone files.

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp, Zoned,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

/// Minutes of a day.
pub const MINUTES_OF_DAY: u16 = 24 * 60;

/// A time of day, to the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay {
    minute: u16,
}

/// Text that is no time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time of day is hours and minutes from \"00:00\" to \"23:59\"")]
pub struct BadTimeOfDay;

impl TimeOfDay {
    /// From minutes since midnight, 0..1440.
    pub fn from_minute(minute: u16) -> Result<TimeOfDay, BadTimeOfDay> {
        (minute < MINUTES_OF_DAY)
            .then_some(TimeOfDay { minute })
            .ok_or(BadTimeOfDay)
    }

    /// Minutes since midnight.
    pub fn minute(self) -> u16 {
        self.minute
    }

    /// Minutes from this time of day to the next `later`, 0..1440, on a day on which no clock is changed.
    pub fn minutes_until(self, later: TimeOfDay) -> u16 {
        (later.minute + MINUTES_OF_DAY - self.minute) % MINUTES_OF_DAY
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minute / 60, self.minute % 60)
    }
}

impl FromStr for TimeOfDay {
    type Err = BadTimeOfDay;

    fn from_str(text: &str) -> Result<TimeOfDay, BadTimeOfDay> {
        let digits = match text.as_bytes() {
            [a, b, b':', c, d] => [a, b, c, d].map(|digit| u16::from(digit.wrapping_sub(b'0'))),
            _ => return Err(BadTimeOfDay),
        };
        let [a, b, c, d] = digits;
        if digits.iter().any(|digit| *digit > 9) || a * 10 + b > 23 || c > 5 {
            return Err(BadTimeOfDay);
        }
        TimeOfDay::from_minute((a * 10 + b) * 60 + c * 10 + d)
    }
}

/// How far the earliest clocks on earth are ahead of UTC, in milliseconds: those of the Line Islands.
pub const EARLIEST_AHEAD_MS: u64 = 14 * 60 * 60 * 1000;
/// How far the latest clocks on earth are behind UTC, in milliseconds: those of ships, and of Baker Island.
pub const LATEST_BEHIND_MS: u64 = 12 * 60 * 60 * 1000;

/// A date and a time of day, on whatever clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime {
    /// The date.
    pub date: Date,
    /// The time of day.
    pub at: TimeOfDay,
}

/// Text that is no [`WallTime`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a time on a clock is a date and a time of day without an offset, such as \"2026-12-24T18:00\""
)]
pub struct BadWallTime;

impl WallTime {
    /// What a clock in UTC shows then.
    pub fn in_utc(unix_ms: u64) -> WallTime {
        let clock = Zone::UTC.clock(unix_ms);
        let minute =
            u16::from(clock.hour().unsigned_abs()) * 60 + u16::from(clock.minute().unsigned_abs());
        WallTime {
            date: clock.date(),
            at: TimeOfDay { minute },
        }
    }

    /// When a clock in UTC shows it, in Unix milliseconds.
    pub fn utc_ms(self) -> u64 {
        Zone::UTC.when(self.date, self.at)
    }

    /// When the first clock on earth shows it, in Unix milliseconds.
    pub fn first_ms(self) -> u64 {
        self.utc_ms().saturating_sub(EARLIEST_AHEAD_MS)
    }

    /// When the last clock on earth shows it, in Unix milliseconds.
    pub fn last_ms(self) -> u64 {
        self.utc_ms().saturating_add(LATEST_BEHIND_MS)
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}T{}", self.date, self.at)
    }
}

impl FromStr for WallTime {
    type Err = BadWallTime;

    fn from_str(text: &str) -> Result<WallTime, BadWallTime> {
        let (date, at) = text.split_once('T').ok_or(BadWallTime)?;
        // The parser takes more than dates, such as whole times.
        if date.len() != 10 {
            return Err(BadWallTime);
        }
        Ok(WallTime {
            date: date.parse().map_err(|_| BadWallTime)?,
            at: at.parse().map_err(|_| BadWallTime)?,
        })
    }
}

/// A time zone of the IANA database, such as `Europe/Vienna`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// A name that is no time zone's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time zone of the IANA database; names are such as \"Europe/Vienna\", \"America/New_York\" or \"UTC\""
)]
pub struct UnknownZone(pub String);

impl Zone {
    /// UTC, which has no summer time.
    pub const UTC: Zone = Zone(TimeZone::UTC);

    /// The zone of that name; capital letters do not matter.
    pub fn find(name: &str) -> Result<Zone, UnknownZone> {
        match TimeZoneDatabase::bundled().get(name) {
            Ok(zone) if zone.iana_name().is_some() && !zone.is_unknown() => Ok(Zone(zone)),
            _ => Err(UnknownZone(name.chars().take(64).collect())),
        }
    }

    /// The name in the database.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The date on the calendar.
    pub(crate) fn date(&self, unix_ms: u64) -> Date {
        self.clock(unix_ms).date()
    }

    /// Date and time as the clock shows them.
    pub(crate) fn clock(&self, unix_ms: u64) -> DateTime {
        self.0.to_datetime(timestamp(unix_ms))
    }

    /// The moment with this place's clock.
    pub(crate) fn zoned(&self, unix_ms: u64) -> Zoned {
        timestamp(unix_ms).to_zoned(self.0.clone())
    }

    /// When the clock shows that time on that date, in Unix milliseconds (0 before 1970).
    pub(crate) fn when(&self, date: Date, time: TimeOfDay) -> u64 {
        let clock = clock_at(date, time);
        let moment = match self.0.to_ambiguous_timestamp(clock).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(clock),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(clock),
            // By the later offset the time lies before the change, which is thus the next one.
            AmbiguousOffset::Gap { after, .. } => after.to_timestamp(clock).map(|early| {
                self.0
                    .following(early)
                    .next()
                    .map_or(early, |change| change.timestamp())
            }),
        };
        let moment = moment.unwrap_or(Timestamp::MAX);
        u64::try_from(moment.as_millisecond()).unwrap_or(0)
    }
}

/// Date and time of day together.
pub(crate) fn clock_at(date: Date, time: TimeOfDay) -> DateTime {
    let (hour, minute) = (time.minute / 60, time.minute % 60);
    date.at(hour as i8, minute as i8, 0, 0)
}

/// The time as jiff has it; what it cannot hold is its last.
pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{from_rfc3339, rfc3339};

    fn time(text: &str) -> TimeOfDay {
        text.parse().unwrap()
    }

    #[test]
    fn times_of_day_are_four_digits() {
        for good in ["00:00", "09:05", "23:59"] {
            assert_eq!(time(good).to_string(), good);
        }
        for bad in [
            "", "9:00", "24:00", "12:60", "12-00", "12:00:00", "1é:0", " 9:00", "+9:00",
        ] {
            assert!(bad.parse::<TimeOfDay>().is_err(), "{bad}");
        }
        assert_eq!(time("22:00").minutes_until(time("07:00")), 540);
        assert_eq!(time("07:00").minutes_until(time("07:00")), 0);
    }

    #[test]
    fn zones_are_found_by_their_names_only() {
        assert_eq!(Zone::find("europe/vienna").unwrap().name(), "Europe/Vienna");
        assert_eq!(Zone::find("UTC").unwrap().name(), "UTC");
        for bad in [
            "",
            "Vienna",
            "+01:00",
            "Etc/Unknown",
            "../etc/passwd",
            "CET-1CEST",
        ] {
            assert!(Zone::find(bad).is_err(), "{bad}");
        }
    }

    #[track_caller]
    fn check(zone: &str, date: &str, at: &str, expected: &str) {
        let zone = Zone::find(zone).unwrap();
        let moment = zone.when(date.parse().unwrap(), time(at));
        assert_eq!(rfc3339(moment), expected);
    }

    #[test]
    fn a_skipped_time_is_the_end_of_the_gap_and_a_repeated_one_its_first_showing() {
        let vienna = "Europe/Vienna";
        check(vienna, "2026-03-28", "02:30", "2026-03-28T01:30:00.000Z");
        check(vienna, "2026-03-29", "01:59", "2026-03-29T00:59:00.000Z");
        for skipped in ["02:00", "02:30", "02:59", "03:00"] {
            check(vienna, "2026-03-29", skipped, "2026-03-29T01:00:00.000Z");
        }
        check(vienna, "2026-10-25", "02:30", "2026-10-25T00:30:00.000Z");
        check(vienna, "2026-10-25", "03:00", "2026-10-25T02:00:00.000Z");
        // Half an hour, in the south.
        check(
            "Australia/Lord_Howe",
            "2026-10-04",
            "02:15",
            "2026-10-03T15:30:00.000Z",
        );
        // A whole day that never was.
        check(
            "Pacific/Apia",
            "2011-12-30",
            "09:00",
            "2011-12-30T10:00:00.000Z",
        );
    }

    #[test]
    fn no_clock_is_before_the_earliest_or_after_the_latest() {
        for wall in ["2026-12-24T18:00", "2027-03-28T02:30", "2030-07-01T00:00"] {
            let wall: WallTime = wall.parse().unwrap();
            for name in TimeZoneDatabase::bundled().available() {
                let zone = Zone(TimeZoneDatabase::bundled().get(name.as_str()).unwrap());
                let shown_ms = zone.when(wall.date, wall.at);
                assert!(
                    (wall.first_ms()..=wall.last_ms()).contains(&shown_ms),
                    "{name}"
                );
            }
            let shown_in = |zone: &str| Zone::find(zone).unwrap().when(wall.date, wall.at);
            assert_eq!(shown_in("Pacific/Kiritimati"), wall.first_ms());
            assert_eq!(shown_in("Etc/GMT+12"), wall.last_ms());
        }
    }

    #[test]
    fn times_on_a_wall_have_no_offset() {
        let wall: WallTime = "2026-12-24T18:05".parse().unwrap();
        assert_eq!(wall.to_string(), "2026-12-24T18:05");
        assert_eq!(WallTime::in_utc(wall.utc_ms()), wall);
        for bad in [
            "2026-12-24T18:00Z",
            "2026-12-24 18:00",
            "2026-12-24",
            "2026-02-30T18:00",
            "2026-12-24T18:00:00",
            "T18:00",
        ] {
            assert!(bad.parse::<WallTime>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_calendar_is_that_of_the_place() {
        let at = from_rfc3339("2026-12-24T11:30:00Z").unwrap();
        let date = |zone: &str| Zone::find(zone).unwrap().date(at).to_string();
        assert_eq!(date("Pacific/Kiritimati"), "2026-12-25");
        assert_eq!(date("Pacific/Pago_Pago"), "2026-12-24");
    }
}
