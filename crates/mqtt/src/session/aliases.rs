//! Numbers that stand for topics on one connection. MQTT 5.0 section 3.3.2.3.4.

use crate::Reason;

/// What the sender's topic aliases stand for.
#[derive(Clone, Debug)]
pub struct AliasesIn {
    /// By alias minus one; empty where there is no mapping. At most `maximum`.
    topics: Vec<Box<str>>,
    maximum: u16,
}

/// Why a topic alias cannot be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// 0, or above the maximum that the receiver set.
    #[error("topic alias {0}: must be 1..=the topic alias maximum [MQTT-3.3.2-8] [MQTT-3.3.2-9]")]
    OutOfRange(u16),
    /// Came without a topic before it came with one.
    #[error("topic alias {0}: stands for no topic yet [MQTT-3.3.2-7]")]
    Unmapped(u16),
}

impl AliasError {
    /// What to disconnect with.
    pub const fn reason(self) -> Reason {
        match self {
            AliasError::OutOfRange(_) => Reason::TopicAliasInvalid,
            AliasError::Unmapped(_) => Reason::ProtocolError,
        }
    }
}

impl AliasesIn {
    /// No mappings; the sender may use aliases 1..=`maximum`, each of which can hold a topic of up to 65535 bytes.
    pub const fn new(maximum: u16) -> AliasesIn {
        AliasesIn {
            topics: Vec::new(),
            maximum,
        }
    }

    /// The topic of a PUBLISH that carries `alias`. A `topic` that is not empty becomes what the alias stands for.
    pub fn resolve<'a>(&'a mut self, alias: u16, topic: &'a str) -> Result<&'a str, AliasError> {
        if alias == 0 || alias > self.maximum {
            return Err(AliasError::OutOfRange(alias));
        }
        let index = usize::from(alias) - 1;
        if !topic.is_empty() {
            if index >= self.topics.len() {
                self.topics.resize_with(index + 1, Box::default);
            }
            if *self.topics[index] != *topic {
                self.topics[index] = topic.into();
            }
            return Ok(topic);
        }
        match self.topics.get(index) {
            Some(topic) if !topic.is_empty() => Ok(topic),
            _ => Err(AliasError::Unmapped(alias)),
        }
    }
}

/// Which topics have a number on the way out. When all numbers are taken, the topic that was unused for longest gives up its own.
#[derive(Clone, Debug)]
pub struct AliasesOut {
    /// By alias minus one. At most `maximum`.
    mappings: Vec<Mapping>,
    uses: u32,
    maximum: u16,
}

#[derive(Clone, Debug)]
struct Mapping {
    topic: Box<str>,
    last_use: u32,
}

impl AliasesOut {
    /// No mappings; aliases 1..=`maximum` are allowed: the receiver's maximum or less. Topics are searched one by one, so keep it to some tens.
    pub const fn new(maximum: u16) -> AliasesOut {
        AliasesOut {
            mappings: Vec::new(),
            uses: 0,
            maximum,
        }
    }

    /// The alias of a topic, and whether the topic must be sent with it; `None` if aliases are not allowed.
    ///
    /// The receiver learns the mapping from the PUBLISH, so ask only for one that will surely be written.
    pub fn assign(&mut self, topic: &str) -> Option<(u16, bool)> {
        if self.maximum == 0 {
            return None;
        }
        self.uses = self.uses.wrapping_add(1);
        let last_use = self.uses;
        if let Some(index) = self
            .mappings
            .iter()
            .position(|mapping| *mapping.topic == *topic)
        {
            self.mappings[index].last_use = last_use;
            return Some((index as u16 + 1, false));
        }
        let mapping = Mapping {
            topic: topic.into(),
            last_use,
        };
        if self.mappings.len() < usize::from(self.maximum) {
            self.mappings.push(mapping);
            return Some((self.mappings.len() as u16, true));
        }
        let (index, oldest) = self
            .mappings
            .iter_mut()
            .enumerate()
            .max_by_key(|(_, mapping)| last_use.wrapping_sub(mapping.last_use))?;
        *oldest = mapping;
        Some((index as u16 + 1, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_small() {
        assert!(size_of::<AliasesIn>() <= 32 && size_of::<AliasesOut>() <= 32);
    }

    #[test]
    fn incoming_alias_stands_for_its_last_topic() {
        let mut aliases = AliasesIn::new(2);
        assert_eq!(aliases.resolve(2, ""), Err(AliasError::Unmapped(2)));
        assert_eq!(aliases.resolve(2, "a"), Ok("a"));
        assert_eq!(aliases.resolve(2, ""), Ok("a"));
        assert_eq!(aliases.resolve(2, "b"), Ok("b"));
        assert_eq!(aliases.resolve(2, ""), Ok("b"));
        assert_eq!(aliases.resolve(1, ""), Err(AliasError::Unmapped(1)));
        for alias in [0, 3] {
            let error = aliases.resolve(alias, "a").unwrap_err();
            assert_eq!(error.reason().code(), 0x94);
        }
    }

    #[test]
    fn outgoing_topic_is_sent_once_until_its_alias_is_given_away() {
        let mut aliases = AliasesOut::new(2);
        assert_eq!(aliases.assign("a"), Some((1, true)));
        assert_eq!(aliases.assign("b"), Some((2, true)));
        assert_eq!(aliases.assign("a"), Some((1, false)));
        assert_eq!(
            aliases.assign("c"),
            Some((2, true)),
            "b was unused for longest"
        );
        assert_eq!(aliases.assign("b"), Some((1, true)));
        assert_eq!(AliasesOut::new(0).assign("a"), None);
    }
}
