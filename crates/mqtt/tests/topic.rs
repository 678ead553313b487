//! Names, filters and which match.

use campanile_mqtt::topic::{
    FilterError, NameError, has_wildcard, levels, matches, parse_shared, validate_filter,
    validate_name,
};
use proptest::prelude::*;

#[test]
fn filters_match_names() {
    for (filter, name, expected) in [
        ("a", "a", true),
        ("a", "b", false),
        ("a", "a/b", false),
        ("a/b", "a", false),
        ("a/b", "a/b", true),
        ("#", "a", true),
        ("#", "a/b/c", true),
        ("#", "/", true),
        ("#", "$SYS", false),
        ("a/#", "a", true),
        ("a/#", "a/", true),
        ("a/#", "a/b/c", true),
        ("a/#", "ab", false),
        ("/#", "/", true),
        ("/#", "", true),
        ("+", "a", true),
        ("+", "", true),
        ("+", "a/b", false),
        ("+", "/a", false),
        ("+/+", "/a", true),
        ("/+", "/a", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a//c", true),
        ("a/+/c", "a/b/d", false),
        ("+/b/#", "a/b", true),
        ("+/b/#", "a/b/c/d", true),
        ("+/b/#", "a/c", false),
        ("$SYS/#", "$SYS", true),
        ("$SYS/+", "$SYS/a", true),
        ("a/$b", "a/$b", true),
        ("a/#", "a/$b", true),
        ("$share/g/a", "a", false),
    ] {
        assert_eq!(matches(filter, name), expected, "{filter} {name}");
    }
}

#[test]
fn levels_are_counted() {
    for (topic, count) in [("a", 1), ("a/b", 2), ("/", 2), ("/a/", 3), ("a//b", 3)] {
        assert_eq!(levels(topic), count, "{topic}");
    }
}

#[test]
fn shared_filters_are_split() {
    assert_eq!(parse_shared("a/b"), Ok(None));
    assert_eq!(parse_shared("$share"), Ok(None));
    assert_eq!(parse_shared("$share/g/a"), Ok(Some(("g", "a"))));
    assert_eq!(parse_shared("$share/g/+/#"), Ok(Some(("g", "+/#"))));
    assert_eq!(parse_shared("$share/g//a"), Ok(Some(("g", "/a"))));
    assert_eq!(
        parse_shared("$share/g/$share/h/a"),
        Ok(Some(("g", "$share/h/a")))
    );
    assert_eq!(parse_shared("$share//a"), Err(FilterError::ShareNameEmpty));
    assert_eq!(
        parse_shared("$share/+/a"),
        Err(FilterError::ShareNameWildcard)
    );
    assert_eq!(
        parse_shared("$share/g"),
        Err(FilterError::ShareFilterMissing)
    );
    assert_eq!(
        parse_shared("$share/g/"),
        Err(FilterError::ShareFilterMissing)
    );
}

#[test]
fn errors_say_which_rule() {
    assert_eq!(
        NameError::Empty.to_string(),
        "must not be empty [MQTT-4.7.3-1]"
    );
    assert_eq!(validate_name("a\0"), Err(NameError::Null));
    assert_eq!(validate_filter("a\0"), Err(FilterError::Null));
    assert_eq!(
        validate_filter("a/b+").unwrap_err().to_string(),
        r#""+" must occupy an entire level [MQTT-4.7.1-2]"#
    );
}

/// Matching as the standard says it, level by level.
fn matches_slowly(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) => true,
        (["+", filter @ ..], [_, name @ ..]) => matches_slowly(filter, name),
        ([level, filter @ ..], [other, name @ ..]) => {
            level == other && matches_slowly(filter, name)
        }
        (rest, names) => rest.is_empty() && names.is_empty(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn filters_match_as_the_standard_says(filter in "[ab/+#$]{1,6}", name in "[ab/$]{1,6}") {
        if validate_filter(&filter).is_ok() {
            let split = |topic: &'static str| topic.split('/').collect::<Vec<_>>();
            let (filter, name): (&'static str, &'static str) = (filter.leak(), name.leak());
            let hidden = name.starts_with('$') && filter.starts_with(['+', '#']);
            let expected = !hidden && matches_slowly(&split(filter), &split(name));
            prop_assert_eq!(matches(filter, name), expected);
            if !has_wildcard(filter) {
                prop_assert_eq!(matches(filter, name), filter == name);
            }
        }
    }

    #[test]
    fn validation_survives_anything(topic in ".{0,20}") {
        let _ = (validate_name(&topic), validate_filter(&topic), parse_shared(&topic));
        if validate_name(&topic).is_ok() && !topic.starts_with("$share/") {
            prop_assert_eq!(validate_filter(&topic), Ok(()));
            prop_assert!(matches(&topic, &topic));
        }
    }
}
