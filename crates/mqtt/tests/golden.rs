//! Golden bytes, both ways, for every packet in every version that has it.

mod common;

use campanile_mqtt::{
    AckKind, Packet, Reason, Split, Version, encode_ack, encode_ping_resp, split,
};
use common::{bytes, check_golden, golden::goldens, id};

#[test]
fn every_packet_is_written_and_read_as_its_golden_bytes() {
    for golden in goldens() {
        println!("{} {:?}", golden.name, golden.version);
        check_golden(golden.version, &golden.packet, golden.bytes);
    }
}

#[test]
fn every_packet_type_has_golden_bytes_in_every_version_that_has_it() {
    for version in common::ALL_VERSIONS {
        let last = if version.is_v5() { 15 } else { 14 };
        for packet_type in 1..=last {
            let found = goldens().iter().any(|golden| {
                golden.version == version && bytes(golden.bytes)[0] >> 4 == packet_type
            });
            assert!(found, "packet type {packet_type} in {version:?}");
        }
    }
}

#[test]
fn direct_acknowledgements_are_the_same_as_packets() {
    for golden in goldens() {
        let (ack, kind) = match &golden.packet {
            Packet::PubAck(ack) => (ack, AckKind::PubAck),
            Packet::PubRec(ack) => (ack, AckKind::PubRec),
            Packet::PubRel(ack) => (ack, AckKind::PubRel),
            Packet::PubComp(ack) => (ack, AckKind::PubComp),
            _ => continue,
        };
        if ack.properties.is_empty() {
            let mut out = Vec::new();
            encode_ack(&mut out, golden.version, kind, ack.packet_id, ack.reason);
            assert_eq!(out, bytes(golden.bytes));
        }
    }
    let mut out = Vec::new();
    encode_ping_resp(&mut out);
    assert_eq!(out, bytes("d0 00"));
}

#[test]
fn reasons_are_left_out_of_acknowledgements_before_v5() {
    let mut out = Vec::new();
    encode_ack(
        &mut out,
        Version::V311,
        AckKind::PubRec,
        id(7),
        Reason::QuotaExceeded,
    );
    assert_eq!(out, bytes("50 02 0007"));
}

#[test]
fn long_forms_of_success_are_read() {
    for (long, short) in [
        ("40 03 0007 00", "40 02 0007"),
        ("40 04 0007 00 00", "40 02 0007"),
        ("e0 01 00", "e0 00"),
        ("e0 02 00 00", "e0 00"),
        ("e0 02 8e 00", "e0 01 8e"),
    ] {
        let (long, short) = (bytes(long), bytes(short));
        assert_eq!(
            Packet::decode(&long, Version::V5),
            Packet::decode(&short, Version::V5)
        );
    }
}

#[test]
fn what_an_earlier_version_cannot_say_is_left_out() {
    for golden in goldens().iter().filter(|golden| golden.version.is_v5()) {
        // A CONNECT is always in its own version, and the topic behind an alias is lost.
        if matches!(golden.packet, Packet::Connect(_) | Packet::Auth(_))
            || golden.name == "publish_alias_v5"
        {
            continue;
        }
        for version in [Version::V31, Version::V311] {
            let bytes = common::encode(&golden.packet, version);
            let read = Packet::decode(&bytes, version)
                .unwrap_or_else(|error| panic!("{}: {error}", golden.name));
            assert_eq!(
                std::mem::discriminant(&read),
                std::mem::discriminant(&golden.packet)
            );
        }
    }
}

#[test]
fn long_packets_get_a_long_length() {
    for len in [0, 1, 127, 128, 16_383, 16_384, 65_535] {
        let password = vec![7; len];
        let connect = common::frame_of(
            0x10,
            &[
                &bytes(r#""MQTT" 05 42 003c 00 "c""#)[..],
                &(len as u16).to_be_bytes(),
                &password,
            ]
            .concat(),
        );
        let Packet::Connect(read) = common::accepts(Version::V5, &connect) else {
            panic!()
        };
        assert_eq!(read.password, Some(&password[..]));
    }
}

#[test]
fn split_finds_packets_byte_by_byte() {
    for golden in goldens() {
        let packet = bytes(golden.bytes);
        let mut input = packet.clone();
        input.extend([0xC0, 0x00]);
        for end in 0..input.len() {
            let found = split(&input[..end], 1000).unwrap();
            if end < packet.len() {
                let Split::NeedMore { at_least } = found else {
                    panic!("{found:?} at {end}")
                };
                assert!(
                    at_least > end && at_least <= packet.len(),
                    "{at_least} at {end}"
                );
            } else {
                let header_len = if packet.len() < 130 { 2 } else { 3 };
                let expected = Split::Packet {
                    first_byte: packet[0],
                    header_len,
                    total_len: packet.len(),
                };
                assert_eq!(found, expected);
            }
        }
    }
}

#[test]
fn split_refuses_what_is_too_large_before_it_arrives() {
    let packet = bytes("30 ff ff ff 7f");
    let error = split(&packet, 1000).unwrap_err();
    assert_eq!(error.reason, Reason::PacketTooLarge);
    assert!(
        error.to_string().starts_with("packet 268435460: "),
        "{error}"
    );
    assert_eq!(
        split(&packet, 268_435_460),
        Ok(Split::NeedMore {
            at_least: 268_435_460
        })
    );
    assert_eq!(
        split(&bytes("30 62"), 100),
        Ok(Split::NeedMore { at_least: 100 })
    );
    assert_eq!(
        split(&bytes("30 63"), 100).unwrap_err().reason,
        Reason::PacketTooLarge
    );
}

#[test]
fn split_refuses_a_length_of_five_bytes() {
    assert_eq!(
        split(&bytes("30 80 80 80"), 1000),
        Ok(Split::NeedMore { at_least: 5 })
    );
    assert_eq!(
        split(&bytes("30 80 80 80 80"), 1000).unwrap_err().reason,
        Reason::MalformedPacket
    );
    assert_eq!(
        split(&bytes("30 80 80 80 80 01"), 1000).unwrap_err().reason,
        Reason::MalformedPacket
    );
}

#[test]
fn the_version_of_a_broken_connect_is_known() {
    use campanile_mqtt::Connect;
    for (frame, version) in [
        (r#"10 0c "MQTT" 04 00 003c """#, Some(Version::V311)),
        (r#"10 08 "MQTT" 05 ff"#, Some(Version::V5)),
        (r#"10 09 "MQIsdp" 03"#, Some(Version::V31)),
        (r#"10 07 "MQTT" 06"#, None),
        (r#"20 07 "MQTT" 05"#, None),
    ] {
        assert_eq!(Connect::peek_version(&bytes(frame)), version, "{frame}");
    }
}
