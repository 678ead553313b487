use proptest::prelude::*;

use crate::{
    app::AppName,
    clock::Zone,
    id::PushId,
    pacing::{Moment, Never, Spread},
    request::{Invalid, Limits},
    schedule::{Change, Run, Schedule, State},
    time::{from_rfc3339, rfc3339},
};

/// 2026-11-23T06:00:00Z, a Monday: 20:00 on the first clock, 18:00 of the day before on the last.
const NOW_MS: u64 = 1_795_413_600_000;
const HOUR_MS: u64 = 3_600_000;

fn create(when: &str, options: &str, rest: &str) -> Result<Schedule, Invalid> {
    let body = format!(
        r#"{{"when": {when}, "push": {{"audience": {{"all": true}}, "data": {{}}, "options": {options}}}{rest}}}"#
    );
    Schedule::create(body.as_bytes(), &Limits::default(), PushId(7), NOW_MS)
}

#[track_caller]
fn schedule(when: &str) -> Schedule {
    let made = create(when, "{}", "").unwrap();
    assert_eq!(Schedule::decode(&made.encode()).unwrap(), made);
    made
}

fn ms(text: &str) -> u64 {
    from_rfc3339(text).unwrap()
}

fn chosen(schedule: &Schedule, now_ms: u64) -> Schedule {
    let app = AppName::new("shop").unwrap();
    let mut then = schedule.clone();
    while let Some(next) = then.choose(&app, now_ms) {
        then = Schedule::decode(&next.encode()).unwrap();
    }
    then
}

/// When a device gets a run that is made at a time.
fn due(schedule: &Schedule, run: &Run, made_ms: u64, zone: &str) -> Result<u64, Never> {
    let request = schedule.request(run, &Limits::default()).unwrap();
    let moment = Moment {
        push: run.push,
        accepted_ms: made_ms,
        expires_ms: request.expires_ms(made_ms),
    };
    let spread = Spread::new(&request.options, moment, 0, &Zone::UTC).unwrap();
    spread.due("d1", Some(&Zone::find(zone).unwrap()))
}

#[test]
fn a_time_begins_with_the_first_clock_and_each_device_has_it_by_its_own() {
    let made = schedule(r#"{"at": "2026-12-24T18:00", "time_zone": "device"}"#);
    let first_ms = ms("2026-12-24T04:00:00Z");
    assert_eq!(made.due_ms(), Some(first_ms));
    let then = chosen(&made, first_ms);
    assert_eq!(then.state, State::Ended);
    let [run] = then.pending() else {
        panic!("one run")
    };
    for (zone, expected) in [
        ("Pacific/Kiritimati", "2026-12-24T04:00:00Z"),
        ("Europe/Vienna", "2026-12-24T17:00:00Z"),
        ("Etc/GMT+12", "2026-12-25T06:00:00Z"),
    ] {
        assert_eq!(due(&then, run, first_ms, zone), Ok(ms(expected)), "{zone}");
    }
}

#[test]
fn next_runs_are_shown_by_the_clock_with_the_first_and_the_last() {
    let daily = schedule(r#"{"cron": "30 2 * * *", "time_zone": "device", "if_past": "skip"}"#);
    let shown: serde_json::Value = serde_json::from_str(&daily.to_json()).unwrap();
    assert_eq!(
        shown["when"],
        serde_json::json!({"cron": "30 2 * * *", "time_zone": "device", "if_past": "skip"})
    );
    assert_eq!(shown["next_runs"][0], "2026-11-23T12:30:00.000Z");
    assert_eq!(
        shown["next_local_runs"][0],
        serde_json::json!({
            "local_time": "2026-11-24T02:30",
            "first_at": "2026-11-23T12:30:00.000Z", "last_at": "2026-11-24T14:30:00.000Z",
        })
    );
    let then = chosen(&daily, ms("2026-11-23T12:30:00Z"));
    let shown: serde_json::Value = serde_json::from_str(&then.to_json()).unwrap();
    assert_eq!(shown["waiting"][0]["local_time"], "2026-11-24T02:30");
}

#[test]
fn a_clock_that_skips_the_time_has_it_after_the_gap_and_one_that_repeats_it_once() {
    let daily = schedule(r#"{"cron": "30 2 * * *", "time_zone": "device"}"#);
    for (day, expected) in [
        ("2027-03-28", "2027-03-28T01:00:00Z"),
        ("2027-10-31", "2027-10-31T00:30:00Z"),
    ] {
        let first_ms = ms(&format!("{day}T02:30:00Z")) - 14 * HOUR_MS;
        let mut eve = daily.clone();
        eve.pause();
        eve.resume(first_ms - 1);
        let then = chosen(&eve, first_ms);
        let run = then.pending().last().unwrap();
        assert_eq!(due(&then, run, first_ms, "Europe/Vienna"), Ok(ms(expected)));
    }
}

#[test]
fn of_a_time_that_some_clocks_have_shown_the_rest_is_still_to_come() {
    // It is 20:00 on the first clock.
    let now = schedule(r#"{"at": "2026-11-23T12:00", "time_zone": "device"}"#);
    let skips = schedule(r#"{"at": "2026-11-23T12:00", "time_zone": "device", "if_past": "skip"}"#);
    for (made, tokyo) in [(&now, Ok(NOW_MS)), (&skips, Err(Never::LocalTimePast))] {
        assert!(made.due_ms().is_some_and(|due_ms| due_ms < NOW_MS));
        let then = chosen(made, NOW_MS);
        let [run] = then.pending() else {
            panic!("one run")
        };
        assert_eq!(due(&then, run, NOW_MS, "Asia/Tokyo"), tokyo);
        let vienna = due(&then, run, NOW_MS, "Europe/Vienna");
        assert_eq!(vienna, Ok(ms("2026-11-23T11:00:00Z")));
    }
    let over = create(
        r#"{"at": "2026-11-22T18:00", "time_zone": "device"}"#,
        "{}",
        "",
    );
    assert_eq!(over.unwrap_err().field.as_deref(), Some("/when/at"));
    // Again and again: the first is one that no clock has shown.
    let daily = schedule(r#"{"cron": "0 12 * * *", "time_zone": "device"}"#);
    assert_eq!(rfc3339(daily.due_ms().unwrap()), "2026-11-23T22:00:00.000Z");
}

#[test]
fn the_same_time_again_is_no_new_time() {
    let change = |json: &str| Change::parse(json.as_bytes(), &Limits::default()).unwrap();
    let at = r#"{"when": {"at": "2026-11-23T12:00", "time_zone": "device"}}"#;
    let mut then = chosen(
        &schedule(r#"{"at": "2026-11-23T12:00", "time_zone": "device"}"#),
        NOW_MS,
    );
    then.apply(change(at), NOW_MS + 1).unwrap();
    assert_eq!(chosen(&then, NOW_MS + 1).pending().len(), 1);
    let other = r#"{"when": {"at": "2026-11-23T13:00", "time_zone": "device"}}"#;
    then.apply(change(other), NOW_MS + 1).unwrap();
    assert_eq!(chosen(&then, NOW_MS + 1).pending().len(), 2);
}

#[test]
fn a_run_by_hand_does_not_ask_the_clocks() {
    let mut daily = schedule(r#"{"cron": "0 12 * * *", "time_zone": "device"}"#);
    assert!(daily.run_now(PushId(9), NOW_MS));
    let request = daily.request(&daily.pending()[0], &Limits::default());
    assert_eq!(request.unwrap().options.local_time, None);
}

#[test]
fn a_push_that_cannot_follow_the_clocks_is_refused_by_name() {
    let daily = r#"{"cron": "0 9,23 * * *", "time_zone": "device"}"#;
    let hourly = r#"{"cron": "0 * * * *", "time_zone": "device"}"#;
    for (when, options, field) in [
        (daily, r#"{"ttl": 97199}"#, "/push/options/ttl"),
        (daily, r#"{"pace": {"over": 60}}"#, "/push/options/pace"),
        (
            daily,
            r#"{"local_time": "09:00"}"#,
            "/push/options/local_time",
        ),
        (
            daily,
            r#"{"portion": {"percent": 5, "hold": 60}}"#,
            "/push/options/portion",
        ),
        (
            daily,
            r#"{"quiet_hours": {"from": "22:00", "to": "08:00"}}"#,
            "/push/options/quiet_hours",
        ),
        (hourly, "{}", "/when/cron"),
        (
            r#"{"cron": "0 0 30 2 *", "time_zone": "device"}"#,
            "{}",
            "/when/cron",
        ),
        (
            r#"{"at": "2036-12-24T18:00", "time_zone": "device"}"#,
            "{}",
            "/when/at",
        ),
        (
            r#"{"at": "2026-12-24T18:00Z", "time_zone": "device"}"#,
            "{}",
            "/when/at",
        ),
        (
            r#"{"at": "2026-12-24T18:00", "time_zone": "UTC"}"#,
            "{}",
            "/when/at",
        ),
        (
            r#"{"at": "2026-12-24T18:00Z", "if_past": "skip"}"#,
            "{}",
            "/when/if_past",
        ),
        (
            r#"{"cron": "0 9 * * *", "time_zone": "device", "if_past": "next_day"}"#,
            "{}",
            "/when/if_past",
        ),
    ] {
        let refused = create(when, options, "").unwrap_err();
        assert_eq!(
            refused.field.as_deref(),
            Some(field),
            "{when} {options}: {refused}"
        );
    }
    for (when, options) in [
        (
            daily,
            r#"{"quiet_hours": {"from": "00:00", "to": "08:00"}, "portion": {"percent": 5}}"#,
        ),
        (
            r#"{"cron": "0 */2 * * *", "time_zone": "device"}"#,
            r#"{"ttl": 97200}"#,
        ),
    ] {
        assert!(create(when, options, "").is_ok(), "{when} {options}");
    }
    // Whichever of the two is changed.
    let mut made = schedule(daily);
    let change = r#"{"push": {"audience": {"all": true}, "data": {}, "options": {"ttl": 60}}}"#;
    let change = Change::parse(change.as_bytes(), &Limits::default()).unwrap();
    let refused = made.apply(change, NOW_MS).unwrap_err();
    assert_eq!(refused.field.as_deref(), Some("/push/options/ttl"));
}

const ZONES: [&str; 7] = [
    "Pacific/Kiritimati",
    "Asia/Kolkata",
    "Europe/Vienna",
    "UTC",
    "America/St_Johns",
    "America/Los_Angeles",
    "Etc/GMT+12",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever leads works at some moments only. Each device gets each time by its own clock, or late, or never, as the rules say.
    #[test]
    fn no_device_is_early_and_none_is_late_but_by_an_outage(
        waits in proptest::collection::vec(prop_oneof![3 => 1_u64..60, 1 => 60_u64..3000], 1..40),
        skips in any::<bool>(),
        skips_missed in any::<bool>(),
        cron in prop_oneof![Just("0 9 * * *"), Just("30 */3 * * *"), Just("15 2 * * 1,3")],
    ) {
        let if_past = if skips { "skip" } else { "now" };
        let missed = if skips_missed { "skip" } else { "run_once" };
        let when = format!(r#"{{"cron": "{cron}", "time_zone": "device", "if_past": "{if_past}"}}"#);
        let mut stored = create(&when, r#"{"ttl": 97200}"#, &format!(r#", "missed": "{missed}""#)).unwrap();
        let mut now_ms = NOW_MS;
        let mut runs: Vec<(Run, u64)> = Vec::new();
        for minutes in waits {
            now_ms += minutes * 60_000;
            loop {
                stored = chosen(&stored, now_ms);
                let pending = stored.pending().to_vec();
                if pending.is_empty() { break; }
                for run in pending {
                    prop_assert!(runs.iter().all(|(made, _)| made.push != run.push && made.planned_ms < run.planned_ms));
                    stored.finish(run.push, None);
                    runs.push((run, now_ms));
                }
            }
        }
        for zone in ZONES {
            let clock = Zone::find(zone).unwrap();
            for (run, made_ms) in &runs {
                let turns = run.turns.unwrap();
                let shown_ms = clock.when(turns.at.date, turns.at.at);
                match due(&stored, run, *made_ms, zone) {
                    Ok(due_ms) if due_ms == shown_ms => {}
                    Ok(due_ms) => {
                        // During its very minute it is not past.
                        prop_assert!(due_ms == *made_ms && due_ms > shown_ms);
                        prop_assert!(!skips || due_ms < shown_ms + 60_000, "late");
                    }
                    Err(Never::LocalTimePast) if skips => prop_assert!(shown_ms < *made_ms),
                    Err(Never::LocalTimePast) => {
                        let next = turns.next.unwrap();
                        prop_assert!(clock.when(next.date, next.at) <= *made_ms, "the next run is for it");
                    }
                    Err(other) => prop_assert!(false, "{zone}: {other}"),
                }
            }
        }
        let planned = runs.len() as u64 + stored.figures().missed;
        prop_assert_eq!(stored.figures().runs, runs.len() as u64);
        prop_assert!(stored.due_ms().unwrap() > now_ms, "all {} are settled", planned);
    }
}
