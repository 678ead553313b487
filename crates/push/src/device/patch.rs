//! A change of what is known of a device, as the API and the device itself ask for it, in JSON.
//!
//! ```json
//! {
//!   "platform": "ios", "app_version": "3.2", "language": "en-GB", "time_zone": "Europe/London", "user": "u1",
//!   "tags": ["vip", "beta"],
//!   "topics": ["news"],
//!   "attributes": {"plan": "gold", "logins": 7, "trial": null},
//!   "tokens": {"fcm": "..", "apns": null}
//! }
//! ```
//!
//! `tags` and `topics` are the whole set; `attributes` and `tokens` are merged, and `null` removes. `null` for a field clears it.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    fact::{Fact, Number, Value},
    names::{self, BadName, Rule},
};
use crate::{
    fields::{Fields, invalid, wrong_kind},
    json::{self, Node},
    request::Invalid,
};

/// A change, checked on its own; [`Profile::apply`](super::Profile::apply) checks what comes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// What they shall say; `None`: nothing any more.
    facts: BTreeMap<Fact, Option<Value>>,
    tokens: BTreeMap<Arc<str>, Option<Arc<str>>>,
    /// Those that are not named above end.
    all_tags: bool,
    all_topics: bool,
    all_attributes: bool,
    all_tokens: bool,
}

const KNOWN: [&str; 9] = [
    "platform",
    "app_version",
    "language",
    "time_zone",
    "user",
    "tags",
    "topics",
    "attributes",
    "tokens",
];

impl Patch {
    /// Reads and checks a request body.
    pub fn parse(body: &[u8]) -> Result<Patch, Invalid> {
        let document = json::read(body)?;
        let mut fields = Fields::of("", &document)?;
        let mut patch = Patch::default();
        for (name, fact) in Fact::BUILT_IN {
            if let Some(node) = fields.take(name) {
                let value = built_in(&format!("/{name}"), &fact, node)?;
                patch.facts.insert(fact, value);
            }
        }
        if let Some(node) = fields.take("tags") {
            patch.all_tags = true;
            patch.set_all("/tags", node, &names::TAG, Fact::Tag)?;
        }
        if let Some(node) = fields.take("topics") {
            patch.all_topics = true;
            patch.set_all("/topics", node, &names::TOPIC, Fact::Topic)?;
        }
        if let Some(node) = fields.take("attributes") {
            patch.merge_attributes(node)?;
        }
        if let Some(node) = fields.take("tokens") {
            patch.merge_tokens(node)?;
        }
        fields.no_others(&KNOWN)?;
        Ok(patch)
    }

    /// The change that leaves nothing but what this one names: what it does not mention ends.
    pub fn replacing(mut self) -> Patch {
        for (_, fact) in Fact::BUILT_IN {
            self.facts.entry(fact).or_default();
        }
        self.all_tags = true;
        self.all_topics = true;
        self.all_attributes = true;
        self.all_tokens = true;
        self
    }

    /// The same change, which leaves these tags as they are.
    pub fn sparing_tags(mut self, tags: impl Iterator<Item = Arc<str>>) -> Patch {
        for tag in tags.filter(|_| self.all_tags).collect::<Vec<_>>() {
            self.facts.insert(Fact::Tag(tag), Some(Value::Bool(true)));
        }
        self
    }

    /// Adds a tag.
    pub fn add_tag(tag: &str) -> Result<Patch, BadName> {
        names::TAG.check(tag)?;
        Ok(Patch::one(Fact::Tag(tag.into()), Some(Value::Bool(true))))
    }

    /// Removes a tag.
    pub fn remove_tag(tag: &str) -> Result<Patch, BadName> {
        names::TAG.check(tag)?;
        Ok(Patch::one(Fact::Tag(tag.into()), None))
    }

    /// Subscribes to a topic.
    pub fn add_topic(topic: &str) -> Result<Patch, BadName> {
        names::TOPIC.check(topic)?;
        let fact = Fact::Topic(topic.into());
        Ok(Patch::one(fact, Some(Value::Bool(true))))
    }

    /// Unsubscribes from a topic.
    pub fn remove_topic(topic: &str) -> Result<Patch, BadName> {
        names::TOPIC.check(topic)?;
        Ok(Patch::one(Fact::Topic(topic.into()), None))
    }

    /// Binds to a user, or to none.
    pub fn bind(user: Option<&str>) -> Result<Patch, BadName> {
        user.map_or(Ok(()), |user| names::USER.check(user))?;
        let value = user.map(|user| Value::Text(user.into()));
        Ok(Patch::one(Fact::User, value))
    }

    fn one(fact: Fact, value: Option<Value>) -> Patch {
        Patch {
            facts: BTreeMap::from([(fact, value)]),
            ..Patch::default()
        }
    }

    /// What the facts shall say that it names; `None`: nothing any more.
    pub fn facts(&self) -> impl Iterator<Item = (&Fact, Option<&Value>)> {
        self.facts
            .iter()
            .map(|(fact, value)| (fact, value.as_ref()))
    }

    /// Whether a fact ends because it is not in the whole set.
    pub(super) fn drops(&self, fact: &Fact) -> bool {
        let all = match fact {
            Fact::Tag(_) => self.all_tags,
            Fact::Topic(_) => self.all_topics,
            Fact::Attribute(_) => self.all_attributes,
            _ => false,
        };
        all && !self.facts.contains_key(fact)
    }

    pub(super) fn apply_tokens(&self, tokens: &mut BTreeMap<Arc<str>, Arc<str>>) {
        if self.all_tokens {
            tokens.clear();
        }
        for (vendor, token) in &self.tokens {
            match token {
                Some(token) => tokens.insert(vendor.clone(), token.clone()),
                None => tokens.remove(vendor),
            };
        }
    }

    fn set_all(
        &mut self,
        at: &str,
        node: &Node,
        rule: &Rule,
        fact: fn(Arc<str>) -> Fact,
    ) -> Result<(), Invalid> {
        let items = match node {
            Node::Null => return Ok(()),
            Node::List(items) => items,
            other => return Err(wrong_kind(at, "an array of strings, or null", other)),
        };
        for (index, item) in items.iter().enumerate() {
            let name = text(&format!("{at}/{index}"), item, rule)?;
            self.facts.insert(fact(name), Some(Value::Bool(true)));
        }
        Ok(())
    }

    fn merge_attributes(&mut self, node: &Node) -> Result<(), Invalid> {
        let Some(members) = members("/attributes", node)? else {
            self.all_attributes = true;
            return Ok(());
        };
        for (name, node) in members {
            let at = json::pointer_to("/attributes", name);
            checked(&at, &names::ATTRIBUTE, name)?;
            let value = attribute(&at, node)?;
            self.facts
                .insert(Fact::Attribute(name.as_str().into()), value);
        }
        Ok(())
    }

    fn merge_tokens(&mut self, node: &Node) -> Result<(), Invalid> {
        let Some(members) = members("/tokens", node)? else {
            self.all_tokens = true;
            return Ok(());
        };
        for (vendor, node) in members {
            let at = json::pointer_to("/tokens", vendor);
            checked(&at, &names::VENDOR, vendor)?;
            let token = match node {
                Node::Null => None,
                // Not shown in the message: whoever has it can push to the device.
                Node::Text(token) if names::TOKEN.check(token).is_ok() => Some(token.as_str()),
                _ => {
                    let detail = "a token is a string of 1 to 2048 bytes without control characters, or null to remove it";
                    return Err(invalid(&at, detail));
                }
            };
            self.tokens
                .insert(vendor.as_str().into(), token.map(Arc::from));
        }
        Ok(())
    }
}

fn built_in(at: &str, fact: &Fact, node: &Node) -> Result<Option<Value>, Invalid> {
    match node {
        Node::Null => Ok(None),
        Node::Text(text) => {
            fact.check_text(text)
                .map_err(|bad| invalid(at, bad.to_string()))?;
            Ok(Some(Value::Text(text.as_str().into())))
        }
        other => Err(wrong_kind(at, "a string, or null to clear it", other)),
    }
}

fn attribute(at: &str, node: &Node) -> Result<Option<Value>, Invalid> {
    let number = match node {
        Node::Null => return Ok(None),
        Node::Bool(value) => return Ok(Some(Value::Bool(*value))),
        Node::Text(_) => return Ok(Some(Value::Text(text(at, node, &names::TEXT)?))),
        // Above 2^53 it may be rounded down to it, which would be another number.
        Node::Whole(value) => (*value <= Number::MAX as u64).then_some(*value as f64),
        Node::Number(value) => Some(*value),
        Node::List(_) | Node::Object(_) => {
            let expected = "a string, a number, a boolean, or null to remove it";
            return Err(wrong_kind(at, expected, node));
        }
    };
    match number.and_then(Number::new) {
        Some(number) => Ok(Some(Value::Number(number))),
        None => Err(invalid(
            at,
            format!(
                "a number is from -{max} to {max}, where whole numbers are exact; use a string",
                max = Number::MAX
            ),
        )),
    }
}

fn members<'n>(at: &str, node: &'n Node) -> Result<Option<&'n BTreeMap<String, Node>>, Invalid> {
    match node {
        Node::Null => Ok(None),
        Node::Object(members) => Ok(Some(members)),
        other => Err(wrong_kind(at, "an object, or null to clear it", other)),
    }
}

fn text(at: &str, node: &Node, rule: &Rule) -> Result<Arc<str>, Invalid> {
    let Node::Text(text) = node else {
        return Err(wrong_kind(
            at,
            &format!("a {}, which is a string", rule.what()),
            node,
        ));
    };
    checked(at, rule, text)?;
    Ok(text.as_str().into())
}

fn checked(at: &str, rule: &Rule, text: &str) -> Result<(), Invalid> {
    rule.check(text).map_err(|bad| invalid(at, bad.to_string()))
}
