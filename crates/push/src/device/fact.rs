//! What can be known of a device.

use std::{
    cmp::Ordering,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::names::{self, BadName};

/// Something that can be known of a device. `Display` writes it as in an expression: `platform`, `attr.plan`, `tag:"a b"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// Platform, such as `ios`.
    Platform,
    /// Version of the app.
    AppVersion,
    /// Language tag.
    Language,
    /// Name of a time zone.
    TimeZone,
    /// The user it is bound to.
    User,
    /// An attribute that the app defines.
    Attribute(Arc<str>),
    /// A tag. Its value is `true`.
    Tag(Arc<str>),
    /// A topic that the server subscribed it to. Its value is `true`.
    Topic(Arc<str>),
}

impl Fact {
    /// The facts that every app has, with their names in JSON and in expressions.
    pub const BUILT_IN: [(&'static str, Fact); 5] = [
        ("platform", Fact::Platform),
        ("app_version", Fact::AppVersion),
        ("language", Fact::Language),
        ("time_zone", Fact::TimeZone),
        ("user", Fact::User),
    ];

    /// The field of a device's JSON in which it stands.
    pub fn field(&self) -> &'static str {
        match self {
            Fact::Attribute(_) => "attributes",
            Fact::Tag(_) => "tags",
            Fact::Topic(_) => "topics",
            built_in => {
                let known = Fact::BUILT_IN.iter().find(|(_, fact)| fact == built_in);
                known.map_or("", |(name, _)| name)
            }
        }
    }

    /// Whether a text can be its value.
    pub fn check_text(&self, text: &str) -> Result<(), BadName> {
        let rule = match self {
            Fact::Platform => names::PLATFORM,
            Fact::AppVersion => names::APP_VERSION,
            Fact::Language => names::LANGUAGE,
            Fact::TimeZone => names::TIME_ZONE,
            Fact::User => names::USER,
            Fact::Attribute(_) | Fact::Tag(_) | Fact::Topic(_) => names::TEXT,
        };
        rule.check(text)
    }
}

/// What a fact says. Ordered by kind first, so that the numbers of a dictionary are next to each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    Text(Arc<str>),
}

/// A number from -2^53 to 2^53, the range in which a double is exact for whole numbers; zero has no sign.
#[derive(Clone, Copy, Debug)]
pub struct Number(f64);

impl Number {
    /// The greatest number.
    pub const MAX: f64 = 9_007_199_254_740_992.0;

    /// Takes a number in the range.
    pub fn new(value: f64) -> Option<Number> {
        // Adding zero turns -0 into 0.
        (value.abs() <= Number::MAX).then_some(Number(value + 0.0))
    }

    /// The number.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.0 == other.0
    }
}

// Not a number is not in the range.
impl Eq for Number {}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_everybody_reads_alike() {
        assert_eq!(Number::new(-0.0), Number::new(0.0));
        assert_eq!(Number::new(-0.0).unwrap().value().to_bits(), 0);
        assert!(Number::new(-Number::MAX).is_some());
        for bad in [f64::NAN, f64::INFINITY, Number::MAX + 2.0, -1e300] {
            assert_eq!(Number::new(bad), None);
        }
    }
}
