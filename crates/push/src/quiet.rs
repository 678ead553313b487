//! Hours in which a device is left alone.

use jiff::{ToSpan, civil::Date};

use crate::clock::{TimeOfDay, Zone};

/// Longest quiet span, in minutes: an hour of the day must be left to deliver in.
pub const MAX_QUIET_MINUTES: u16 = 23 * 60;

/// From one time of day to another in the device's zone, over midnight or not. `from` is quiet, `to` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietHours {
    /// Begin.
    pub from: TimeOfDay,
    /// End; another than `from`.
    pub to: TimeOfDay,
    /// What becomes of a push whose moment is quiet.
    pub policy: QuietPolicy,
}

/// What becomes of a push whose moment is quiet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuietPolicy {
    /// It waits for the end.
    #[default]
    Delay,
    /// The device never gets it.
    Drop,
}

/// One quiet night, in Unix milliseconds; quiet from `from_ms` until before `to_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietSpan {
    /// Begin.
    pub from_ms: u64,
    /// End.
    pub to_ms: u64,
}

impl QuietHours {
    /// The length on a day on which no clock is changed.
    pub fn minutes(&self) -> u16 {
        self.from.minutes_until(self.to)
    }

    /// Whether a time of day is quiet.
    pub fn contains(&self, time: TimeOfDay) -> bool {
        self.from.minutes_until(time) < self.minutes()
    }

    /// The quiet span that a moment is in, or `None` if it is not quiet. Spans that touch, as a change of the clock can make
    /// them, count as one.
    pub fn around(&self, unix_ms: u64, zone: &Zone) -> Option<QuietSpan> {
        let first = self.single_span(unix_ms, zone)?;
        let next = self.single_span(first.to_ms, zone);
        Some(QuietSpan {
            from_ms: first.from_ms,
            to_ms: next.map_or(first.to_ms, |next| next.to_ms),
        })
    }

    fn single_span(&self, unix_ms: u64, zone: &Zone) -> Option<QuietSpan> {
        let today = zone.date(unix_ms);
        // A span that began yesterday may still last; a calendar that goes back at midnight can show tomorrow's begin already.
        [-1, 0, 1]
            .into_iter()
            .map(|days| self.beginning_on(today.saturating_add(days.days()), zone))
            .find(|span| (span.from_ms..span.to_ms).contains(&unix_ms))
    }

    fn beginning_on(&self, date: Date, zone: &Zone) -> QuietSpan {
        let end_date = if self.from < self.to {
            date
        } else {
            date.saturating_add(1.day())
        };
        QuietSpan {
            from_ms: zone.when(date, self.from),
            to_ms: zone.when(end_date, self.to),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::{from_rfc3339, rfc3339};

    fn hours(from: &str, to: &str) -> QuietHours {
        QuietHours {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            policy: QuietPolicy::Delay,
        }
    }

    fn end(hours: QuietHours, at: &str) -> Option<String> {
        let vienna = Zone::find("Europe/Vienna").unwrap();
        let span = hours.around(from_rfc3339(at).unwrap(), &vienna)?;
        Some(rfc3339(span.to_ms))
    }

    #[test]
    fn the_night_ends_in_the_morning_of_the_place() {
        let night = hours("22:00", "07:00");
        let morning = Some("2026-11-28T06:00:00.000Z".to_owned());
        assert_eq!(end(night, "2026-11-27T20:59:59Z"), None);
        assert_eq!(end(night, "2026-11-27T21:00:00Z"), morning);
        assert_eq!(end(night, "2026-11-28T05:59:59Z"), morning);
        assert_eq!(end(night, "2026-11-28T06:00:00Z"), None);
        let noon = hours("12:00", "13:00");
        assert_eq!(
            end(noon, "2026-11-27T11:30:00Z"),
            Some("2026-11-27T12:00:00.000Z".into())
        );
        assert_eq!(end(noon, "2026-11-27T22:30:00Z"), None);
    }

    #[test]
    fn a_night_has_one_end_also_when_the_clock_is_changed() {
        // Ends in the gap: when the gap ends.
        assert_eq!(
            end(hours("22:00", "02:30"), "2026-03-29T00:30:00Z"),
            Some("2026-03-29T01:00:00.000Z".into())
        );
        // Ends at a time that is shown twice: the first time, and the hour is not quiet again.
        let early = hours("22:00", "02:30");
        assert_eq!(
            end(early, "2026-10-25T00:29:00Z"),
            Some("2026-10-25T00:30:00.000Z".into())
        );
        assert_eq!(end(early, "2026-10-25T01:15:00Z"), None);
    }

    proptest! {
        #[test]
        fn the_end_of_a_quiet_span_is_not_quiet(
            from in 0..1440_u16,
            minutes in 1..=MAX_QUIET_MINUTES,
            hour in 0..24 * 365 * 4_u64,
            zone in prop::sample::select(vec!["Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Havana"]),
        ) {
            let zone = Zone::find(zone).unwrap();
            let quiet = QuietHours {
                from: TimeOfDay::from_minute(from).unwrap(),
                to: TimeOfDay::from_minute((from + minutes) % 1440).unwrap(),
                policy: QuietPolicy::Delay,
            };
            let at = 1_767_225_600_000 + hour * 3_600_000;
            if let Some(span) = quiet.around(at, &zone) {
                prop_assert!(span.from_ms <= at && at < span.to_ms);
                prop_assert!(quiet.around(span.to_ms, &zone).is_none());
                prop_assert!(span.to_ms - at <= 26 * 3_600_000);
            }
        }
    }
}
