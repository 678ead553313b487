//! A registered device: what is known of it now, and what was known a while ago.
//!
//! A push to an audience is for the devices that match when it is made *and* when it is delivered. So a [`Profile`] says since when
//! each of its facts holds, and remembers for a while those that ended: [`Profile::as_of`] answers for an earlier time.

use std::{collections::BTreeMap, sync::Arc};

use crate::{fields::invalid, options::MAX_TTL_SECONDS, request::Invalid};

mod fact;
mod glance;
pub mod names;
mod patch;
mod record;
mod version;
mod view;

pub use fact::{Fact, Number, Value};
pub use glance::Glance;
pub use patch::Patch;
pub use record::Damaged;
pub use version::Version;

/// Tags of a device: above it they are data, which belongs into attributes or into the app.
pub const MAX_TAGS: usize = 256;
/// Topics of a device.
pub const MAX_TOPICS: usize = 256;
/// Attributes of a device.
pub const MAX_ATTRIBUTES: usize = 64;
/// Vendors of which a device may have a token.
pub const MAX_TOKENS: usize = 8;
/// Bytes of an encoded profile. A node keeps the profiles of its live devices in memory, and reads one for each that returns.
pub const MAX_ENCODED_BYTES: usize = 16 * 1024;
/// Ended facts that are remembered, the newest ones. Beyond it the oldest are forgotten, and count as if they had never been.
pub const MAX_PAST: usize = 64;
/// How long an ended fact is remembered: no push lives longer.
pub const PAST_MS: u64 = MAX_TTL_SECONDS * 1000;

/// What is known of a registered device.
///
/// Changes come as a [`Patch`]; `Serialize` is what the API shows, [`Profile::encode`] what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    facts: BTreeMap<Fact, Held>,
    /// By vendor.
    tokens: BTreeMap<Arc<str>, Arc<str>>,
    /// In the order in which they ended.
    past: Vec<Past>,
    created_ms: u64,
    updated_ms: u64,
}

/// A fact that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it says.
    pub value: Value,
    /// Unix milliseconds of the change that made it so.
    pub since_ms: u64,
}

/// A fact that held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Of what.
    pub fact: Fact,
    /// What it said.
    pub value: Value,
    /// Unix milliseconds of its beginning.
    pub since_ms: u64,
    /// Unix milliseconds of its end, when it held no more.
    pub until_ms: u64,
}

/// What is known of a device at a time; of one without a profile, nothing.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'p> {
    profile: Option<&'p Profile>,
    /// `None`: now.
    at_ms: Option<u64>,
}

impl Profile {
    /// A device of which nothing is known yet but that it exists, since then (Unix milliseconds).
    pub fn new(created_ms: u64) -> Profile {
        Profile {
            facts: BTreeMap::new(),
            tokens: BTreeMap::new(),
            past: Vec::new(),
            created_ms,
            updated_ms: created_ms,
        }
    }

    /// When the device became known, in Unix milliseconds.
    pub fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// When it changed last, in Unix milliseconds: what holds now has held since then.
    pub fn updated_ms(&self) -> u64 {
        self.updated_ms
    }

    /// The facts that hold.
    pub fn facts(&self) -> impl Iterator<Item = (&Fact, &Held)> {
        self.facts.iter()
    }

    /// A fact, if it holds.
    pub fn fact(&self, fact: &Fact) -> Option<&Held> {
        self.facts.get(fact)
    }

    /// The user that it is bound to.
    pub fn user(&self) -> Option<&str> {
        match &self.fact(&Fact::User)?.value {
            Value::Text(user) => Some(user),
            Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// The facts that ended and are remembered, in the order in which they ended.
    pub fn past(&self) -> &[Past] {
        &self.past
    }

    /// A vendor's token.
    pub fn token(&self, vendor: &str) -> Option<&str> {
        self.tokens.get(vendor).map(|token| &**token)
    }

    /// The fields, as in its JSON, that are not the same in `after`.
    pub fn changed_fields(&self, after: &Profile) -> Vec<String> {
        let differing = |from: &Profile, to: &Profile| -> Vec<&'static str> {
            let is_same = |(fact, held): &(&Fact, &Held)| {
                let there = to.fact(fact);
                there.is_some_and(|there| there.value == held.value)
            };
            let facts = from.facts().filter(|one| !is_same(one));
            facts.map(|(fact, _)| fact.field()).collect()
        };
        let mut names = differing(self, after);
        names.extend(differing(after, self));
        names.extend((self.tokens != after.tokens).then_some("tokens"));
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(str::to_owned).collect()
    }

    /// What is known now.
    pub fn present(&self) -> Facts<'_> {
        Facts {
            profile: Some(self),
            at_ms: None,
        }
    }

    /// What was known then (Unix milliseconds). A change of that very millisecond counts as made.
    pub fn as_of(&self, at_ms: u64) -> Facts<'_> {
        Facts {
            profile: Some(self),
            at_ms: (at_ms < self.updated_ms).then_some(at_ms),
        }
    }

    /// The device after a change, or why it cannot be: it would have too much of something.
    ///
    /// A patch that changes nothing gives an equal profile. Time does not go back: a clock behind the last change counts as its time.
    pub fn apply(&self, patch: &Patch, now_ms: u64) -> Result<Profile, Invalid> {
        let at_ms = now_ms.max(self.updated_ms);
        let mut next = self.clone();
        for fact in self.facts.keys().filter(|fact| patch.drops(fact)) {
            next.end(fact, at_ms);
        }
        for (fact, value) in patch.facts() {
            match value {
                Some(value) => next.set(fact, value, at_ms),
                None => next.end(fact, at_ms),
            }
        }
        patch.apply_tokens(&mut next.tokens);
        if next == *self {
            return Ok(next);
        }
        next.updated_ms = at_ms;
        next.check_counts()?;
        next.forget(at_ms);
        next.fit()?;
        Ok(next)
    }

    fn set(&mut self, fact: &Fact, value: &Value, at_ms: u64) {
        if self
            .facts
            .get(fact)
            .is_some_and(|held| held.value == *value)
        {
            return;
        }
        self.end(fact, at_ms);
        let held = Held {
            value: value.clone(),
            since_ms: at_ms,
        };
        self.facts.insert(fact.clone(), held);
    }

    fn end(&mut self, fact: &Fact, at_ms: u64) {
        // One that began in the same millisecond never held at the end of any.
        if let Some(held) = self.facts.remove(fact)
            && held.since_ms < at_ms
        {
            self.past.push(Past {
                fact: fact.clone(),
                value: held.value,
                since_ms: held.since_ms,
                until_ms: at_ms,
            });
        }
    }

    /// Forgets what ended too long ago, and the oldest of what is too much.
    fn forget(&mut self, now_ms: u64) {
        let horizon_ms = now_ms.saturating_sub(PAST_MS);
        let old = self
            .past
            .partition_point(|past| past.until_ms <= horizon_ms);
        let surplus = self.past.len().saturating_sub(MAX_PAST);
        self.past.drain(..old.max(surplus));
    }

    /// Makes the encoded profile fit by forgetting; what holds now is never given up for that.
    fn fit(&mut self) -> Result<(), Invalid> {
        let mut bytes = self.encoded_len();
        while bytes > MAX_ENCODED_BYTES && !self.past.is_empty() {
            self.past.remove(0);
            bytes = self.encoded_len();
        }
        if bytes <= MAX_ENCODED_BYTES {
            return Ok(());
        }
        Err(invalid(
            "",
            format!(
                "the device would take {bytes} bytes to keep: the limit is {MAX_ENCODED_BYTES}; use fewer or shorter tags, topics, attributes and tokens"
            ),
        ))
    }

    fn check_counts(&self) -> Result<(), Invalid> {
        let count = |of: fn(&Fact) -> bool| self.facts.keys().filter(|fact| of(fact)).count();
        let counts = [
            ("tags", count(|fact| matches!(fact, Fact::Tag(_))), MAX_TAGS),
            (
                "topics",
                count(|fact| matches!(fact, Fact::Topic(_))),
                MAX_TOPICS,
            ),
            (
                "attributes",
                count(|fact| matches!(fact, Fact::Attribute(_))),
                MAX_ATTRIBUTES,
            ),
            ("tokens", self.tokens.len(), MAX_TOKENS),
        ];
        for (what, found, most) in counts {
            if found > most {
                return Err(invalid(
                    &format!("/{what}"),
                    format!(
                        "the device would have {found} {what}: at most {most}; remove some in the same request"
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl<'p> Facts<'p> {
    /// Of a device that nothing is known of.
    pub const NONE: Facts<'static> = Facts {
        profile: None,
        at_ms: None,
    };

    /// What a fact said at that time.
    pub fn value(&self, fact: &Fact) -> Option<&'p Value> {
        let profile = self.profile?;
        let held = profile.facts.get(fact);
        let Some(at_ms) = self.at_ms else {
            return held.map(|held| &held.value);
        };
        if let Some(held) = held.filter(|held| held.since_ms <= at_ms) {
            return Some(&held.value);
        }
        profile
            .past
            .iter()
            .rev()
            .take_while(|past| past.until_ms > at_ms)
            .find(|past| past.since_ms <= at_ms && past.fact == *fact)
            .map(|past| &past.value)
    }
}

#[cfg(test)]
mod tests;
