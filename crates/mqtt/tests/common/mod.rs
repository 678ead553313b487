//! What the tests of the codec share: bytes in readable form, and checks in one place.

#![allow(dead_code)] // No test uses all of it.

pub mod arbitrary;
pub mod golden;

use campanile_mqtt::{
    DecodeError, Packet, PacketId, Properties, PropertiesBuf, Property, Reason, SubscribeFilters,
    SubscriptionOptions, UnsubscribeFilters, Version,
};

pub const ALL_VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// Bytes from text: hex digits, `'abc'` for the bytes of a text, `"abc"` for those with two bytes of length before them.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = if first == '"' || first == '\'' {
            let quoted = &rest[1..][..rest[1..].find(first).expect("closing quote")];
            if first == '"' {
                out.extend((quoted.len() as u16).to_be_bytes());
            }
            out.extend(quoted.bytes());
            quoted.len() + 2
        } else {
            out.push(u8::from_str_radix(&rest[..2], 16).expect("two hex digits"));
            2
        };
        rest = rest[len..].trim_start();
    }
    out
}

/// A packet of a first byte and a body, [`bytes`] both; the length between them is counted.
pub fn frame(first_byte: u8, body: &str) -> Vec<u8> {
    frame_of(first_byte, &bytes(body))
}

pub fn frame_of(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first_byte];
    let mut len = body.len();
    while len > 0x7F {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend(body);
    out
}

/// A property block that lives as long as the test.
pub fn props(list: &[Property<'_>]) -> Properties<'static> {
    let block: PropertiesBuf = list.iter().copied().collect();
    Properties::trusted(block.as_bytes().to_vec().leak())
}

pub fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

pub fn subscribe_filters(list: &[(&str, SubscriptionOptions)]) -> SubscribeFilters<'static> {
    let mut out = Vec::new();
    for (filter, options) in list {
        SubscribeFilters::write(filter, *options, &mut out);
    }
    SubscribeFilters::trusted(out.leak())
}

pub fn unsubscribe_filters(list: &[&str]) -> UnsubscribeFilters<'static> {
    let mut out = Vec::new();
    for filter in list {
        UnsubscribeFilters::write(filter, &mut out);
    }
    UnsubscribeFilters::trusted(out.leak())
}

pub fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

/// The packet is written as `expected` and read back the same.
#[track_caller]
pub fn check_golden(version: Version, packet: &Packet<'_>, expected: &str) {
    let expected = bytes(expected);
    assert_eq!(
        hex(&encode(packet, version)),
        hex(&expected),
        "encoding of {packet:?}"
    );
    assert_eq!(Packet::decode(&expected, version).as_ref(), Ok(packet));
}

/// The bytes are a packet, and are what that packet is written as.
#[track_caller]
pub fn accepts(version: Version, frame: &[u8]) -> Packet<'_> {
    let packet =
        Packet::decode(frame, version).unwrap_or_else(|error| panic!("{error}: {}", hex(frame)));
    assert_eq!(
        hex(&encode(&packet, version)),
        hex(frame),
        "encoding of {packet:?}"
    );
    packet
}

/// The bytes are refused, for this reason, and the message contains `words`.
#[track_caller]
pub fn refuses(version: Version, frame: &[u8], reason: Reason, words: &str) -> DecodeError {
    match Packet::decode(frame, version) {
        Ok(packet) => panic!("accepted {packet:?} from {}", hex(frame)),
        Err(error) => {
            assert_eq!(error.reason, reason, "{error}");
            assert!(
                error.to_string().contains(words),
                "{error:?} does not say {words:?}: {error}"
            );
            error
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// 5.0 packets, each with `text` in the place of another string; names of topics and filters begin with "topic".
pub fn texts(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let text = &[&(text.len() as u16).to_be_bytes()[..], text].concat()[..];
    let plain = |first_byte, before: &str, after: &str| {
        frame_of(
            first_byte,
            &[&bytes(before)[..], text, &bytes(after)].concat(),
        )
    };
    let property = |first_byte, before: &str, id: u8, after: &str| {
        let block = [&[id][..], text].concat();
        frame_of(
            first_byte,
            &[
                &bytes(before)[..],
                &[block.len() as u8],
                &block,
                &bytes(after),
            ]
            .concat(),
        )
    };
    let connect = r#""MQTT" 05 02 003c"#;
    vec![
        ("protocol name", plain(0x10, "", r#"05 02 003c 00 "c""#)),
        (
            "client identifier",
            plain(0x10, r#""MQTT" 05 02 003c 00"#, ""),
        ),
        (
            "topic of a will",
            plain(0x10, r#""MQTT" 05 06 003c 00 "c" 00"#, r#""x""#),
        ),
        ("user name", plain(0x10, r#""MQTT" 05 82 003c 00 "c""#, "")),
        (
            "authentication method",
            property(0x10, connect, 0x15, r#""c""#),
        ),
        ("topic name", plain(0x30, "", "00")),
        ("topic filter of a SUBSCRIBE", plain(0x82, "0001 00", "00")),
        ("topic filter of an UNSUBSCRIBE", plain(0xA2, "0001 00", "")),
        ("content type", property(0x30, r#""a""#, 0x03, "")),
        ("response topic", property(0x30, r#""a""#, 0x08, "")),
        (
            "assigned client identifier",
            property(0x20, "00 00", 0x12, ""),
        ),
        ("response information", property(0x20, "00 00", 0x1A, "")),
        ("server reference", property(0x20, "00 00", 0x1C, "")),
        (
            "reason string of a CONNACK",
            property(0x20, "00 00", 0x1F, ""),
        ),
        (
            "reason string of a PUBACK",
            property(0x40, "0001 00", 0x1F, ""),
        ),
        (
            "reason string of a DISCONNECT",
            property(0xE0, "00", 0x1F, ""),
        ),
        ("reason string of an AUTH", property(0xF0, "00", 0x1F, "")),
    ]
}
