//! What is written can be read, and whatever is read does no harm.

mod common;

use campanile_mqtt::{
    Packet, PacketId, Properties, PropertiesBuf, Property, QoS, Split, Version,
    publish::{self, Head, Outgoing},
    split,
};
use common::arbitrary::{packet_of_a_version, topic_name, version};
use proptest::{collection::vec, option, prelude::*};

proptest! {
    #[test]
    fn a_packet_is_read_as_it_was_written((version, packet) in packet_of_a_version()) {
        let bytes = common::encode(&packet, version);
        let read = Packet::decode(&bytes, version);
        prop_assert_eq!(read.as_ref(), Ok(&packet));
    }

    #[test]
    fn split_cuts_a_stream_into_its_packets(
        packets in vec(packet_of_a_version(), 0..5),
    ) {
        let mut stream = Vec::new();
        for (version, packet) in &packets {
            packet.encode(*version, &mut stream);
        }
        let mut input = &stream[..];
        for (version, packet) in &packets {
            let Ok(Split::Packet { total_len, first_byte, .. }) = split(input, u32::MAX) else {
                panic!("no packet");
            };
            prop_assert_eq!(first_byte, input[0]);
            let read = Packet::decode(&input[..total_len], *version);
            prop_assert_eq!(read.as_ref(), Ok(packet));
            input = &input[total_len..];
        }
        prop_assert!(input.is_empty());
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200), version in version()) {
        read_whatever_it_is(&bytes, version);
    }

    #[test]
    fn arbitrary_bodies_do_no_harm(first in any::<u8>(), body in vec(any::<u8>(), 0..100), version in version()) {
        read_whatever_it_is(&common::frame_of(first, &body), version);
    }

    #[test]
    fn damaged_packets_do_no_harm(
        (version, packet) in packet_of_a_version(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = common::encode(&packet, version);
        let at = at.index(bytes.len());
        bytes[at] = value;
        read_whatever_it_is(&bytes, version);
        // The same with a length that fits, so that what is cut off is noticed later.
        let body = &bytes[2.min(bytes.len())..];
        let body = &body[..cut.index(body.len() + 1)];
        read_whatever_it_is(&common::frame_of(bytes[0], body), version);
    }

    #[test]
    fn an_outgoing_message_is_a_publish(
        topic in topic_name(),
        payload in vec(any::<u8>(), 0..300),
        message_expiry in option::of(any::<u32>()),
        user in vec(("[a-z]{0,9}", "[a-z]{0,9}"), 0..3),
        (qos, dup, retain, id) in (0..3u8, any::<bool>(), any::<bool>(), 1..=u16::MAX),
        alias in option::of((1..=u16::MAX, any::<bool>())),
        subscription_ids in vec(1..=268_435_455u32, 0..4),
        version in version(),
    ) {
        let forwarded: PropertiesBuf =
            user.iter().map(|(name, value)| Property::UserProperty((name, value))).collect();
        let message =
            Outgoing { topic, payload: &payload, forwarded: forwarded.as_bytes(), message_expiry };
        let qos = QoS::from_bits(qos).unwrap();
        let packet_id = PacketId::new(id).filter(|_| qos != QoS::AtMostOnce);
        let dup = dup && packet_id.is_some();
        let head = Head { dup, qos, retain, packet_id, alias, subscription_ids: &subscription_ids };
        let mut out = Vec::new();
        publish::encode(&message, &head, version, &mut out);
        prop_assert_eq!(out.len(), publish::encoded_len(&message, &head, version));
        let mut in_two = Vec::new();
        publish::encode_head(&message, &head, version, &mut in_two);
        in_two.extend(&payload);
        prop_assert_eq!(&in_two, &out);

        let Ok(Packet::Publish(read)) = Packet::decode(&out, version) else { panic!("no PUBLISH") };
        prop_assert_eq!((read.dup, read.qos, read.retain, read.packet_id), (dup, qos, retain, packet_id));
        prop_assert_eq!(read.payload, &payload);
        if version.is_v5() {
            prop_assert_eq!(read.topic, if let Some((_, false)) = alias { "" } else { topic });
            prop_assert_eq!(read.properties.topic_alias(), alias.map(|(alias, _)| alias));
            prop_assert_eq!(read.properties.message_expiry(), message_expiry);
            prop_assert_eq!(read.properties.subscription_ids().collect::<Vec<_>>(), subscription_ids);
            let mut copied = Vec::new();
            read.properties.write_forwardable(&mut copied);
            prop_assert_eq!(&copied[..], forwarded.as_bytes());
        } else {
            prop_assert_eq!(read.topic, topic);
            prop_assert!(read.properties.is_empty());
        }
    }
}

/// Bytes may be refused; if not, the packet is written as something that reads the same.
fn read_whatever_it_is(bytes: &[u8], version: Version) {
    let _ = split(bytes, 1000);
    if let Ok(packet) = Packet::decode(bytes, version) {
        let again = common::encode(&packet, version);
        assert_eq!(Packet::decode(&again, version).as_ref(), Ok(&packet));
        assert!(again.len() <= bytes.len(), "the shortest form");
    }
}

#[test]
fn forwardable_properties_keep_their_order() {
    let all = common::props(&[
        Property::UserProperty(("a", "1")),
        Property::MessageExpiry(1),
        Property::ContentType("t"),
        Property::TopicAlias(1),
        Property::UserProperty(("a", "2")),
        Property::SubscriptionId(300),
        Property::PayloadFormat(true),
        Property::ResponseTopic("r"),
        Property::CorrelationData(b"c"),
        Property::UserProperty(("a", "1")),
    ]);
    let mut copied = Vec::new();
    all.write_forwardable(&mut copied);
    assert_eq!(
        Properties::trusted(&copied).iter().collect::<Vec<_>>(),
        [
            Property::UserProperty(("a", "1")),
            Property::ContentType("t"),
            Property::UserProperty(("a", "2")),
            Property::PayloadFormat(true),
            Property::ResponseTopic("r"),
            Property::CorrelationData(b"c"),
            Property::UserProperty(("a", "1")),
        ]
    );
}

#[test]
fn the_will_delay_stays_behind() {
    let mut copied = Vec::new();
    common::props(&[Property::WillDelay(9), Property::ContentType("t")])
        .write_forwardable(&mut copied);
    assert_eq!(
        Properties::trusted(&copied).iter().collect::<Vec<_>>(),
        [Property::ContentType("t")]
    );
}

#[test]
fn every_property_is_read_back_by_iterator_and_getter() {
    let all = [
        Property::PayloadFormat(true),
        Property::MessageExpiry(1),
        Property::ContentType("a"),
        Property::ResponseTopic("b"),
        Property::CorrelationData(b"c"),
        Property::SubscriptionId(2),
        Property::SubscriptionId(70_000),
        Property::SessionExpiry(3),
        Property::AssignedClientId("d"),
        Property::ServerKeepAlive(4),
        Property::AuthMethod("e"),
        Property::AuthData(b"f"),
        Property::RequestProblemInformation(false),
        Property::WillDelay(5),
        Property::RequestResponseInformation(true),
        Property::ResponseInformation("g"),
        Property::ServerReference("h"),
        Property::ReasonString("i"),
        Property::ReceiveMaximum(6),
        Property::TopicAliasMaximum(7),
        Property::TopicAlias(8),
        Property::MaximumQoS(QoS::AtLeastOnce),
        Property::RetainAvailable(false),
        Property::UserProperty(("j", "k")),
        Property::UserProperty(("j", "l")),
        Property::MaximumPacketSize(9),
        Property::WildcardSubscriptionAvailable(true),
        Property::SubscriptionIdsAvailable(false),
        Property::SharedSubscriptionAvailable(true),
    ];
    let block = common::props(&all);
    assert_eq!(block.iter().collect::<Vec<_>>(), all);
    assert_eq!(block.payload_format(), Some(true));
    assert_eq!(block.message_expiry(), Some(1));
    assert_eq!(block.content_type(), Some("a"));
    assert_eq!(block.response_topic(), Some("b"));
    assert_eq!(block.correlation_data(), Some(&b"c"[..]));
    assert_eq!(block.subscription_ids().collect::<Vec<_>>(), [2, 70_000]);
    assert_eq!(block.session_expiry(), Some(3));
    assert_eq!(block.assigned_client_id(), Some("d"));
    assert_eq!(block.server_keep_alive(), Some(4));
    assert_eq!(block.auth_method(), Some("e"));
    assert_eq!(block.auth_data(), Some(&b"f"[..]));
    assert_eq!(block.request_problem_information(), Some(false));
    assert_eq!(block.will_delay(), Some(5));
    assert_eq!(block.request_response_information(), Some(true));
    assert_eq!(block.response_information(), Some("g"));
    assert_eq!(block.server_reference(), Some("h"));
    assert_eq!(block.reason_string(), Some("i"));
    assert_eq!(block.receive_maximum(), Some(6));
    assert_eq!(block.topic_alias_maximum(), Some(7));
    assert_eq!(block.topic_alias(), Some(8));
    assert_eq!(block.maximum_qos(), Some(QoS::AtLeastOnce));
    assert_eq!(block.retain_available(), Some(false));
    assert_eq!(
        block.user_properties().collect::<Vec<_>>(),
        [("j", "k"), ("j", "l")]
    );
    assert_eq!(block.maximum_packet_size(), Some(9));
    assert_eq!(block.wildcard_subscription_available(), Some(true));
    assert_eq!(block.subscription_ids_available(), Some(false));
    assert_eq!(block.shared_subscription_available(), Some(true));

    let none = Properties::EMPTY;
    assert_eq!(
        (
            none.payload_format(),
            none.topic_alias(),
            none.user_properties().count()
        ),
        (None, None, 0)
    );
}
