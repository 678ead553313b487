//! `[limits]`: the same for all listeners.

use campanile_mqtt::QoS;

use super::reader::Reader;

/// Reads the section; its settings are the broker's own.
pub(super) fn read_limits(limits: &mut campanile_broker::config::Config, keys: &mut Reader<'_>) {
    keys.bytes(
        "max_packet_bytes",
        &mut limits.max_packet_bytes,
        1024..=268_435_460,
    ); // MQTT's own bound.
    keys.bytes(
        "max_payload_bytes",
        &mut limits.max_payload_bytes,
        0..=268_435_455,
    );
    keys.integer("max_topic_levels", &mut limits.max_topic_levels, 1..=65_535);
    keys.seconds(
        "max_keep_alive",
        &mut limits.max_keep_alive_seconds,
        0..=65_535,
    );
    keys.integer("receive_maximum", &mut limits.receive_maximum, 1..=65_535);
    keys.integer("max_inflight", &mut limits.max_inflight, 1..=65_535);
    keys.integer(
        "max_queued_messages",
        &mut limits.max_queued_messages,
        1..=10_000_000,
    );
    keys.bytes(
        "max_queued_bytes",
        &mut limits.max_queued_bytes,
        1024..=1 << 31,
    );
    keys.integer(
        "topic_alias_maximum",
        &mut limits.topic_alias_maximum,
        0..=65_535,
    );
    keys.integer(
        "max_outgoing_aliases",
        &mut limits.max_outgoing_aliases,
        0..=65_535,
    );
    keys.seconds_or_unlimited("max_session_expiry", &mut limits.max_session_expiry_seconds);
    keys.seconds_or_unlimited("v3_session_expiry", &mut limits.v3_session_expiry_seconds);
    keys.boolean("retain_available", &mut limits.retain_available);
    let qualities = [
        ("0", QoS::AtMostOnce),
        ("1", QoS::AtLeastOnce),
        ("2", QoS::ExactlyOnce),
    ];
    let mut quality = limits.max_qos as u8;
    keys.integer("max_qos", &mut quality, 0..=2);
    limits.max_qos = qualities[usize::from(quality)].1;
    keys.boolean("allow_empty_client_id", &mut limits.allow_empty_client_id);
    keys.seconds(
        "connect_timeout",
        &mut limits.connect_timeout_seconds,
        1..=3600,
    );
    keys.integer(
        "max_subscriptions",
        &mut limits.max_subscriptions,
        1..=10_000_000,
    );
    keys.integer("max_retained", &mut limits.max_retained, 0..=100_000_000);
    keys.integer("topic_partitions", &mut limits.topic_partitions, 1..=255);
    keys.integer("tail_entries", &mut limits.tail_entries, 1..=10_000_000);
    keys.bytes("tail_bytes", &mut limits.tail_bytes, 1024..=1 << 31);
    keys.integer(
        "max_pending_requests",
        &mut limits.max_pending_requests,
        1..=100_000_000,
    );
    keys.text(
        "response_information",
        &mut limits.response_information,
        mqtt_string,
    );
}

/// What can stand in a property of a packet.
pub(super) fn mqtt_string(text: &str) -> Result<(), String> {
    if text.len() > 65_535 || text.contains(char::is_control) {
        return Err(format!(
            "{text:?}: at most 65535 bytes, without control characters"
        ));
    }
    Ok(())
}
