//! Against two other codecs: what we write they read and write again, and we read the same packet; what we accept, they
//! accept. Each difference is listed with the side that is stricter.

mod common;

use bytes::BytesMut;
use campanile_mqtt::{Packet, Properties, Property, Reason, Version};
use common::arbitrary::packet_of_a_version;
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

/// Another codec: reads one packet and writes it again; an error in words.
struct Oracle {
    name: &'static str,
    echo: fn(Version, &[u8]) -> Result<Vec<u8>, String>,
    /// What it is known to read or write otherwise.
    differs: fn(Version, &Packet<'_>) -> bool,
}

const ORACLES: [Oracle; 2] = [
    Oracle {
        name: "rmqtt-codec",
        echo: rmqtt_echo,
        differs: rmqtt_differs,
    },
    Oracle {
        name: "mqtt-proto",
        echo: mqtt_proto_echo,
        differs: mqtt_proto_differs,
    },
];

fn rmqtt_echo(version: Version, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut input = BytesMut::from(bytes);
    let mut output = BytesMut::new();
    let incomplete = || "incomplete".to_string();
    if version.is_v5() {
        let mut codec = rmqtt_codec::v5::Codec::new(0, 0);
        let (packet, _) = codec
            .decode(&mut input)
            .map_err(|error| error.to_string())?
            .ok_or_else(incomplete)?;
        codec
            .encode(packet, &mut output)
            .map_err(|error| error.to_string())?;
    } else {
        let mut codec = rmqtt_codec::v3::Codec::new(0);
        let (packet, _) = codec
            .decode(&mut input)
            .map_err(|error| error.to_string())?
            .ok_or_else(incomplete)?;
        codec
            .encode(packet, &mut output)
            .map_err(|error| error.to_string())?;
    }
    Ok(output.to_vec())
}

fn mqtt_proto_echo(version: Version, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let encoded = if version.is_v5() {
        let packet = mqtt_proto::v5::Packet::decode(bytes).map_err(|error| error.to_string())?;
        packet
            .ok_or("incomplete")?
            .encode()
            .map_err(|error| error.to_string())?
    } else {
        let packet = mqtt_proto::v3::Packet::decode(bytes).map_err(|error| error.to_string())?;
        packet
            .ok_or("incomplete")?
            .encode()
            .map_err(|error| error.to_string())?
    };
    Ok(encoded.as_ref().to_vec())
}

fn rmqtt_differs(version: Version, packet: &Packet<'_>) -> bool {
    match packet {
        // It writes a CONNECT of 3.1 with level 4.
        Packet::Connect(_) if version == Version::V31 => true,
        // It asks for clean start with an empty client identifier, a rule of 3.1.1 that 5.0 gave up.
        Packet::Connect(connect) => connect.client_id.is_empty() && !connect.clean_start,
        // It writes success at length, where the method would be missing.
        Packet::Auth(auth) => auth.properties.is_empty(),
        _ => false,
    }
}

fn mqtt_proto_differs(version: Version, packet: &Packet<'_>) -> bool {
    let not_text = |properties: Properties<'_>, payload: &[u8]| {
        properties.payload_format() == Some(true) && std::str::from_utf8(payload).is_err()
    };
    match packet {
        // It writes the failure 0x80 of 3.1.1 as 3.
        Packet::SubAck(suback) => !version.is_v5() && suback.codes.contains(&0x80),
        // It checks the payload of a message that says it is text, which a receiver may [section 3.3.2.3.2] and the
        // broker decides; and it has one subscription identifier per PUBLISH, where the standard has any number.
        Packet::Publish(publish) => {
            not_text(publish.properties, publish.payload)
                || publish.properties.subscription_ids().count() > 1
        }
        Packet::Connect(connect) => connect
            .will
            .as_ref()
            .is_some_and(|will| not_text(will.properties, will.payload)),
        // Section 2.4 has it in a DISCONNECT, the table of 3.14.2.1 does not.
        Packet::Disconnect(disconnect) => disconnect.reason == Reason::BadAuthenticationMethod,
        _ => false,
    }
}

/// The packet with its properties by identifier (user properties among themselves as they were), without those
/// that say what their absence says.
fn canonical(packet: &Packet<'static>) -> Packet<'static> {
    let mut packet = packet.clone();
    match &mut packet {
        Packet::Connect(connect) => {
            sort(&mut connect.properties);
            if let Some(will) = &mut connect.will {
                sort(&mut will.properties);
            }
        }
        Packet::ConnAck(connack) => sort(&mut connack.properties),
        Packet::Publish(publish) => sort(&mut publish.properties),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            sort(&mut ack.properties);
        }
        Packet::Subscribe(subscribe) => sort(&mut subscribe.properties),
        Packet::SubAck(suback) => sort(&mut suback.properties),
        Packet::Unsubscribe(unsubscribe) => sort(&mut unsubscribe.properties),
        Packet::UnsubAck(unsuback) => sort(&mut unsuback.properties),
        Packet::PingReq | Packet::PingResp => {}
        Packet::Disconnect(disconnect) => sort(&mut disconnect.properties),
        Packet::Auth(auth) => sort(&mut auth.properties),
    }
    packet
}

fn sort(properties: &mut Properties<'static>) {
    let mut list: Vec<_> = properties
        .iter()
        .filter(|property| !says_nothing(property))
        .collect();
    list.sort_by_key(|property| property.id());
    *properties = common::props(&list);
}

fn says_nothing(property: &Property<'_>) -> bool {
    matches!(
        property,
        Property::PayloadFormat(false)
            | Property::SessionExpiry(0)
            | Property::WillDelay(0)
            | Property::RequestProblemInformation(true)
            | Property::RequestResponseInformation(false)
            | Property::ReceiveMaximum(u16::MAX)
            | Property::TopicAliasMaximum(0)
            | Property::RetainAvailable(true)
            | Property::WildcardSubscriptionAvailable(true)
            | Property::SubscriptionIdsAvailable(true)
            | Property::SharedSubscriptionAvailable(true)
    )
}

fn check(oracle: &Oracle, version: Version, packet: &Packet<'static>) {
    let ours = common::encode(packet, version);
    let theirs = (oracle.echo)(version, &ours)
        .unwrap_or_else(|error| panic!("{} refuses {packet:?}: {error}", oracle.name))
        .leak();
    let back = Packet::decode(theirs, version)
        .unwrap_or_else(|error| panic!("{} made of {packet:?}: {error}", oracle.name));
    assert_eq!(canonical(&back), canonical(packet), "{}", oracle.name);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn rmqtt_codec_reads_and_writes_the_same((version, packet) in packet_of_a_version()) {
        if !(ORACLES[0].differs)(version, &packet) {
            check(&ORACLES[0], version, &packet);
        }
    }

    #[test]
    fn mqtt_proto_reads_and_writes_the_same((version, packet) in packet_of_a_version()) {
        if !(ORACLES[1].differs)(version, &packet) {
            check(&ORACLES[1], version, &packet);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    /// 3.1 is left aside: there we read more than they do, as `spec_v311.rs` says in `mod v31`.
    #[test]
    fn what_we_accept_they_accept(
        (version, packet) in packet_of_a_version(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        if version == Version::V31 {
            return Ok(());
        }
        let mut damaged = common::encode(&packet, version);
        let at = at.index(damaged.len());
        damaged[at] = value;
        if let Ok(packet) = Packet::decode(&damaged, version) {
            for oracle in ORACLES {
                let echo = (oracle.echo)(version, &damaged);
                let known = (oracle.differs)(version, &packet);
                prop_assert!(echo.is_ok() || known, "{}: {echo:?} for {packet:?}", oracle.name);
            }
        }
    }
}

/// Every reason code in every packet that has one; random damage seldom comes to a rare one.
#[test]
fn reason_codes_that_we_accept_they_accept() {
    use Version::{V5, V311};
    for code in 0..=0xff_u8 {
        for (version, head, tail) in [
            (V311, "20 02 00", ""),
            (V311, "90 03 0001", ""),
            (V5, "20 03 00", "00"),
            (V5, "40 03 0001", ""),
            (V5, "50 03 0001", ""),
            (V5, "62 03 0001", ""),
            (V5, "70 03 0001", ""),
            (V5, "90 04 0001 00", ""),
            (V5, "b0 04 0001 00", ""),
            (V5, "e0 01", ""),
            (V5, "f0 06", r#"04 15 0001 61"#),
        ] {
            let frame = common::bytes(&format!("{head} {code:02x} {tail}"));
            let Ok(packet) = Packet::decode(&frame, version) else {
                continue;
            };
            for oracle in ORACLES {
                let echo = (oracle.echo)(version, &frame);
                let known = (oracle.differs)(version, &packet);
                assert!(
                    echo.is_ok() || known,
                    "{}: {echo:?} for {packet:?}",
                    oracle.name
                );
            }
        }
    }
}

/// Where we are stricter, all found by damaging packets at random. `true` where the oracle accepts.
#[test]
fn they_accept_more() {
    use Version::{V5, V311};
    let mut wrong = Vec::new();
    for (version, frame, rmqtt, mqtt_proto) in [
        // Bytes after the end.
        (V311, common::bytes("c0 01 00"), true, true),
        (V5, common::bytes("d0 02 0000"), true, true),
        (V311, common::bytes("e0 01 00"), true, true),
        (V311, common::bytes("40 03 0001 00"), false, true),
        (
            V311,
            common::frame(0x10, r#""MQTT" 04 02 003c "c" 00"#),
            true,
            true,
        ),
        // DUP without QoS.
        (V311, common::frame(0x38, r#""a""#), true, true),
        (V5, common::frame(0x38, r#""a" 00"#), true, true),
        // U+0000 in text.
        (
            V311,
            common::frame(0x10, r#""MQTT" 04 02 003c 0001 00"#),
            true,
            true,
        ),
        (
            V5,
            common::frame(0x30, r#""a" 07 26 0001 00 "v""#),
            true,
            true,
        ),
        // Wildcards in names, and in the wrong place in filters.
        (V311, common::frame(0x30, r#""a/+""#), true, false),
        (V5, common::frame(0x30, r#""" 00"#), true, true),
        (V5, common::frame(0x82, r#"0001 00 "a+" 00"#), true, false),
        (V5, common::frame(0x82, r#"0001 00 "+a/#" 00"#), true, false),
        // A password without a user name, and return codes that do not exist.
        (
            V311,
            common::frame(0x10, r#""MQTT" 04 42 003c "c" "p""#),
            true,
            true,
        ),
        (V311, common::bytes("20 02 00 06"), true, false),
        (V311, common::bytes("20 02 01 01"), true, true),
        // Reserved bits, and an answer to nothing.
        (V311, common::frame(0x82, r#"0001 "a" 45"#), true, false),
        (V5, common::bytes("90 03 0001 00"), true, true),
        (V5, common::bytes("b0 03 0001 00"), true, true),
        // A will's flags without a will.
        (
            V5,
            common::frame(0x10, r#""MQTT" 05 2a 003c 00 "c""#),
            true,
            false,
        ),
        // Variable byte integers that are longer than they need to be.
        (V5, common::bytes("c0 80 00"), true, true),
    ] {
        assert!(
            Packet::decode(&frame, version).is_err(),
            "{}",
            common::hex(&frame)
        );
        let accept = ORACLES.map(|oracle| (oracle.echo)(version, &frame).is_ok());
        if accept != [rmqtt, mqtt_proto] {
            wrong.push((common::hex(&frame), accept));
        }
    }
    assert_eq!(wrong, [], "what they accept now");
}
