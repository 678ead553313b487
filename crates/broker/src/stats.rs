//! What a shard counts.

/// Counters (since start) and gauges of one shard. The driver copies them where others read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    /// Gauges.
    pub connections: u64,
    pub durable_sessions_live: u64,
    pub subscriptions: u64,
    pub subscriptions_filters: u64,
    pub retained_messages: u64,
    pub queued_messages: u64,
    pub queued_bytes: u64,
    pub inflight: u64,
    pub pending_requests: u64,
    /// Counters.
    pub connects: u64,
    pub connects_refused: u64,
    pub takeovers: u64,
    /// Clients that were sent to another node to relieve this one.
    pub moved: u64,
    pub disconnects: u64,
    pub protocol_errors: u64,
    pub keep_alive_timeouts: u64,
    pub credentials_expired: u64,
    pub kicked: u64,
    /// PUBLISH packets by quality of service.
    pub publishes_in: [u64; 3],
    pub publishes_out: [u64; 3],
    pub publish_bytes_in: [u64; 3],
    pub publish_bytes_out: [u64; 3],
    pub packets_in: u64,
    pub packets_out: u64,
    /// Pushes delivered: acknowledged by their device.
    pub pushes_acknowledged: u64,
    pub wills_published: u64,
    /// Messages not delivered to a client, by reason.
    pub dropped_queue_full: u64,
    pub dropped_expired: u64,
    pub dropped_too_large: u64,
    pub dropped_gap: u64,
    /// Messages that had no receiver at all.
    pub unrouted: u64,
    /// Requests refused because the store was unavailable or too far behind.
    pub refused_store: u64,
}
