//! Malformed packets and protocol errors, section 4.13.

use campanile_mqtt::{Property, Reason, Version};
use campanile_sim::{packets::*, pair::Pair};

use super::V;
use crate::rules::{
    clean,
    malformed::{
        a_packet_that_is_too_large_closes_the_connection, check, violations_close_the_connection,
    },
    store,
};

#[test]
fn mqtt_4_13_1_1_a_malformed_packet_or_protocol_error_closes_the_connection() {
    violations_close_the_connection(V);
    a_packet_that_is_too_large_closes_the_connection(V);
}

#[test]
fn mqtt_4_13_2_1_with_a_reason_of_0x80_or_more_the_connection_is_closed() {
    let mut pair = Pair::new();
    // By the client.
    let wire = pair.connect(clean(V, "a"));
    pair.send(wire, disconnect().reason(Reason::UnspecifiedError));
    pair.expect_closed(wire);
    // By the server, in CONNACK and DISCONNECT.
    let wire = pair.try_connect(clean(V, "a").with(Property::AuthMethod("unknown")));
    pair.expect_refused(wire, Reason::BadAuthenticationMethod);
    let wire = pair.connect(clean(V, "a"));
    pair.send(wire, publish("a", "x").with(Property::TopicAlias(17)));
    pair.expect_disconnect(wire, Reason::TopicAliasInvalid);
}

#[test]
fn properties_must_belong_to_their_packet() {
    use Reason::{MalformedPacket, ProtocolError};
    let table = [
        // Session Expiry Interval in PUBLISH, SUBSCRIBE, PUBACK and UNSUBSCRIBE.
        ("30 0b 0001 61 05 11 00000001 78 79", MalformedPacket),
        ("82 0b 0001 05 11 00000001 0001 61 00", MalformedPacket),
        ("40 09 0001 00 05 11 00000001", MalformedPacket),
        ("a2 0a 0001 05 11 00000001 0001 61", MalformedPacket),
        // An identifier that nobody has.
        ("30 06 0001 61 02 7f 00", MalformedPacket),
        // Twice what may come once: message expiry, payload format, topic alias, content type.
        ("30 0f 0001 61 0a 02 00000001 02 00000001 78", ProtocolError),
        ("30 08 0001 61 04 01 01 01 01", ProtocolError),
        ("30 0a 0001 61 06 23 0001 23 0001", ProtocolError),
        ("30 0c 0001 61 08 03 0001 61 03 0001 61", ProtocolError),
        // Twice in DISCONNECT and AUTH.
        ("e0 0c 00 0a 11 00000001 11 00000001", ProtocolError),
        ("f0 0c 19 0a 15 0002 6161 15 0002 6161", ProtocolError),
        // Two subscription identifiers in SUBSCRIBE, and one of 0.
        ("82 0a 0001 04 0b 01 0b 02 0001 61 00", ProtocolError),
        ("82 08 0001 02 0b 00 0001 61 00", ProtocolError),
        // A flag that is neither 0 nor 1.
        ("30 06 0001 61 02 01 02", ProtocolError),
        // A property length that goes beyond the packet, or is longer than its four bytes.
        ("30 06 0001 61 7f 01 01", MalformedPacket),
        ("30 09 0001 61 ff ff ff ff 01", MalformedPacket),
        // An integer that is longer than it need be: subscription identifier 1 in two bytes, property length 0 in two.
        ("82 09 0001 03 0b 81 00 0001 61 00", MalformedPacket),
        ("30 05 0001 61 80 00", MalformedPacket),
        // A user property that is no UTF-8.
        ("30 0b 0001 61 07 26 0001 ff 0001 61", MalformedPacket),
        // A response topic with a wildcard.
        ("30 08 0001 61 04 08 0001 23", ProtocolError),
        // No local on a shared subscription.
        ("82 10 0001 00 000a 24736861 72652f672f61 04", ProtocolError),
        // Retain handling 3.
        ("82 07 0001 00 0001 61 30", ProtocolError),
        // Reason codes that the packet does not have.
        ("40 03 0001 01", ProtocolError),
        ("62 03 0001 80", ProtocolError),
    ];
    for (bytes, reason) in table {
        check(V, bytes, bytes, reason);
    }
}

#[test]
fn a_remaining_length_that_is_longer_than_it_need_be_is_malformed() {
    check(
        V,
        "PINGREQ of length 0 in two bytes",
        "c0 80 00",
        Reason::MalformedPacket,
    );
}

#[test]
fn a_malformed_connect_is_answered_if_its_version_is_known() {
    let mut pair = Pair::new();
    let table = [
        // The reserved flag.
        (
            "10 0e 0004 4d515454 05 03 0000 00 0001 61",
            Reason::MalformedPacket,
        ),
        // A receive maximum, or a maximum packet size, of 0.
        (
            "10 11 0004 4d515454 05 02 0000 03 21 0000 0001 61",
            Reason::ProtocolError,
        ),
        (
            "10 13 0004 4d515454 05 02 0000 05 27 00000000 0001 61",
            Reason::ProtocolError,
        ),
        // Authentication data without a method.
        (
            "10 12 0004 4d515454 05 02 0000 04 16 0001 61 0001 61",
            Reason::ProtocolError,
        ),
        // Session expiry twice.
        (
            "10 18 0004 4d515454 05 02 0000 0a 11 00000001 11 00000001 0001 61",
            Reason::ProtocolError,
        ),
        // A later version.
        (
            "10 0e 0004 4d515454 06 02 0000 00 0001 61",
            Reason::UnsupportedProtocolVersion,
        ),
    ];
    for (bytes, reason) in table {
        let wire = pair.open(V);
        pair.send_bytes(wire, &hex(bytes));
        pair.expect_refused(wire, reason);
    }
    // One of a version that knows no reasons is not answered in words that it does not know.
    let wire = pair.open(Version::V311);
    pair.send_bytes(wire, &hex("10 0d 0004 4d515454 04 03 0000 0001 61"));
    pair.expect_closed(wire);
}

#[test]
fn a_store_that_fails_is_not_the_end() {
    store::what_cannot_be_kept_is_not_acknowledged(V);
    store::what_needs_no_store_goes_on_without_it(V);
    store::a_durable_subscription_that_cannot_be_kept_is_refused(V);
    store::a_durable_session_that_cannot_be_kept_is_refused(V);
}
