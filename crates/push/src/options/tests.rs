use super::*;
use crate::{json, request::Fault};

fn parse(text: &str) -> Result<Options, Invalid> {
    Options::parse(&json::read(text.as_bytes()).unwrap(), &Limits::default())
}

/// Refused for a mistake at this field.
#[track_caller]
fn check(text: &str, field: &str) {
    let refused = parse(text).expect_err(text);
    assert_eq!(refused.field.as_deref(), Some(field), "{text}: {refused}");
    assert!(refused.detail.len() > 20, "{text}: {refused}");
}

#[test]
fn all_options_at_once() {
    let options = parse(
        r#"{"ttl":86400,"collapse_key":"score","priority":"high","pace":{"per_second":5000},
            "not_before":"2026-12-24T18:00:00+01:00","quiet_hours":{"from":"22:00","to":"07:00"},
            "frequency_cap":{"key":"offers","count":2,"per":86400},
            "portion":{"percent":2.55,"hold":900,"auto_halt":{"error_rate":0.02,"after":500}},
            "receipts":["delivered","clicked"],"labels":{"team":"growth"},
            "callback_url":"https://example.com/push?x=1","external_id":"order-7"}"#,
    )
    .unwrap();
    assert_eq!(options.priority, Priority::High);
    assert_eq!(options.pace, Some(Pace::PerSecond(5000)));
    assert_eq!(options.not_before_ms, Some(1_798_131_600_000));
    let portion = options.portion.unwrap();
    assert_eq!((portion.hundredths, portion.hold_seconds), (255, Some(900)));
    assert_eq!(
        portion.auto_halt,
        Some(AutoHalt {
            error_rate: 200,
            after: 500
        })
    );
    assert!(options.receipts.clicked && !options.receipts.displayed);
    assert_eq!(options.labels["team"], "growth");
    assert_eq!(parse("{}").unwrap(), Options::default());
}

#[test]
fn every_mistake_names_its_field() {
    let long = |bytes: usize| "x".repeat(bytes);
    for (text, field) in [
        (r#"{"tll":1}"#, "/options/tll"),
        (r#"{"ttl":2419201}"#, "/options/ttl"),
        (r#"{"collapse_key":""}"#, "/options/collapse_key"),
        (r#"{"priority":"urgent"}"#, "/options/priority"),
        (r#"{"priority":1}"#, "/options/priority"),
        (r#"{"pace":5}"#, "/options/pace"),
        (r#"{"pace":{}}"#, "/options/pace"),
        (r#"{"pace":{"over":1,"per_second":1}}"#, "/options/pace"),
        (r#"{"pace":{"over":0}}"#, "/options/pace/over"),
        (r#"{"pace":{"per_second":1.5}}"#, "/options/pace/per_second"),
        (r#"{"pace":{"per_minute":1}}"#, "/options/pace/per_minute"),
        (r#"{"not_before":"tomorrow"}"#, "/options/not_before"),
        (r#"{"local_time":"9:00"}"#, "/options/local_time"),
        (r#"{"local_time":{}}"#, "/options/local_time/at"),
        (
            r#"{"local_time":{"at":"09:00","date":"2026-02-30"}}"#,
            "/options/local_time/date",
        ),
        (
            r#"{"local_time":{"at":"09:00","if_past":"later"}}"#,
            "/options/local_time/if_past",
        ),
        (
            r#"{"quiet_hours":{"from":"22:00"}}"#,
            "/options/quiet_hours/to",
        ),
        (
            r#"{"quiet_hours":{"from":"22:00","to":"22:00"}}"#,
            "/options/quiet_hours",
        ),
        (
            r#"{"quiet_hours":{"from":"22:00","to":"21:30"}}"#,
            "/options/quiet_hours",
        ),
        (
            r#"{"quiet_hours":{"from":"22:00","to":"7:00"}}"#,
            "/options/quiet_hours/to",
        ),
        (
            r#"{"quiet_hours":{"from":"22:00","to":"07:00","policy":"x"}}"#,
            "/options/quiet_hours/policy",
        ),
        (
            r#"{"frequency_cap":{"key":"a","count":1}}"#,
            "/options/frequency_cap",
        ),
        (
            r#"{"frequency_cap":{"key":"a","count":33,"per":60}}"#,
            "/options/frequency_cap/count",
        ),
        (
            r#"{"frequency_cap":{"key":"a","count":1,"per":59}}"#,
            "/options/frequency_cap/per",
        ),
        (r#"{"portion":5}"#, "/options/portion"),
        (r#"{"portion":{"percent":0}}"#, "/options/portion/percent"),
        (
            r#"{"portion":{"percent":100.01}}"#,
            "/options/portion/percent",
        ),
        (
            r#"{"portion":{"percent":0.015}}"#,
            "/options/portion/percent",
        ),
        (
            r#"{"portion":{"percent":1,"auto_halt":{"error_rate":2}}}"#,
            "/options/portion/auto_halt/error_rate",
        ),
        (r#"{"receipts":["seen"]}"#, "/options/receipts/0"),
        (r#"{"receipts":"clicked"}"#, "/options/receipts"),
        (r#"{"labels":{"Team":"x"}}"#, "/options/labels/Team"),
        (r#"{"labels":{"team":1}}"#, "/options/labels/team"),
        (
            r#"{"callback_url":"http://example.com/"}"#,
            "/options/callback_url",
        ),
        (r#"{"callback_url":"https:///x"}"#, "/options/callback_url"),
        (
            r#"{"callback_url":"https://u:p@example.com/"}"#,
            "/options/callback_url",
        ),
        (
            r#"{"callback_url":"https://example.com/a b"}"#,
            "/options/callback_url",
        ),
        (
            r#"{"callback_url":"https://example.com/#a"}"#,
            "/options/callback_url",
        ),
        (
            &format!(r#"{{"collapse_key":"{}"}}"#, long(65)),
            "/options/collapse_key",
        ),
        (
            &format!(r#"{{"external_id":"{}"}}"#, long(129)),
            "/options/external_id",
        ),
        (
            &format!(r#"{{"callback_url":"https://x/{}"}}"#, long(2048)),
            "/options/callback_url",
        ),
    ] {
        check(text, field);
    }
}

#[test]
fn contradictions_are_refused_by_name() {
    for (text, field) in [
        (r#"{"ttl":0,"pace":{"over":1}}"#, "/options/pace"),
        (r#"{"ttl":0,"local_time":"09:00"}"#, "/options/local_time"),
        (
            r#"{"ttl":0,"quiet_hours":{"from":"22:00","to":"07:00"}}"#,
            "/options/quiet_hours",
        ),
        (
            r#"{"ttl":0,"portion":{"percent":1,"hold":1}}"#,
            "/options/portion",
        ),
        (
            r#"{"local_time":"09:00","pace":{"over":1}}"#,
            "/options/pace",
        ),
        (r#"{"ttl":60,"pace":{"over":61}}"#, "/options/pace"),
        (
            r#"{"ttl":60,"pace":{"over":31},"portion":{"percent":1,"hold":30}}"#,
            "/options/pace",
        ),
        (
            r#"{"ttl":60,"portion":{"percent":1,"hold":61}}"#,
            "/options/portion",
        ),
        (r#"{"ttl":89999,"local_time":"09:00"}"#, "/options/ttl"),
        (
            r#"{"ttl":32399,"quiet_hours":{"from":"22:00","to":"07:00"}}"#,
            "/options/quiet_hours",
        ),
        (
            r#"{"local_time":"23:00","quiet_hours":{"from":"22:00","to":"07:00"}}"#,
            "/options/local_time",
        ),
    ] {
        check(text, field);
    }
    for good in [
        r#"{"ttl":0,"quiet_hours":{"from":"22:00","to":"07:00","policy":"drop"}}"#,
        r#"{"ttl":0,"portion":{"percent":1}}"#,
        r#"{"ttl":60,"pace":{"over":60}}"#,
        r#"{"ttl":90000,"local_time":"07:00","quiet_hours":{"from":"22:00","to":"07:00"}}"#,
    ] {
        assert!(parse(good).is_ok(), "{good}");
    }
}

#[test]
fn plain_callbacks_are_a_setting() {
    let node = json::read(br#"{"callback_url":"http://10.0.0.7:8000/done"}"#).unwrap();
    let limits = Limits {
        plain_callbacks: true,
        ..Limits::default()
    };
    assert!(Options::parse(&node, &limits).is_ok());
    assert_eq!(
        Options::parse(&node, &Limits::default()).unwrap_err().fault,
        Fault::InvalidField
    );
}

#[test]
fn a_push_halts_above_its_error_rate_and_not_before_enough_is_known() {
    let halt = AutoHalt {
        error_rate: 200,
        after: 100,
    };
    assert!(!halt.halts(99, 99));
    assert!(!halt.halts(100, 2));
    assert!(halt.halts(100, 3));
    assert!(halt.halts(u64::MAX, u64::MAX));
}
