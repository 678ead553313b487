//! What a server allows. MQTT 5.0 section 3.2.2.3.

use crate::{Properties, QoS};

/// What the server of a connection allows, from its CONNACK. Before 5.0 a server does not say; then these are the widest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Seconds between packets; the server's word overrides the client's [MQTT-3.2.2-21].
    pub keep_alive: u16,
    /// Seconds that the session outlives the connection.
    pub session_expiry: u32,
    /// QoS 1 and 2 messages under way to the server, 1..=65535.
    pub receive_maximum: u16,
    /// Highest QoS of a PUBLISH.
    pub maximum_qos: QoS,
    /// Whether a PUBLISH may have the retain flag.
    pub retain: bool,
    /// Bytes of a packet.
    pub maximum_packet_size: u32,
    /// Highest topic alias of a PUBLISH to the server.
    pub topic_alias_maximum: u16,
    /// Whether topic filters may have wildcards.
    pub wildcard_subscriptions: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_ids: bool,
    /// Whether subscriptions may be shared.
    pub shared_subscriptions: bool,
}

impl Limits {
    /// The widest limits, and no aliases.
    pub(super) const UNTIL_CONNACK: Limits = Limits {
        keep_alive: 0,
        session_expiry: 0,
        receive_maximum: u16::MAX,
        maximum_qos: QoS::ExactlyOnce,
        retain: true,
        maximum_packet_size: super::options::LARGEST_PACKET_BYTES,
        topic_alias_maximum: 0,
        wildcard_subscriptions: true,
        subscription_ids: true,
        shared_subscriptions: true,
    };

    /// Reads the properties of a CONNACK; for keep alive and session expiry, `self` is what the client asked for.
    pub(super) fn granted(&self, connack: Properties<'_>) -> Limits {
        let widest = Limits::UNTIL_CONNACK;
        Limits {
            keep_alive: connack.server_keep_alive().unwrap_or(self.keep_alive),
            session_expiry: connack.session_expiry().unwrap_or(self.session_expiry),
            receive_maximum: connack.receive_maximum().unwrap_or(widest.receive_maximum),
            maximum_qos: connack.maximum_qos().unwrap_or(widest.maximum_qos),
            retain: connack.retain_available().unwrap_or(widest.retain),
            maximum_packet_size: connack
                .maximum_packet_size()
                .map_or(widest.maximum_packet_size, |bytes| {
                    bytes.min(widest.maximum_packet_size)
                }),
            topic_alias_maximum: connack.topic_alias_maximum().unwrap_or(0),
            wildcard_subscriptions: connack.wildcard_subscription_available().unwrap_or(true),
            subscription_ids: connack.subscription_ids_available().unwrap_or(true),
            shared_subscriptions: connack.shared_subscription_available().unwrap_or(true),
        }
    }
}
