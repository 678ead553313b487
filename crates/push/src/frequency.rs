//! How often a device gets pushes of a kind: decided at delivery, from what the device got lately.

use std::collections::VecDeque;

use prost::Message;

use crate::hash;

/// Most pushes that a cap may allow in its time: half of what a device remembers.
pub const MAX_CAP_COUNT: u64 = 32;
/// Shortest time of a cap, in seconds.
pub const MIN_CAP_SECONDS: u64 = 60;
/// Longest time of a cap: 30 days, in seconds.
pub const MAX_CAP_SECONDS: u64 = 30 * 24 * 60 * 60;
/// Deliveries that a device remembers, over all keys. The oldest is forgotten first: a device that gets more than this within the time
/// of a cap may get one more than the cap says.
pub const MAX_REMEMBERED: usize = 64;

/// At most `count` pushes with this key per device in any `per_seconds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrequencyCap {
    /// What is counted together, 1..=64 bytes; an app's own.
    pub key: String,
    /// 1..=32.
    pub count: u64,
    /// 60..=2,592,000 (30 days).
    pub per_seconds: u64,
}

/// Capped pushes that a device got lately: at most [`MAX_REMEMBERED`], the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Two keys may share a hash: once in four billion pairs they are capped together.
    key: u32,
    at_seconds: u64,
}

impl History {
    /// Until when the cap holds the device back, in Unix milliseconds; `None`: it may get the push now.
    pub fn capped_until(&self, cap: &FrequencyCap, now_ms: u64) -> Option<u64> {
        let key = hash::of_text(&cap.key);
        let since = (now_ms / 1000).saturating_sub(cap.per_seconds);
        let within: Vec<u64> = self
            .entries
            .iter()
            .filter(|entry| entry.key == key && entry.at_seconds > since)
            .map(|entry| entry.at_seconds)
            .collect();
        let excess = within.len().checked_sub(cap.count as usize)?;
        Some((within[excess] + cap.per_seconds) * 1000)
    }

    /// Remembers a delivery.
    pub fn remember(&mut self, cap: &FrequencyCap, now_ms: u64) {
        let last = self.entries.back().map_or(0, |entry| entry.at_seconds);
        self.entries.push_back(Entry {
            key: hash::of_text(&cap.key),
            // Entries stay in order also when the clock goes back.
            at_seconds: (now_ms / 1000).max(last),
        });
        let forgotten = (now_ms / 1000).saturating_sub(MAX_CAP_SECONDS);
        while self.entries.len() > MAX_REMEMBERED
            || self
                .entries
                .front()
                .is_some_and(|oldest| oldest.at_seconds < forgotten)
        {
            self.entries.pop_front();
        }
    }

    /// The bytes to store; none if it remembers nothing.
    pub fn encode(&self) -> Vec<u8> {
        let mut before = 0;
        let mut record = Record::default();
        for entry in &self.entries {
            record.keys.push(entry.key);
            record.elapsed.push(entry.at_seconds - before);
            before = entry.at_seconds;
        }
        record.encode_to_vec()
    }

    /// The history that was stored.
    pub fn decode(bytes: &[u8]) -> Result<History, prost::DecodeError> {
        let record = Record::decode(bytes)?;
        let times = record.elapsed.iter().scan(0_u64, |at, elapsed| {
            *at = at.saturating_add(*elapsed);
            Some(*at)
        });
        let entries = record.keys.iter().zip(times).take(MAX_REMEMBERED);
        Ok(History {
            entries: entries
                .map(|(key, at_seconds)| Entry {
                    key: *key,
                    at_seconds,
                })
                .collect(),
        })
    }
}

/// Two columns; times as seconds since the entry before.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(fixed32, repeated, tag = "1")]
    keys: Vec<u32>,
    #[prost(uint64, repeated, tag = "2")]
    elapsed: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cap(key: &str, count: u64, per_seconds: u64) -> FrequencyCap {
        FrequencyCap {
            key: key.into(),
            count,
            per_seconds,
        }
    }

    #[test]
    fn two_a_day_are_two_in_any_day() {
        let offers = cap("offers", 2, 86_400);
        let mut history = History::default();
        let hour = 3_600_000;
        let start = 1_795_413_600_000;
        for at in [start, start + hour] {
            assert_eq!(history.capped_until(&offers, at), None);
            history.remember(&offers, at);
        }
        assert_eq!(
            history.capped_until(&offers, start + 2 * hour),
            Some(start + 24 * hour)
        );
        assert_eq!(history.capped_until(&cap("news", 1, 60), start), None);
        assert_eq!(history.capped_until(&offers, start + 24 * hour), None);
    }

    proptest! {
        #[test]
        fn a_cap_is_never_exceeded_and_survives_storage(
            steps in prop::collection::vec((0..3_usize, 0..100_000_u64), 0..300),
        ) {
            let caps = [cap("a", 1, 60), cap("b", 3, 600), cap("c", 20, 3600)];
            let mut history = History::default();
            let mut sent: [Vec<u64>; 3] = Default::default();
            let mut now = 1_795_413_600_000;
            for (which, elapsed) in steps {
                now += elapsed;
                let cap = &caps[which];
                match history.capped_until(cap, now) {
                    None => {
                        history.remember(cap, now);
                        sent[which].push(now);
                    }
                    Some(until) => prop_assert!(until > now && history.capped_until(cap, until).is_none()),
                }
                history = History::decode(&history.encode()).unwrap();
                prop_assert!(history.entries.len() <= MAX_REMEMBERED);
                let since = now.saturating_sub((cap.per_seconds - 1) * 1000);
                let lately = sent[which].iter().filter(|at| **at > since).count();
                prop_assert!(lately as u64 <= cap.count);
            }
        }
    }
}
