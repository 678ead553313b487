//! Packets to refuse beyond the numbered statements, which `spec_v5.rs` and `spec_v311.rs` have.

mod common;

use campanile_mqtt::{
    Packet,
    Reason::{self, ClientIdentifierNotValid, MalformedPacket, ProtocolError},
    Version::{V5, V31, V311},
};
use common::{accepts, bytes, frame, golden::goldens, refuses};

#[test]
fn values_of_properties_have_rules() {
    for (first_byte, body, words) in [
        (
            0x10,
            r#""MQTT" 05 02 003c 03 21 0000 "c""#,
            "receive maximum 0: must not be 0",
        ),
        (
            0x10,
            r#""MQTT" 05 02 003c 05 27 00000000 "c""#,
            "maximum packet size 0: must not be 0",
        ),
        (
            0x10,
            r#""MQTT" 05 02 003c 02 17 02 "c""#,
            "request problem information 2: must be 0 or 1",
        ),
        (
            0x10,
            r#""MQTT" 05 02 003c 02 19 ff "c""#,
            "request response information 255: must be 0 or 1",
        ),
        (
            0x10,
            r#""MQTT" 05 02 003c 03 16 0000 "c""#,
            "authentication data: must not be there without",
        ),
        (
            0x10,
            r#""MQTT" 05 06 003c 00 "c" 03 08 0000 "w" "x""#,
            "response topic: must not be empty",
        ),
        (0x20, "00 00 03 21 0000", "receive maximum 0"),
        (0x20, "00 00 05 27 00000000", "maximum packet size 0"),
        (0x20, "00 00 02 24 02", "maximum QoS 2: must be 0 or 1"),
        (0x20, "00 00 02 25 02", "retain available 2"),
        (0x20, "00 00 02 28 02", "wildcard subscription available 2"),
        (
            0x20,
            "00 00 02 29 02",
            "subscription identifiers available 2",
        ),
        (0x20, "00 00 02 2a 02", "shared subscription available 2"),
        (
            0x30,
            r#""a" 02 01 02"#,
            "payload format indicator 2: must be 0 or 1",
        ),
        (
            0x30,
            r#""a" 02 0b 00"#,
            "subscription identifier 0: must not be 0",
        ),
        (0x82, r#"0001 02 0b 00 "a" 00"#, "subscription identifier 0"),
        (0xF0, r#"18 03 16 0000"#, "authentication data"),
    ] {
        refuses(V5, &frame(first_byte, body), ProtocolError, words);
    }
}

#[test]
fn a_subscription_identifier_has_at_most_four_bytes() {
    refuses(
        V5,
        &frame(0x30, r#""a" 06 0b ffffffff7f"#),
        MalformedPacket,
        "at most four bytes",
    );
    refuses(
        V5,
        &frame(0x30, r#""a" 03 0b ffff"#),
        MalformedPacket,
        "the packet ends within it",
    );
}

/// A value of every property, by identifier.
const VALUES: [(u8, &str); 27] = [
    (0x01, "00"),
    (0x02, "00000001"),
    (0x03, r#""x""#),
    (0x08, r#""x""#),
    (0x09, "0001 78"),
    (0x0B, "01"),
    (0x11, "00000001"),
    (0x12, r#""x""#),
    (0x13, "0001"),
    (0x15, r#""x""#),
    (0x16, "0001 78"),
    (0x17, "01"),
    (0x18, "00000001"),
    (0x19, "01"),
    (0x1A, r#""x""#),
    (0x1C, r#""x""#),
    (0x1F, r#""x""#),
    (0x21, "0001"),
    (0x22, "0001"),
    (0x23, "0001"),
    (0x24, "01"),
    (0x25, "01"),
    (0x26, r#""x" "y""#),
    (0x27, "00000001"),
    (0x28, "01"),
    (0x29, "01"),
    (0x2A, "01"),
];

/// Every packet type and the will: first byte, what is before and after the properties, and which may stand there.
/// Table 2-4 of section 2.2.2.2.
const PLACES: [(&str, u8, &str, &str, &[u8]); 14] = [
    (
        "CONNECT",
        0x10,
        r#""MQTT" 05 02 003c"#,
        r#""c""#,
        &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27],
    ),
    (
        "a will",
        0x10,
        r#""MQTT" 05 06 003c 00 "c""#,
        r#""w" "x""#,
        &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26],
    ),
    (
        "CONNACK",
        0x20,
        "00 00",
        "",
        &[
            0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27,
            0x28, 0x29, 0x2A,
        ],
    ),
    (
        "PUBLISH",
        0x30,
        r#""a""#,
        "",
        &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26],
    ),
    ("PUBACK", 0x40, "0001 00", "", &[0x1F, 0x26]),
    ("PUBREC", 0x50, "0001 00", "", &[0x1F, 0x26]),
    ("PUBREL", 0x62, "0001 00", "", &[0x1F, 0x26]),
    ("PUBCOMP", 0x70, "0001 00", "", &[0x1F, 0x26]),
    ("SUBSCRIBE", 0x82, "0001", r#""a" 00"#, &[0x0B, 0x26]),
    ("SUBACK", 0x90, "0001", "00", &[0x1F, 0x26]),
    ("UNSUBSCRIBE", 0xA2, "0001", r#""a""#, &[0x26]),
    ("UNSUBACK", 0xB0, "0001", "00", &[0x1F, 0x26]),
    ("DISCONNECT", 0xE0, "00", "", &[0x11, 0x1C, 0x1F, 0x26]),
    ("AUTH", 0xF0, "18", "", &[0x15, 0x16, 0x1F, 0x26]),
];

/// The packet of a place with a property block in hex.
fn with(place: usize, block: &str) -> Vec<u8> {
    let (_, first_byte, before, after, _) = PLACES[place];
    let len = bytes(block).len();
    frame(first_byte, &format!("{before} {len:02x} {block} {after}"))
}

/// What must be there for the property to be acceptable: authentication data needs a method, and so does AUTH.
fn companion(place: usize, id: u8) -> &'static str {
    if id != 0x15 && (id == 0x16 || PLACES[place].0 == "AUTH") {
        r#"15 "m" "#
    } else {
        ""
    }
}

#[test]
fn properties_stand_where_the_table_says() {
    for (place, (name, .., allowed)) in PLACES.iter().enumerate() {
        for (id, value) in VALUES {
            println!("{id:#x} in {name}");
            let block = format!("{}{id:02x} {value}", companion(place, id));
            let frame = with(place, &block);
            if allowed.contains(&id) {
                accepts(V5, &frame);
            } else if id == 0x16 {
                // The method that goes before is refused.
                refuses(
                    V5,
                    &frame,
                    MalformedPacket,
                    "property 21: is not a property of",
                );
            } else {
                refuses(
                    V5,
                    &frame,
                    MalformedPacket,
                    &format!("property {id}: is not a property of"),
                );
            }
        }
    }
}

#[test]
fn properties_stand_once() {
    for (place, (name, .., allowed)) in PLACES.iter().enumerate() {
        for (id, value) in VALUES.iter().filter(|(id, _)| allowed.contains(id)) {
            println!("{id:#x} in {name}");
            let block = format!("{}{id:02x} {value} {id:02x} {value}", companion(place, *id));
            let frame = with(place, &block);
            if *id == 0x26 || *id == 0x0B && *name == "PUBLISH" {
                accepts(V5, &frame);
            } else {
                let words = format!("property {id}: must not be there more than once");
                refuses(V5, &frame, ProtocolError, &words);
            }
        }
    }
}

#[test]
fn unknown_properties_are_refused() {
    for id in (0..=0x7F).filter(|id| !VALUES.iter().any(|(known, _)| known == id)) {
        for place in 0..PLACES.len() {
            let frame = with(place, &format!("{id:02x} 00"));
            refuses(
                V5,
                &frame,
                MalformedPacket,
                &format!("property {id}: is not a property of"),
            );
        }
    }
    refuses(V5, &with(3, "8101 00"), MalformedPacket, "property 129");
}

#[test]
fn properties_end_where_their_length_says() {
    refuses(
        V5,
        &frame(0x30, r#""a" 01 01"#),
        MalformedPacket,
        "property",
    );
    refuses(
        V5,
        &frame(0x30, r#""a" 04 03 0002 'a' 'b'"#),
        MalformedPacket,
        "content type",
    );
    refuses(
        V5,
        &frame(0x30, r#""a" 05 01 01"#),
        MalformedPacket,
        "properties",
    );
    refuses(
        V5,
        &frame(0x30, r#""a" 04 02 000000"#),
        MalformedPacket,
        "property",
    );
}

#[test]
fn an_auth_names_its_method() {
    refuses(
        V5,
        &bytes("f0 01 18"),
        ProtocolError,
        "authentication method",
    );
    refuses(
        V5,
        &bytes("f0 02 18 00"),
        ProtocolError,
        "authentication method",
    );
    accepts(V5, &bytes("f0 00"));
}

#[test]
fn an_empty_topic_name_needs_an_alias() {
    refuses(
        V5,
        &frame(0x30, r#""" 00"#),
        ProtocolError,
        "topic name \"\": must not be empty without a topic alias",
    );
    refuses(V311, &frame(0x30, r#""""#), ProtocolError, "[MQTT-4.7.3-1]");
    accepts(V5, &frame(0x30, r#""" 03 23 0001"#));
}

#[test]
fn subscription_options_have_rules() {
    refuses(
        V5,
        &frame(0x82, r#"0001 00 "a" 03"#),
        ProtocolError,
        "subscription options 3",
    );
    refuses(
        V5,
        &frame(0x82, r#"0001 00 "a" 30"#),
        ProtocolError,
        "subscription options 48",
    );
    for options in (0..0x30u8).filter(|options| options & 3 != 3) {
        accepts(V5, &frame(0x82, &format!(r#"0001 00 "a" {options:02x}"#)));
    }
}

#[test]
fn return_codes_of_a_connack_before_v5_are_0_to_5() {
    for version in [V31, V311] {
        for code in 6..=255u8 {
            refuses(
                version,
                &frame(0x20, &format!("00 {code:02x}")),
                ProtocolError,
                "must be 0..=5",
            );
        }
    }
}

#[test]
fn answers_have_a_code_per_filter() {
    refuses(
        V311,
        &bytes("90 02 0001"),
        ProtocolError,
        "one per topic filter",
    );
    refuses(
        V5,
        &bytes("90 03 0001 00"),
        ProtocolError,
        "one per topic filter",
    );
    refuses(
        V5,
        &bytes("b0 03 0001 00"),
        ProtocolError,
        "one per topic filter",
    );
}

#[test]
fn packet_types_0_and_15_are_reserved_before_v5() {
    refuses(V5, &bytes("00 00"), MalformedPacket, "packet type 0");
    for version in [V31, V311] {
        refuses(version, &bytes("00 00"), MalformedPacket, "packet type 0");
        refuses(version, &bytes("f0 00"), MalformedPacket, "packet type 15");
    }
}

#[test]
fn every_packet_ends_where_it_should() {
    for golden in goldens() {
        let whole = bytes(golden.bytes);
        let header_len = if whole[1] < 0x80 { 2 } else { 3 };
        let (first_byte, body) = (whole[0], &whole[header_len..]);
        for len in 0..body.len() {
            // What is cut may be another packet, but not the same, and reading it does no harm.
            let cut = common::frame_of(first_byte, &body[..len]);
            assert_ne!(
                Packet::decode(&cut, golden.version).as_ref(),
                Ok(&golden.packet),
                "{}",
                golden.name
            );
        }
        let ends_itself = !matches!(
            golden.packet,
            Packet::Publish(_) | Packet::SubAck(_) | Packet::UnsubAck(_)
        );
        if ends_itself {
            let longer = common::frame_of(first_byte, &[body, &[0xFF]].concat());
            let decoded = Packet::decode(&longer, golden.version);
            assert!(decoded.is_err(), "{}: {decoded:?}", golden.name);
        }
    }
}

#[test]
fn a_frame_is_one_whole_packet() {
    for wrong in ["", "c0", "c0 01", "c0 00 00", "c0 80", "c0 80 80 80 80 00"] {
        refuses(V5, &bytes(wrong), MalformedPacket, "remaining length");
    }
}

#[test]
fn a_long_form_of_the_remaining_length_is_valid_before_v5() {
    // 3.1.1 does not ask for the fewest bytes, and small devices write a fixed number of them.
    for version in [V31, V311] {
        assert_eq!(
            Packet::decode(&bytes("c0 80 80 00"), version),
            Ok(Packet::PingReq)
        );
    }
    assert!(Packet::decode(&bytes(r#"10 8d 00 "MQTT" 04 02 003c "c""#), V5).is_ok());
    refuses(V5, &bytes("c0 80 80 00"), MalformedPacket, "[MQTT-1.5.5-1]");
}

#[test]
fn errors_name_the_value_and_the_rule() {
    for (version, frame, reason, message) in [
        (
            V311,
            frame(0x30, r#""a/+""#),
            MalformedPacket,
            r##"topic name "a/+": must not contain the wildcards "+" and "#" [MQTT-3.3.2-2]"##,
        ),
        (
            V5,
            frame(0x32, r#""a" 0000 00"#),
            ProtocolError,
            "packet identifier 0: must be 1..=65535 [MQTT-2.2.1-3] [MQTT-2.2.1-4]",
        ),
        (
            V5,
            frame(0x82, r#"0001 03 23 0001 "a" 00"#),
            MalformedPacket,
            "property 35: is not a property of SUBSCRIBE, section 2.2.2.2",
        ),
        (
            V311,
            frame(0x10, r#""MQTT" 04 00 003c """#),
            ClientIdentifierNotValid,
            r#"client identifier "": must not be empty without clean session [MQTT-3.1.3-7] of 3.1.1"#,
        ),
        (
            V5,
            frame(0x10, r#""HTTP" 05 00 003c """#),
            Reason::UnsupportedProtocolVersion,
            r#"protocol name "HTTP": must be "MQTT" [MQTT-3.1.2-1]"#,
        ),
    ] {
        assert_eq!(refuses(version, &frame, reason, "").to_string(), message);
    }
}

#[test]
fn errors_show_long_values_in_part() {
    let name = "é".repeat(500) + "#";
    let error = refuses(
        V311,
        &frame(0x30, &format!(r#""{name}""#)),
        MalformedPacket,
        "topic name",
    );
    assert!(
        error
            .to_string()
            .contains(&format!("\"{}\"", "é".repeat(64))),
        "{error}"
    );
}
