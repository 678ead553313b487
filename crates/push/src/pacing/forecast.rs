//! When the devices of a push will have their turns, as far as it can be said before the push is made.
//!
//! A device's place in the line follows from the id of the push, which nobody knows yet; but places are spread evenly. So the places of a group of devices in one
//! zone are taken as even steps from the first to the last.

use std::collections::BTreeMap;

use super::{Never, Spread};
use crate::clock::Zone;

/// Places that are looked at, shared out among the groups by their sizes.
const PLACES: u64 = 8192;
/// At least so many of each group.
const PLACES_OF_GROUP: u64 = 8;

/// When devices will have their turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// `None`: nobody has a turn.
    pub turns: Option<Turns>,
    /// About how many devices will have none, because of what.
    pub never: BTreeMap<Why, u64>,
}

/// Turns of a push, in Unix milliseconds. Whoever is away then gets it on return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// The first device has its turn.
    pub first_ms: u64,
    /// Half of those that have a turn at all have had it.
    pub half_ms: u64,
    /// The last one has.
    pub last_ms: u64,
}

/// Why a device has no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// Its moment is in quiet hours, and the push does not wait.
    QuietHours,
    /// The local time is over where it is.
    LocalTimePast,
    /// The push expires before.
    Expires,
}

impl Spread {
    /// The turns of so many devices in each zone; `None`: of unknown zone.
    pub fn forecast(&self, groups: &[(Option<Zone>, u64)]) -> Forecast {
        let devices: u64 = groups.iter().map(|(_, devices)| devices).sum();
        let mut turns: Vec<(u64, f64)> = Vec::new();
        let mut never: BTreeMap<Why, f64> = BTreeMap::new();
        for (zone, size) in groups.iter().filter(|(_, size)| *size > 0) {
            let share = u128::from(PLACES) * u128::from(*size) / u128::from(devices);
            let places = (share as u64).max(PLACES_OF_GROUP);
            let each = *size as f64 / places as f64;
            for place in 0..places {
                // Both ends of the line are among them.
                let position = u128::from(place) * u128::from(u64::MAX) / u128::from(places - 1);
                match self.due_at(position as u64, zone.as_ref()) {
                    Ok(due_ms) => turns.push((due_ms, each)),
                    Err(why) => {
                        if let Some(why) = Why::of(why) {
                            *never.entry(why).or_default() += each;
                        }
                    }
                }
            }
        }
        turns.sort_unstable_by_key(|(due_ms, _)| *due_ms);
        Forecast {
            turns: of_sorted(&turns),
            never: never
                .into_iter()
                .map(|(why, devices)| (why, devices.round() as u64))
                .collect(),
        }
    }
}

fn of_sorted(turns: &[(u64, f64)]) -> Option<Turns> {
    let half = turns.iter().map(|(_, devices)| devices).sum::<f64>() / 2.0;
    let mut served = 0.0;
    let middle = turns.iter().find(|(_, devices)| {
        served += devices;
        served >= half
    });
    Some(Turns {
        first_ms: turns.first()?.0,
        half_ms: middle.or(turns.last())?.0,
        last_ms: turns.last()?.0,
    })
}

impl Why {
    fn of(never: Never) -> Option<Why> {
        match never {
            Never::Quiet => Some(Why::QuietHours),
            Never::LocalTimePast => Some(Why::LocalTimePast),
            Never::ExpiresBefore { .. } => Some(Why::Expires),
            // The push is not for it.
            Never::OutsidePortion => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{options, spread},
        *,
    };
    use crate::{
        id::PushId,
        time::{from_rfc3339, rfc3339},
    };
    use proptest::prelude::*;

    const AT: &str = "2026-11-27T08:30:00Z";

    fn zone(name: &str) -> Option<Zone> {
        Some(Zone::find(name).unwrap())
    }

    #[track_caller]
    fn check(json: &str, groups: &[(Option<Zone>, u64)], expected: Option<[&str; 3]>) {
        let targeted = groups.iter().map(|(_, devices)| devices).sum();
        let forecast = spread(json, AT, targeted).forecast(groups);
        let shown = forecast.turns.map(|turns| {
            [turns.first_ms, turns.half_ms, turns.last_ms].map(|ms| rfc3339(ms)[..19].to_owned())
        });
        assert_eq!(shown, expected.map(|times| times.map(str::to_owned)));
    }

    #[test]
    fn a_pace_takes_as_long_as_there_are_devices() {
        let pace = r#"{"pace":{"per_second":100}}"#;
        let times = [
            "2026-11-27T08:30:00",
            "2026-11-27T08:31:39",
            "2026-11-27T08:33:19",
        ];
        check(pace, &[(None, 20_000)], Some(times));
        check(
            pace,
            &[(None, 12_000), (zone("Asia/Tokyo"), 8000)],
            Some(times),
        );
        check(pace, &[], None);
        check(pace, &[(None, 0)], None);
    }

    #[test]
    fn local_times_come_zone_by_zone() {
        let groups = [
            (zone("Asia/Tokyo"), 100),
            (zone("Europe/Vienna"), 100),
            (zone("America/New_York"), 150),
        ];
        check(
            r#"{"local_time":"10:00"}"#,
            &groups,
            Some([
                "2026-11-27T09:00:00",
                "2026-11-27T15:00:00",
                "2026-11-28T01:00:00",
            ]),
        );
        let never = |json: &str| spread(json, AT, 0).forecast(&groups).never;
        let skip = r#"{"local_time":{"at":"10:00","if_past":"skip"}}"#;
        assert_eq!(never(skip), BTreeMap::from([(Why::LocalTimePast, 100)]));
        let late = r#"{"local_time":{"at":"10:00","date":"2026-12-24"},"ttl":90000}"#;
        assert_eq!(never(late), BTreeMap::from([(Why::Expires, 350)]));
    }

    #[test]
    fn quiet_hours_drop_or_delay() {
        let groups = [(zone("Europe/Vienna"), 60), (zone("Asia/Tokyo"), 40)];
        let night = |policy| {
            format!(r#"{{"quiet_hours":{{"from":"17:00","to":"07:00","policy":"{policy}"}}}}"#)
        };
        let dropped = spread(&night("drop"), AT, 0).forecast(&groups);
        assert_eq!(dropped.never, BTreeMap::from([(Why::QuietHours, 40)]));
        check(
            &night("delay"),
            &groups,
            Some([
                "2026-11-27T08:30:00",
                "2026-11-27T08:30:00",
                "2026-11-27T22:00:00",
            ]),
        );
    }

    #[test]
    fn the_rest_follows_the_portion() {
        let half_first = r#"{"portion":{"percent":25,"hold":600}}"#;
        check(
            half_first,
            &[(None, 1000)],
            Some([
                "2026-11-27T08:30:00",
                "2026-11-27T08:40:00",
                "2026-11-27T08:40:00",
            ]),
        );
    }

    fn any_options() -> impl Strategy<Value = String> {
        let when = prop::sample::select(vec![
            "",
            r#""pace":{"over":7200},"#,
            r#""local_time":{"at":"09:15","if_past":"skip"},"#,
            r#""portion":{"percent":10,"hold":1800},"#,
        ]);
        let quiet = prop::sample::select(vec![
            "",
            r#""quiet_hours":{"from":"21:00","to":"06:30"},"#,
            r#""quiet_hours":{"from":"12:00","to":"14:00","policy":"drop"},"#,
        ]);
        (when, quiet, 2..4_u64)
            .prop_map(|(when, quiet, days)| format!("{{{when}{quiet}\"ttl\":{}}}", days * 86_400))
    }

    proptest! {
        /// Devices of a real push have their turns within what was forecast, about half of them by the middle.
        #[test]
        fn devices_have_their_turns_as_forecast(
            json in any_options(),
            push in any::<u128>(),
            hour in 0..8760_u64,
            sizes in prop::collection::vec(50..200_u64, 3),
        ) {
            let zones = [None, zone("America/New_York"), zone("Asia/Kathmandu")];
            let groups: Vec<_> = zones.into_iter().zip(sizes).collect();
            let accepted_ms = from_rfc3339(AT).unwrap() + hour * 3_600_000;
            let options = options(&json);
            let moment = super::super::Moment {
                push: PushId(push),
                accepted_ms,
                expires_ms: accepted_ms + options.ttl_seconds * 1000,
            };
            let spread = Spread::new(&options, moment, 0, &Zone::UTC).unwrap();
            let forecast = spread.forecast(&groups);
            let mut due: Vec<u64> = Vec::new();
            for (number, (zone, devices)) in groups.iter().enumerate() {
                let names = (0..*devices).map(|device| format!("{number}-{device}"));
                due.extend(names.filter_map(|name| spread.due(&name, zone.as_ref()).ok()));
            }
            let Some(turns) = forecast.turns else {
                prop_assert!(due.is_empty());
                return Ok(());
            };
            // A device may stand between two places that were looked at.
            const STEP_MS: u64 = 30_000;
            let span = turns.first_ms - STEP_MS..=turns.last_ms + STEP_MS;
            prop_assert!(due.iter().all(|due| span.contains(due)));
            if !due.is_empty() {
                let by_half = due.iter().filter(|due| **due <= turns.half_ms).count();
                prop_assert!(by_half * 100 >= due.len() * 35, "{by_half} of {}", due.len());
            }
            let never: u64 = forecast.never.values().sum();
            let really = groups.iter().map(|(_, devices)| devices).sum::<u64>() - due.len() as u64;
            prop_assert!(never.abs_diff(really) <= 60, "{never} {really}");
        }
    }
}
