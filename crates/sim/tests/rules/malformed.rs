//! Bytes and packets that a server must not put up with.

use campanile_broker::config::Config;
use campanile_mqtt::{Reason, Version};
use campanile_sim::{node::NodeConfig, packets::*, pair::Pair};

use super::{clean, durable};

/// The connection ends with this reason, nothing more is processed, and others go on.
#[track_caller]
pub fn check(v: Version, what: &str, bytes: &str, reason: Reason) {
    let mut pair = Pair::new();
    let other = pair.connect(clean(v, "other"));
    pair.subscribe(other, "#", 2);
    let wire = pair.connect(durable(v, "bad"));
    let mut bytes = hex(bytes);
    bytes.extend(publish("a", "after the violation").bytes(v));
    pair.send_bytes(wire, &bytes);
    assert!(pair.node.is_closed(wire), "{what}: still open");
    if v.is_v5() {
        let heard = pair.next(wire);
        assert_eq!(heard.disconnect().reason, reason, "{what}");
    }
    pair.expect_closed(wire);
    pair.expect_silence(other);
    pair.expect_alive(other);
    // The session stays usable.
    let wire = pair.connect_present(durable(v, "bad"), true);
    pair.expect_alive(wire);
}

/// Packets that are malformed or out of place in both versions.
pub fn violations_close_the_connection(v: Version) {
    use Reason::{MalformedPacket, ProtocolError};
    // The property length of packets that have one.
    let none = if v.is_v5() { "00" } else { "" };
    let p = |packet: &str| packet.replace("PP", none);
    let l = |len: usize| format!("{:02x}", if v.is_v5() { len + 1 } else { len });
    let table: &[(&str, String, Reason)] = &[
        ("packet type 0", p("00 00"), MalformedPacket),
        ("flags of PINGREQ", p("c1 00"), MalformedPacket),
        ("PINGREQ with a body", p("c0 01 00"), MalformedPacket),
        (
            "flags of SUBSCRIBE",
            p(&format!("80 {} 0001 PP 0001 61 00", l(6))),
            MalformedPacket,
        ),
        (
            "flags of UNSUBSCRIBE",
            p(&format!("a0 {} 0001 PP 0001 61", l(5))),
            MalformedPacket,
        ),
        ("flags of PUBREL", p("60 02 0001"), MalformedPacket),
        ("flags of PUBACK", p("41 02 0001"), MalformedPacket),
        ("flags of DISCONNECT", p("e1 00"), MalformedPacket),
        (
            "QoS 3",
            p(&format!("36 {} 0001 61 0001 PP", l(5))),
            MalformedPacket,
        ),
        (
            "DUP with QoS 0",
            p(&format!("38 {} 0001 61 PP", l(3))),
            MalformedPacket,
        ),
        (
            "packet identifier 0",
            p(&format!("32 {} 0001 61 0000 PP", l(5))),
            ProtocolError,
        ),
        (
            "SUBSCRIBE with identifier 0",
            p(&format!("82 {} 0000 PP 0001 61 00", l(6))),
            ProtocolError,
        ),
        (
            "SUBSCRIBE without filters",
            p(&format!("82 {} 0001 PP", l(2))),
            ProtocolError,
        ),
        (
            "UNSUBSCRIBE without filters",
            p(&format!("a2 {} 0001 PP", l(2))),
            ProtocolError,
        ),
        (
            "SUBSCRIBE with QoS 3",
            p(&format!("82 {} 0001 PP 0001 61 03", l(6))),
            ProtocolError,
        ),
        (
            "reserved bits of a subscription",
            p(&format!("82 {} 0001 PP 0001 61 c0", l(6))),
            MalformedPacket,
        ),
        (
            "a name that is no UTF-8",
            p(&format!("30 {} 0001 ff PP", l(3))),
            MalformedPacket,
        ),
        (
            "a name with a surrogate",
            p(&format!("30 {} 0003 eda080 PP", l(5))),
            MalformedPacket,
        ),
        (
            "a name with U+0000",
            p(&format!("30 {} 0001 00 PP", l(3))),
            MalformedPacket,
        ),
        (
            "a filter with U+0000",
            p(&format!("82 {} 0001 PP 0001 00 00", l(6))),
            MalformedPacket,
        ),
        (
            "a text that is longer than its packet",
            p("30 03 0009 61"),
            MalformedPacket,
        ),
        (
            "remaining length of five bytes",
            p("30 ff ff ff ff 01"),
            MalformedPacket,
        ),
        (
            "CONNACK from a client",
            p(&format!("20 {} 0000 PP", l(2))),
            ProtocolError,
        ),
        (
            "SUBACK from a client",
            p(&format!("90 {} 0001 PP 00", l(3))),
            ProtocolError,
        ),
        (
            "UNSUBACK from a client",
            p(if v.is_v5() {
                "b0 04 0001 00 00"
            } else {
                "b0 02 0001"
            }),
            ProtocolError,
        ),
        ("PINGRESP from a client", p("d0 00"), ProtocolError),
    ];
    for (what, bytes, reason) in table {
        check(v, what, bytes, *reason);
    }
    let name_or_filter: &[(&str, String, Reason)] = &[
        (
            "a wildcard in a name",
            p(&format!("30 {} 0003 612f23 PP", l(5))),
            MalformedPacket,
        ),
        (
            "a plus in a name",
            p(&format!("30 {} 0003 612f2b PP", l(5))),
            MalformedPacket,
        ),
        (
            "# within a filter",
            p(&format!("82 {} 0001 PP 0005 612f232f62 00", l(10))),
            MalformedPacket,
        ),
        (
            "a# in a filter",
            p(&format!("82 {} 0001 PP 0002 6123 00", l(7))),
            MalformedPacket,
        ),
        (
            "a+ in a filter",
            p(&format!("82 {} 0001 PP 0002 612b 00", l(7))),
            MalformedPacket,
        ),
        (
            "an empty filter",
            p(&format!("82 {} 0001 PP 0000 00", l(5))),
            ProtocolError,
        ),
    ];
    for (what, bytes, reason) in name_or_filter {
        check(v, what, bytes, *reason);
    }
    if !v.is_v5() {
        check(v, "an empty name", "30 02 0000", ProtocolError);
        check(v, "AUTH", "f0 00", MalformedPacket);
    }
}

pub fn a_packet_that_is_too_large_closes_the_connection(v: Version) {
    let broker = Config {
        max_packet_bytes: 100,
        ..Config::default()
    };
    let mut pair = Pair::with(NodeConfig {
        broker,
        ..NodeConfig::default()
    });
    let wire = pair.connect(clean(v, "a"));
    // At the first bytes, before it has all been sent.
    pair.send_bytes(wire, &hex("30 ff 7f 00 01"));
    pair.expect_disconnect(wire, Reason::PacketTooLarge);
    let wire = pair.connect(clean(v, "a"));
    let fits = "x".repeat(100 - 2 - 3 - usize::from(v.is_v5()));
    pair.publish(wire, "a", &fits, 0);
    pair.expect_alive(wire);
    pair.send(wire, publish("a", &(fits + "x")));
    pair.expect_disconnect(wire, Reason::PacketTooLarge);
}
