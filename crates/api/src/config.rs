//! Settings of the HTTP API.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of the HTTP API. Every wait and every size that a caller can influence has its bound here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Bytes of a push's `notification` and `data` together, without white space.
    pub max_payload_bytes: usize,
    /// Connections at a time. More wait in the listener's backlog.
    pub max_connections: usize,
    /// Milliseconds for a request's head to arrive, and for which a connection may stay open without a request.
    pub head_timeout_ms: u64,
    /// Milliseconds for a request's body to arrive.
    pub body_timeout_ms: u64,
    /// Milliseconds to wait for the store. A write that takes longer may still happen; the caller is told so.
    pub store_timeout_ms: u64,
    /// Milliseconds that requests may still take when the node stops.
    pub drain_timeout_ms: u64,
    /// Event streams open at a time; more are refused.
    pub max_event_streams: usize,
    /// What is sent to receivers of webhooks and callbacks.
    pub webhooks: Webhooks,
}

/// Settings of what is sent to receivers of webhooks and callbacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// Milliseconds for a receiver to answer.
    pub timeout_ms: u64,
    /// Requests under way at a time, of all apps.
    pub max_in_flight: usize,
    /// Whether addresses may be `http`, which anybody on the way can read and forge.
    pub allow_http: bool,
    /// Whether receivers may be on this machine or in private networks. Whoever may make a webhook could reach what only we can reach.
    pub allow_private_targets: bool,
}

impl Default for Webhooks {
    fn default() -> Webhooks {
        Webhooks {
            timeout_ms: 10_000,
            max_in_flight: 64,
            allow_http: false,
            allow_private_targets: false,
        }
    }
}

impl Webhooks {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_body_bytes: 64 * 1024,
            max_payload_bytes: 4096,
            max_connections: 4096,
            head_timeout_ms: 30_000,
            body_timeout_ms: 10_000,
            store_timeout_ms: 10_000,
            drain_timeout_ms: 5_000,
            max_event_streams: 256,
            webhooks: Webhooks::default(),
        }
    }
}

impl Config {
    /// Everything that is wrong with it, as (key, rule).
    pub fn mistakes(&self) -> Vec<(&'static str, &'static str)> {
        let rules = [
            (
                self.max_body_bytes >= 1024,
                "max_body_bytes",
                "at least 1024",
            ),
            (
                self.max_body_bytes <= 16 << 20,
                "max_body_bytes",
                "at most 16777216, since every connection may hold one body",
            ),
            (
                self.max_payload_bytes >= 2,
                "max_payload_bytes",
                "at least 2",
            ),
            (
                self.max_payload_bytes <= self.max_body_bytes,
                "max_payload_bytes",
                "at most max_body_bytes",
            ),
            (self.max_connections >= 1, "max_connections", "at least 1"),
            (self.head_timeout_ms >= 1, "head_timeout_ms", "at least 1"),
            (self.body_timeout_ms >= 1, "body_timeout_ms", "at least 1"),
            (self.store_timeout_ms >= 1, "store_timeout_ms", "at least 1"),
            (
                self.webhooks.max_in_flight >= 1,
                "webhooks.max_in_flight",
                "at least 1",
            ),
            (
                self.webhooks.timeout_ms >= 1,
                "webhooks.timeout_ms",
                "at least 1",
            ),
        ];
        rules
            .into_iter()
            .filter(|(holds, ..)| !holds)
            .map(|(_, key, rule)| (key, rule))
            .collect()
    }

    pub(crate) fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.head_timeout_ms)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub(crate) fn store_timeout(&self) -> Duration {
        Duration::from_millis(self.store_timeout_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn defaults_are_sound_and_mistakes_are_all_named() {
        assert_eq!(Config::default().mistakes(), []);
        let bad = Config {
            max_connections: 0,
            max_payload_bytes: 1 << 20,
            ..Config::default()
        };
        let keys: Vec<_> = bad.mistakes().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["max_payload_bytes", "max_connections"]);
    }
}
