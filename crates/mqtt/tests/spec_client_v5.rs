//! The normative statements of MQTT 5.0 about what a client does, each with a test that begins with its id.

mod common;
#[path = "common/conversation.rs"]
mod conversation;

mod v5 {
    use campanile_mqtt::client::{Authentication, Event, Options, Publication, RequestError};
    use campanile_mqtt::{Packet, PacketId, Properties, Property, QoS, Reason, Version::V5};

    use crate::common::{id, props};
    use crate::conversation::{Conversation, a, options};

    const QOS_0: QoS = QoS::AtMostOnce;
    const QOS_1: QoS = QoS::AtLeastOnce;
    const QOS_2: QoS = QoS::ExactlyOnce;

    fn connected() -> Conversation {
        Conversation::connected(V5)
    }

    /// Connected to a server that sent this CONNACK.
    fn connected_with(connack: &str) -> Conversation {
        Conversation::accepted(options(V5), connack)
    }

    fn with_authentication() -> Options {
        let authentication = Some(Authentication {
            method: "X".into(),
            data: None,
        });
        Options {
            authentication,
            ..options(V5)
        }
    }

    #[test]
    fn mqtt_2_2_1_5_acknowledgements_have_the_identifier_of_the_publish() {
        let mut conversation = connected();
        conversation.receives(r#"32 07 "a" 1234 00 'm' 34 07 "a" 5678 00 'm' 62 02 5678"#);
        conversation.writes("40 02 1234 50 02 5678 70 02 5678");
        conversation.publishes(QOS_2);
        conversation.drain();
        conversation.receives("50 02 0001");
        conversation.writes("62 02 0001");
    }

    #[test]
    fn mqtt_3_1_0_1_connect_is_the_first_packet() {
        let mut conversation = Conversation::new(options(V5));
        assert_eq!(
            conversation.client.publish(&a(QOS_0), 0),
            Err(RequestError::NotConnected)
        );
        let subscribe =
            conversation
                .client
                .subscribe(&[("a", Default::default())], Properties::EMPTY, 0);
        assert_eq!(subscribe, Err(RequestError::NotConnected));
        conversation.client.on_tick(1_000_000);
        conversation.writes_nothing();
        conversation.client.connect(true, 0).unwrap();
        assert_eq!(conversation.client.output()[0], 0x10);
    }

    #[test]
    fn mqtt_3_1_2_4_a_clean_start_gives_up_the_session() {
        let mut conversation = connected();
        conversation.publishes(QOS_1);
        conversation.receives(r#"34 07 "a" 0005 00 'm'"#);
        conversation.message();
        conversation.client.on_closed();
        conversation.client.connect(true, 0).unwrap();
        conversation.drain();
        conversation.receives("20 03 00 00 00");
        assert_eq!(conversation.event(), Event::Dropped { packet_id: id(1) });
        assert!(matches!(conversation.event(), Event::Connected { .. }));
        conversation.receives(r#"34 07 "a" 0005 00 'm'"#);
        conversation.message();
        conversation.writes("50 02 0005");
    }

    #[test]
    fn mqtt_3_1_2_20_silence_is_broken_by_pingreq() {
        let mut conversation = connected();
        let keep_alive_ms = 60_000;
        let due_ms = conversation.client.next_deadline().unwrap();
        assert!(due_ms < keep_alive_ms);
        conversation.client.on_tick(due_ms);
        conversation.writes("c0 00");
        // Any other packet does as well.
        conversation.receives("d0 00");
        conversation.client.publish(&a(QOS_0), 50_000).unwrap();
        assert!(conversation.client.next_deadline().unwrap() > due_ms + 45_000);
    }

    #[test]
    fn mqtt_3_1_2_21_the_keep_alive_of_the_server_is_used() {
        let mut conversation = connected_with("20 06 00 00 03 13 000a");
        assert!(conversation.client.next_deadline().unwrap() < 10_000);
        conversation.client.on_tick(9_999);
        conversation.writes("c0 00");
    }

    #[test]
    fn mqtt_3_1_2_30_nothing_but_auth_is_sent_before_connack() {
        let mut conversation = Conversation::new(with_authentication());
        conversation.client.connect(true, 0).unwrap();
        conversation.drain();
        let client = &mut conversation.client;
        let not_now = Err(RequestError::NotConnected);
        assert_eq!(client.publish(&a(QOS_1), 0), not_now);
        assert_eq!(
            client.subscribe(&[("a", Default::default())], Properties::EMPTY, 0),
            Err(RequestError::NotConnected)
        );
        assert_eq!(
            client.unsubscribe(&["a"], Properties::EMPTY, 0),
            Err(RequestError::NotConnected)
        );
        client.on_tick(19_999);
        conversation.writes_nothing();
        conversation.receives(r#"f0 06 18 04 15 "X""#);
        conversation.client.authenticate(b"1", 0).unwrap();
        conversation.writes(r#"f0 0a 18 08 15 "X" 16 "1""#);
    }

    #[test]
    fn mqtt_3_2_2_4_a_session_that_this_client_does_not_have_ends_the_connection() {
        let mut conversation = Conversation::new(options(V5));
        conversation.client.connect(false, 0).unwrap();
        conversation.drain();
        conversation.receives("20 03 01 00 00");
        conversation.gave_up(0x82);
    }

    #[test]
    fn mqtt_3_2_2_5_a_session_that_the_server_does_not_have_is_discarded() {
        let mut conversation = connected();
        conversation.publishes(QOS_2);
        conversation.client.on_closed();
        conversation.client.connect(false, 0).unwrap();
        conversation.drain();
        conversation.receives("20 03 00 00 00");
        conversation.writes_nothing();
        assert_eq!(conversation.client.unfinished().count(), 0);
    }

    #[test]
    fn mqtt_3_2_2_11_the_maximum_qos_is_kept() {
        let mut conversation = connected_with("20 05 00 00 02 24 01");
        assert!(matches!(
            conversation.client.publish(&a(QOS_2), 0),
            Err(RequestError::Unsupported { .. })
        ));
        conversation.publishes(QOS_1);
        let mut conversation = connected_with("20 05 00 00 02 24 00");
        assert!(conversation.client.publish(&a(QOS_1), 0).is_err());
        conversation.publishes(QOS_0);
    }

    #[test]
    fn mqtt_3_2_2_14_nothing_is_retained_where_the_server_does_not_retain() {
        let mut conversation = connected_with("20 05 00 00 02 25 00");
        let retained = Publication {
            retain: true,
            ..a(QOS_0)
        };
        assert!(matches!(
            conversation.client.publish(&retained, 0),
            Err(RequestError::Unsupported { .. })
        ));
        conversation.writes_nothing();
    }

    #[test]
    fn mqtt_3_2_2_15_the_maximum_packet_size_is_kept() {
        let mut conversation = connected_with("20 08 00 00 05 27 0000000a");
        let payload = |len| Publication {
            topic: "a",
            payload: &[7; 100][..len],
            qos: QOS_1,
            ..Default::default()
        };
        let client = &mut conversation.client;
        assert!(client.publish(&payload(1), 0).is_ok());
        assert_eq!(
            client.publish(&payload(3), 0),
            Err(RequestError::TooLarge {
                bytes: 11,
                maximum: 10
            })
        );
        assert!(
            client
                .subscribe(&[("long", Default::default())], Properties::EMPTY, 0)
                .is_err()
        );
        assert!(
            client
                .unsubscribe(&["longer"], Properties::EMPTY, 0)
                .is_err()
        );
        conversation.writes(r#"32 07 "a" 0001 00 07"#);
    }

    /// Aliases that a client uses for three topics in turn, 0 where it uses none.
    fn aliases(connack: &str) -> Vec<u16> {
        let mut conversation = connected_with(connack);
        ["a", "b", "c"]
            .into_iter()
            .map(|topic| {
                let publication = Publication {
                    topic,
                    ..Default::default()
                };
                conversation.client.publish(&publication, 0).unwrap();
                let output = conversation.drain();
                let Ok(Packet::Publish(publish)) = Packet::decode(&output, V5) else {
                    panic!("no PUBLISH")
                };
                publish.properties.topic_alias().unwrap_or(0)
            })
            .collect()
    }

    #[test]
    fn mqtt_3_2_2_17_no_alias_is_above_the_maximum_of_the_server() {
        let used = aliases("20 06 00 00 03 22 0002");
        assert!(used.iter().all(|alias| (1..=2).contains(alias)), "{used:?}");
    }

    #[test]
    fn mqtt_3_2_2_18_no_alias_is_used_where_the_server_allows_none() {
        assert_eq!(aliases("20 03 00 00 00"), [0, 0, 0]);
        assert_eq!(aliases("20 06 00 00 03 22 0000"), [0, 0, 0]);
    }

    #[test]
    fn mqtt_3_2_2_21_the_keep_alive_of_the_server_replaces_that_of_the_client() {
        let conversation = connected_with("20 06 00 00 03 13 0000");
        assert_eq!(conversation.client.next_deadline(), None, "0 never pings");
        let conversation = connected_with("20 06 00 00 03 13 ffff");
        assert!(conversation.client.next_deadline().unwrap() > 60_000);
    }

    #[test]
    fn mqtt_3_3_1_1_dup_is_1_when_a_message_is_sent_again() {
        let mut conversation = connected();
        conversation.publishes(QOS_1);
        conversation.writes(r#"32 07 "a" 0001 00 'm'"#);
        conversation.reconnects();
        conversation.writes(r#"3a 07 "a" 0001 00 'm'"#);
    }

    #[test]
    fn mqtt_3_3_2_7_alias_mappings_end_with_their_connection() {
        let mut conversation = Conversation::accepted(
            Options {
                topic_alias_maximum: 2,
                session_expiry: 100,
                ..options(V5)
            },
            "20 06 00 00 03 22 0002",
        );
        conversation.publishes(QOS_0);
        conversation.drain();
        conversation.receives(r#"30 08 "b" 03 230001 'm'"#);
        conversation.message();
        conversation.client.on_closed();
        conversation.client.connect(false, 0).unwrap();
        conversation.drain();
        conversation.receives("20 06 01 00 03 22 0002");
        conversation.event();
        conversation.publishes(QOS_0);
        conversation.writes(r#"30 08 "a" 03 230001 'm'"#);
        conversation.receives(r#"30 07 "" 03 230001 'm'"#);
        conversation.gave_up(0x82);
    }

    #[test]
    fn mqtt_3_3_2_9_a_client_uses_no_alias_above_the_maximum() {
        assert!(
            aliases("20 06 00 00 03 22 0001")
                .iter()
                .all(|&alias| alias == 1)
        );
    }

    #[test]
    fn mqtt_3_3_2_10_a_client_takes_all_aliases_up_to_its_maximum() {
        let mut conversation = Conversation::accepted(
            Options {
                topic_alias_maximum: 3,
                ..options(V5)
            },
            "20 03 00 00 00",
        );
        conversation
            .receives(r#"30 08 "c" 03 230003 'm' 30 08 "a" 03 230001 'm' 30 08 "b" 03 230002 'm'"#);
        conversation
            .receives(r#"30 07 "" 03 230001 'm' 30 07 "" 03 230002 'm' 30 07 "" 03 230003 'm'"#);
        let topics: Vec<_> = (0..6).map(|_| conversation.message().topic).collect();
        assert_eq!(topics, ["c", "a", "b", "a", "b", "c"]);
        conversation.receives(r#"30 08 "d" 03 230004 'm'"#);
        conversation.gave_up(0x94);
    }

    #[test]
    fn mqtt_3_3_4_1_each_publish_is_answered_as_its_qos_asks() {
        let mut conversation = connected();
        conversation.receives(r#"30 05 "a" 00 'm'"#);
        conversation.writes_nothing();
        conversation.receives(r#"32 07 "a" 0001 00 'm'"#);
        conversation.writes("40 02 0001");
        conversation.receives(r#"34 07 "a" 0001 00 'm'"#);
        conversation.writes("50 02 0001");
    }

    #[test]
    fn mqtt_3_3_4_6_a_client_publishes_no_subscription_identifier() {
        let mut conversation = connected();
        let publication = Publication {
            properties: props(&[Property::SubscriptionId(1)]),
            ..a(QOS_0)
        };
        assert!(matches!(
            conversation.client.publish(&publication, 0),
            Err(RequestError::Invalid { .. })
        ));
        conversation.writes_nothing();
    }

    #[test]
    fn mqtt_3_3_4_7_no_more_messages_are_under_way_than_the_server_takes() {
        let mut conversation = connected_with("20 06 00 00 03 21 0002");
        conversation.publishes(QOS_1);
        conversation.publishes(QOS_2);
        let full = Err(RequestError::Busy);
        assert_eq!(conversation.client.publish(&a(QOS_1), 0), full);
        conversation.receives("50 02 0002");
        assert_eq!(
            conversation.client.publish(&a(QOS_1), 0),
            full,
            "PUBREC alone frees nothing"
        );
        conversation.receives("70 02 0002");
        conversation.publishes(QOS_1);
        assert_eq!(conversation.client.publish(&a(QOS_1), 0), full);
        conversation.receives("40 02 0001");
        conversation.publishes(QOS_2);
        conversation.receives("50 03 0004 80");
        conversation.publishes(QOS_2);
    }

    #[test]
    fn mqtt_3_3_4_8_a_full_window_delays_publish_alone() {
        let mut conversation = connected_with("20 06 00 00 03 21 0001");
        conversation.publishes(QOS_2);
        conversation.drain();
        assert_eq!(
            conversation.client.publish(&a(QOS_1), 0),
            Err(RequestError::Busy)
        );
        conversation.publishes(QOS_0);
        conversation.subscribes("b", QOS_0);
        conversation.writes(r#"30 05 "a" 00 'm' 82 07 0002 00 "b" 00"#);
        conversation.receives("50 02 0001");
        conversation.writes("62 02 0001");
    }

    #[test]
    fn mqtt_3_14_4_1_nothing_is_sent_after_disconnect() {
        let mut conversation = connected();
        conversation
            .client
            .disconnect(Reason::Success, Properties::EMPTY, 0)
            .unwrap();
        conversation.writes("e0 00");
        conversation.receives(r#"32 07 "a" 0001 00 'm'"#);
        conversation.client.on_tick(1_000_000);
        assert!(conversation.client.publish(&a(QOS_0), 0).is_err());
        assert!(
            conversation
                .client
                .disconnect(Reason::Success, Properties::EMPTY, 0)
                .is_err()
        );
        conversation.writes_nothing();
    }

    #[test]
    fn mqtt_3_14_4_2_the_connection_closes_after_disconnect() {
        let mut conversation = connected();
        conversation
            .client
            .disconnect(Reason::Success, Properties::EMPTY, 0)
            .unwrap();
        assert!(conversation.client.is_closing());
    }

    #[test]
    fn mqtt_4_1_0_1_the_session_stays_as_long_as_the_connection() {
        let mut conversation = connected();
        conversation.publishes(QOS_1);
        conversation.receives(r#"34 07 "a" 0005 00 'm'"#);
        conversation.message();
        conversation.client.on_tick(1_000_000);
        conversation.receives(r#"3c 07 "a" 0005 00 'm'"#);
        conversation.no_event();
        assert!(conversation.client.unfinished().eq([(id(1), QOS_1)]));
    }

    #[test]
    fn mqtt_4_3_1_1_qos_0_is_sent_without_dup() {
        let mut conversation = connected();
        conversation.publishes(QOS_0);
        conversation.writes(r#"30 05 "a" 00 'm'"#);
    }

    /// Identifiers of ten messages, with some of them and a SUBSCRIBE under way.
    fn identifiers(qos: QoS) -> Vec<PacketId> {
        let mut conversation = connected();
        let mut used = vec![conversation.subscribes("a", QOS_0)];
        for number in 0..10 {
            used.push(conversation.publishes(qos).unwrap());
            if number == 4 {
                conversation.receives("40 02 0003 50 03 0003 80");
            }
        }
        used
    }

    #[track_caller]
    fn all_differ(mut identifiers: Vec<PacketId>) {
        identifiers.sort();
        assert!(
            identifiers.windows(2).all(|pair| pair[0] != pair[1]),
            "{identifiers:?}"
        );
    }

    #[test]
    fn mqtt_4_3_2_1_qos_1_takes_an_unused_identifier() {
        all_differ(identifiers(QOS_1));
    }

    #[test]
    fn mqtt_4_3_2_2_qos_1_is_first_sent_without_dup() {
        let mut conversation = connected();
        conversation.publishes(QOS_1);
        conversation.writes(r#"32 07 "a" 0001 00 'm'"#);
    }

    #[test]
    fn mqtt_4_3_2_3_qos_1_is_unacknowledged_until_puback() {
        let mut conversation = connected();
        conversation.publishes(QOS_1);
        conversation.receives("40 02 0002 50 02 0001 70 02 0001");
        assert!(conversation.client.unfinished().eq([(id(1), QOS_1)]));
        conversation.receives("40 02 0001");
        assert_eq!(conversation.client.unfinished().count(), 0);
    }

    #[test]
    fn mqtt_4_3_2_4_qos_1_is_answered_by_puback() {
        let mut conversation = connected();
        conversation.receives(r#"32 07 "a" 0007 00 'm'"#);
        conversation.message();
        conversation.writes("40 02 0007");
    }

    #[test]
    fn mqtt_4_3_2_5_after_puback_the_identifier_is_of_a_new_message() {
        let mut conversation = connected();
        for dup in ["32", "3a"] {
            conversation.receives(&format!(r#"{dup} 07 "a" 0007 00 'm'"#));
            conversation.message();
            conversation.writes("40 02 0007");
        }
    }

    #[test]
    fn mqtt_4_3_3_1_qos_2_takes_an_unused_identifier() {
        all_differ(identifiers(QOS_2));
    }

    #[test]
    fn mqtt_4_3_3_2_qos_2_is_first_sent_without_dup() {
        let mut conversation = connected();
        conversation.publishes(QOS_2);
        conversation.writes(r#"34 07 "a" 0001 00 'm'"#);
    }

    #[test]
    fn mqtt_4_3_3_3_qos_2_is_unacknowledged_until_pubrec() {
        let mut conversation = connected();
        conversation.publishes(QOS_2);
        conversation.drain();
        conversation.receives("40 02 0001 70 02 0001");
        conversation.reconnects();
        conversation.writes(r#"3c 07 "a" 0001 00 'm'"#);
    }

    #[test]
    fn mqtt_4_3_3_4_pubrec_is_answered_by_pubrel() {
        for pubrec in ["50 02 0001", "50 03 0001 10"] {
            let mut conversation = connected();
            conversation.publishes(QOS_2);
            conversation.drain();
            conversation.receives(pubrec);
            conversation.writes("62 02 0001");
        }
    }

    #[test]
    fn mqtt_4_3_3_5_pubrel_is_unacknowledged_until_pubcomp() {
        let mut conversation = connected();
        conversation.publishes(QOS_2);
        conversation.receives("50 02 0001");
        conversation.drain();
        conversation.reconnects();
        conversation.writes("62 02 0001");
        conversation.receives("70 02 0001");
        conversation.event();
        conversation.reconnects();
        conversation.writes_nothing();
    }

    #[test]
    fn mqtt_4_3_3_6_publish_is_not_sent_again_after_pubrel() {
        let mut conversation = connected();
        conversation.publishes(QOS_2);
        conversation.receives("50 02 0001");
        conversation.drain();
        for _ in 0..3 {
            conversation.reconnects();
            conversation.writes("62 02 0001");
        }
    }

    #[test]
    fn mqtt_4_3_3_7_no_message_expires_once_it_was_sent() {
        let mut conversation = connected();
        let publication = Publication {
            properties: props(&[Property::MessageExpiry(1)]),
            ..a(QOS_2)
        };
        conversation.client.publish(&publication, 0).unwrap();
        conversation.drain();
        conversation.now_ms = 30_000;
        conversation.reconnects();
        conversation.writes(r#"3c 0c "a" 0001 05 02 00000001 'm'"#);
    }

    #[test]
    fn mqtt_4_3_3_8_qos_2_is_answered_by_pubrec() {
        let mut conversation = connected();
        conversation.receives(r#"34 07 "a" 0007 00 'm'"#);
        conversation.message();
        conversation.writes("50 02 0007");
    }

    #[test]
    fn mqtt_4_3_3_10_until_pubrel_the_identifier_is_of_the_same_message() {
        let mut conversation = connected();
        conversation.receives(r#"34 07 "a" 0007 00 'm'"#);
        conversation.message();
        conversation.drain();
        for dup in ["34", "3c"] {
            conversation.receives(&format!(r#"{dup} 07 "a" 0007 00 'm'"#));
            conversation.no_event();
            conversation.writes("50 02 0007");
        }
    }

    #[test]
    fn mqtt_4_3_3_11_pubrel_is_answered_by_pubcomp() {
        let mut conversation = connected();
        conversation.receives(r#"34 07 "a" 0007 00 'm' 62 02 0007"#);
        conversation.writes("50 02 0007 70 02 0007");
    }

    #[test]
    fn mqtt_4_3_3_12_after_pubcomp_the_identifier_is_of_a_new_message() {
        let mut conversation = connected();
        for _ in 0..2 {
            conversation.receives(r#"34 07 "a" 0007 00 'm' 62 02 0007"#);
            conversation.message();
        }
    }

    #[test]
    fn mqtt_4_4_0_1_unacknowledged_packets_are_sent_again_with_their_identifiers() {
        let mut conversation = connected();
        for qos in [QOS_1, QOS_2, QOS_2] {
            conversation.publishes(qos);
        }
        conversation.receives("50 02 0003");
        conversation.drain();
        conversation.reconnects();
        conversation.writes(r#"3a 07 "a" 0001 00 'm' 3c 07 "a" 0002 00 'm' 62 02 0003"#);
    }

    #[test]
    fn mqtt_4_4_0_2_refused_messages_are_not_sent_again() {
        let mut conversation = connected();
        conversation.publishes(QOS_1);
        conversation.publishes(QOS_2);
        conversation.receives("40 03 0001 87 50 03 0002 87");
        conversation.event();
        conversation.event();
        conversation.drain();
        conversation.reconnects();
        conversation.writes_nothing();
    }

    #[test]
    fn mqtt_4_5_0_2_what_nobody_asked_for_is_acknowledged_too() {
        let mut conversation = connected();
        conversation.receives(r#"32 0c "never/" 0001 00 'm' 34 0c "never/" 0002 00 'm'"#);
        conversation.writes("40 02 0001 50 02 0002");
    }

    #[test]
    fn mqtt_4_6_0_1_messages_are_sent_again_in_their_order() {
        let mut conversation = connected();
        for topic in ["z", "a", "m"] {
            let publication = Publication { topic, ..a(QOS_1) };
            conversation.client.publish(&publication, 0).unwrap();
        }
        conversation.drain();
        conversation.reconnects();
        conversation.writes(r#"3a 07 "z" 0001 00 'm' 3a 07 "a" 0002 00 'm' 3a 07 "m" 0003 00 'm'"#);
    }

    #[test]
    fn mqtt_4_6_0_2_puback_comes_in_the_order_of_publish() {
        let mut conversation = connected();
        conversation
            .receives(r#"32 07 "a" 0009 00 'm' 32 07 "b" 0002 00 'm' 32 07 "a" 0005 00 'm'"#);
        conversation.writes("40 02 0009 40 02 0002 40 02 0005");
    }

    #[test]
    fn mqtt_4_6_0_3_pubrec_comes_in_the_order_of_publish() {
        let mut conversation = connected();
        conversation
            .receives(r#"34 07 "a" 0009 00 'm' 34 07 "b" 0002 00 'm' 34 07 "a" 0005 00 'm'"#);
        conversation.writes("50 02 0009 50 02 0002 50 02 0005");
    }

    #[test]
    fn mqtt_4_6_0_4_pubrel_comes_in_the_order_of_pubrec() {
        let mut conversation = connected();
        for _ in 0..3 {
            conversation.publishes(QOS_2);
        }
        conversation.drain();
        conversation.receives("50 02 0001 50 02 0002 50 02 0003");
        conversation.writes("62 02 0001 62 02 0002 62 02 0003");
    }

    #[test]
    fn mqtt_4_9_0_1_the_send_quota_begins_at_most_at_receive_maximum() {
        let conversation = connected_with("20 06 00 00 03 21 0003");
        assert_eq!(conversation.client.free_window(), 3);
        let conversation = connected_with("20 06 00 00 03 21 ffff");
        assert!(conversation.client.free_window() > 0);
    }

    #[test]
    fn mqtt_4_9_0_2_without_quota_no_message_is_sent() {
        let mut conversation = connected_with("20 06 00 00 03 21 0001");
        conversation.publishes(QOS_1);
        conversation.drain();
        for qos in [QOS_1, QOS_2] {
            assert_eq!(
                conversation.client.publish(&a(qos), 0),
                Err(RequestError::Busy)
            );
        }
        conversation.writes_nothing();
    }

    #[test]
    fn mqtt_4_9_0_3_without_quota_other_packets_are_answered() {
        let mut conversation = connected_with("20 06 00 00 03 21 0001");
        conversation.publishes(QOS_2);
        conversation.drain();
        conversation
            .receives(r#"32 07 "a" 0001 00 'm' 34 07 "a" 0002 00 'm' 62 02 0002 50 02 0001"#);
        conversation.writes("40 02 0001 50 02 0002 70 02 0002 62 02 0001");
    }

    #[test]
    fn mqtt_4_12_0_3_auth_is_answered_by_auth_that_continues() {
        let mut conversation = Conversation::new(with_authentication());
        conversation.client.connect(true, 0).unwrap();
        conversation.drain();
        for _ in 0..2 {
            conversation.receives(r#"f0 0a 18 08 15 "X" 16 "2""#);
            assert!(matches!(conversation.event(), Event::Challenge { .. }));
            conversation.client.authenticate(b"3", 0).unwrap();
            conversation.writes(r#"f0 0a 18 08 15 "X" 16 "3""#);
        }
    }

    #[test]
    fn mqtt_4_12_0_5_the_method_is_the_same_in_all_packets() {
        for packet in [
            r#"f0 06 18 04 15 "Y""#,
            r#"20 07 00 00 04 15 "Y""#,
            "20 03 00 00 00",
        ] {
            let mut conversation = Conversation::new(with_authentication());
            conversation.client.connect(true, 0).unwrap();
            conversation.drain();
            conversation.receives(packet);
            conversation.gave_up(0x82);
        }
    }

    #[test]
    fn mqtt_4_12_0_6_auth_without_a_method_in_connect_is_an_error() {
        let mut conversation = Conversation::new(options(V5));
        conversation.client.connect(true, 0).unwrap();
        conversation.drain();
        conversation.receives(r#"f0 06 18 04 15 "X""#);
        conversation.gave_up(0x82);
    }

    #[test]
    fn mqtt_4_12_0_7_without_a_method_in_connect_no_auth_is_sent() {
        let mut conversation = connected();
        assert!(conversation.client.authenticate(b"", 0).is_err());
        assert!(conversation.client.reauthenticate(b"", 0).is_err());
        conversation.writes_nothing();
    }

    #[test]
    fn mqtt_4_12_1_1_the_method_stays_in_a_re_authentication() {
        let mut conversation =
            Conversation::accepted(with_authentication(), r#"20 07 00 00 04 15 "X""#);
        conversation.client.reauthenticate(b"1", 0).unwrap();
        conversation.writes(r#"f0 0a 19 08 15 "X" 16 "1""#);
    }

    #[test]
    fn mqtt_4_13_2_1_an_error_closes_the_connection() {
        let mut conversation = Conversation::new(options(V5));
        conversation.client.connect(true, 0).unwrap();
        conversation.receives("20 03 00 80 00");
        assert!(conversation.client.is_closing());
        let mut conversation = connected();
        conversation.receives("e0 01 8b");
        assert!(conversation.client.is_closing());
        let mut conversation = connected();
        conversation.receives("00 00");
        conversation.gave_up(0x81);
    }
}
