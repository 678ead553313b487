use super::{delivery::Answer, *};
use crate::{event::Kind, request::Fault};

fn secret(byte: u8) -> Secret {
    Secret::from_random([byte; 32])
}

fn create(body: &str) -> Result<Webhook, Invalid> {
    Webhook::create(body.as_bytes(), false, EventId(7), secret(1), 1000)
}

fn webhook() -> Webhook {
    create(r#"{"url": "https://example.com/hook"}"#).unwrap()
}

#[track_caller]
fn check(body: &str, fault: Fault, field: &str) {
    let refused = create(body).expect_err(body);
    assert_eq!(
        (refused.fault, refused.field.as_deref()),
        (fault, Some(field)),
        "{body}: {refused}"
    );
}

#[test]
fn a_webhook_needs_only_an_address() {
    assert_eq!(
        webhook().to_json(false),
        r#"{"id":"00000000000000000000000007","url":"https://example.com/hook","events":["*"],"state":"active","created_at":"1970-01-01T00:00:01.000Z"}"#
    );
    let full = create(
        r#"{"url":"https://h:8443/?a=b","events":["push.*","device.deleted"],"state":"paused"}"#,
    )
    .unwrap();
    assert!(full.events.matches(Kind::PushDone) && !full.events.matches(Kind::DeviceUpdated));
    assert_eq!(full.state, State::Paused);
    assert!(full.to_json(true).contains(r#""secret":"whsec_AQEB"#));
    assert_eq!(format!("{:?}", full.secret), "Secret(..)");
}

#[test]
fn every_mistake_names_its_field() {
    check("{}", Fault::MissingField, "/url");
    check(
        r#"{"url":"https://h/","event":[]}"#,
        Fault::UnknownField,
        "/event",
    );
    check(
        r#"{"url":"https://h/","events":[]}"#,
        Fault::InvalidField,
        "/events",
    );
    check(
        r#"{"url":"https://h/","events":["*","push.gone"]}"#,
        Fault::InvalidField,
        "/events/1",
    );
    check(
        r#"{"url":"https://h/","events":[1]}"#,
        Fault::InvalidField,
        "/events/0",
    );
    check(
        r#"{"url":"https://h/","state":"disabled"}"#,
        Fault::InvalidField,
        "/state",
    );
    for url in [
        "7",
        "\"\"",
        "\"example.com\"",
        "\"ftp://h/\"",
        "\"http://h/\"",
        "\"https://\"",
        "\"https://u:p@h/\"",
        "\"https://h/#f\"",
        "\"file:///etc/passwd\"",
    ] {
        check(&format!(r#"{{"url":{url}}}"#), Fault::InvalidField, "/url");
    }
    let long = format!(r#"{{"url":"https://h/{}"}}"#, "x".repeat(MAX_URL_BYTES));
    check(&long, Fault::InvalidField, "/url");
    assert!(Webhook::create(br#"{"url":"http://h/"}"#, true, EventId(7), secret(1), 0).is_ok());
}

#[test]
fn a_change_leaves_the_rest() {
    let mut hook = webhook();
    hook.apply(Change::parse(br#"{"events":["push.done"]}"#, false).unwrap());
    assert_eq!(hook.url, webhook().url);
    assert!(!hook.events.matches(Kind::PushDelivered));
    hook.apply(Change::parse(br#"{"state":"paused","url":"https://other/"}"#, false).unwrap());
    assert_eq!(
        (hook.url.as_str(), hook.state),
        ("https://other/", State::Paused)
    );
    assert!(Change::parse(br#"{"secret":"x"}"#, false).is_err());
}

#[test]
fn a_webhook_that_is_gone_is_switched_off_until_its_owner_acts() {
    let gone = Answer::Status {
        code: 410,
        retry_after_seconds: None,
    };
    let mut hook = webhook();
    assert!(hook.on_answer(gone, 5));
    assert_eq!(hook.state, State::Disabled { since_ms: 5 });
    assert!(!hook.on_answer(gone, 6), "once");
    hook.apply(Change::parse(br#"{"state":"active"}"#, false).unwrap());
    assert_eq!(
        (hook.state, hook.health),
        (State::Active, Health::default())
    );
}

#[test]
fn after_a_rotation_both_secrets_sign_for_a_day() {
    let mut hook = webhook();
    hook.rotate(secret(2), 0);
    let verify = |header: &str, secret: &Secret| {
        signature::verify(
            header,
            secret.reveal(),
            b"{}",
            ROTATION_MS,
            signature::TOLERANCE,
        )
        .is_ok()
    };
    let during = hook.sign(b"{}", ROTATION_MS - 1);
    assert!(verify(&during, &secret(1)) && verify(&during, &secret(2)));
    let after = hook.sign(b"{}", ROTATION_MS);
    assert!(!verify(&after, &secret(1)) && verify(&after, &secret(2)));
}

#[test]
fn what_is_stored_is_read_again() {
    let mut hook =
        create(r#"{"url":"https://h/?a=%20","events":["push.*","device.deleted"]}"#).unwrap();
    for state in [
        State::Active,
        State::Paused,
        State::Disabled { since_ms: 0 },
    ] {
        hook.state = state;
        assert_eq!(Webhook::decode(&hook.encode()), Ok(hook.clone()));
    }
    hook.rotate(secret(3), 10);
    hook.health = Health {
        failing_since_ms: Some(0),
        failures: 3,
    };
    assert_eq!(Webhook::decode(&hook.encode()), Ok(hook));
    assert!(Webhook::decode(b"\x0a\x01x").is_err());
    assert!(Webhook::decode(b"").is_err());
}
