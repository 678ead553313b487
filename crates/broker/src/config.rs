//! Settings of the broker's rules.

use campanile_mqtt::QoS;

/// Limits and policies, the same for all shards of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Largest packet that a client may send, bytes; announced as Maximum Packet Size. 1 MiB.
    pub max_packet_bytes: u32,
    /// Largest payload of a PUBLISH, bytes; a larger one is refused with 0x95 (5.0: DISCONNECT). 1 MiB.
    pub max_payload_bytes: u32,
    /// Most levels of a topic name or filter. 200.
    pub max_topic_levels: u16,
    /// Longest keep-alive, seconds; a longer one, or none, is replaced by it for 5.0 clients (Server Keep Alive) and obeyed silently
    /// for older ones. 0: no limit. 0.
    pub max_keep_alive_seconds: u16,
    /// QoS 1 and 2 messages that a client may have under way to us; announced as Receive Maximum. 20.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages that we have under way to a client at most, whatever it allows. 1,000.
    pub max_inflight: u16,
    /// Messages that wait in memory for a slow client, beside its logs and inbox; the newest is dropped at the limit. 1,000.
    pub max_queued_messages: u32,
    /// Bytes that wait in memory for a slow client; the newest message is dropped at the limit. 1 MiB.
    pub max_queued_bytes: u32,
    /// Topic aliases that a client may use towards us. 16.
    pub topic_alias_maximum: u16,
    /// Topic aliases that we use towards a client, if it allows that many. 16.
    pub max_outgoing_aliases: u16,
    /// Longest Session Expiry Interval, seconds; a longer one is cut. 30 days. `u32::MAX`: no limit.
    pub max_session_expiry_seconds: u32,
    /// Session expiry of a 3.x client that connects with clean session 0, seconds; cut to the maximum. 30 days.
    pub v3_session_expiry_seconds: u32,
    /// Whether messages may be retained.
    pub retain_available: bool,
    /// Highest quality of service that clients may publish with and are granted.
    pub max_qos: QoS,
    /// Whether a client may leave its identifier empty.
    pub allow_empty_client_id: bool,
    /// Time from accept to the whole CONNECT, seconds. 10.
    pub connect_timeout_seconds: u16,
    /// Subscriptions of one session at most; more are refused with 0x97. 10,000.
    pub max_subscriptions: u32,
    /// Retained messages of all apps at most; more are refused with 0x97. 1,000,000.
    pub max_retained: u32,
    /// Partitions of an app's topic log, 1..=255. 1.
    pub topic_partitions: u8,
    /// Entries of each log that a shard keeps in memory for clients that lag or return. 4,096.
    pub tail_entries: u32,
    /// Bytes of messages in those tails, per shard and log. 8 MiB.
    pub tail_bytes: u32,
    /// Requests of a shard that the store has not answered; above it, what needs durability is refused with 0x97. 20,000.
    pub max_pending_requests: u32,
    /// Base of Response Information for clients that ask; the client id is appended. "": none is given.
    pub response_information: String,
    /// Named as Server Reference when the node stops or refuses for being full. "": none.
    pub server_reference: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_packet_bytes: 1 << 20,
            max_payload_bytes: 1 << 20,
            max_topic_levels: 200,
            max_keep_alive_seconds: 0,
            receive_maximum: 20,
            max_inflight: 1000,
            max_queued_messages: 1000,
            max_queued_bytes: 1 << 20,
            topic_alias_maximum: 16,
            max_outgoing_aliases: 16,
            max_session_expiry_seconds: 30 * 86_400,
            v3_session_expiry_seconds: 30 * 86_400,
            retain_available: true,
            max_qos: QoS::ExactlyOnce,
            allow_empty_client_id: true,
            connect_timeout_seconds: 10,
            max_subscriptions: 10_000,
            max_retained: 1_000_000,
            topic_partitions: 1,
            tail_entries: 4096,
            tail_bytes: 8 << 20,
            max_pending_requests: 20_000,
            response_information: "response/".to_owned(),
            server_reference: String::new(),
        }
    }
}
