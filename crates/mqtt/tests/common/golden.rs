//! Every packet in every version that has it, and the bytes it is.

use campanile_mqtt::*;

use super::{id, props, subscribe_filters, unsubscribe_filters};

/// A packet and its bytes, as [`super::bytes`] reads them.
pub struct Golden {
    pub name: &'static str,
    pub version: Version,
    pub packet: Packet<'static>,
    pub bytes: &'static str,
}

use Version::{V5, V31, V311};

const NONE: Properties<'static> = Properties::EMPTY;

pub fn goldens() -> Vec<Golden> {
    let mut all = Vec::new();
    let mut add = |name, version, packet, bytes| {
        all.push(Golden {
            name,
            version,
            packet,
            bytes,
        })
    };
    connects(&mut add);
    publishes(&mut add);
    acks(&mut add);
    subscriptions(&mut add);
    rest(&mut add);
    all
}

type Add<'a> = &'a mut dyn FnMut(&'static str, Version, Packet<'static>, &'static str);

fn connect(version: Version) -> Connect<'static> {
    Connect {
        version,
        clean_start: true,
        keep_alive: 60,
        properties: NONE,
        client_id: "c",
        will: None,
        username: None,
        password: None,
    }
}

fn connects(add: Add<'_>) {
    add(
        "connect_v31",
        V31,
        Packet::Connect(connect(V31)),
        r#"10 0f "MQIsdp" 03 02 003c "c""#,
    );
    add(
        "connect_v311",
        V311,
        Packet::Connect(connect(V311)),
        r#"10 0d "MQTT" 04 02 003c "c""#,
    );
    add(
        "connect_v5",
        V5,
        Packet::Connect(connect(V5)),
        r#"10 0e "MQTT" 05 02 003c 00 "c""#,
    );
    let full = |version, properties, will_properties| Connect {
        clean_start: false,
        properties,
        will: Some(Will {
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: will_properties,
            topic: "w/t",
            payload: b"bye",
        }),
        username: Some("u"),
        password: Some(b"\0p"),
        ..connect(version)
    };
    add(
        "connect_full_v31",
        V31,
        Packet::Connect(full(V31, NONE, NONE)),
        r#"10 20 "MQIsdp" 03 f4 003c "c" "w/t" "bye" "u" 0002 00 'p'"#,
    );
    add(
        "connect_full_v311",
        V311,
        Packet::Connect(full(V311, NONE, NONE)),
        r#"10 1e "MQTT" 04 f4 003c "c" "w/t" "bye" "u" 0002 00 'p'"#,
    );
    let properties = props(&[
        Property::SessionExpiry(u32::MAX),
        Property::ReceiveMaximum(10),
        Property::MaximumPacketSize(1024),
        Property::TopicAliasMaximum(5),
        Property::RequestResponseInformation(true),
        Property::RequestProblemInformation(false),
        Property::UserProperty(("k", "v")),
        Property::AuthMethod("m"),
        Property::AuthData(&[1, 2]),
    ]);
    let will_properties = props(&[
        Property::WillDelay(30),
        Property::PayloadFormat(true),
        Property::MessageExpiry(60),
        Property::ContentType("text"),
        Property::ResponseTopic("r"),
        Property::CorrelationData(&[9]),
        Property::UserProperty(("a", "b")),
    ]);
    add(
        "connect_full_v5",
        V5,
        Packet::Connect(full(V5, properties, will_properties)),
        r#"10 66 "MQTT" 05 f4 003c 24 11 ffffffff 21 000a 27 00000400 22 0005 19 01 17 00 26 "k" "v" 15 "m" 16 0002 01 02
           "c" 22 18 0000001e 01 01 02 0000003c 03 "text" 08 "r" 09 0001 09 26 "a" "b" "w/t" "bye" "u" 0002 00 'p'"#,
    );
    let password_only = Connect {
        password: Some(b"token"),
        ..connect(V5)
    };
    add(
        "connect_password_only_v5",
        V5,
        Packet::Connect(password_only),
        r#"10 15 "MQTT" 05 42 003c 00 "c" "token""#,
    );
    let anonymous = |version| {
        Packet::Connect(Connect {
            client_id: "",
            ..connect(version)
        })
    };
    add(
        "connect_no_id_v311",
        V311,
        anonymous(V311),
        r#"10 0c "MQTT" 04 02 003c """#,
    );
    add(
        "connect_no_id_v5",
        V5,
        anonymous(V5),
        r#"10 0d "MQTT" 05 02 003c 00 """#,
    );

    let connack = |session_present, reason, properties| {
        Packet::ConnAck(ConnAck {
            session_present,
            reason,
            properties,
        })
    };
    add(
        "connack_v31",
        V31,
        connack(false, Reason::Success, NONE),
        "20 02 00 00",
    );
    add(
        "connack_v311",
        V311,
        connack(true, Reason::Success, NONE),
        "20 02 01 00",
    );
    add(
        "connack_v5",
        V5,
        connack(true, Reason::Success, NONE),
        "20 03 01 00 00",
    );
    add(
        "connack_refused_v31",
        V31,
        connack(false, Reason::ClientIdentifierNotValid, NONE),
        "20 02 00 02",
    );
    add(
        "connack_refused_v311",
        V311,
        connack(false, Reason::NotAuthorized, NONE),
        "20 02 00 05",
    );
    add(
        "connack_refused_v5",
        V5,
        connack(false, Reason::Banned, NONE),
        "20 03 00 8a 00",
    );
    let properties = props(&[
        Property::SessionExpiry(7),
        Property::ReceiveMaximum(20),
        Property::MaximumQoS(QoS::AtLeastOnce),
        Property::RetainAvailable(false),
        Property::MaximumPacketSize(65536),
        Property::AssignedClientId("id"),
        Property::TopicAliasMaximum(3),
        Property::ReasonString("ok"),
        Property::UserProperty(("", "")),
        Property::WildcardSubscriptionAvailable(true),
        Property::SubscriptionIdsAvailable(false),
        Property::SharedSubscriptionAvailable(true),
        Property::ServerKeepAlive(30),
        Property::ResponseInformation("i"),
        Property::ServerReference("s"),
        Property::AuthMethod("m"),
        Property::AuthData(&[]),
    ]);
    add(
        "connack_full_v5",
        V5,
        connack(false, Reason::Success, properties),
        r#"20 3e 00 00 3b 11 00000007 21 0014 24 01 25 00 27 00010000 12 "id" 22 0003 1f "ok" 26 "" ""
           28 01 29 00 2a 01 13 001e 1a "i" 1c "s" 15 "m" 16 0000"#,
    );
}

fn publish() -> Publish<'static> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a/b",
        packet_id: None,
        properties: NONE,
        payload: b"hi",
    }
}

fn publishes(add: Add<'_>) {
    for (name, version, bytes) in [
        ("publish_v31", V31, r#"30 07 "a/b" 'hi'"#),
        ("publish_v311", V311, r#"30 07 "a/b" 'hi'"#),
        ("publish_v5", V5, r#"30 08 "a/b" 00 'hi'"#),
    ] {
        add(name, version, Packet::Publish(publish()), bytes);
    }
    let all_flags = Publish {
        dup: true,
        qos: QoS::ExactlyOnce,
        retain: true,
        packet_id: Some(id(0x1234)),
        payload: b"",
        ..publish()
    };
    for (name, version, bytes) in [
        ("publish_qos2_v31", V31, r#"3d 07 "a/b" 1234"#),
        ("publish_qos2_v311", V311, r#"3d 07 "a/b" 1234"#),
        ("publish_qos2_v5", V5, r#"3d 08 "a/b" 1234 00"#),
    ] {
        add(name, version, Packet::Publish(all_flags.clone()), bytes);
    }
    let properties = props(&[
        Property::PayloadFormat(true),
        Property::MessageExpiry(1),
        Property::TopicAlias(2),
        Property::ResponseTopic("r"),
        Property::CorrelationData(&[0xFF]),
        Property::UserProperty(("k", "1")),
        Property::UserProperty(("k", "2")),
        Property::SubscriptionId(1),
        Property::SubscriptionId(268_435_455),
        Property::ContentType("t"),
    ]);
    let full = Publish {
        qos: QoS::AtLeastOnce,
        packet_id: Some(id(1)),
        properties,
        ..publish()
    };
    add(
        "publish_full_v5",
        V5,
        Packet::Publish(full),
        r#"32 35 "a/b" 0001 2b 01 01 02 00000001 23 0002 08 "r" 09 0001 ff 26 "k" "1" 26 "k" "2"
           0b 01 0b ffffff7f 03 "t" 'hi'"#,
    );
    let alias = Publish {
        topic: "",
        properties: props(&[Property::TopicAlias(1)]),
        ..publish()
    };
    add(
        "publish_alias_v5",
        V5,
        Packet::Publish(alias),
        r#"30 08 "" 03 23 0001 'hi'"#,
    );
}

fn acks(add: Add<'_>) {
    let ack = |reason, properties| Ack {
        packet_id: id(7),
        reason,
        properties,
    };
    let success = || ack(Reason::Success, NONE);
    for version in super::ALL_VERSIONS {
        add("puback", version, Packet::PubAck(success()), "40 02 0007");
        add("pubrec", version, Packet::PubRec(success()), "50 02 0007");
        add("pubrel", version, Packet::PubRel(success()), "62 02 0007");
        add("pubcomp", version, Packet::PubComp(success()), "70 02 0007");
    }
    add(
        "puback_reason",
        V5,
        Packet::PubAck(ack(Reason::NoMatchingSubscribers, NONE)),
        "40 03 0007 10",
    );
    add(
        "pubrec_reason",
        V5,
        Packet::PubRec(ack(Reason::QuotaExceeded, NONE)),
        "50 03 0007 97",
    );
    add(
        "pubrel_reason",
        V5,
        Packet::PubRel(ack(Reason::PacketIdentifierNotFound, NONE)),
        "62 03 0007 92",
    );
    add(
        "pubcomp_reason",
        V5,
        Packet::PubComp(ack(Reason::PacketIdentifierNotFound, NONE)),
        "70 03 0007 92",
    );
    let properties = props(&[
        Property::ReasonString("why"),
        Property::UserProperty(("k", "v")),
    ]);
    let full = || ack(Reason::Success, properties);
    add(
        "puback_full",
        V5,
        Packet::PubAck(full()),
        r#"40 11 0007 00 0d 1f "why" 26 "k" "v""#,
    );
    add(
        "pubrec_full",
        V5,
        Packet::PubRec(full()),
        r#"50 11 0007 00 0d 1f "why" 26 "k" "v""#,
    );
    add(
        "pubrel_full",
        V5,
        Packet::PubRel(full()),
        r#"62 11 0007 00 0d 1f "why" 26 "k" "v""#,
    );
    add(
        "pubcomp_full",
        V5,
        Packet::PubComp(full()),
        r#"70 11 0007 00 0d 1f "why" 26 "k" "v""#,
    );
}

fn subscriptions(add: Add<'_>) {
    let qos = |qos| SubscriptionOptions {
        qos,
        ..Default::default()
    };
    let plain = || Subscribe {
        packet_id: id(1),
        properties: NONE,
        filters: subscribe_filters(&[("a/+", qos(QoS::AtLeastOnce)), ("#", qos(QoS::ExactlyOnce))]),
    };
    for (name, version, bytes) in [
        ("subscribe_v31", V31, r##"82 0c 0001 "a/+" 01 "#" 02"##),
        ("subscribe_v311", V311, r##"82 0c 0001 "a/+" 01 "#" 02"##),
        ("subscribe_v5", V5, r##"82 0d 0001 00 "a/+" 01 "#" 02"##),
    ] {
        add(name, version, Packet::Subscribe(plain()), bytes);
    }
    let options = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let full = Subscribe {
        packet_id: id(0xFFFF),
        properties: props(&[
            Property::SubscriptionId(128),
            Property::UserProperty(("k", "v")),
        ]),
        filters: subscribe_filters(&[
            ("a", options),
            (
                "$share/g/a/#",
                SubscriptionOptions {
                    retain_handling: RetainHandling::SendIfNew,
                    ..qos(QoS::AtMostOnce)
                },
            ),
        ]),
    };
    add(
        "subscribe_full_v5",
        V5,
        Packet::Subscribe(full),
        r#"82 20 ffff 0a 0b 8001 26 "k" "v" "a" 2e "$share/g/a/#" 10"#,
    );

    let suback = |properties, codes| {
        Packet::SubAck(SubAck {
            packet_id: id(1),
            properties,
            codes,
        })
    };
    add(
        "suback_v31",
        V31,
        suback(NONE, &[0, 1, 2]),
        "90 05 0001 00 01 02",
    );
    add(
        "suback_v311",
        V311,
        suback(NONE, &[0, 1, 2, 0x80]),
        "90 06 0001 00 01 02 80",
    );
    add(
        "suback_v5",
        V5,
        suback(NONE, &[0, 1, 2, 0x8F]),
        "90 07 0001 00 00 01 02 8f",
    );
    let reason_string = props(&[Property::ReasonString("no")]);
    add(
        "suback_full_v5",
        V5,
        suback(reason_string, &[0xA2]),
        r#"90 09 0001 05 1f "no" a2"#,
    );

    let unsubscribe = |properties| {
        Packet::Unsubscribe(Unsubscribe {
            packet_id: id(2),
            properties,
            filters: unsubscribe_filters(&["a", "+/b"]),
        })
    };
    add(
        "unsubscribe_v31",
        V31,
        unsubscribe(NONE),
        r#"a2 0a 0002 "a" "+/b""#,
    );
    add(
        "unsubscribe_v311",
        V311,
        unsubscribe(NONE),
        r#"a2 0a 0002 "a" "+/b""#,
    );
    add(
        "unsubscribe_v5",
        V5,
        unsubscribe(NONE),
        r#"a2 0b 0002 00 "a" "+/b""#,
    );
    let user = props(&[Property::UserProperty(("k", "v"))]);
    add(
        "unsubscribe_full_v5",
        V5,
        unsubscribe(user),
        r#"a2 12 0002 07 26 "k" "v" "a" "+/b""#,
    );

    let unsuback = |properties, codes| {
        Packet::UnsubAck(UnsubAck {
            packet_id: id(2),
            properties,
            codes,
        })
    };
    add("unsuback_v31", V31, unsuback(NONE, &[]), "b0 02 0002");
    add("unsuback_v311", V311, unsuback(NONE, &[]), "b0 02 0002");
    add(
        "unsuback_v5",
        V5,
        unsuback(NONE, &[0, 0x11]),
        "b0 05 0002 00 00 11",
    );
    add(
        "unsuback_full_v5",
        V5,
        unsuback(reason_string, &[0x87]),
        r#"b0 09 0002 05 1f "no" 87"#,
    );
}

fn rest(add: Add<'_>) {
    let disconnect = |reason, properties| Packet::Disconnect(Disconnect { reason, properties });
    for version in super::ALL_VERSIONS {
        add("pingreq", version, Packet::PingReq, "c0 00");
        add("pingresp", version, Packet::PingResp, "d0 00");
        add(
            "disconnect",
            version,
            disconnect(Reason::NormalDisconnection, NONE),
            "e0 00",
        );
    }
    add(
        "disconnect_will_v5",
        V5,
        disconnect(Reason::DisconnectWithWill, NONE),
        "e0 01 04",
    );
    let properties = props(&[
        Property::SessionExpiry(0),
        Property::ReasonString("go"),
        Property::UserProperty(("k", "v")),
        Property::ServerReference("s"),
    ]);
    add(
        "disconnect_full_v5",
        V5,
        disconnect(Reason::ServerMoved, properties),
        r#"e0 17 9d 15 11 00000000 1f "go" 26 "k" "v" 1c "s""#,
    );
    let auth = |reason, properties| Packet::Auth(Auth { reason, properties });
    add("auth_v5", V5, auth(Reason::Success, NONE), "f0 00");
    let properties = props(&[
        Property::AuthMethod("m"),
        Property::AuthData(&[0, 1]),
        Property::ReasonString("go"),
        Property::UserProperty(("k", "v")),
    ]);
    add(
        "auth_full_v5",
        V5,
        auth(Reason::ContinueAuthentication, properties),
        r#"f0 17 18 15 15 "m" 16 0002 00 01 1f "go" 26 "k" "v""#,
    );
}
