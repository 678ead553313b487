//! Random devices and expressions for properties, from few words, so that they meet.

use proptest::{prelude::*, sample::select};
use serde_json::{Value as Json, json};

use crate::{
    device::{Fact, Number, Patch, Profile, Value, Version},
    expression::{Check, Expression, Order, Term, Test},
    targeting::{Portion, Targeting},
};

const TAGS: [&str; 5] = ["vip", "beta", "muted", "not", "two words \"\\'é"];
const TOPICS: [&str; 2] = ["news", "news/sport 1"];
const ATTRIBUTES: [&str; 3] = ["plan", "level", "in-app_2"];
const PLATFORMS: [&str; 3] = ["ios", "android", "web"];
const VERSIONS: [&str; 7] = [
    "3.2", "3.2.0", "3.10", "3.2-beta", "4 (7)", "nightly", "4.0.1",
];
const LANGUAGES: [&str; 5] = ["en", "en-GB", "EN-us", "de", "enx"];
const ZONES: [&str; 2] = ["Europe/Berlin", "UTC"];
const USERS: [&str; 3] = ["u1", "u2", "\"u\" 3"];
const NUMBERS: [f64; 6] = [-1.5, 0.0, 1e-9, 3.2, 7.0, Number::MAX];
const TEXTS: [&str; 5] = ["gold", "", "3.2", "3.10.1", "a \\ \" b"];

/// One of [`TEXTS`], [`NUMBERS`], true or false.
fn any_json_value() -> impl Strategy<Value = Json> {
    prop_oneof![
        select(&TEXTS[..]).prop_map(Json::from),
        select(&NUMBERS[..]).prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
    ]
}

/// A change of one field, as a request's body.
pub(crate) fn any_patch() -> impl Strategy<Value = Json> {
    let field = |name: &'static str, words: &'static [&'static str]| {
        prop::option::weighted(0.8, select(words)).prop_map(move |word| json!({ name: word }))
    };
    let set = |name: &'static str, words: &'static [&'static str]| {
        prop::sample::subsequence(words, 0..=words.len()).prop_map(move |set| json!({ name: set }))
    };
    prop_oneof![
        1 => field("platform", &PLATFORMS),
        1 => field("app_version", &VERSIONS),
        1 => field("language", &LANGUAGES),
        1 => field("time_zone", &ZONES),
        1 => field("user", &USERS),
        3 => set("tags", &TAGS),
        2 => set("topics", &TOPICS),
        3 => (select(&ATTRIBUTES[..]), prop::option::weighted(0.8, any_json_value()))
            .prop_map(|(name, value)| json!({"attributes": {name: value}})),
        1 => Just(json!({"attributes": null})),
        1 => Just(json!({"tokens": {"fcm": "t"}})),
    ]
}

/// A device's life: when it was made, and its changes with the time since the one before.
pub(crate) fn any_life() -> impl Strategy<Value = (u64, Vec<(u64, Json)>)> {
    (
        0..50_u64,
        prop::collection::vec((0..10_u64, any_patch()), 0..12),
    )
}

/// What becomes of a device by its changes.
pub(crate) fn live((created_ms, changes): &(u64, Vec<(u64, Json)>)) -> Profile {
    let mut now_ms = *created_ms;
    let mut profile = Profile::new(now_ms);
    for (after_ms, change) in changes {
        now_ms += after_ms;
        let patch = Patch::parse(change.to_string().as_bytes()).unwrap();
        profile = profile.apply(&patch, now_ms).unwrap();
    }
    profile
}

pub(crate) fn any_profile() -> impl Strategy<Value = Profile> {
    any_life().prop_map(|life| live(&life))
}

fn text(words: &'static [&'static str]) -> impl Strategy<Value = Value> {
    select(words).prop_map(|word| Value::Text(word.into()))
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        text(&TEXTS),
        select(&NUMBERS[..]).prop_map(|number| Value::Number(Number::new(number).unwrap())),
        any::<bool>().prop_map(Value::Bool),
    ]
}

fn any_attribute() -> impl Strategy<Value = Fact> {
    select(&ATTRIBUTES[..]).prop_map(|name| Fact::Attribute(name.into()))
}

fn any_order() -> impl Strategy<Value = Order> {
    select(vec![
        Order::Less,
        Order::AtMost,
        Order::Greater,
        Order::AtLeast,
    ])
}

fn any_version() -> impl Strategy<Value = Version> {
    select(vec!["3.2", "3.2.0", "3.10", "4", "4.0.1"])
        .prop_map(|text| Version::exact(text).unwrap())
}

fn any_test() -> impl Strategy<Value = Test> {
    fn one_of(
        fact: impl Strategy<Value = Fact>,
        value: impl Strategy<Value = Value>,
    ) -> impl Strategy<Value = (Fact, Check)> {
        let values = prop::collection::vec(value, 1..4).prop_map(|values| {
            let mut different = Vec::new();
            for value in values {
                if !different.contains(&value) {
                    different.push(value);
                }
            }
            different
        });
        (fact, values.prop_map(Check::OneOf))
    }
    let tag = select(&TAGS[..]).prop_map(|name| Fact::Tag(name.into()));
    let topic = select(&TOPICS[..]).prop_map(|name| Fact::Topic(name.into()));
    let built_in = select(&Fact::BUILT_IN[..]).prop_map(|(_, fact)| fact);
    let known = prop_oneof![4 => tag, 2 => topic, 1 => built_in, 1 => any_attribute()];
    let number = (any_order(), select(&NUMBERS[..]))
        .prop_map(|(order, number)| Check::Number(order, Number::new(number).unwrap()));
    let version = || (any_order(), any_version()).prop_map(|(o, v)| Check::Version(o, v));
    prop_oneof![
        4 => (known, Just(Check::Known)),
        1 => one_of(Just(Fact::Platform), text(&PLATFORMS)),
        1 => one_of(Just(Fact::AppVersion), text(&VERSIONS)),
        1 => one_of(Just(Fact::Language), text(&LANGUAGES)),
        1 => one_of(Just(Fact::TimeZone), text(&ZONES)),
        1 => one_of(Just(Fact::User), text(&USERS)),
        2 => one_of(any_attribute(), any_value()),
        2 => (any_attribute(), number),
        1 => (any_attribute(), version()),
        2 => (Just(Fact::AppVersion), version()),
    ]
    .prop_map(|(fact, check)| Test { fact, check })
}

pub(crate) fn any_expression() -> impl Strategy<Value = Expression> {
    any_test()
        .prop_map(Term::Test)
        .prop_recursive(5, 24, 3, |inner| {
            let terms = || prop::collection::vec(inner.clone(), 1..4);
            prop_oneof![
                terms().prop_map(Term::all_of),
                terms().prop_map(Term::any_of),
                inner.clone().prop_map(Term::negated),
            ]
        })
        .prop_map(|term| Expression::of(term).unwrap())
}

pub(crate) fn any_targeting() -> impl Strategy<Value = Targeting> {
    let portion = (any::<u64>(), 0..=Portion::WHOLE)
        .prop_map(|(salt, basis_points)| Portion { salt, basis_points });
    (
        prop::option::weighted(0.8, any_expression()),
        prop::option::weighted(0.2, prop::collection::btree_set(0..40_u32, 0..40)),
        prop::option::weighted(0.2, portion),
        0..150_u64,
    )
        .prop_map(|(expression, numbers, portion, pushed_ms)| Targeting {
            names: None,
            expression,
            numbers: numbers.map(|numbers| numbers.into_iter().collect()),
            portion,
            pushed_ms,
        })
}
