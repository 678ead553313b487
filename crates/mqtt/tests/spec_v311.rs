//! The normative statements of MQTT 3.1.1 that show in single packets, each with a test that begins with its id.
//!
//! The decoder's messages cite 5.0, so that the ids of 3.1.1 stand here alone.

mod common;

mod v311 {
    use campanile_mqtt::{ConnAck, Packet, Properties, QoS, Reason, Version::V311, topic};

    use crate::common::{accepts, bytes, encode, frame, frame_of, hex, refuses};

    #[track_caller]
    fn malformed(frame: &[u8], words: &str) {
        refuses(V311, frame, Reason::MalformedPacket, words);
    }

    #[track_caller]
    fn protocol_error(frame: &[u8], words: &str) {
        refuses(V311, frame, Reason::ProtocolError, words);
    }

    /// A CONNECT with these flags and this payload.
    fn connect(flags: u8, payload: &str) -> Vec<u8> {
        frame(0x10, &format!(r#""MQTT" 04 {flags:02x} 003c {payload}"#))
    }

    /// Packets that each hold `text`, hex with its length, in the place of another string.
    fn texts(text: &str) -> Vec<Vec<u8>> {
        vec![
            frame(0x10, &format!(r#"{text} 04 02 003c "c""#)),
            connect(0x02, text),
            connect(0x06, &format!(r#""c" {text} "x""#)),
            connect(0x82, &format!(r#""c" {text}"#)),
            frame(0x30, text),
            frame(0x82, &format!("0001 {text} 00")),
            frame(0xA2, &format!("0001 {text}")),
        ]
    }

    #[test]
    fn mqtt_1_5_3_1_text_is_well_formed_utf_8() {
        for bad in [
            "0001 ff",
            "0003 ed a0 80",
            "0003 ed bf bf",
            "0002 c0 80",
            "0002 'a' c3",
        ] {
            for frame in texts(bad) {
                malformed(&frame, "must be well-formed UTF-8");
            }
        }
    }

    #[test]
    fn mqtt_1_5_3_2_text_has_no_null_character() {
        for frame in texts("0002 'a' 00") {
            malformed(&frame, "must not contain U+0000");
        }
    }

    #[test]
    fn mqtt_1_5_3_3_a_byte_order_mark_is_a_character() {
        let frame = frame(0x30, "0004 ef bb bf 'a'");
        let Packet::Publish(publish) = accepts(V311, &frame) else {
            panic!()
        };
        assert_eq!(publish.topic, "\u{FEFF}a");
    }

    const PACKETS: [(u8, &str); 13] = [
        (0x10, r#""MQTT" 04 02 003c "c""#),
        (0x20, "00 00"),
        (0x40, "0001"),
        (0x50, "0001"),
        (0x62, "0001"),
        (0x70, "0001"),
        (0x82, r#"0001 "a" 00"#),
        (0x90, "0001 00"),
        (0xA2, r#"0001 "a""#),
        (0xB0, "0001"),
        (0xC0, ""),
        (0xD0, ""),
        (0xE0, ""),
    ];

    #[test]
    fn mqtt_2_2_2_1_reserved_flags_are_written_as_the_table_says() {
        for (first_byte, body) in PACKETS {
            let frame = frame(first_byte, body);
            let packet = accepts(V311, &frame);
            assert_eq!(encode(&packet, V311)[0], first_byte);
        }
    }

    #[test]
    fn mqtt_2_2_2_2_other_flags_are_refused() {
        for (first_byte, body) in PACKETS {
            for flags in (0..16).filter(|&flags| flags != first_byte & 0x0F) {
                malformed(
                    &frame(first_byte & 0xF0 | flags, body),
                    "flags of the fixed header",
                );
            }
        }
        malformed(&frame(0x00, ""), "packet type 0");
        malformed(&frame(0xF0, ""), "packet type 15");
    }

    #[test]
    fn mqtt_2_3_1_1_packet_identifiers_are_not_0() {
        for (first_byte, body) in [
            (0x32, r#""a" 0000"#),
            (0x34, r#""a" 0000"#),
            (0x82, r#"0000 "a" 00"#),
        ] {
            protocol_error(&frame(first_byte, body), "packet identifier 0");
        }
        protocol_error(&frame(0xA2, r#"0000 "a""#), "packet identifier 0");
    }

    #[test]
    fn mqtt_2_3_1_5_publish_of_qos_0_has_no_packet_identifier() {
        let frame = frame(0x30, r#""a" 0001"#);
        let Packet::Publish(publish) = accepts(V311, &frame) else {
            panic!()
        };
        assert_eq!((publish.packet_id, publish.payload), (None, &[0, 1][..]));
    }

    #[test]
    fn mqtt_3_1_2_1_another_protocol_name_is_refused() {
        for name in ["MQTTX", "mqtt", "MQIsdp", ""] {
            let frame = frame(0x10, &format!(r#""{name}" 04 02 003c "c""#));
            refuses(V311, &frame, Reason::UnsupportedProtocolVersion, "must be");
        }
    }

    #[test]
    fn mqtt_3_1_2_2_another_protocol_level_is_refused_with_return_code_1() {
        for level in [0, 1, 2, 6, 0x83, 0x84, 255] {
            let frame = frame(0x10, &format!(r#""MQTT" {level:02x} 02 003c "c""#));
            let error = refuses(
                V311,
                &frame,
                Reason::UnsupportedProtocolVersion,
                "protocol level",
            );
            let connack = Packet::ConnAck(ConnAck {
                session_present: false,
                reason: error.reason,
                properties: Properties::EMPTY,
            });
            assert_eq!(encode(&connack, V311), bytes("20 02 00 01"));
        }
    }

    #[test]
    fn mqtt_3_1_2_3_the_reserved_connect_flag_is_0() {
        malformed(&connect(0x03, r#""c""#), "bit 0");
    }

    #[test]
    fn mqtt_3_1_2_9_a_will_has_topic_and_message() {
        malformed(&connect(0x06, r#""c""#), "will topic");
        malformed(&connect(0x06, r#""c" "w""#), "will payload");
        let frame = connect(0x36, r#""c" "w" "x""#);
        let Packet::Connect(connect) = accepts(V311, &frame) else {
            panic!()
        };
        let will = connect.will.unwrap();
        assert_eq!((will.qos, will.retain), (QoS::ExactlyOnce, true));
        assert_eq!((will.topic, will.payload), ("w", &b"x"[..]));
    }

    #[test]
    fn mqtt_3_1_2_11_without_a_will_its_flags_are_0_and_its_fields_absent() {
        for flags in [0x0A, 0x12, 0x1A, 0x22, 0x2A] {
            malformed(&connect(flags, r#""c""#), "without a will");
        }
        malformed(&connect(0x02, r#""c" "w" "x""#), "bytes after the end");
    }

    #[test]
    fn mqtt_3_1_2_13_without_a_will_its_qos_is_0() {
        for qos in 1..=3 {
            malformed(
                &connect(0x02 | qos << 3, r#""c""#),
                "the will QoS must be 0",
            );
        }
    }

    #[test]
    fn mqtt_3_1_2_14_the_qos_of_a_will_is_not_3() {
        for qos in 0..=2 {
            accepts(V311, &connect(0x06 | qos << 3, r#""c" "w" "x""#));
        }
        malformed(
            &connect(0x1E, r#""c" "w" "x""#),
            "the will QoS must not be 3",
        );
    }

    #[test]
    fn mqtt_3_1_2_15_without_a_will_its_retain_flag_is_0() {
        malformed(&connect(0x22, r#""c""#), "will retain must be 0");
    }

    #[test]
    fn mqtt_3_1_2_18_without_the_flag_there_is_no_user_name() {
        malformed(&connect(0x02, r#""c" "user""#), "bytes after the end");
    }

    #[test]
    fn mqtt_3_1_2_19_with_the_flag_there_is_a_user_name() {
        malformed(&connect(0x82, r#""c""#), "user name");
    }

    #[test]
    fn mqtt_3_1_2_20_without_the_flag_there_is_no_password() {
        malformed(
            &connect(0x82, r#""c" "user" "password""#),
            "bytes after the end",
        );
    }

    #[test]
    fn mqtt_3_1_2_21_with_the_flag_there_is_a_password() {
        malformed(&connect(0xC2, r#""c" "user""#), "password");
        accepts(V311, &connect(0xC2, r#""c" "user" "password""#));
    }

    #[test]
    fn mqtt_3_1_2_22_without_user_name_there_is_no_password() {
        malformed(
            &connect(0x42, r#""c" "password""#),
            "a password needs a user name",
        );
    }

    #[test]
    fn mqtt_3_1_3_1_the_fields_of_the_payload_come_in_order() {
        let frame = connect(0xC6, r#""id" "topic" "message" "user" "password""#);
        let Packet::Connect(connect) = accepts(V311, &frame) else {
            panic!()
        };
        let will = connect.will.unwrap();
        assert_eq!(
            (connect.client_id, will.topic, will.payload),
            ("id", "topic", &b"message"[..])
        );
        assert_eq!(
            (connect.username, connect.password),
            (Some("user"), Some(&b"password"[..]))
        );
    }

    #[test]
    fn mqtt_3_1_3_3_the_client_identifier_is_present() {
        malformed(&connect(0x02, ""), "client identifier");
    }

    #[test]
    fn mqtt_3_1_3_4_the_client_identifier_is_text() {
        malformed(
            &connect(0x02, "0001 ff"),
            "client identifier: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_1_3_7_an_empty_client_identifier_needs_clean_session() {
        accepts(V311, &connect(0x02, r#""""#));
        refuses(
            V311,
            &connect(0x00, r#""""#),
            Reason::ClientIdentifierNotValid,
            "client identifier",
        );
    }

    #[test]
    fn mqtt_3_1_3_8_an_empty_client_identifier_without_clean_session_is_return_code_2() {
        let error = refuses(
            V311,
            &connect(0x00, r#""""#),
            Reason::ClientIdentifierNotValid,
            "",
        );
        assert_eq!(error.reason.connect_return_code(), 2);
    }

    #[test]
    fn mqtt_3_1_3_10_the_will_topic_is_text() {
        malformed(
            &connect(0x06, r#""c" 0001 ff "x""#),
            "will topic: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_1_3_11_the_user_name_is_text() {
        malformed(
            &connect(0x82, r#""c" 0001 ff"#),
            "user name: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_1_4_1_a_connect_of_another_format_is_refused() {
        let whole = bytes(r#""MQTT" 04 c6 003c "c" "w" "x" "u" "p""#);
        accepts(V311, &frame_of(0x10, &whole));
        for len in 0..whole.len() {
            Packet::decode(&frame_of(0x10, &whole[..len]), V311).unwrap_err();
        }
        malformed(
            &frame_of(0x10, &[&whole[..], &[0]].concat()),
            "bytes after the end of the packet 1",
        );
    }

    #[test]
    fn mqtt_3_2_2_4_session_present_is_0_in_a_refusal() {
        for code in 1..=5 {
            protocol_error(&frame_of(0x20, &[1, code]), "session present");
            accepts(V311, &frame_of(0x20, &[0, code]));
        }
    }

    #[test]
    fn mqtt_3_3_1_2_dup_is_0_for_qos_0() {
        malformed(&frame(0x38, r#""a""#), "DUP flag");
        accepts(V311, &frame(0x3A, r#""a" 0001"#));
    }

    #[test]
    fn mqtt_3_3_1_4_qos_is_not_3() {
        for first_byte in [0x36, 0x37, 0x3E, 0x3F] {
            malformed(&frame(first_byte, r#""a" 0001"#), "must not be 3");
        }
    }

    #[test]
    fn mqtt_3_3_2_1_the_topic_name_is_the_first_field_and_text() {
        malformed(&frame(0x30, "0001 ff"), "topic name: must be well-formed");
        malformed(&frame(0x30, ""), "topic name");
    }

    #[test]
    fn mqtt_3_3_2_2_the_topic_name_has_no_wildcards() {
        for name in ["#", "+", "a/#", "a/+/b", "a+"] {
            malformed(
                &frame(0x30, &format!(r#""{name}""#)),
                "must not contain the wildcards",
            );
        }
    }

    #[test]
    fn mqtt_3_6_1_1_the_flags_of_pubrel_are_2() {
        for flags in (0..16).filter(|&flags| flags != 2) {
            malformed(&frame(0x60 | flags, "0001"), "must be 2");
        }
    }

    #[test]
    fn mqtt_3_8_1_1_the_flags_of_subscribe_are_2() {
        for flags in (0..16).filter(|&flags| flags != 2) {
            malformed(&frame(0x80 | flags, r#"0001 "a" 00"#), "must be 2");
        }
    }

    #[test]
    fn mqtt_3_8_3_1_the_topic_filters_are_text() {
        malformed(
            &frame(0x82, r#"0001 "a" 00 0001 ff 00"#),
            "topic filter: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_8_3_3_subscribe_has_a_topic_filter_and_qos() {
        protocol_error(&bytes("82 02 0001"), "there must be at least one");
        malformed(&frame(0x82, r#"0001 "a""#), "subscription options");
    }

    #[test]
    fn mqtt_3_8_3_4_reserved_bits_are_0_and_qos_is_not_3() {
        for options in 4..=255u8 {
            malformed(
                &frame(0x82, &format!(r#"0001 "a" {options:02x}"#)),
                "reserved bits",
            );
        }
        Packet::decode(&frame(0x82, r#"0001 "a" 03"#), V311).unwrap_err();
        for qos in 0..=2 {
            accepts(V311, &frame(0x82, &format!(r#"0001 "a" {qos:02x}"#)));
        }
    }

    #[test]
    fn mqtt_3_9_3_2_suback_has_return_codes_0_1_2_and_128() {
        for code in 0..=255 {
            let frame = frame_of(0x90, &[0, 1, code]);
            if matches!(code, 0 | 1 | 2 | 0x80) {
                accepts(V311, &frame);
            } else {
                protocol_error(&frame, "must be 0, 1, 2 or 128");
            }
        }
        // A reason of 5.0 is written as the only failure there is.
        let v5 = frame(0x90, "0001 00 02 8f a2");
        let suback = Packet::decode(&v5, campanile_mqtt::Version::V5).unwrap();
        assert_eq!(hex(&encode(&suback, V311)), "90 05 00 01 02 80 80");
    }

    #[test]
    fn mqtt_3_10_1_1_the_flags_of_unsubscribe_are_2() {
        for flags in (0..16).filter(|&flags| flags != 2) {
            malformed(&frame(0xA0 | flags, r#"0001 "a""#), "must be 2");
        }
    }

    #[test]
    fn mqtt_3_10_3_1_the_topic_filters_are_text() {
        malformed(
            &frame(0xA2, r#"0001 "a" 0001 ff"#),
            "topic filter: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_10_3_2_unsubscribe_has_a_topic_filter() {
        protocol_error(&bytes("a2 02 0001"), "there must be at least one");
    }

    #[test]
    fn mqtt_3_14_1_1_reserved_bits_of_disconnect_are_0() {
        for flags in 1..16 {
            malformed(&frame(0xE0 | flags, ""), "must be 0");
        }
    }

    #[test]
    fn mqtt_4_7_1_1_wildcards_are_for_filters_alone() {
        for wildcard in ["#", "+", "a/+", "a/#"] {
            assert_eq!(topic::validate_filter(wildcard), Ok(()));
            malformed(&frame(0x30, &format!(r#""{wildcard}""#)), "topic name");
            malformed(
                &connect(0x06, &format!(r#""c" "{wildcard}" "x""#)),
                "will topic",
            );
        }
    }

    #[track_caller]
    fn check_filter(filter: &str, words: &str) {
        malformed(&frame(0x82, &format!(r#"0001 "{filter}" 00"#)), words);
        malformed(&frame(0xA2, &format!(r#"0001 "{filter}""#)), words);
    }

    #[test]
    fn mqtt_4_7_1_2_the_multi_level_wildcard_is_a_whole_and_the_last_level() {
        for filter in ["#", "a/#", "/#"] {
            accepts(V311, &frame(0xA2, &format!(r#"0001 "{filter}""#)));
        }
        for filter in ["a#", "a/#/b", "#/"] {
            check_filter(filter, r##""#" must"##);
        }
        // It includes the parent level.
        assert!(topic::matches("sport/#", "sport") && topic::matches("sport/#", "sport/a/b"));
    }

    #[test]
    fn mqtt_4_7_1_3_the_single_level_wildcard_is_a_whole_level() {
        for filter in ["+", "+/a/#", "a/+/b", "/+"] {
            accepts(V311, &frame(0xA2, &format!(r#"0001 "{filter}""#)));
        }
        for filter in ["a+", "+a/b", "a/b+"] {
            check_filter(filter, r#""+" must"#);
        }
        assert!(topic::matches("+/+", "/finance") && topic::matches("/+", "/finance"));
        assert!(!topic::matches("+", "/finance") && !topic::matches("sport/+", "sport"));
    }

    #[test]
    fn mqtt_4_7_2_1_leading_wildcards_do_not_match_dollar_topics() {
        assert!(!topic::matches("#", "$SYS/a") && !topic::matches("+/a", "$SYS/a"));
        assert!(topic::matches("$SYS/#", "$SYS/a") && topic::matches("$SYS/+", "$SYS/a"));
    }

    #[test]
    fn mqtt_4_7_3_1_names_and_filters_have_a_character() {
        protocol_error(&frame(0x30, r#""""#), "must not be empty");
        protocol_error(&frame(0x82, r#"0001 "" 00"#), "must not be empty");
        protocol_error(&frame(0xA2, r#"0001 """#), "must not be empty");
        accepts(V311, &frame(0x30, r#""/""#));
    }

    #[test]
    fn mqtt_4_7_3_2_names_and_filters_have_no_null_character() {
        malformed(&frame(0x30, "0001 00"), "U+0000");
        malformed(&frame(0x82, "0001 0001 00 00"), "U+0000");
        malformed(&frame(0xA2, "0001 0001 00"), "U+0000");
    }

    #[test]
    fn mqtt_4_7_3_3_names_and_filters_have_at_most_65535_bytes() {
        assert_eq!(topic::validate_name(&"a".repeat(65_535)), Ok(()));
        assert_eq!(
            topic::validate_name(&"a".repeat(65_536)),
            Err(topic::NameError::TooLong)
        );
        assert_eq!(
            topic::validate_filter(&"a".repeat(65_536)),
            Err(topic::FilterError::TooLong)
        );
    }

    #[test]
    fn mqtt_4_7_3_4_topics_are_not_normalized() {
        assert!(!topic::matches("ACCOUNTS", "Accounts"));
        assert!(!topic::matches("a", "a/") && !topic::matches("a//b", "a/b"));
        assert!(
            !topic::matches("\u{E9}", "e\u{301}"),
            "composed and decomposed"
        );
    }
}

mod v31 {
    //! MQTT 3.1 has no numbered statements. What differs from 3.1.1:

    use campanile_mqtt::{Packet, Reason, Version::V31};

    use crate::common::{accepts, bytes, encode, frame, refuses};

    #[test]
    fn the_protocol_name_belongs_to_the_level() {
        accepts(V31, &frame(0x10, r#""MQIsdp" 03 02 003c "c""#));
        for head in [r#""MQTT" 03"#, r#""MQIsdp" 04"#, r#""MQIsdp" 05"#] {
            let frame = frame(0x10, &format!(r#"{head} 02 003c "c""#));
            refuses(
                V31,
                &frame,
                Reason::UnsupportedProtocolVersion,
                "protocol level",
            );
        }
    }

    #[test]
    fn the_client_identifier_is_not_empty() {
        let frame = frame(0x10, r#""MQIsdp" 03 02 003c """#);
        let error = refuses(
            V31,
            &frame,
            Reason::ClientIdentifierNotValid,
            "client identifier",
        );
        assert_eq!(error.reason.connect_return_code(), 2);
    }

    #[test]
    fn the_remaining_length_takes_precedence_over_the_flags_of_user_name_and_password() {
        for (flags, payload) in [("82", r#""c""#), ("c2", r#""c""#), ("c2", r#""c" "user""#)] {
            let frame = frame(0x10, &format!(r#""MQIsdp" 03 {flags} 003c {payload}"#));
            let Ok(Packet::Connect(connect)) = Packet::decode(&frame, V31) else {
                panic!()
            };
            assert_eq!(connect.password, None);
            assert_eq!(connect.username.is_some(), payload.contains("user"));
        }
    }

    #[test]
    fn a_client_may_repeat_packets_with_the_dup_flag() {
        for (first_byte, body) in [
            (0x6A, "0001"),
            (0x8A, r#"0001 "a" 00"#),
            (0xAA, r#"0001 "a""#),
        ] {
            let frame = frame(first_byte, body);
            let packet = Packet::decode(&frame, V31).unwrap();
            assert_eq!(encode(&packet, V31)[0], first_byte & !0x08);
            Packet::decode(&frame, campanile_mqtt::Version::V311).unwrap_err();
        }
    }

    #[test]
    fn connack_knows_no_session_present() {
        let frame = bytes("20 02 01 00");
        let Ok(Packet::ConnAck(connack)) = Packet::decode(&frame, V31) else {
            panic!()
        };
        assert!(!connack.session_present);
    }
}
