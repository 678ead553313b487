use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    device::{Patch, Profile},
    samples::{any_expression, any_profile},
};

fn profile(change: &serde_json::Value) -> Profile {
    let patch = Patch::parse(change.to_string().as_bytes()).unwrap();
    Profile::new(0).apply(&patch, 1).unwrap()
}

/// The text has this canonical form.
#[track_caller]
fn check(text: &str, canonical: &str) {
    let expression = Expression::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(expression.to_string(), canonical);
    assert_eq!(Expression::parse(canonical), Ok(expression));
}

/// The text is refused with this message.
#[track_caller]
fn refused(text: &str, message: &str) {
    let error = Expression::parse(text).expect_err(text);
    assert_eq!(error.to_string(), message);
}

#[test]
fn each_construct_has_a_canonical_form() {
    check("vip", "vip");
    check("  vip\n\t", "vip");
    check("tag:\"vip\"", "vip");
    check("tag:vip", "vip");
    check("tag : 'two words'", "tag:\"two words\"");
    check("tag:\"not\"", "tag:\"not\"");
    check("tag:user", "tag:\"user\"");
    check(r#"tag:"a \" \\ \' b""#, r#"tag:"a \" \\ ' b""#);
    check("topic:news", "topic:\"news\"");
    check("a-b && _c && d9", "a-b && _c && d9");
    check("a and b or not c", "(a && b) || !c");
    check("a || b && c", "a || (b && c)");
    check("(a || b) && c", "(a || b) && c");
    check("a && (b && (c)) && d", "a && b && c && d");
    check("a || (b || c)", "a || b || c");
    check("!!a", "a");
    check("!(!(!a))", "!a");
    check("!(a && b)", "!(a && b)");
    check("platform == 'ios'", "platform == \"ios\"");
    check("platform != \"ios\"", "platform != \"ios\"");
    check("!platform == \"ios\"", "platform != \"ios\"");
    check("!(platform != \"ios\")", "platform == \"ios\"");
    check("platform in [\"ios\"]", "platform == \"ios\"");
    check(
        "platform in ['ios','web','ios']",
        "platform in [\"ios\", \"web\"]",
    );
    check("user not in ['a','b']", "user not in [\"a\", \"b\"]");
    check("not user in ['a','b']", "user not in [\"a\", \"b\"]");
    check("app_version>='3.2.0'", "app_version >= \"3.2.0\"");
    check("!app_version < '3.2'", "!(app_version < \"3.2\")");
    check("attr.level >= 7.50", "attr.level >= 7.5");
    check("attr.level < -1e3", "attr.level < -1000");
    check("attr.level == 1e-7", "attr.level == 1e-7");
    check("attr.in == -0", "attr.in == 0");
    check("attr.paid == true", "attr.paid == true");
    check("attr.x in [1, \"1\", false]", "attr.x in [1, \"1\", false]");
    check("exists(attr.plan)", "has(attr.plan)");
    check("!has(language)", "!has(language)");
}

#[test]
fn the_example_of_the_design() {
    check(
        r#"(vip || beta) && !muted && platform == "ios" && app_version >= "3.2""#,
        r#"(vip || beta) && !muted && platform == "ios" && app_version >= "3.2""#,
    );
}

#[test]
fn mistakes_have_a_place_and_a_way_out() {
    const OPERAND: &str = "a tag, tag:\"NAME\", topic:\"NAME\", platform, app_version, language, time_zone, user, attr.NAME, has(..), ! or (";
    refused(
        "",
        &format!("line 1, column 1: found the end, expected {OPERAND}"),
    );
    refused(
        "a &&",
        &format!("line 1, column 5: found the end, expected {OPERAND}"),
    );
    refused(
        "a && )",
        &format!("line 1, column 6: found \")\", expected {OPERAND}"),
    );
    refused(
        "a || in",
        &format!("line 1, column 6: found \"in\", expected {OPERAND}"),
    );
    refused(
        "\"vip\"",
        &format!("line 1, column 1: found the string \"vip\", expected {OPERAND}"),
    );
    refused(
        "a b",
        "line 1, column 3: found \"b\", expected &&, || or the end",
    );
    refused(
        "(a",
        "line 1, column 3: found the end, expected &&, || or )",
    );
    refused(
        "a)",
        "line 1, column 2: found \")\", expected &&, || or the end",
    );
    refused(
        "a AND b",
        "line 1, column 3: found \"AND\", expected &&, || or the end",
    );
    refused("a &\nb", "line 1, column 3: found \"&\", expected &&");
    refused("a\n  | b", "line 2, column 3: found \"|\", expected ||");
    refused(
        "platform = 'ios'",
        "line 1, column 10: found \"=\", expected ==",
    );
    refused(
        "platform",
        "line 1, column 9: found the end, expected ==, !=, in or not in",
    );
    refused(
        "user < 'a'",
        "line 1, column 6: found \"<\", expected ==, !=, in or not in",
    );
    refused(
        "platform == ios",
        "line 1, column 13: found \"ios\", expected a string",
    );
    refused(
        "platform == 7",
        "line 1, column 13: found the number 7, expected a string",
    );
    refused(
        "tag:\"é\" && platform == 'iOS'",
        "line 1, column 24: platform \"iOS\": 1 to 32 of a-z, 0-9, \"_\" and \"-\", such as \"ios\"",
    );
    refused(
        "time_zone == 'Berlin'",
        "line 1, column 14: time zone \"Berlin\": a name of the IANA database, such as \"Europe/Berlin\"",
    );
    refused(
        "app_version > 3.2",
        "line 1, column 15: found the number 3.2, expected a version such as \"3.2\"",
    );
    refused(
        "app_version > '3.2b'",
        "line 1, column 15: \"3.2b\" is no version, and other strings have no order: a version is 1 to 6 numbers with dots between, such as \"3.2\"",
    );
    refused(
        "attr.x",
        "line 1, column 7: found the end, expected ==, !=, <, <=, >, >=, in or not in",
    );
    refused(
        "attr.x == yes",
        "line 1, column 11: found \"yes\", expected a string, a number, true or false",
    );
    refused(
        "attr.x < true",
        "line 1, column 10: found \"true\", expected a number or a version such as \"3.2\"",
    );
    refused("attr x", "line 1, column 6: found \"x\", expected .");
    refused(
        "attr.7 == 1",
        "line 1, column 6: found the number 7, expected the name of an attribute",
    );
    refused(
        "attr.x in []",
        "line 1, column 12: found \"]\", expected a string, a number, true or false",
    );
    refused(
        "attr.x in [1 2]",
        "line 1, column 14: found the number 2, expected , or ]",
    );
    refused(
        "attr.x not [1]",
        "line 1, column 12: found \"[\", expected in",
    );
    refused(
        "attr.x == 1e16",
        "line 1, column 11: \"1e16\" is out of range: a number is from -9007199254740992 to 9007199254740992",
    );
    refused(
        "3d && a",
        "line 1, column 1: \"3d\" is no number, and words begin with a letter: write \"..\" for a string, tag:\"..\" for a tag",
    );
    refused(
        "attr.x == 3.2.1",
        "line 1, column 11: \"3.2.1\" is no number, and words begin with a letter: write \"..\" for a string, tag:\"..\" for a tag",
    );
    refused(
        "plan == 'gold'",
        "line 1, column 1: \"plan\" is a tag, which a device has or has not: an attribute is written attr.NAME, and fields are platform, app_version, language, time_zone, user",
    );
    refused(
        "has(vip)",
        "line 1, column 5: found \"vip\", expected platform, app_version, language, time_zone, user or attr.NAME",
    );
    refused(
        "has platform",
        "line 1, column 5: found \"platform\", expected (",
    );
    refused("tag vip", "line 1, column 5: found \"vip\", expected :");
    refused(
        "topic:'a/#'",
        "line 1, column 7: topic \"a/#\": 1 to 128 bytes of UTF-8 without control characters, \"+\" and \"#\"",
    );
    refused(
        "tag:''",
        "line 1, column 5: tag \"\": 1 to 64 bytes of UTF-8 without control characters",
    );
    refused(
        "tag:'a",
        "line 1, column 7: found the end, expected the closing quote of the string",
    );
    refused(
        "tag:'a\\n'",
        "line 1, column 7: found \"\\\" and \"n\", expected \\\\, \\\" or \\'",
    );
    refused(
        "über",
        "line 1, column 1: found \"ü\", expected a word of a-z, A-Z, 0-9, \"_\" and \"-\" or tag:\"NAME\"",
    );
    refused(
        "a % b",
        "line 1, column 3: found \"%\", expected a word, a string, a number or an operator",
    );
}

#[test]
fn size_is_bounded() {
    let many = |n: usize| {
        (0..n)
            .map(|n| format!("t{n}"))
            .collect::<Vec<_>>()
            .join("||")
    };
    assert!(Expression::parse(&many(256)).is_ok());
    refused(
        &many(257),
        "the expression has 257 tests and listed values: at most 256; tag the devices, or upload a list",
    );
    assert!(Expression::parse(&format!("a{}", " ".repeat(4095))).is_ok());
    refused(
        &format!("a{}", " ".repeat(4096)),
        "the expression has 4097 bytes: at most 4096; tag the devices, or upload a list",
    );
    let nested = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    assert!(Expression::parse(&nested(32)).is_ok());
    refused(
        &nested(2000),
        "line 1, column 65: more than 32 negations and parentheses within each other",
    );
    let alternating = |n: usize| format!("{}a{}", "(b && (c || ".repeat(n), "))".repeat(n));
    assert!(Expression::parse(&alternating(16)).is_ok());
    assert!(Expression::parse(&alternating(17)).is_err());
    let tags = (0..256).map(|n| Term::tag(&format!("{n:é>33}"))).collect();
    assert!(matches!(
        Expression::of(Term::any_of(tags)).unwrap_err().fault,
        Fault::TooLong {
            most: MAX_CANONICAL_BYTES,
            ..
        }
    ));
}

#[test]
fn tests_mean_what_the_documentation_says() {
    let device = profile(&serde_json::json!({
        "platform": "ios", "app_version": "3.10.0-beta", "language": "pt-BR", "user": "u1",
        "tags": ["vip"], "topics": ["news"],
        "attributes": {"plan": "gold", "level": 7, "paid": true, "firmware": "2.10", "text7": "7"},
    }));
    let table = [
        ("vip", true),
        ("tag:news", false),
        ("topic:news", true),
        ("topic:vip", false),
        ("platform == 'ios'", true),
        ("platform in ['web', 'ios']", true),
        ("platform not in ['web', 'ios']", false),
        ("app_version > '3.2'", true),
        ("app_version >= '3.10'", true),
        ("app_version <= '3.10.0.0'", true),
        ("app_version == '3.10'", true),
        ("app_version == '3.10.0-beta'", true),
        ("app_version == '3.10.0-rc'", false),
        ("app_version < '3.9'", false),
        ("language == 'pt'", true),
        ("language == 'PT-br'", true),
        ("language == 'p'", false),
        ("language == 'pt-BR-x'", false),
        ("has(user)", true),
        ("has(time_zone)", false),
        ("time_zone == 'UTC'", false),
        ("time_zone != 'UTC'", true),
        ("attr.plan == 'gold'", true),
        ("attr.plan == 'Gold'", false),
        ("attr.level == 7.0", true),
        ("attr.level == '7'", false),
        ("attr.text7 == 7", false),
        ("attr.text7 == '7.0'", false),
        ("attr.text7 <= '7.0'", true),
        ("attr.text7 <= 7", false),
        ("attr.level > 6.5 && attr.level < 7.5", true),
        ("attr.paid == true", true),
        ("attr.paid == false", false),
        ("attr.paid >= 1", false),
        ("attr.firmware > '2.9'", true),
        ("attr.plan > '2.9'", false),
        ("attr.missing < 1 || attr.missing >= 1", false),
        ("!(attr.missing < 1)", true),
    ];
    for (text, expected) in table {
        let expression = Expression::parse(text).unwrap();
        assert_eq!(expression.matches(device.present()), expected, "{text}");
    }
    assert!(Expression::parse("!muted").unwrap().matches(Facts::NONE));
    assert!(!Expression::parse("has(user)").unwrap().matches(Facts::NONE));
}

/// What a device shows of itself, by the names that expressions use.
type Shown = BTreeMap<String, serde_json::Value>;

/// An evaluator that shares nothing with the real one but the tree.
fn naive(term: &Term, shown: &Shown) -> bool {
    match term {
        Term::All(terms) => terms
            .iter()
            .fold(true, |all, term| all & naive(term, shown)),
        Term::Any(terms) => terms
            .iter()
            .fold(false, |any, term| any | naive(term, shown)),
        Term::Not(term) => !naive(term, shown),
        Term::Test(test) => match shown.get(&test.fact.to_string()) {
            None => false,
            Some(value) => naive_test(test, value),
        },
    }
}

fn naive_test(test: &Test, value: &serde_json::Value) -> bool {
    let name = test.fact.to_string();
    match &test.check {
        Check::Known => true,
        Check::OneOf(wanted) => wanted.iter().any(|wanted| {
            let wanted = serde_json::to_value(wanted).unwrap();
            match (name.as_str(), wanted.as_str(), value.as_str()) {
                ("app_version", Some(wanted), Some(text)) => match parts(wanted) {
                    Some(parts_wanted) => parts(stem(text)) == Some(parts_wanted),
                    None => wanted == text,
                },
                ("language", Some(wanted), Some(text)) => {
                    let (wanted, text) = (wanted.to_lowercase(), text.to_lowercase());
                    format!("{text}-").starts_with(&format!("{wanted}-"))
                }
                _ if wanted.is_number() => wanted.as_f64() == value.as_f64(),
                _ => wanted == *value,
            }
        }),
        Check::Number(order, bound) => value
            .as_f64()
            .is_some_and(|number| ordered(*order, number.partial_cmp(&bound.value()).unwrap())),
        Check::Version(order, bound) => value
            .as_str()
            .and_then(|text| parts(stem(text)))
            .is_some_and(|found| ordered(*order, found.cmp(&parts(&bound.to_string()).unwrap()))),
    }
}

fn ordered(order: Order, found: std::cmp::Ordering) -> bool {
    match order {
        Order::Less => found.is_lt(),
        Order::AtMost => found.is_le(),
        Order::Greater => found.is_gt(),
        Order::AtLeast => found.is_ge(),
    }
}

fn stem(text: &str) -> &str {
    text.split(['-', '+', ' ']).next().unwrap()
}

/// Without trailing zeros.
fn parts(text: &str) -> Option<Vec<u64>> {
    let mut parts: Vec<u64> = text
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    while parts.last() == Some(&0) {
        parts.pop();
    }
    Some(parts)
}

fn shown(profile: &Profile) -> Shown {
    let value = |value: &Value| serde_json::to_value(value).unwrap();
    profile
        .facts()
        .map(|(fact, held)| (fact.to_string(), value(&held.value)))
        .collect()
}

proptest! {
    #[test]
    fn the_canonical_text_parses_back_to_the_same_tree(expression in any_expression()) {
        let text = expression.to_string();
        prop_assert_eq!(Expression::parse_canonical(&text), Ok(expression), "{}", text);
    }

    #[test]
    fn evaluation_is_that_of_a_naive_evaluator(expression in any_expression(), profile in any_profile()) {
        prop_assert_eq!(
            expression.matches(profile.present()),
            naive(expression.term(), &shown(&profile)),
            "{}", expression
        );
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_place(text in ".{0,60}") {
        if let Err(error) = Expression::parse(&text) {
            prop_assert!(text.is_char_boundary(error.byte));
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_tokens_are_read_or_refused(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "vip", "platform", "attr", ".", "x", "==", "!=", "<", "'ios'", "7", "in", "not", "[", "]", ",", "(", ")",
            "!", "&&", "||", "tag", "topic", ":", "has", "true", "app_version", "'3.2'",
        ]), 0..16)
    ) {
        let text = tokens.join(" ");
        if let Ok(expression) = Expression::parse(&text) {
            prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
        }
    }
}
