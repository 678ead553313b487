//! Retained messages of an app, by topic.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use campanile_mqtt::topic;

use crate::{ids::Millis, message::Message};

/// Topic to message, in order, so that a filter looks only at topics that begin as it does.
#[derive(Debug, Default)]
pub struct Retained {
    by_topic: BTreeMap<Arc<str>, Arc<Message>>,
}

impl Retained {
    /// Retains a message under its topic.
    pub fn set(&mut self, topic: Arc<str>, message: Arc<Message>) {
        self.by_topic.insert(topic, message);
    }

    /// Retains nothing under a topic any more.
    pub fn remove(&mut self, topic: &str) {
        self.by_topic.remove(topic);
    }

    /// Number of topics.
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Whether something is retained under a topic.
    pub fn contains(&self, topic: &str) -> bool {
        self.by_topic.contains_key(topic)
    }

    /// Messages whose topic matches a valid filter and that have not expired, by topic.
    pub fn matching(&self, filter: &str, now: Millis) -> Vec<Arc<Message>> {
        if !topic::has_wildcard(filter) {
            let found = self
                .by_topic
                .get(filter)
                .filter(|message| !message.is_expired(now));
            return found.cloned().into_iter().collect();
        }
        // The literal levels before the first wildcard. "a/#" matches "a" too, so the slash before the wildcard does not count.
        let literal = filter.split(['+', '#']).next().unwrap_or_default();
        let prefix = literal.strip_suffix('/').unwrap_or(literal);
        self.by_topic
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .filter(|(name, message)| topic::matches(filter, name) && !message.is_expired(now))
            .map(|(_, message)| message.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::MessageId, message::Kind};

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        retained
            .matching(filter, Millis(0))
            .iter()
            .map(|m| m.topic().to_owned())
            .collect()
    }

    #[test]
    fn filters_find_what_they_match_and_nothing_else() {
        let mut retained = Retained::default();
        for topic in ["a", "a/b", "a/b/c", "ab", "b", "$x/y"] {
            let message = Message::new(MessageId(1), Kind::Publish, topic, &[], b"x");
            retained.set(topic.into(), Arc::new(message));
        }
        for (filter, expected) in [
            ("a/#", vec!["a", "a/b", "a/b/c"]),
            ("a", vec!["a"]),
            ("+", vec!["a", "ab", "b"]),
            ("+/+", vec!["a/b"]),
            ("#", vec!["a", "a/b", "a/b/c", "ab", "b"]),
            ("$x/#", vec!["$x/y"]),
            ("a/+/c", vec!["a/b/c"]),
            ("c", vec![]),
        ] {
            assert_eq!(topics(&retained, filter), expected, "{filter}");
        }
        retained.remove("a/b");
        assert_eq!(topics(&retained, "a/#"), ["a", "a/b/c"]);
    }
}
