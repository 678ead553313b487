use super::*;

fn read(audience: &str) -> Result<Audience, Invalid> {
    Audience::read(&json::read(audience.as_bytes())?)
}

/// The audience stands for this expression.
#[track_caller]
fn check(audience: &str, expression: &str) {
    match read(audience) {
        Ok(Audience::Matching(found)) => assert_eq!(found.to_string(), expression),
        other => panic!("{audience}: {other:?}"),
    }
}

#[track_caller]
fn refused(audience: &str, field: &str, detail: &str) {
    let refused = read(audience).expect_err(audience);
    assert_eq!(
        (refused.field.as_deref(), refused.detail.as_str()),
        (Some(field), detail)
    );
}

#[test]
fn each_kind_is_read() {
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| Arc::from(*name))
            .collect::<Vec<_>>()
    };
    assert_eq!(read(r#"{"all": true}"#), Ok(Audience::All));
    assert_eq!(
        read(r#"{"devices": ["b", "a", "b"]}"#),
        Ok(Audience::Devices(names(&["b", "a"])))
    );
    assert_eq!(
        read(r#"{"users": ["u1", "u1"]}"#),
        Ok(Audience::Users(names(&["u1"])))
    );
    assert_eq!(
        read(r#"{"segment": "s1"}"#),
        Ok(Audience::Segment("s1".into()))
    );
    assert_eq!(
        read(r#"{"upload": "u7"}"#),
        Ok(Audience::Upload("u7".into()))
    );
    check(r#"{"topic": "news"}"#, "topic:\"news\"");
    check(
        r#"{"expr": "vip && platform == \"ios\""}"#,
        "vip && platform == \"ios\"",
    );
}

#[test]
fn tags_stand_for_an_expression() {
    check(r#"{"tags": {"any": ["vip"]}}"#, "vip");
    check(r#"{"tags": {"none": ["muted"]}}"#, "!muted");
    check(
        r#"{"tags": {"any": ["vip", "beta"], "all": ["de", "two words"], "none": ["muted", "staff"]}}"#,
        "(vip || beta) && de && tag:\"two words\" && !muted && !staff",
    );
}

#[test]
fn both_or_none_is_refused() {
    refused(
        r#"{"expr": "a", "all": true}"#,
        "/audience",
        "both \"all\" and \"expr\": an audience is exactly one of all, devices, users, topic, tags, expr, segment, upload; \"expr\" can combine",
    );
    refused(
        "{}",
        "/audience",
        "the audience is empty: {\"all\": true} is for every device, {\"devices\": [..]}, \"users\", \"topic\", \"tags\", \"expr\", \"segment\" and \"upload\" for some",
    );
    refused(
        r#"{"tag": "a"}"#,
        "/audience/tag",
        "there is no field \"tag\"; known here: all, devices, users, topic, tags, expr, segment, upload",
    );
}

#[test]
fn an_expression_that_does_not_parse_shows_where_and_what_is_expected() {
    let refused = read(r#"{"expr": "vip &&\n beta gamma"}"#).unwrap_err();
    assert_eq!(
        refused.fault,
        Fault::InvalidExpression { line: 2, column: 7 }
    );
    assert_eq!(refused.field.as_deref(), Some("/audience/expr"));
    assert_eq!(
        refused.detail,
        "line 2, column 7: found \"gamma\", expected &&, || or the end"
    );
}

#[test]
fn every_mistake_names_its_field() {
    refused(
        r#"{"all": false}"#,
        "/audience/all",
        "\"all\" can only be true; name \"devices\" instead",
    );
    refused(
        r#"{"users": []}"#,
        "/audience/users",
        "the list is empty: name 1 to 1000 users",
    );
    refused(
        r#"{"users": ["a", ""]}"#,
        "/audience/users/1",
        "user \"\": 1 to 128 bytes of UTF-8 without control characters",
    );
    refused(
        r#"{"devices": [7]}"#,
        "/audience/devices/0",
        "/audience/devices/0 must be a client identifier, which is a string, not a number",
    );
    refused(
        r#"{"topic": ["news"]}"#,
        "/audience/topic",
        "/audience/topic must be the name of one topic, which is a string, not an array",
    );
    refused(
        r#"{"topic": "news/#"}"#,
        "/audience/topic",
        "topic \"news/#\": 1 to 128 bytes of UTF-8 without control characters, \"+\" and \"#\"",
    );
    refused(
        r#"{"tags": ["vip"]}"#,
        "/audience/tags",
        "/audience/tags must be an object, not an array",
    );
    refused(
        r#"{"tags": {}}"#,
        "/audience/tags",
        "no tags: give \"any\", \"all\" or \"none\", or {\"all\": true} as the audience",
    );
    refused(
        r#"{"tags": {"any": []}}"#,
        "/audience/tags/any",
        "the list is empty: name 1 to 256 tags",
    );
    refused(
        r#"{"tags": {"not": ["a"]}}"#,
        "/audience/tags/not",
        "there is no field \"not\"; known here: any, all, none",
    );
    refused(
        r#"{"expr": 7}"#,
        "/audience/expr",
        "/audience/expr must be an expression, which is a string, not a number",
    );
    refused(
        r#"{"segment": "a b"}"#,
        "/audience/segment",
        "segment \"a b\": 1 to 64 of a-z, A-Z, 0-9, \"_\" and \"-\"",
    );
    refused(
        r#"{"upload": null}"#,
        "/audience/upload",
        "/audience/upload must be the name of one upload, which is a string, not null; leave it out instead",
    );
    let many: Vec<String> = (0..1001).map(|n| format!("u{n}")).collect();
    refused(
        &serde_json::json!({"users": many}).to_string(),
        "/audience/users",
        "1001 different users: at most 1000 at a time; make several pushes, or upload a list",
    );
    let tags: Vec<String> = (0..200).map(|n| format!("t{n}")).collect();
    refused(
        &serde_json::json!({"tags": {"any": tags, "none": tags}}).to_string(),
        "/audience/tags",
        "the expression has 400 tests and listed values: at most 256; tag the devices, or upload a list",
    );
}

#[test]
fn what_needs_no_look_into_the_store_is_ready_for_it() {
    let ready = |audience: &str| read(audience).unwrap().self_contained(5);
    assert_eq!(ready(r#"{"all": true}"#), Some(store::Audience::All));
    assert_eq!(
        ready(r#"{"devices": ["d"]}"#),
        Some(store::Audience::Devices(vec!["d".into()]))
    );
    let Some(store::Audience::Matching(targeting)) = ready(r#"{"topic": "news"}"#) else {
        panic!("a topic is an expression");
    };
    let targeting = Targeting::decode(&targeting).unwrap();
    assert_eq!(targeting.pushed_ms, 5);
    assert_eq!(targeting.expression, Some(Expression::topic("news")));
    for asks in [
        r#"{"users": ["u"]}"#,
        r#"{"segment": "s"}"#,
        r#"{"upload": "u"}"#,
    ] {
        assert_eq!(ready(asks), None);
    }
}
