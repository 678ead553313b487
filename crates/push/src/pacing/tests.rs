use proptest::prelude::*;

use super::*;
use crate::time::{from_rfc3339, rfc3339};

const DAY_MS: u64 = 86_400_000;

pub(super) fn options(json: &str) -> Options {
    let node = crate::json::read(json.as_bytes()).unwrap();
    Options::parse(&node, &Default::default()).unwrap()
}

pub(super) fn spread(json: &str, accepted: &str, targeted: u64) -> Spread {
    let options = options(json);
    let accepted_ms = from_rfc3339(accepted).unwrap();
    let moment = Moment {
        push: PushId(7),
        accepted_ms,
        expires_ms: accepted_ms + options.ttl_seconds * 1000,
    };
    Spread::new(&options, moment, targeted, &Zone::UTC).unwrap()
}

#[track_caller]
fn check(json: &str, accepted: &str, zone: &str, expected: Result<&str, Never>) {
    let zone = Zone::find(zone).unwrap();
    let due = spread(json, accepted, 1).due("d", Some(&zone));
    assert_eq!(due.map(rfc3339), expected.map(str::to_owned));
}

#[test]
fn local_time_is_the_next_on_the_devices_own_clock() {
    let nine = r#"{"local_time":"09:00"}"#;
    let at = "2026-11-27T08:30:00Z";
    check(nine, at, "UTC", Ok("2026-11-27T09:00:00.000Z"));
    check(nine, at, "Europe/Vienna", Ok("2026-11-28T08:00:00.000Z"));
    check(nine, at, "America/New_York", Ok("2026-11-27T14:00:00.000Z"));
    // In its very minute: at once.
    check(
        nine,
        "2026-11-27T09:00:59.999Z",
        "UTC",
        Ok("2026-11-27T09:00:59.999Z"),
    );
    check(
        nine,
        "2026-11-27T09:01:00Z",
        "UTC",
        Ok("2026-11-28T09:00:00.000Z"),
    );
    let now = r#"{"local_time":{"at":"09:00","if_past":"now"}}"#;
    check(now, at, "Europe/Vienna", Ok("2026-11-27T08:30:00.000Z"));
    let skip = r#"{"local_time":{"at":"09:00","if_past":"skip"}}"#;
    check(skip, at, "Europe/Vienna", Err(Never::LocalTimePast));
    check(skip, at, "UTC", Ok("2026-11-27T09:00:00.000Z"));
    // The gap and the repeated hour.
    let night = r#"{"local_time":"02:30"}"#;
    check(
        night,
        "2026-03-28T12:00:00Z",
        "Europe/Vienna",
        Ok("2026-03-29T01:00:00.000Z"),
    );
    check(
        night,
        "2026-10-24T12:00:00Z",
        "Europe/Vienna",
        Ok("2026-10-25T00:30:00.000Z"),
    );
    check(
        night,
        "2026-10-25T00:45:00Z",
        "Europe/Vienna",
        Ok("2026-10-26T01:30:00.000Z"),
    );
    // A day that never was.
    check(
        r#"{"local_time":"09:00","ttl":2419200}"#,
        "2011-12-29T20:00:00Z",
        "Pacific/Apia",
        Ok("2011-12-30T10:00:00.000Z"),
    );
}

#[test]
fn a_date_is_that_of_the_place() {
    let eve = r#"{"local_time":{"at":"18:00","date":"2026-12-24"}}"#;
    let at = "2026-12-24T04:00:00Z";
    check(
        eve,
        at,
        "Pacific/Kiritimati",
        Ok("2026-12-24T04:00:00.000Z"),
    );
    check(eve, at, "Pacific/Pago_Pago", Ok("2026-12-25T05:00:00.000Z"));
    check(
        eve,
        "2026-12-24T10:00:00Z",
        "Pacific/Kiritimati",
        Ok("2026-12-24T10:00:00.000Z"),
    );
    let due_ms = from_rfc3339("2026-12-25T05:00:00Z").unwrap();
    check(
        eve,
        "2026-12-01T00:00:00Z",
        "Pacific/Pago_Pago",
        Err(Never::ExpiresBefore { due_ms }),
    );
}

#[test]
fn quiet_hours_delay_or_drop_also_at_return() {
    let quiet = r#"{"quiet_hours":{"from":"22:00","to":"07:00"}}"#;
    check(
        quiet,
        "2026-11-27T22:30:00Z",
        "UTC",
        Ok("2026-11-28T07:00:00.000Z"),
    );
    check(
        quiet,
        "2026-11-27T12:00:00Z",
        "UTC",
        Ok("2026-11-27T12:00:00.000Z"),
    );
    let drop = r#"{"quiet_hours":{"from":"22:00","to":"07:00","policy":"drop"}}"#;
    check(drop, "2026-11-27T22:30:00Z", "UTC", Err(Never::Quiet));
    let back = from_rfc3339("2026-11-27T23:00:00Z").unwrap();
    let of = |json| spread(json, "2026-11-27T12:00:00Z", 1).due_from(back, "d", None);
    assert_eq!(
        of(quiet).map(rfc3339),
        Ok("2026-11-28T07:00:00.000Z".into())
    );
    assert_eq!(of(drop), Err(Never::Quiet));
}

#[test]
fn a_paced_push_stays_paced_after_the_night() {
    let json = r#"{"pace":{"over":600},"quiet_hours":{"from":"22:00","to":"07:00"}}"#;
    let spread = spread(json, "2026-11-27T21:55:00Z", 1000);
    let night = from_rfc3339("2026-11-27T22:00:00Z").unwrap();
    let morning = from_rfc3339("2026-11-28T07:00:00Z").unwrap();
    let mut late = 0;
    for device in 0..1000 {
        let due = spread.due(&format!("d{device}"), None).unwrap();
        assert!(due < night || (morning..morning + 300_000).contains(&due));
        late += u32::from(due >= morning + 150_000);
    }
    assert!((150..350).contains(&late), "{late} in the second half");
}

#[test]
fn a_portion_goes_first_and_the_rest_after_the_hold() {
    let only = spread(r#"{"portion":{"percent":5}}"#, "2026-11-27T12:00:00Z", 0);
    let held = spread(
        r#"{"portion":{"percent":5,"hold":600}}"#,
        "2026-11-27T12:00:00Z",
        0,
    );
    let mut first = 0;
    for device in 0..10_000 {
        let device = format!("d{device}");
        let due = held.due(&device, None).unwrap() - held.moment.accepted_ms;
        match only.due(&device, None) {
            Ok(_) => {
                first += 1;
                assert_eq!(due, 0);
            }
            Err(never) => {
                assert_eq!((never, due), (Never::OutsidePortion, 600_000));
            }
        }
    }
    // Five standard deviations of a binomial are 109.
    assert!((390..=610).contains(&first), "{first} of 10,000");
}

#[test]
fn a_window_from_a_rate_must_end_before_the_push() {
    let options = options(r#"{"pace":{"per_second":10},"ttl":60}"#);
    let moment = Moment {
        push: PushId(1),
        accepted_ms: 0,
        expires_ms: 60_000,
    };
    let new = |targeted| Spread::new(&options, moment, targeted, &Zone::UTC);
    assert_eq!(new(600).unwrap().window_ms, 60_000);
    assert_eq!(new(0).unwrap().window_ms, 0);
    let refused = new(601).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("/options/pace"));
    assert!(new(u64::MAX).is_err());
}

#[test]
fn devices_are_spread_evenly() {
    // 100 equal parts: chi-square with 99 degrees of freedom stays under 180 but for one push in a million.
    for (push, names) in [(1_u128, "d"), (u128::MAX, "device-"), (1 << 90, "c0ffee-")] {
        let spread = Spread {
            moment: Moment {
                push: PushId(push),
                accepted_ms: 5,
                expires_ms: DAY_MS,
            },
            ..spread(r#"{"pace":{"over":1000}}"#, "2026-11-27T12:00:00Z", 0)
        };
        let mut parts = [0_f64; 100];
        for device in 0..100_000 {
            let due = spread.due(&format!("{names}{device}"), None).unwrap() - 5;
            parts[(due / 10_000) as usize] += 1.0;
        }
        let chi_square: f64 = parts
            .iter()
            .map(|n| (n - 1000.0) * (n - 1000.0) / 1000.0)
            .sum();
        assert!(chi_square < 180.0, "{chi_square} for {names}");
    }
}

fn any_options() -> impl Strategy<Value = Options> {
    let quiet = prop::option::of((0..1440_u16, 1..=1380_u16, any::<bool>()));
    let portion = prop::option::of((1..=10_000_u32, prop::option::of(1..100_000_u64)));
    (
        0..4_u8,
        1..500_000_u64,
        0..1440_u16,
        0..3_u8,
        quiet,
        portion,
    )
        .prop_map(|(kind, seconds, minute, past, quiet, portion)| {
            let time = |minute| TimeOfDay::from_minute(minute % 1440).unwrap();
            Options {
                pace: match kind {
                    1 => Some(Pace::Over(seconds)),
                    2 => Some(Pace::PerSecond(seconds)),
                    _ => None,
                },
                local_time: (kind == 3).then(|| LocalTime {
                    at: time(minute),
                    date: None,
                    if_past: [IfPast::NextDay, IfPast::Now, IfPast::Skip][usize::from(past)],
                    superseded: None,
                }),
                quiet_hours: quiet.map(|(from, minutes, drops)| QuietHours {
                    from: time(from),
                    to: time(from + minutes),
                    policy: if drops {
                        QuietPolicy::Drop
                    } else {
                        QuietPolicy::Delay
                    },
                }),
                portion: portion.map(|(hundredths, hold_seconds)| Portion {
                    hundredths,
                    hold_seconds,
                    auto_halt: None,
                }),
                ..Options::default()
            }
        })
}

proptest! {
    #[test]
    fn turns_are_fixed_and_between_acceptance_and_expiry(
        options in any_options(),
        push: u128,
        accepted_ms in 1_767_225_600_000..1_893_456_000_000_u64,
        client_id in ".{1,20}",
        away_ms in 0..DAY_MS * 8,
        zone in prop::sample::select(vec!["UTC", "Europe/Vienna", "America/Havana", "Asia/Kathmandu", "Pacific/Apia"]),
    ) {
        let expires_ms = accepted_ms + options.ttl_seconds * 1000;
        let moment = Moment { push: PushId(push), accepted_ms, expires_ms };
        let zone = Zone::find(zone).unwrap();
        let Ok(spread) = Spread::new(&options, moment, 1000, &zone) else {
            return Ok(());
        };
        let stored = Spread::decode(&spread.encode(), moment).unwrap();
        prop_assert_eq!(&stored, &spread);
        let due = spread.due(&client_id, Some(&zone));
        prop_assert_eq!(due, stored.due(&client_id, None));
        if let Ok(due) = due {
            prop_assert!((accepted_ms..=expires_ms).contains(&due));
            if options.quiet_hours.is_none() && options.local_time.is_none() {
                prop_assert!(due <= spread.last_turn_ms());
            }
            if options.local_time.is_some() && options.portion.is_none() && options.quiet_hours.is_none() {
                prop_assert!(due - accepted_ms <= 25 * 3_600_000);
            }
        }
        let back = accepted_ms + away_ms;
        if let Ok(due) = spread.due_from(back, &client_id, Some(&zone)) {
            prop_assert!(due >= back && due <= expires_ms);
            prop_assert!(options.quiet_hours.is_none_or(|quiet| quiet.around(due, &zone).is_none()));
        }
    }

    #[test]
    fn bytes_that_are_no_spread_are_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Spread::decode(&bytes, Moment { push: PushId(1), accepted_ms: 0, expires_ms: 1 });
    }
}
