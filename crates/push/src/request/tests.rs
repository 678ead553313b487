use proptest::prelude::*;

use super::*;
use crate::lanes::Priority;

fn parse(body: &str) -> Result<Request, Invalid> {
    Request::parse(body.as_bytes(), &Limits::default())
}

/// The body is refused for this kind of mistake at this field.
#[track_caller]
fn check(body: &str, fault: Fault, field: &str) {
    let refused = parse(body).expect_err(body);
    assert_eq!(
        (refused.fault, refused.field.as_deref()),
        (fault, Some(field)),
        "{body}: {refused}"
    );
    assert!(!refused.detail.is_empty());
}

fn devices(names: impl IntoIterator<Item = impl Into<String>>) -> String {
    let names: Vec<String> = names.into_iter().map(Into::into).collect();
    serde_json::json!({"audience": {"devices": names}, "data": {}}).to_string()
}

#[test]
fn smallest_pushes() {
    let push = parse(r#"{"audience":{"all":true},"data":{}}"#).unwrap();
    assert_eq!(push.audience, Audience::All);
    assert_eq!(
        push.content,
        Content {
            notification: None,
            data: Some("{}".into())
        }
    );
    assert_eq!(push.options.ttl_seconds, 604_800);

    let push = parse(r#"{"audience":{"devices":["d1"]},"notification":{},"options":{}}"#).unwrap();
    assert_eq!(push.audience, Audience::Devices(vec!["d1".into()]));
}

#[test]
fn content_arrives_as_it_was_written_but_for_white_space() {
    let push = parse(
        r#"{ "audience": {"all": true},
            "data": { "z": 1.50, "a": 123456789012345678901234567890, "é": "\u00e9 \" x" },
            "notification": { "title": "a  b", "sound": null, "extra": [ 1, {} ] } }"#,
    )
    .unwrap();
    assert_eq!(
        push.content.data.unwrap(),
        r#"{"z":1.50,"a":123456789012345678901234567890,"é":"\u00e9 \" x"}"#
    );
    assert_eq!(
        push.content.notification.unwrap(),
        r#"{"title":"a  b","sound":null,"extra":[1,{}]}"#
    );
}

#[test]
fn devices_named_twice_count_once_and_keep_their_order() {
    let push = parse(&devices(["b", "a", "b", "a"])).unwrap();
    assert_eq!(
        push.audience,
        Audience::Devices(vec!["b".into(), "a".into()])
    );
}

#[test]
fn a_thousand_devices_are_the_most() {
    let names = |n: usize| (0..n).map(|i| format!("d{i}"));
    assert!(parse(&devices(names(1000))).is_ok());
    assert!(parse(&devices(names(1000).chain(names(1000)))).is_ok());
    check(
        &devices(names(1001)),
        Fault::InvalidField,
        "/audience/devices",
    );
    check(&devices([""; 0]), Fault::InvalidField, "/audience/devices");
}

#[test]
fn client_identifiers_are_those_of_mqtt() {
    assert!(parse(&devices(["d".repeat(65_535)])).is_ok());
    assert!(parse(&devices(["a b/+#$é\u{1}"])).is_ok());
    check(
        &devices(["d".repeat(65_536)]),
        Fault::InvalidField,
        "/audience/devices/0",
    );
    check(
        &devices(["a", ""]),
        Fault::InvalidField,
        "/audience/devices/1",
    );
    check(
        &devices(["a", "b", "c\0"]),
        Fault::InvalidField,
        "/audience/devices/2",
    );
}

#[test]
fn time_to_live_has_bounds() {
    let with = |ttl: &str| {
        format!(r#"{{"audience":{{"all":true}},"data":{{}},"options":{{"ttl":{ttl}}}}}"#)
    };
    assert_eq!(parse(&with("0")).unwrap().options.ttl_seconds, 0);
    assert_eq!(
        parse(&with("2419200")).unwrap().options.ttl_seconds,
        2_419_200
    );
    for bad in [
        "2419201",
        "-1",
        "1.5",
        "1e3",
        "99999999999999999999",
        "\"60\"",
        "true",
        "null",
        "[]",
    ] {
        check(&with(bad), Fault::InvalidField, "/options/ttl");
    }
}

#[test]
fn every_mistake_names_its_field() {
    use Fault::{DuplicateField, InvalidField, MissingField, TooDeep, UnknownField};
    let deep = format!(
        r#"{{"audience":{{"all":true}},"data":{{"x":{}1{}}}}}"#,
        "[".repeat(40),
        "]".repeat(40)
    );
    let deepest = format!("/data/x{}", "/0".repeat(30));
    let table: &[(&str, Fault, &str)] = &[
        ("[]", InvalidField, ""),
        ("null", InvalidField, ""),
        ("\"x\"", InvalidField, ""),
        ("{}", MissingField, "/audience"),
        (r#"{"audience":{"all":true}}"#, MissingField, ""),
        (r#"{"audience":null,"data":{}}"#, InvalidField, "/audience"),
        (r#"{"audience":"all","data":{}}"#, InvalidField, "/audience"),
        (r#"{"audience":{},"data":{}}"#, InvalidField, "/audience"),
        (
            r#"{"audience":{"all":false},"data":{}}"#,
            InvalidField,
            "/audience/all",
        ),
        (
            r#"{"audience":{"all":1},"data":{}}"#,
            InvalidField,
            "/audience/all",
        ),
        (
            r#"{"audience":{"all":true,"devices":["d"]},"data":{}}"#,
            InvalidField,
            "/audience",
        ),
        (
            r#"{"audience":{"devices":"d"},"data":{}}"#,
            InvalidField,
            "/audience/devices",
        ),
        (
            r#"{"audience":{"devices":[1]},"data":{}}"#,
            InvalidField,
            "/audience/devices/0",
        ),
        (
            r#"{"audience":{"all":true,"tag":[]},"data":{}}"#,
            UnknownField,
            "/audience/tag",
        ),
        (
            r#"{"audience":{"all":true},"data":[]}"#,
            InvalidField,
            "/data",
        ),
        (
            r#"{"audience":{"all":true},"data":null}"#,
            InvalidField,
            "/data",
        ),
        (
            r#"{"audience":{"all":true},"notification":"hi"}"#,
            InvalidField,
            "/notification",
        ),
        (
            r#"{"audience":{"all":true},"notification":{"title":1}}"#,
            InvalidField,
            "/notification/title",
        ),
        (
            r#"{"audience":{"all":true},"notification":{"click_action":{}}}"#,
            InvalidField,
            "/notification/click_action",
        ),
        (
            r#"{"audience":{"all":true},"data":{},"options":1}"#,
            InvalidField,
            "/options",
        ),
        (
            r#"{"audience":{"all":true},"data":{},"options":{"tTl":1}}"#,
            UnknownField,
            "/options/tTl",
        ),
        (
            r#"{"audience":{"all":true},"data":{},"a/b~":1}"#,
            UnknownField,
            "/a~1b~0",
        ),
        (
            r#"{"audience":{"all":true},"data":{},"data":{}}"#,
            DuplicateField,
            "/data",
        ),
        (
            r#"{"audience":{"all":true},"data":{"a":1,"a":1}}"#,
            DuplicateField,
            "/data/a",
        ),
        (&deep, TooDeep, &deepest),
    ];
    for (body, fault, field) in table {
        check(body, *fault, field);
    }
}

#[test]
fn what_is_no_json_has_a_place_instead_of_a_field() {
    let refused = parse("{\n  \"audience\": }").unwrap_err();
    assert_eq!(
        refused.fault,
        Fault::MalformedJson {
            line: 2,
            column: 15
        }
    );
    assert_eq!(refused.field, None);
    assert_eq!(
        refused.detail,
        "the body is no JSON: expected value at line 2, column 15"
    );
}

#[test]
fn messages_name_the_value_and_the_rule() {
    let detail = |body: &str| parse(body).unwrap_err().detail;
    assert_eq!(
        detail(r#"{"audience":{"all":true},"data":null}"#),
        "/data must be an object, not null; leave it out instead"
    );
    assert_eq!(
        detail(r#"{"audience":{"all":true},"data":{},"titel":1}"#),
        "there is no field \"titel\"; known here: audience, notification, data, options"
    );
    let long = format!(r#"{{"audience":{{"all":true}},"{}":1}}"#, "é".repeat(1000));
    assert!(detail(&long).len() < 300, "{}", detail(&long));
}

#[test]
fn a_lane_and_a_collapse_key_reach_the_store() {
    let body = |audience: &str, options: &str| {
        format!(r#"{{"audience":{audience},"data":{{}},"options":{options}}}"#)
    };
    let both = r#"{"priority":"high","collapse_key":"k","ttl":60}"#;
    for audience in [r#"{"devices":["d"]}"#, r#"{"users":["u"]}"#] {
        let request = parse(&body(audience, both)).unwrap();
        let accept = request.accept(
            AppName::new("shop").unwrap(),
            PushId(1),
            store::Audience::Devices(vec!["d".into()]),
            0,
            None,
        );
        assert_eq!(accept.priority, Priority::High);
        assert_eq!(accept.collapse_key.as_deref(), Some("k"));
        let document = String::from_utf8(accept.payload.to_vec()).unwrap();
        assert!(document.contains(r#""data":{},"collapse_key":"k","#));
    }
}

#[test]
fn size_counts_without_white_space_up_to_the_limit() {
    // 4096 bytes: {"k":".."} has 8 of its own.
    let body = |fill: usize| {
        format!(
            "{{\"audience\":{{\"all\":true}},\"data\":{{ \"k\" : \"{}\" }}}}",
            "x".repeat(fill)
        )
    };
    assert!(parse(&body(4088)).is_ok());
    check(&body(4089), Fault::PayloadTooLarge, "/data");
    let limits = Limits {
        payload_bytes: 10,
        ..Limits::default()
    };
    assert!(Request::parse(body(2).as_bytes(), &limits).is_ok());
    assert!(Request::parse(body(3).as_bytes(), &limits).is_err());

    let both = format!(
        r#"{{"audience":{{"all":true}},"data":{{}},"notification":{{"body":"{}"}}}}"#,
        "x".repeat(4094 - 11)
    );
    assert!(parse(&both).is_ok());
    check(
        &both.replace("xxx", "xxxx"),
        Fault::PayloadTooLarge,
        "/notification",
    );
}

#[test]
fn accepting_stamps_the_push() {
    let request =
        parse(r#"{"audience":{"all":true},"data":{"n":1},"options":{"ttl":60}}"#).unwrap();
    let accept = request.accept(
        AppName::new("shop").unwrap(),
        PushId(1),
        store::Audience::All,
        1000,
        None,
    );
    assert_eq!((accept.accepted_ms, accept.expires_ms), (1000, 61_000));
    assert_eq!(
        accept.payload,
        r#"{"id":"00000000000000000000000001","data":{"n":1},"sent_at":"1970-01-01T00:00:01.000Z"}"#
    );
}

fn field(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![4 => prop::sample::select(names).prop_map(str::to_owned), 1 => ".{0,8}"]
}

/// JSON that is often nearly a push.
fn near_push() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    const NAMES: &[&str] = &[
        "audience",
        "all",
        "devices",
        "notification",
        "title",
        "data",
        "options",
        "ttl",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(field(NAMES), inner, 0..5)
                .prop_map(|object| object.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_json_is_accepted_or_refused_with_a_reason(value in near_push()) {
        let body = serde_json::to_vec(&value).unwrap();
        if let Err(refused) = Request::parse(&body, &Limits::default()) {
            prop_assert!(!refused.detail.is_empty());
            if !matches!(refused.fault, Fault::MissingField | Fault::UnknownField) {
                let field = refused.field.expect("a field is at fault in what is JSON");
                prop_assert!(value.pointer(&field).is_some(), "{field} is not in {value}");
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_with_a_reason(body in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!Request::parse(&body, &Limits::default()).unwrap_err().detail.is_empty());
    }

    #[test]
    fn what_devices_get_is_json_with_what_was_sent(data in near_push()) {
        prop_assume!(data.is_object());
        let body = serde_json::json!({"audience": {"all": true}, "data": data});
        let limits = Limits { payload_bytes: usize::MAX, ..Limits::default() };
        let text = serde_json::to_string_pretty(&body).unwrap();
        let accept = Request::parse(text.as_bytes(), &limits).unwrap().accept(AppName::new("a").unwrap(), PushId(1), store::Audience::All, 0, None);
        let document: serde_json::Value = serde_json::from_slice(&accept.payload).unwrap();
        // Through text once, since that is what happens to numbers.
        let sent: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&document["data"], &sent["data"]);
    }
}
