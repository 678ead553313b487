//! Bounds and retention times of stored state.

/// Changes of an app that a store keeps which nodes share; the oldest are forgotten. A node that missed more reads everything anew.
pub const MAX_CHANGES: u64 = 65_536;
/// Notes that wait in one node's mailbox; the oldest are forgotten. A node that missed more looks into all its inboxes.
pub const MAX_NOTES: u64 = 65_536;
/// How long after a will was due a sweep of a shared store hands it out: its node has had the time to publish it, so that it must have died.
pub const WILL_GRACE_MS: u64 = 5_000;
/// How long after a sweep handed a will out another one does: whoever got it must have died too.
pub const WILL_AGAIN_MS: u64 = 30_000;

/// Bounds and retention times of stored state; the same for every backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Entries of one inbox; at the limit the least urgent are dropped, of those the oldest.
    pub inbox_max_entries: u32,
    /// Bytes of topics, properties and payloads in one inbox; at the limit the same are dropped.
    pub inbox_max_bytes: u64,
    /// How long a push's report is kept after the push expired, in milliseconds.
    pub push_retention_ms: u64,
    /// How long an entry of a topic log is kept, in milliseconds.
    pub topic_log_max_age_ms: u64,
    /// Bytes of one topic log partition; at the limit the oldest entries are trimmed.
    pub topic_log_max_bytes: u64,
    /// Topic log partitions of an app, 1..=255.
    pub topic_partitions: u8,
    /// Several nodes use the store: it keeps whose each connection is, and what other nodes must be told.
    pub shared: bool,
}

impl Default for Config {
    fn default() -> Config {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        Config {
            inbox_max_entries: 1000,
            inbox_max_bytes: 4 * 1024 * 1024,
            push_retention_ms: 7 * DAY_MS,
            topic_log_max_age_ms: 7 * DAY_MS,
            topic_log_max_bytes: 1024 * 1024 * 1024,
            topic_partitions: 1,
            shared: false,
        }
    }
}
