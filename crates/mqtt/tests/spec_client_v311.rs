//! The normative statements of MQTT 3.1.1 about what a client does, each with a test that begins with its id.

mod common;
#[path = "common/conversation.rs"]
mod conversation;

mod v311 {
    use campanile_mqtt::client::{Publication, RequestError};
    use campanile_mqtt::{Properties, QoS, Reason, Version::V311};

    use crate::common::id;
    use crate::conversation::{Conversation, a, options};

    const QOS_0: QoS = QoS::AtMostOnce;
    const QOS_1: QoS = QoS::AtLeastOnce;
    const QOS_2: QoS = QoS::ExactlyOnce;

    fn connected() -> Conversation {
        Conversation::connected(V311)
    }

    #[test]
    fn mqtt_2_3_1_2_each_new_packet_takes_an_unused_identifier() {
        let mut conversation = connected();
        let mut used = vec![conversation.subscribes("a", QOS_0)];
        used.extend([QOS_1, QOS_2].map(|qos| conversation.publishes(qos).unwrap()));
        let unsubscribe = conversation
            .client
            .unsubscribe(&["a"], Properties::EMPTY, 0);
        used.push(unsubscribe.unwrap());
        assert_eq!(used, [1, 2, 3, 4].map(id));
    }

    #[test]
    fn mqtt_2_3_1_3_a_packet_that_is_sent_again_keeps_its_identifier() {
        let mut conversation = connected();
        conversation.publishes(QOS_1);
        conversation.publishes(QOS_2);
        conversation.writes(r#"32 06 "a" 0001 'm' 34 06 "a" 0002 'm'"#);
        conversation.reconnects();
        conversation.writes(r#"3a 06 "a" 0001 'm' 3c 06 "a" 0002 'm'"#);
    }

    #[test]
    fn mqtt_2_3_1_4_an_identifier_is_free_after_its_acknowledgement() {
        let mut conversation = connected();
        for number in (1..=u16::MAX).chain([1, 2]) {
            assert_eq!(conversation.publishes(QOS_1), Some(id(number)));
            conversation.drain();
            conversation
                .client
                .handle_bytes(&[&[0x40, 2][..], &number.to_be_bytes()].concat(), 0);
            conversation.event();
        }
    }

    #[test]
    fn mqtt_2_3_1_6_acknowledgements_have_the_identifier_of_the_publish() {
        let mut conversation = connected();
        conversation.receives(r#"32 06 "a" 1234 'm' 34 06 "a" 5678 'm' 62 02 5678"#);
        conversation.writes("40 02 1234 50 02 5678 70 02 5678");
    }

    #[test]
    fn mqtt_3_1_0_1_connect_is_the_first_packet() {
        let mut conversation = Conversation::new(options(V311));
        assert_eq!(
            conversation.client.publish(&a(QOS_0), 0),
            Err(RequestError::NotConnected)
        );
        conversation.client.on_tick(1_000_000);
        conversation.writes_nothing();
        conversation.client.connect(true, 0).unwrap();
        assert_eq!(conversation.client.output()[0], 0x10);
    }

    #[test]
    fn mqtt_3_1_2_6_a_clean_session_discards_the_one_before() {
        let mut conversation = connected();
        conversation.publishes(QOS_1);
        conversation.client.on_closed();
        conversation.client.connect(true, 0).unwrap();
        conversation.drain();
        conversation.receives("20 02 00 00");
        conversation.writes_nothing();
        assert_eq!(conversation.client.unfinished().count(), 0);
    }

    #[test]
    fn mqtt_3_1_2_23_silence_is_broken_by_pingreq() {
        let mut conversation = connected();
        let due_ms = conversation.client.next_deadline().unwrap();
        assert!(due_ms < 60_000, "within the keep alive");
        conversation.client.on_tick(due_ms);
        conversation.writes("c0 00");
    }

    #[test]
    fn mqtt_3_3_1_1_dup_is_1_when_a_message_is_sent_again() {
        let mut conversation = connected();
        conversation.publishes(QOS_1);
        conversation.writes(r#"32 06 "a" 0001 'm'"#);
        conversation.reconnects();
        conversation.writes(r#"3a 06 "a" 0001 'm'"#);
    }

    #[test]
    fn mqtt_3_3_4_1_each_publish_is_answered_as_its_qos_asks() {
        let mut conversation = connected();
        conversation.receives(r#"30 04 "a" 'm'"#);
        conversation.writes_nothing();
        conversation.receives(r#"32 06 "a" 0001 'm'"#);
        conversation.writes("40 02 0001");
        conversation.receives(r#"34 06 "a" 0001 'm'"#);
        conversation.writes("50 02 0001");
    }

    #[test]
    fn mqtt_3_14_4_1_the_connection_closes_after_disconnect() {
        let mut conversation = connected();
        conversation
            .client
            .disconnect(Reason::Success, Properties::EMPTY, 0)
            .unwrap();
        assert!(conversation.client.is_closing());
        conversation.writes("e0 00");
    }

    #[test]
    fn mqtt_3_14_4_2_nothing_is_sent_after_disconnect() {
        let mut conversation = connected();
        conversation
            .client
            .disconnect(Reason::Success, Properties::EMPTY, 0)
            .unwrap();
        conversation.drain();
        conversation.receives(r#"32 06 "a" 0001 'm'"#);
        conversation.client.on_tick(1_000_000);
        assert!(conversation.client.publish(&a(QOS_0), 0).is_err());
        conversation.writes_nothing();
    }

    #[test]
    fn mqtt_4_1_0_1_the_session_stays_as_long_as_the_connection() {
        let mut conversation = connected();
        conversation.publishes(QOS_1);
        conversation.receives(r#"34 06 "a" 0005 'm'"#);
        conversation.message();
        conversation.client.on_tick(1_000_000);
        conversation.receives(r#"3c 06 "a" 0005 'm'"#);
        conversation.no_event();
        assert!(conversation.client.unfinished().eq([(id(1), QOS_1)]));
    }

    #[test]
    fn mqtt_4_3_1_1_qos_0_is_sent_without_dup() {
        let mut conversation = connected();
        conversation.publishes(QOS_0);
        conversation.writes(r#"30 04 "a" 'm'"#);
    }

    #[test]
    fn mqtt_4_3_2_1_qos_1_is_unacknowledged_until_puback() {
        let mut conversation = connected();
        assert_eq!(conversation.publishes(QOS_1), Some(id(1)));
        conversation.writes(r#"32 06 "a" 0001 'm'"#);
        conversation.receives("40 02 0002 50 02 0001 70 02 0001");
        assert!(conversation.client.unfinished().eq([(id(1), QOS_1)]));
        conversation.receives("40 02 0001");
        assert_eq!(conversation.client.unfinished().count(), 0);
    }

    #[test]
    fn mqtt_4_3_2_2_qos_1_is_answered_by_puback_and_then_new() {
        let mut conversation = connected();
        for _ in 0..2 {
            conversation.receives(r#"32 06 "a" 0007 'm'"#);
            conversation.message();
            conversation.writes("40 02 0007");
        }
    }

    #[test]
    fn mqtt_4_3_3_1_qos_2_is_unacknowledged_until_pubcomp() {
        let mut conversation = connected();
        conversation.publishes(QOS_2);
        conversation.writes(r#"34 06 "a" 0001 'm'"#);
        conversation.reconnects();
        conversation.writes(r#"3c 06 "a" 0001 'm'"#);
        conversation.receives("50 02 0001");
        conversation.writes("62 02 0001");
        conversation.reconnects();
        conversation.writes("62 02 0001");
        conversation.receives("70 02 0001");
        conversation.event();
        conversation.reconnects();
        conversation.writes_nothing();
    }

    #[test]
    fn mqtt_4_3_3_2_qos_2_is_delivered_once_until_pubrel() {
        let mut conversation = connected();
        for _ in 0..2 {
            conversation.receives(r#"34 06 "a" 0007 'm'"#);
            conversation.message();
            conversation.writes("50 02 0007");
            conversation.receives(r#"3c 06 "a" 0007 'm'"#);
            conversation.no_event();
            conversation.writes("50 02 0007");
            conversation.receives("62 02 0007");
            conversation.writes("70 02 0007");
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
        conversation.writes(r#"3a 06 "a" 0001 'm' 3c 06 "a" 0002 'm' 62 02 0003"#);
    }

    #[test]
    fn mqtt_4_5_0_2_what_nobody_asked_for_is_acknowledged_too() {
        let mut conversation = connected();
        conversation.receives(r#"32 0b "never/" 0001 'm' 34 0b "never/" 0002 'm'"#);
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
        conversation.writes(r#"3a 06 "z" 0001 'm' 3a 06 "a" 0002 'm' 3a 06 "m" 0003 'm'"#);
    }

    #[test]
    fn mqtt_4_6_0_2_puback_comes_in_the_order_of_publish() {
        let mut conversation = connected();
        conversation.receives(r#"32 06 "a" 0009 'm' 32 06 "b" 0002 'm' 32 06 "a" 0005 'm'"#);
        conversation.writes("40 02 0009 40 02 0002 40 02 0005");
    }

    #[test]
    fn mqtt_4_6_0_3_pubrec_comes_in_the_order_of_publish() {
        let mut conversation = connected();
        conversation.receives(r#"34 06 "a" 0009 'm' 34 06 "b" 0002 'm' 34 06 "a" 0005 'm'"#);
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
    fn mqtt_4_8_0_1_a_protocol_violation_closes_the_connection() {
        let violations = [
            "c0 00",                 // PINGREQ
            "20 02 00 00",           // a second CONNACK
            "90 03 0001 00",         // SUBACK without a SUBSCRIBE
            r#"36 06 "a" 0001 'm'"#, // quality of service 3
            r#"32 06 "a" 0000 'm'"#, // packet identifier 0
            "60 02 0001",            // PUBREL with the flags of another
            "e0 00",                 // DISCONNECT
            "f0 00",                 // AUTH
        ];
        for violation in violations {
            let mut conversation = connected();
            conversation.receives(violation);
            assert!(conversation.client.is_closing(), "{violation}");
            conversation.writes_nothing();
        }
    }
}
