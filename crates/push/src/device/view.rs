//! A profile as the API shows it.
//!
//! Everything but `tokens`, `since`, `created_at` and `updated_at` is what a [`Patch`](super::Patch) takes. Tokens are not shown, only the
//! vendors that have one: whoever has a token can push to the device. `since` names each fact as an expression does.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Fact, Profile, Value};
use crate::time::rfc3339;

impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (name, fact) in Fact::BUILT_IN {
            if let Some(held) = self.facts.get(&fact) {
                map.serialize_entry(name, &held.value)?;
            }
        }
        let named = |of: fn(&Fact) -> Option<&str>| self.facts.keys().filter_map(of).collect();
        let tags: Vec<&str> = named(|fact| match fact {
            Fact::Tag(name) => Some(name),
            _ => None,
        });
        let topics: Vec<&str> = named(|fact| match fact {
            Fact::Topic(name) => Some(name),
            _ => None,
        });
        let attributes: BTreeMap<&str, &Value> = self
            .facts
            .iter()
            .filter_map(|(fact, held)| match fact {
                Fact::Attribute(name) => Some((&**name, &held.value)),
                _ => None,
            })
            .collect();
        let tokens: Vec<&str> = self.tokens.keys().map(|vendor| &**vendor).collect();
        let since: BTreeMap<String, String> = self
            .facts
            .iter()
            .map(|(fact, held)| (fact.to_string(), rfc3339(held.since_ms)))
            .collect();
        map.serialize_entry("tags", &tags)?;
        map.serialize_entry("topics", &topics)?;
        map.serialize_entry("attributes", &attributes)?;
        map.serialize_entry("tokens", &tokens)?;
        map.serialize_entry("since", &since)?;
        map.serialize_entry("created_at", &rfc3339(self.created_ms))?;
        map.serialize_entry("updated_at", &rfc3339(self.updated_ms))?;
        map.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let number = |value: f64| value.fract() == 0.0;
        match self {
            Value::Bool(value) => to.serialize_bool(*value),
            // As it was most likely written: 7, not 7.0.
            Value::Number(n) if number(n.value()) => to.serialize_i64(n.value() as i64),
            Value::Number(n) => to.serialize_f64(n.value()),
            Value::Text(text) => to.serialize_str(text),
        }
    }
}
