//! A profile as it is stored: a protobuf message, so that neighbouring versions of a node read each other's.

use std::collections::BTreeMap;

use prost::Message;

use super::{Fact, Held, Number, Past, Profile, Value};

/// Bytes that are no record of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is damaged: {why}")]
pub struct Damaged {
    /// What it should be.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Clone, PartialEq, Message)]
struct ProfileRecord {
    #[prost(uint64, tag = "1")]
    created_ms: u64,
    #[prost(uint64, tag = "2")]
    updated_ms: u64,
    #[prost(message, repeated, tag = "3")]
    facts: Vec<FactRecord>,
    /// With `until_ms`.
    #[prost(message, repeated, tag = "4")]
    past: Vec<FactRecord>,
    #[prost(btree_map = "string, string", tag = "5")]
    tokens: BTreeMap<String, String>,
}

/// None of the three values: `true`, as most facts are tags.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FactRecord {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    since_ms: u64,
    #[prost(uint64, tag = "4")]
    until_ms: u64,
    #[prost(string, optional, tag = "5")]
    text: Option<String>,
    #[prost(double, optional, tag = "6")]
    number: Option<f64>,
    #[prost(bool, optional, tag = "7")]
    boolean: Option<bool>,
}

impl Profile {
    /// The profile as bytes, at most [`MAX_ENCODED_BYTES`](super::MAX_ENCODED_BYTES).
    pub fn encode(&self) -> Vec<u8> {
        ProfileRecord::of(self).encode_to_vec()
    }

    pub(super) fn encoded_len(&self) -> usize {
        ProfileRecord::of(self).encoded_len()
    }

    /// Reads what [`Profile::encode`] wrote. Facts of a kind that only a later version knows are left out.
    pub fn decode(bytes: &[u8]) -> Result<Profile, Damaged> {
        let record = ProfileRecord::decode(bytes).map_err(|e| Damaged {
            what: "the profile of a device",
            why: e.to_string(),
        })?;
        let text = |(vendor, token): (String, String)| (vendor.into(), token.into());
        Ok(Profile {
            facts: record.facts.iter().filter_map(FactRecord::held).collect(),
            tokens: record.tokens.into_iter().map(text).collect(),
            past: record.past.iter().filter_map(FactRecord::past).collect(),
            created_ms: record.created_ms,
            updated_ms: record.updated_ms,
        })
    }
}

impl ProfileRecord {
    fn of(profile: &Profile) -> ProfileRecord {
        let held = |(fact, held): (&Fact, &Held)| FactRecord::of(fact, &held.value, held.since_ms);
        let past = |past: &Past| FactRecord {
            until_ms: past.until_ms,
            ..FactRecord::of(&past.fact, &past.value, past.since_ms)
        };
        let tokens = profile.tokens.iter();
        ProfileRecord {
            created_ms: profile.created_ms,
            updated_ms: profile.updated_ms,
            facts: profile.facts.iter().map(held).collect(),
            past: profile.past.iter().map(past).collect(),
            tokens: tokens
                .map(|(vendor, token)| (vendor.to_string(), token.to_string()))
                .collect(),
        }
    }
}

impl FactRecord {
    /// A fact as it is recorded: kind and name.
    pub(super) fn key(fact: &Fact) -> (u32, &str) {
        match fact {
            Fact::Tag(name) => (1, &**name),
            Fact::Topic(name) => (2, &**name),
            Fact::Attribute(name) => (3, &**name),
            Fact::Platform => (4, ""),
            Fact::AppVersion => (5, ""),
            Fact::Language => (6, ""),
            Fact::TimeZone => (7, ""),
            Fact::User => (8, ""),
        }
    }

    fn of(fact: &Fact, value: &Value, since_ms: u64) -> FactRecord {
        let (kind, name) = FactRecord::key(fact);
        let mut record = FactRecord {
            kind,
            name: name.to_owned(),
            since_ms,
            ..FactRecord::default()
        };
        match value {
            Value::Bool(true) => {}
            Value::Bool(false) => record.boolean = Some(false),
            Value::Number(number) => record.number = Some(number.value()),
            Value::Text(text) => record.text = Some(text.to_string()),
        }
        record
    }

    fn fact(&self) -> Option<Fact> {
        let name = || self.name.as_str().into();
        Some(match self.kind {
            1 => Fact::Tag(name()),
            2 => Fact::Topic(name()),
            3 => Fact::Attribute(name()),
            4 => Fact::Platform,
            5 => Fact::AppVersion,
            6 => Fact::Language,
            7 => Fact::TimeZone,
            8 => Fact::User,
            _ => return None,
        })
    }

    fn value(&self) -> Option<Value> {
        if let Some(text) = &self.text {
            return Some(Value::Text(text.as_str().into()));
        }
        match self.number {
            Some(number) => Number::new(number).map(Value::Number),
            None => Some(Value::Bool(self.boolean.unwrap_or(true))),
        }
    }

    pub(super) fn held(&self) -> Option<(Fact, Held)> {
        let held = Held {
            value: self.value()?,
            since_ms: self.since_ms,
        };
        Some((self.fact()?, held))
    }

    pub(super) fn past(&self) -> Option<Past> {
        Some(Past {
            fact: self.fact()?,
            value: self.value()?,
            since_ms: self.since_ms,
            until_ms: self.until_ms,
        })
    }
}
