//! When a schedule runs.

use std::fmt;

use croner::{
    Weekday,
    parser::{CronParser, Seconds, Year},
};
use jiff::civil::Date;

use super::{DeviceClock, Times};
use crate::clock::{MINUTES_OF_DAY, TimeOfDay, Zone};

/// How far ahead the next run is looked for, in milliseconds: five years. A cron expression without a run in them is refused.
pub const HORIZON_MS: u64 = HORIZON_DAYS as u64 * 24 * 60 * 60 * 1000;
const HORIZON_DAYS: usize = 5 * 366;
/// Bytes of a cron expression.
const MAX_CRON_BYTES: usize = 256;

/// When a schedule runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Once, in Unix milliseconds.
    At(u64),
    /// Again and again.
    Cron(Cron),
    /// When each device's own clock shows it.
    Devices(DeviceClock),
}

/// A cron expression of five fields, by the clock of a place.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    zone: Zone,
    parsed: Box<croner::Cron>,
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?}, {})", self.text, self.zone.name())
    }
}

impl When {
    /// The first planned time after a moment. By the devices' clocks it is when the first of them shows it.
    pub fn next(&self, after_ms: u64) -> Option<u64> {
        match self {
            When::At(at_ms) => (*at_ms > after_ms).then_some(*at_ms),
            When::Cron(cron) => cron.next(after_ms),
            When::Devices(clock) => clock.next(after_ms),
        }
    }

    /// Up to when all is settled for a schedule that begins now.
    pub(super) fn settled_ms(&self, now_ms: u64) -> u64 {
        self.devices()
            .map_or(now_ms, |clock| clock.settled_ms(now_ms))
    }

    /// The expression, of what happens again and again.
    pub(super) fn cron(&self) -> Option<&Cron> {
        match self {
            When::Cron(cron) => Some(cron),
            When::Devices(DeviceClock {
                times: Times::Again(cron),
                ..
            }) => Some(cron),
            When::At(_) | When::Devices(_) => None,
        }
    }

    /// By the devices' clocks, what they show.
    pub(super) fn devices(&self) -> Option<&DeviceClock> {
        match self {
            When::Devices(clock) => Some(clock),
            When::At(_) | When::Cron(_) => None,
        }
    }
}

impl Cron {
    /// Reads minute, hour, day of the month, month and day of the week. The error says what is wrong with the text.
    pub fn parse(text: &str, zone: Zone) -> Result<Cron, String> {
        let fields = text.split_whitespace().count();
        if fields != 5 || text.len() > MAX_CRON_BYTES {
            return Err(format!(
                "it has {fields} fields and {} bytes: a cron expression has five fields (minute, hour, day of the month, month, day of the week) and at most {MAX_CRON_BYTES} bytes, such as \"0 9 * * 1-5\"",
                text.len()
            ));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let parsed = parser.parse(text).map_err(|error| error.to_string())?;
        Ok(Cron {
            text: text.to_owned(),
            zone,
            parsed: Box::new(parsed),
        })
    }

    /// The expression as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whose clock.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The times of day that it names.
    pub(super) fn times_of_day(&self) -> impl Iterator<Item = TimeOfDay> {
        let pattern = &self.parsed.pattern;
        let is_named = |at: &TimeOfDay| {
            let (hour, minute) = (at.minute() / 60, at.minute() % 60);
            pattern.hour_match(hour.into()).unwrap_or(false)
                && pattern.minute_match(minute.into()).unwrap_or(false)
        };
        (0..MINUTES_OF_DAY)
            .filter_map(|minute| TimeOfDay::from_minute(minute).ok())
            .filter(is_named)
    }

    pub(super) fn next(&self, after_ms: u64) -> Option<u64> {
        let after = self.zone.zoned(after_ms);
        if !self.has_a_day(after.date()) {
            return None;
        }
        let next = self.parsed.find_next_occurrence(&after, false).ok()?;
        let next_ms = u64::try_from(next.timestamp().as_millisecond()).ok()?;
        (next_ms > after_ms && next_ms - after_ms <= HORIZON_MS).then_some(next_ms)
    }

    /// Whether one of the days within the horizon is meant. The search for a time would only give up after three thousand years, which takes it a second.
    fn has_a_day(&self, first: Date) -> bool {
        let pattern = &self.parsed.pattern;
        let is_meant = |date: Date| {
            let (year, month, day) = (date.year(), date.month(), date.day());
            let weekday = date.weekday().to_sunday_zero_offset();
            let weekday = Weekday::from_days_from_sunday(u32::from(weekday.unsigned_abs()));
            let (month, day) = (
                u32::from(month.unsigned_abs()),
                u32::from(day.unsigned_abs()),
            );
            pattern.month_match(month).unwrap_or(false)
                && pattern
                    .day_match(year.into(), month, day, weekday)
                    .unwrap_or(false)
        };
        let days = std::iter::successors(Some(first), |date| date.tomorrow().ok());
        days.take(HORIZON_DAYS).any(is_meant)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::time::{from_rfc3339, rfc3339};

    fn cron(text: &str) -> Cron {
        Cron::parse(text, Zone::find("Europe/Vienna").unwrap()).unwrap()
    }

    #[track_caller]
    fn check(text: &str, after: &str, expected: &[&str]) {
        let cron = cron(text);
        let mut at = from_rfc3339(after).unwrap();
        for expected in expected {
            at = cron.next(at).unwrap();
            assert_eq!(rfc3339(at), format!("{expected}:00.000Z"), "{text}");
        }
    }

    #[test]
    fn runs_follow_the_clock_of_the_place() {
        check(
            "0 9 * * 1-5",
            "2026-03-26T12:00:00Z",
            &["2026-03-27T08:00", "2026-03-30T07:00", "2026-03-31T07:00"],
        );
        check(
            "*/20 * * * *",
            "2026-03-26T12:00:00.5Z",
            &["2026-03-26T12:20", "2026-03-26T12:40"],
        );
        check("0 0 29 2 *", "2026-03-26T12:00:00Z", &["2028-02-28T23:00"]);
        check(
            "0 12 L * *",
            "2026-02-01T00:00:00Z",
            &["2026-02-28T11:00", "2026-03-31T10:00"],
        );
        check(
            "0 12 * * fri#1",
            "2026-11-07T00:00:00Z",
            &["2026-12-04T11:00"],
        );
    }

    #[test]
    fn a_skipped_time_is_the_end_of_the_gap_and_a_repeated_one_runs_once() {
        check(
            "30 2 * * *",
            "2026-03-28T00:00:00Z",
            &["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"],
        );
        check(
            "30 2 * * *",
            "2026-10-24T12:00:00Z",
            &["2026-10-25T00:30", "2026-10-26T01:30"],
        );
        // What runs every half hour does so on a day of 25 hours and on one of 23.
        check(
            "*/30 * * * *",
            "2026-10-25T00:00:00Z",
            &[
                "2026-10-25T00:30",
                "2026-10-25T01:00",
                "2026-10-25T01:30",
                "2026-10-25T02:00",
            ],
        );
        check(
            "*/30 * * * *",
            "2026-03-29T00:00:00Z",
            &["2026-03-29T00:30", "2026-03-29T01:00"],
        );
    }

    #[test]
    fn what_never_fires_is_found_out_quickly() {
        for never in [
            "0 0 30 2 *",
            "0 0 31 4,6,9,11 *",
            "59 23 31 2 *",
            "* * 30 2 *",
        ] {
            let began = Instant::now();
            assert_eq!(cron(never).next(1_795_413_600_000), None, "{never}");
            let elapsed = began.elapsed();
            assert!(elapsed < Duration::from_millis(500), "{never}: {elapsed:?}");
        }
    }

    #[test]
    fn only_five_fields() {
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "@daily",
            "61 * * * *",
            "* * * * 9",
            "a b c d e",
            "*/0 * * * *",
        ] {
            assert!(Cron::parse(bad, Zone::UTC).is_err(), "{bad}");
        }
    }
}
