use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::{
    request::Fault,
    samples::{any_life, live},
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn patch(change: &Json) -> Patch {
    Patch::parse(change.to_string().as_bytes()).unwrap()
}

fn changed(profile: &Profile, change: &Json, now_ms: u64) -> Profile {
    profile.apply(&patch(change), now_ms).unwrap()
}

fn tag(name: &str) -> Fact {
    Fact::Tag(name.into())
}

fn has_tag(facts: Facts<'_>, name: &str) -> bool {
    facts.value(&tag(name)).is_some()
}

#[test]
fn what_the_api_shows_is_what_a_patch_takes_and_since_when() {
    let first = json!({
        "platform": "ios", "app_version": "3.2", "language": "en-GB", "time_zone": "Europe/London", "user": "u1",
        "tags": ["vip", "two words"], "topics": ["news"],
        "attributes": {"plan": "gold", "level": 7, "ratio": 0.5, "trial": false},
        "tokens": {"fcm": "secret"}
    });
    let profile = changed(&Profile::new(1000), &first, 2000);
    let profile = changed(&profile, &json!({"attributes": {"level": 8}}), 3000);
    let second = "1970-01-01T00:00:02.000Z";
    assert_eq!(
        serde_json::to_value(&profile).unwrap(),
        json!({
            "platform": "ios", "app_version": "3.2", "language": "en-GB", "time_zone": "Europe/London", "user": "u1",
            "tags": ["two words", "vip"], "topics": ["news"],
            "attributes": {"plan": "gold", "level": 8, "ratio": 0.5, "trial": false},
            "tokens": ["fcm"],
            "since": {
                "platform": second, "app_version": second, "language": second, "time_zone": second, "user": second,
                "vip": second, "tag:\"two words\"": second, "topic:\"news\"": second,
                "attr.plan": second, "attr.level": "1970-01-01T00:00:03.000Z", "attr.ratio": second, "attr.trial": second,
            },
            "created_at": "1970-01-01T00:00:01.000Z", "updated_at": "1970-01-01T00:00:03.000Z",
        })
    );
    assert_eq!(profile.token("fcm"), Some("secret"));
}

#[test]
fn tags_are_the_whole_set_and_attributes_are_merged() {
    let profile = changed(
        &Profile::new(0),
        &json!({"tags": ["a", "b"], "topics": ["t"], "attributes": {"x": 1, "y": 2}, "tokens": {"fcm": "1", "apns": "2"}}),
        10,
    );
    let profile = changed(
        &profile,
        &json!({"tags": ["b", "c"], "attributes": {"x": null, "z": true}, "tokens": {"fcm": null}}),
        20,
    );
    let facts: Vec<(String, u64)> = profile
        .facts()
        .map(|(fact, held)| (fact.to_string(), held.since_ms))
        .collect();
    let expected = [
        ("attr.y", 10),
        ("attr.z", 20),
        ("b", 10),
        ("c", 20),
        ("topic:\"t\"", 10),
    ];
    assert_eq!(
        facts,
        expected.map(|(fact, since_ms)| (fact.to_owned(), since_ms))
    );
    assert_eq!(
        (profile.token("fcm"), profile.token("apns")),
        (None, Some("2"))
    );

    let bare = changed(
        &profile,
        &json!({"tags": null, "topics": null, "attributes": null, "tokens": null}),
        30,
    );
    assert_eq!(bare.facts().count(), 0);
    assert_eq!(bare.token("apns"), None);
}

#[test]
fn a_change_that_changes_nothing_is_none() {
    let change = json!({"tags": ["a"], "user": "u1", "attributes": {"x": 1, "gone": null}});
    let profile = changed(&Profile::new(0), &change, 10);
    assert_eq!(changed(&profile, &change, 20), profile);
    assert_eq!(changed(&profile, &json!({}), 20), profile);
}

#[test]
fn single_tags_topics_and_users_come_and_go() {
    let apply = |profile: &Profile, patch, now_ms| profile.apply(&patch, now_ms).unwrap();
    let profile = apply(&Profile::new(0), Patch::add_tag("a").unwrap(), 1);
    let profile = apply(&profile, Patch::add_topic("t").unwrap(), 2);
    let profile = apply(&profile, Patch::bind(Some("u")).unwrap(), 3);
    assert_eq!(profile.facts().count(), 3);
    let profile = apply(&profile, Patch::remove_tag("a").unwrap(), 4);
    let profile = apply(&profile, Patch::remove_topic("t").unwrap(), 5);
    let profile = apply(&profile, Patch::bind(None).unwrap(), 6);
    assert_eq!(profile.facts().count(), 0);
    assert_eq!(profile.past().len(), 3);
    assert!(Patch::add_tag("").is_err());
    assert!(Patch::add_topic("#").is_err());
    assert!(Patch::bind(Some("")).is_err());
}

#[test]
fn what_ended_is_known_for_the_time_that_it_held() {
    let profile = changed(&Profile::new(0), &json!({"tags": ["a"]}), 10);
    let profile = changed(&profile, &json!({"tags": []}), 20);
    let profile = changed(&profile, &json!({"tags": ["a"]}), 30);
    let had = |at_ms| has_tag(profile.as_of(at_ms), "a");
    assert_eq!(
        [9, 10, 19, 20, 29, 30, 99].map(had),
        [false, true, true, false, false, true, true]
    );
}

#[test]
fn a_clock_that_goes_back_does_not_reorder_changes() {
    let profile = changed(&Profile::new(100), &json!({"tags": ["a"]}), 50);
    let profile = changed(&profile, &json!({"tags": []}), 20);
    assert_eq!(profile.updated_ms(), 100);
    assert!(!has_tag(profile.as_of(100), "a"));
}

#[test]
fn what_ended_is_forgotten_after_the_longest_time_to_live_or_when_it_is_too_much() {
    let mut profile = changed(&Profile::new(0), &json!({"tags": ["old"]}), 1);
    profile = changed(&profile, &json!({"tags": ["new"]}), 2);
    assert_eq!(profile.past().len(), 1);
    profile = changed(&profile, &json!({"user": "u"}), 2 + PAST_MS - 1);
    assert_eq!(profile.past().len(), 1);
    profile = changed(&profile, &json!({"user": "v"}), 2 + PAST_MS);
    assert_eq!(
        profile.past().len(),
        1,
        "the user, and not the tag any more"
    );

    for n in 0..200 {
        profile = changed(&profile, &json!({"user": format!("u{n}")}), 30 * DAY_MS + n);
    }
    assert_eq!(profile.past().len(), MAX_PAST);
    assert_eq!(
        profile.past().last().map(|past| &past.value),
        Some(&Value::Text("u198".into()))
    );
}

#[test]
fn a_device_has_only_so_much() {
    #[track_caller]
    fn check(change: &Json, field: &str) {
        let refused = Profile::new(0).apply(&patch(change), 1).unwrap_err();
        assert_eq!(refused.fault, Fault::InvalidField);
        assert_eq!(refused.field.as_deref(), Some(field), "{refused}");
    }
    let names = |n: usize| (0..n).map(|n| format!("n{n}")).collect::<Vec<_>>();
    let map = |n: usize, value: &str| {
        let entries = names(n).into_iter();
        entries
            .map(|name| (name, value.into()))
            .collect::<serde_json::Map<_, _>>()
    };
    check(&json!({"tags": names(257)}), "/tags");
    check(&json!({"topics": names(257)}), "/topics");
    check(&json!({"attributes": map(65, "x")}), "/attributes");
    check(&json!({"tokens": map(9, "x")}), "/tokens");
    check(&json!({"attributes": map(64, &"x".repeat(256))}), "");
    changed(
        &Profile::new(0),
        &json!({"tags": names(256), "topics": names(256)}),
        1,
    );

    let full = changed(&Profile::new(0), &json!({"tags": names(256)}), 1);
    let refused = full.apply(&Patch::add_tag("more").unwrap(), 2).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the device would have 257 tags: at most 256; remove some in the same request"
    );
}

#[test]
fn the_present_displaces_the_past_but_is_never_refused_for_it() {
    let mut profile = Profile::new(0);
    let text = |n: u64| format!("{n:0>256}");
    let attributes = |round: u64| {
        let entry = |n| (format!("a{n}"), Json::from(text(n + round)));
        json!({"attributes": (0..40).map(entry).collect::<serde_json::Map<_, _>>()})
    };
    for round in 1..5 {
        profile = changed(&profile, &attributes(round * 100), round);
        assert!(profile.encode().len() <= MAX_ENCODED_BYTES);
    }
    assert!(!profile.past().is_empty());
    assert_eq!(profile.facts().count(), 40);
}

#[test]
fn every_mistake_in_a_patch_names_its_field() {
    #[track_caller]
    fn check(body: &str, fault: Fault, field: &str) {
        let refused = Patch::parse(body.as_bytes()).expect_err(body);
        assert_eq!(
            (refused.fault, refused.field.as_deref()),
            (fault, Some(field)),
            "{body}: {refused}"
        );
    }
    for (body, field) in [
        ("[]", ""),
        (r#"{"platform": "iOS"}"#, "/platform"),
        (r#"{"platform": 1}"#, "/platform"),
        (r#"{"app_version": ""}"#, "/app_version"),
        (r#"{"language": "en_US"}"#, "/language"),
        (r#"{"time_zone": "Mars/Olympus"}"#, "/time_zone"),
        (r#"{"user": ""}"#, "/user"),
        (r#"{"tags": "vip"}"#, "/tags"),
        (r#"{"tags": ["a", 1]}"#, "/tags/1"),
        (r#"{"tags": ["a", null]}"#, "/tags/1"),
        (r#"{"tags": ["a", ""]}"#, "/tags/1"),
        (r#"{"topics": ["news/#"]}"#, "/topics/0"),
        (r#"{"attributes": []}"#, "/attributes"),
        (r#"{"attributes": {"a b": 1}}"#, "/attributes/a b"),
        (r#"{"attributes": {"a": [1]}}"#, "/attributes/a"),
        (
            r#"{"attributes": {"a": 9007199254740993}}"#,
            "/attributes/a",
        ),
        (r#"{"attributes": {"a": 1e300}}"#, "/attributes/a"),
        (r#"{"attributes": {"a": "\u0000"}}"#, "/attributes/a"),
        (r#"{"tokens": {"FCM": "x"}}"#, "/tokens/FCM"),
        (r#"{"tokens": {"fcm": ""}}"#, "/tokens/fcm"),
        (r#"{"tokens": {"fcm": 1}}"#, "/tokens/fcm"),
    ] {
        check(body, Fault::InvalidField, field);
    }
    check(r#"{"tag": []}"#, Fault::UnknownField, "/tag");
    check(
        r#"{"tags": [], "tags": []}"#,
        Fault::DuplicateField,
        "/tags",
    );
}

#[test]
fn a_token_is_in_no_message() {
    let body = format!(r#"{{"tokens": {{"fcm": "{}"}}}}"#, "secret".repeat(1000));
    let refused = Patch::parse(body.as_bytes()).unwrap_err();
    assert!(!refused.detail.contains("secret"));
}

#[test]
fn the_stored_form_stays_readable() {
    let profile = changed(&Profile::new(1), &json!({"tags": ["a"], "user": "u"}), 2);
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|b| format!("{b:02x} "))
            .collect::<String>()
    };
    assert_eq!(
        hex(&profile.encode()).trim_end(),
        "08 01 10 02 1a 07 08 08 18 02 2a 01 75 1a 07 08 01 12 01 61 18 02"
    );
    let with_a_kind_of_the_future = [&profile.encode()[..], b"\x1a\x04\x08\x63\x18\x02"].concat();
    assert_eq!(Profile::decode(&with_a_kind_of_the_future), Ok(profile));
    assert!(Profile::decode(b"\xff").is_err());
}

/// The facts by name after each change, with the time of the change.
fn history((created_ms, changes): &(u64, Vec<(u64, Json)>)) -> Vec<(u64, BTreeMap<String, Json>)> {
    let mut now_ms = *created_ms;
    let mut state = BTreeMap::new();
    let mut states = vec![(now_ms, state.clone())];
    for (after_ms, change) in changes {
        now_ms += after_ms;
        for (name, value) in change.as_object().unwrap() {
            let prefix = match name.as_str() {
                "tags" => "tag ",
                "topics" => "topic ",
                "attributes" => "attribute ",
                "tokens" => continue,
                _ => "",
            };
            match value {
                Json::Array(names) => {
                    state.retain(|name: &String, _| !name.starts_with(prefix));
                    let name = |name: &Json| format!("{prefix}{}", name.as_str().unwrap());
                    state.extend(names.iter().map(|n| (name(n), Json::Bool(true))));
                }
                Json::Object(members) => {
                    for (name, value) in members {
                        state.insert(format!("{prefix}{name}"), value.clone());
                    }
                }
                Json::Null if prefix == "attribute " => {
                    state.retain(|name, _| !name.starts_with(prefix));
                }
                value => drop(state.insert(name.clone(), value.clone())),
            }
        }
        state.retain(|_, value| !value.is_null());
        states.push((now_ms, state.clone()));
    }
    states
}

fn fact_named(name: &str) -> Fact {
    match name.split_once(' ') {
        Some(("tag", name)) => Fact::Tag(name.into()),
        Some(("topic", name)) => Fact::Topic(name.into()),
        Some(("attribute", name)) => Fact::Attribute(name.into()),
        _ => {
            let mut built_in = Fact::BUILT_IN.into_iter();
            built_in.find(|(known, _)| *known == name).unwrap().1
        }
    }
}

proptest! {
    #[test]
    fn facts_of_any_time_are_those_that_held_then(life in any_life(), at_ms in 0..200_u64) {
        let profile = live(&life);
        let states = history(&life);
        let then = states.iter().rev().find(|(since_ms, _)| *since_ms <= at_ms);
        let nothing = BTreeMap::new();
        let then = then.map_or(&nothing, |(_, state)| state);
        let names = states.iter().flat_map(|(_, state)| state.keys());
        for name in names {
            let found = profile.as_of(at_ms).value(&fact_named(name));
            let as_number = |value: &Json| value.as_f64().map_or(value.clone(), Json::from);
            prop_assert_eq!(
                found.map(|value| as_number(&serde_json::to_value(value).unwrap())),
                then.get(name).map(as_number),
                "{} at {}", name, at_ms
            );
        }
        let (_, last) = states.last().unwrap();
        prop_assert_eq!(profile.facts().count(), last.len());
    }

    #[test]
    fn what_is_stored_is_read(life in any_life()) {
        let profile = live(&life);
        prop_assert_eq!(Profile::decode(&profile.encode()), Ok(profile));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Profile::decode(&bytes);
        let _ = Patch::parse(&bytes);
    }
}
