//! Conversations of the client with a server, by their bytes.

mod common;
#[path = "common/conversation.rs"]
mod conversation;

use campanile_mqtt::client::{Authentication, Event, Options, Publication, RequestError};
use campanile_mqtt::{
    Properties, PropertiesBuf, Property, QoS, Reason, SubscriptionOptions, Version,
};

use common::{ALL_VERSIONS, id, props};
use conversation::{Conversation, a, connack, options, will};

const QOS_1: QoS = QoS::AtLeastOnce;
const QOS_2: QoS = QoS::ExactlyOnce;

#[test]
fn connect_says_what_the_options_say() {
    let mut user = PropertiesBuf::new();
    user.push(Property::UserProperty(("k", "v")));
    let mut conversation = Conversation::new(Options {
        keep_alive: 10,
        session_expiry: 7,
        receive_maximum: 3,
        maximum_packet_size: 1000,
        topic_alias_maximum: 2,
        username: Some("u".into()),
        password: Some(b"p".to_vec()),
        will: Some(will()),
        properties: user,
        ..options(Version::V5)
    });
    conversation.client.connect(false, 0).unwrap();
    conversation.writes(
        r#"10 35 "MQTT" 05 c4 00 0a 17 11 00000007 21 0003 27 000003e8 22 0002 26 "k" "v" "c" 00 "w" "gone" "u" "p""#,
    );
}

#[test]
fn connect_before_5_has_no_properties() {
    let mut conversation = Conversation::new(Options {
        session_expiry: 7,
        ..options(Version::V311)
    });
    conversation.client.connect(true, 0).unwrap();
    conversation.writes(r#"10 0d "MQTT" 04 02 00 3c "c""#);
    assert_eq!(
        conversation.client.connect(true, 0),
        Err(RequestError::StillConnected)
    );
}

#[test]
fn server_overrides_what_the_client_asked_for() {
    let conversation = Conversation::accepted(
        Options {
            client_id: String::new(),
            ..options(Version::V5)
        },
        r#"20 13 00 00 10 12 "me" 13 0005 21 0002 24 01 22 0007"#,
    );
    let client = conversation.client;
    assert_eq!(client.options().client_id, "me");
    assert_eq!(client.limits().keep_alive, 5);
    assert_eq!(client.limits().receive_maximum, 2);
    assert_eq!(client.limits().maximum_qos, QOS_1);
    assert_eq!(client.limits().topic_alias_maximum, 7);
}

#[test]
fn refusal_names_its_reason_in_every_version() {
    for (version, connack) in [
        (Version::V31, "20 02 00 04"),
        (Version::V311, "20 02 00 04"),
        (Version::V5, "20 03 00 86 00"),
    ] {
        let mut conversation = Conversation::new(options(version));
        conversation.client.connect(true, 0).unwrap();
        conversation.drain();
        conversation.receives(connack);
        let Event::Refused { reason, .. } = conversation.event() else {
            panic!("refused")
        };
        assert_eq!(reason, Reason::BadUserNameOrPassword);
        assert!(conversation.client.is_closing());
        conversation.writes_nothing();
    }
}

#[test]
fn bytes_may_come_in_any_pieces() {
    let mut conversation = Conversation::connected(Version::V5);
    let packets = common::bytes(r#"30 05 "a" 00 'x' 32 08 "b" 0001 00 'yz'"#);
    let (last, others) = packets.split_last().unwrap();
    for byte in others {
        conversation.client.handle_bytes(&[*byte], 0);
    }
    assert_eq!(conversation.message().payload, b"x");
    conversation.no_event();
    conversation.writes_nothing();
    conversation.client.handle_bytes(&[*last], 0);
    assert_eq!(conversation.message().payload, b"yz");
    conversation.writes("40 02 0001");
}

#[test]
fn qos_1_ends_with_puback() {
    for (version, publish) in [
        (Version::V311, r#"32 06 "a" 0001 'm'"#),
        (Version::V5, r#"32 07 "a" 0001 00 'm'"#),
    ] {
        let mut conversation = Conversation::connected(version);
        assert_eq!(conversation.publishes(QOS_1), Some(id(1)));
        conversation.writes(publish);
        conversation.receives("40 02 0001");
        let published = Event::Published {
            packet_id: id(1),
            reason: Reason::Success,
            properties: PropertiesBuf::new(),
        };
        assert_eq!(conversation.event(), published);
        assert_eq!(conversation.client.unfinished().count(), 0);
    }
}

#[test]
fn qos_2_out_survives_reconnects_at_every_step() {
    for version in ALL_VERSIONS {
        let mut conversation = Conversation::connected(version);
        conversation.publishes(QOS_2);
        conversation.drain();
        conversation.reconnects();
        conversation.writes(match version {
            Version::V5 => r#"3c 07 "a" 0001 00 'm'"#,
            _ => r#"3c 06 "a" 0001 'm'"#,
        });
        conversation.receives("50 02 0001");
        conversation.writes("62 02 0001");
        conversation.reconnects();
        conversation.writes("62 02 0001");
        conversation.receives("70 02 0001");
        assert!(matches!(conversation.event(), Event::Published { .. }));
        conversation.reconnects();
        conversation.writes_nothing();
    }
}

#[test]
fn qos_2_in_is_delivered_once_across_reconnects() {
    let mut conversation = Conversation::connected(Version::V5);
    conversation.receives(r#"34 07 "a" 0005 00 'm'"#);
    conversation.message();
    conversation.writes("50 02 0005");
    conversation.reconnects();
    conversation.receives(r#"3c 07 "a" 0005 00 'm'"#);
    conversation.no_event();
    conversation.writes("50 02 0005");
    conversation.receives("62 02 0005");
    conversation.writes("70 02 0005");
    conversation.receives("62 02 0005");
    conversation.writes("70 03 0005 92");
}

#[test]
fn refused_messages_are_over() {
    let mut conversation = Conversation::connected(Version::V5);
    conversation.publishes(QOS_1);
    conversation.publishes(QOS_2);
    conversation.drain();
    conversation.receives("40 03 0001 97 50 03 0002 87");
    for expected in [Reason::QuotaExceeded, Reason::NotAuthorized] {
        let Event::Published { reason, .. } = conversation.event() else {
            panic!("published")
        };
        assert_eq!(reason, expected);
    }
    conversation.writes_nothing();
    conversation.reconnects();
    conversation.writes_nothing();
}

#[test]
fn stray_acknowledgements_do_no_harm() {
    let mut conversation = Conversation::connected(Version::V5);
    conversation.receives("40 02 0009 70 02 0009 50 02 0009 50 03 0009 80");
    conversation.no_event();
    conversation.writes("62 03 0009 92");
}

#[test]
fn lost_session_gives_its_messages_back() {
    let mut conversation = Conversation::connected(Version::V5);
    conversation.publishes(QOS_1);
    conversation.client.on_closed();
    conversation.client.connect(false, 0).unwrap();
    conversation.receives(connack(Version::V5, false));
    assert_eq!(conversation.event(), Event::Dropped { packet_id: id(1) });
    let Event::Connected {
        session_present: false,
        ..
    } = conversation.event()
    else {
        panic!("connected")
    };
    assert_eq!(conversation.publishes(QOS_1), Some(id(1)));
}

#[test]
fn message_that_the_next_server_does_not_take_is_dropped() {
    let mut conversation = Conversation::connected(Version::V5);
    conversation.publishes(QOS_2);
    conversation.publishes(QOS_1);
    conversation.client.on_closed();
    conversation.client.connect(false, 0).unwrap();
    conversation.drain();
    conversation.receives("20 05 01 00 02 24 01");
    assert!(matches!(conversation.event(), Event::Connected { .. }));
    assert_eq!(conversation.event(), Event::Dropped { packet_id: id(1) });
    conversation.writes(r#"3a 07 "a" 0002 00 'm'"#);
    assert_eq!(conversation.client.unfinished().count(), 1);
}

#[test]
fn subscribe_tells_what_was_granted() {
    let mut conversation = Conversation::connected(Version::V5);
    let options = SubscriptionOptions {
        qos: QOS_1,
        no_local: true,
        ..Default::default()
    };
    let ids = props(&[Property::SubscriptionId(9)]);
    conversation
        .client
        .subscribe(&[("a/#", options), ("b", Default::default())], ids, 0)
        .unwrap();
    conversation.writes(r#"82 0f 0001 02 0b 09 "a/#" 05 "b" 00"#);
    conversation.receives("90 05 0001 00 01 87");
    let Event::Subscribed {
        packet_id, granted, ..
    } = conversation.event()
    else {
        panic!("subscribed")
    };
    assert_eq!(
        (packet_id, granted),
        (id(1), vec![Ok(QOS_1), Err(Reason::NotAuthorized)])
    );
    conversation
        .client
        .unsubscribe(&["b"], Properties::EMPTY, 0)
        .unwrap();
    conversation.writes(r#"a2 06 0002 00 "b""#);
    conversation.receives("b0 04 0002 00 11");
    let Event::Unsubscribed { reasons, .. } = conversation.event() else {
        panic!("unsubscribed")
    };
    assert_eq!(reasons, [Reason::NoSubscriptionExisted]);
}

#[test]
fn unsuback_before_5_stands_for_all_filters() {
    let mut conversation = Conversation::connected(Version::V311);
    let filters = ["a", "b"];
    conversation
        .client
        .unsubscribe(&filters, Properties::EMPTY, 0)
        .unwrap();
    conversation.receives("b0 02 0001");
    let Event::Unsubscribed { reasons, .. } = conversation.event() else {
        panic!("unsubscribed")
    };
    assert_eq!(reasons, [Reason::Success; 2]);
}

#[test]
fn answer_that_fits_no_request_ends_the_connection() {
    for answer in ["90 04 0001 00 00", "b0 04 0001 00 00"] {
        let mut conversation = Conversation::connected(Version::V5);
        conversation.receives(answer);
        conversation.gave_up(0x82);
    }
    let mut conversation = Conversation::connected(Version::V5);
    conversation.subscribes("a", QOS_1);
    conversation.drain();
    conversation.receives("90 05 0001 00 00 00");
    conversation.gave_up(0x82);
}

#[test]
fn server_that_breaks_a_rule_is_told_so() {
    let table = [
        ("c0 00", 0x82),                    // PINGREQ
        ("20 03 00 00 00", 0x82),           // a second CONNACK
        (r#"34 07 "a" 0000 00 'm'"#, 0x82), // packet identifier 0
        (r#"36 07 "a" 0001 00 'm'"#, 0x81), // quality of service 3
        (r#"30 07 "a" 03 230001"#, 0x94),   // alias that is not allowed
        ("30 81 80 80 80 80", 0x81),        // remaining length
        ("f0 01 18", 0x82),                 // AUTH without a method
    ];
    for (packet, code) in table {
        let mut conversation = Conversation::connected(Version::V5);
        conversation.receives(packet);
        conversation.gave_up(code);
    }
    let mut conversation = Conversation::connected(Version::V311);
    conversation.receives("e0 00");
    conversation.gave_up(0x82);
}

#[test]
fn packet_above_the_maximum_is_refused_by_its_length() {
    let mut conversation = Conversation::accepted(
        Options {
            maximum_packet_size: 100,
            ..options(Version::V5)
        },
        "20 03 00 00 00",
    );
    conversation.receives("30 63");
    conversation.gave_up(0x95);
}

#[test]
fn receive_maximum_counts_until_acknowledgements_are_written() {
    let two = Options {
        receive_maximum: 2,
        ..options(Version::V5)
    };
    let mut conversation = Conversation::accepted(two, "20 03 00 00 00");
    for _ in 0..2 {
        conversation.receives(r#"32 07 "a" 0001 00 'm' 32 07 "a" 0002 00 'm'"#);
        conversation.writes("40 02 0001 40 02 0002");
    }
    conversation.receives(r#"32 07 "a" 0001 00 'm' 32 07 "a" 0002 00 'm' 32 07 "a" 0003 00 'm'"#);
    for _ in 0..6 {
        conversation.message();
    }
    let Event::Failed(failure) = conversation.event() else {
        panic!("failed")
    };
    assert_eq!(failure.reason, Reason::ReceiveMaximumExceeded);
}

#[test]
fn aliases_save_repeated_topics_both_ways() {
    let mut conversation = Conversation::accepted(
        Options {
            topic_alias_maximum: 1,
            ..options(Version::V5)
        },
        "20 06 00 00 03 22 0001",
    );
    conversation.publishes(QoS::AtMostOnce);
    conversation.publishes(QoS::AtMostOnce);
    conversation.writes(r#"30 08 "a" 03 230001 'm' 30 07 "" 03 230001 'm'"#);
    conversation.receives(r#"30 08 "b" 03 230001 'm' 30 07 "" 03 230001 'm'"#);
    assert_eq!(conversation.message().topic, "b");
    assert_eq!(conversation.message().topic, "b");
}

#[test]
fn silence_is_broken_by_pings_that_must_be_answered() {
    let mut conversation = Conversation::connected(Version::V311);
    assert_eq!(conversation.client.next_deadline(), Some(45_000));
    conversation.client.on_tick(44_999);
    conversation.writes_nothing();
    conversation.client.on_tick(45_000);
    conversation.writes("c0 00");
    assert_eq!(conversation.client.next_deadline(), Some(65_000));
    conversation.receives("d0 00");
    assert_eq!(conversation.client.next_deadline(), Some(90_000));
    conversation.client.on_tick(90_000);
    conversation.writes("c0 00");
    conversation.client.on_tick(110_000);
    assert!(matches!(conversation.event(), Event::Failed(_)));
    assert!(conversation.client.is_closing());
    conversation.writes_nothing();
}

#[test]
fn server_that_does_not_answer_connect_is_given_up() {
    let mut conversation = Conversation::new(options(Version::V5));
    conversation.client.connect(true, 7).unwrap();
    assert_eq!(conversation.client.next_deadline(), Some(20_007));
    conversation.client.on_tick(20_007);
    assert!(matches!(conversation.event(), Event::Failed(_)));
}

#[test]
fn keep_alive_0_never_pings() {
    let never = Options {
        keep_alive: 0,
        ..options(Version::V5)
    };
    let conversation = Conversation::accepted(never, "20 03 00 00 00");
    assert_eq!(conversation.client.next_deadline(), None);
}

#[test]
fn enhanced_authentication_goes_back_and_forth() {
    let authentication = Some(Authentication {
        method: "X".into(),
        data: Some(b"1".to_vec()),
    });
    let mut conversation = Conversation::new(Options {
        authentication,
        ..options(Version::V5)
    });
    conversation.client.connect(true, 0).unwrap();
    conversation.writes(r#"10 16 "MQTT" 05 02 003c 08 15 "X" 16 "1" "c""#);
    conversation.receives(r#"f0 0a 18 08 15 "X" 16 "2""#);
    let Event::Challenge { data } = conversation.event() else {
        panic!("challenge")
    };
    assert_eq!(data, b"2");
    conversation.client.authenticate(b"3", 0).unwrap();
    conversation.writes(r#"f0 0a 18 08 15 "X" 16 "3""#);
    conversation.receives(r#"20 0b 00 00 08 15 "X" 16 "4""#);
    let Event::Connected { properties, .. } = conversation.event() else {
        panic!("connected")
    };
    assert_eq!(
        properties.as_properties().auth_data(),
        Some(b"4".as_slice())
    );
    conversation.client.reauthenticate(b"5", 0).unwrap();
    conversation.writes(r#"f0 0a 19 08 15 "X" 16 "5""#);
    conversation.receives(r#"f0 06 00 04 15 "X""#);
    assert_eq!(
        conversation.event(),
        Event::ReAuthenticated { data: Vec::new() }
    );
}

#[test]
fn requests_that_cannot_succeed_are_not_sent() {
    let mut conversation = Conversation::accepted(
        options(Version::V5),
        // Receive maximum 1, no retained messages, packets of up to 20 bytes, no wildcards, identifiers or sharing.
        "20 13 00 00 10 21 0001 25 00 27 00000014 28 00 29 00 2a 00",
    );
    let client = &mut conversation.client;
    let retained = Publication {
        retain: true,
        ..a(QoS::AtMostOnce)
    };
    let large = Publication {
        payload: &[0; 20],
        ..a(QoS::AtMostOnce)
    };
    let wildcard = Publication {
        topic: "a/+",
        ..a(QoS::AtMostOnce)
    };
    assert!(matches!(
        client.publish(&retained, 0),
        Err(RequestError::Unsupported { .. })
    ));
    assert_eq!(
        client.publish(&large, 0),
        Err(RequestError::TooLarge {
            bytes: 26,
            maximum: 20
        })
    );
    assert!(matches!(
        client.publish(&wildcard, 0),
        Err(RequestError::Invalid { .. })
    ));
    let mut subscribe = |filter, properties| {
        client
            .subscribe(&[(filter, SubscriptionOptions::default())], properties, 0)
            .map(|_| ())
    };
    for filter in ["a/#", "$share/g/a"] {
        assert!(matches!(
            subscribe(filter, Properties::EMPTY),
            Err(RequestError::Unsupported { .. })
        ));
    }
    assert!(matches!(
        subscribe("a", props(&[Property::SubscriptionId(1)])),
        Err(RequestError::Unsupported { .. })
    ));
    assert!(matches!(
        subscribe("a/very/long/filter", Properties::EMPTY),
        Err(RequestError::TooLarge { .. })
    ));
    client.publish(&a(QOS_1), 0).unwrap();
    assert_eq!(client.publish(&a(QOS_1), 0), Err(RequestError::Busy));
    conversation.writes(r#"32 07 "a" 0002 00 'm'"#);
}

#[test]
fn output_is_bounded() {
    let bounded = Options {
        maximum_output_bytes: 10,
        ..options(Version::V5)
    };
    let mut conversation = Conversation::accepted(bounded, "20 03 00 00 00");
    conversation.publishes(QOS_1);
    conversation.publishes(QOS_1);
    assert_eq!(
        conversation.client.publish(&a(QOS_1), 0),
        Err(RequestError::Busy)
    );
    conversation.drain();
    conversation.publishes(QOS_1);
}

#[test]
fn goodbye_is_the_last_packet() {
    for (version, packet) in [(Version::V311, "e0 00"), (Version::V5, "e0 01 04")] {
        let mut conversation = Conversation::connected(version);
        let client = &mut conversation.client;
        client
            .disconnect(Reason::DisconnectWithWill, Properties::EMPTY, 0)
            .unwrap();
        assert!(client.is_closing());
        assert_eq!(
            client.publish(&a(QOS_1), 0),
            Err(RequestError::NotConnected)
        );
        conversation.receives(r#"30 05 "a" 00 'x'"#);
        conversation.no_event();
        conversation.writes(packet);
    }
}

#[test]
fn server_says_goodbye() {
    let mut conversation = Conversation::connected(Version::V5);
    conversation.receives(r#"e0 06 9d 04 1c "s""#);
    let Event::Disconnected { reason, properties } = conversation.event() else {
        panic!("disconnected")
    };
    assert_eq!(reason, Reason::ServerMoved);
    assert_eq!(properties.as_properties().server_reference(), Some("s"));
    assert!(conversation.client.is_closing());
    conversation.writes_nothing();
}

#[test]
fn options_that_mqtt_forbids_are_refused() {
    let cases = [
        Options {
            client_id: "a\0".into(),
            ..options(Version::V5)
        },
        Options {
            client_id: String::new(),
            ..options(Version::V31)
        },
        Options {
            client_id: String::new(),
            ..options(Version::V311)
        },
        Options {
            password: Some(b"p".to_vec()),
            ..options(Version::V311)
        },
        Options {
            receive_maximum: 0,
            ..options(Version::V5)
        },
        Options {
            authentication: Some(Authentication {
                method: "X".into(),
                data: None,
            }),
            ..options(Version::V311)
        },
    ];
    for options in cases {
        let mut conversation = Conversation::new(options);
        let refused = conversation.client.connect(false, 0);
        assert!(matches!(refused, Err(RequestError::Invalid { .. })));
        conversation.writes_nothing();
    }
}

mod whatever_the_server_sends {
    use proptest::prelude::*;

    use super::*;
    use crate::common::{arbitrary, encode};

    /// What a server sends, and what this client asks for in between.
    #[derive(Clone, Debug)]
    enum Step {
        Bytes(Vec<u8>),
        Publish(u8),
        Subscribe,
        Wait(u64),
        Reconnect,
    }

    fn step(version: Version) -> impl Strategy<Value = Step> {
        let acknowledgement = (prop::sample::select(vec![0x40u8, 0x50, 0x62, 0x70]), 0u8..6)
            .prop_map(|(kind, number)| Step::Bytes(vec![kind, 2, 0, number]));
        let publish = (0u8..3, 1u8..6).prop_map(move |(qos, number)| {
            let mut body = vec![0, 1, b'a'];
            if qos > 0 {
                body.extend([0, number]);
            }
            if version == Version::V5 {
                body.push(0);
            }
            Step::Bytes(common::frame_of(0x30 | qos << 1, &body))
        });
        prop_oneof![
            1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Step::Bytes),
            2 => arbitrary::packet(version).prop_map(move |packet| Step::Bytes(encode(&packet, version))),
            6 => acknowledgement,
            4 => publish,
            4 => (0u8..3).prop_map(Step::Publish),
            1 => Just(Step::Subscribe),
            1 => (0u64..50_000).prop_map(Step::Wait),
            1 => Just(Step::Reconnect),
        ]
    }

    fn play(version: Version, steps: Vec<Step>) {
        let mut conversation = Conversation::connected(version);
        for step in steps {
            match step {
                Step::Bytes(bytes) => conversation
                    .client
                    .handle_bytes(&bytes, conversation.now_ms),
                Step::Publish(qos) => {
                    let publication = a(QoS::from_bits(qos).unwrap());
                    let _ = conversation
                        .client
                        .publish(&publication, conversation.now_ms);
                }
                Step::Subscribe => {
                    let filters = [("a", SubscriptionOptions::default())];
                    let _ = conversation.client.subscribe(
                        &filters,
                        Properties::EMPTY,
                        conversation.now_ms,
                    );
                }
                Step::Wait(ms) => {
                    conversation.now_ms += ms;
                    conversation.client.on_tick(conversation.now_ms);
                }
                Step::Reconnect => {
                    conversation.client.on_closed();
                    conversation
                        .client
                        .connect(false, conversation.now_ms)
                        .unwrap();
                    let connack = common::bytes(connack(version, true));
                    conversation
                        .client
                        .handle_bytes(&connack, conversation.now_ms);
                }
            }
            // All that a client writes is well formed.
            let output = conversation.drain();
            let mut rest = &output[..];
            while let Ok(campanile_mqtt::Split::Packet { total_len, .. }) =
                campanile_mqtt::split(rest, u32::MAX)
            {
                campanile_mqtt::Packet::decode(&rest[..total_len], version).unwrap();
                rest = &rest[total_len..];
            }
            assert!(rest.is_empty());
            while conversation.client.poll_event().is_some() {}
        }
    }

    proptest! {
        #[test]
        fn the_client_keeps_its_wits_in_5(steps in prop::collection::vec(step(Version::V5), 0..60)) {
            play(Version::V5, steps);
        }

        #[test]
        fn the_client_keeps_its_wits_in_3_1_1(steps in prop::collection::vec(step(Version::V311), 0..60)) {
            play(Version::V311, steps);
        }
    }
}
