//! The normative statements of MQTT 5.0 that show in single packets, each with a test that begins with its id.

mod common;

mod v5 {
    use campanile_mqtt::publish::{self, Head, Outgoing};
    use campanile_mqtt::{Packet, Reason, Version::V5, topic};

    use crate::common::{accepts, bytes, frame, frame_of, refuses, texts};

    #[track_caller]
    fn malformed(frame: &[u8], words: &str) {
        refuses(V5, frame, Reason::MalformedPacket, words);
    }

    #[track_caller]
    fn protocol_error(frame: &[u8], words: &str) {
        refuses(V5, frame, Reason::ProtocolError, words);
    }

    /// A CONNECT with these flags and this payload, and without properties.
    fn connect(flags: u8, payload: &str) -> Vec<u8> {
        frame(0x10, &format!(r#""MQTT" 05 {flags:02x} 003c 00 {payload}"#))
    }

    /// What a subscriber gets of a PUBLISH with this property block in hex, `name` its topic.
    fn forwarded(block: &str) -> Vec<u8> {
        let len = bytes(block).len();
        let received = frame(0x30, &format!(r#""a" {len:02x} {block} 'payload'"#));
        let Packet::Publish(received) = accepts(V5, &received) else {
            panic!("no PUBLISH")
        };
        let mut forwarded = Vec::new();
        received.properties.write_forwardable(&mut forwarded);
        let message = Outgoing {
            topic: received.topic,
            payload: received.payload,
            forwarded: &forwarded,
            message_expiry: None,
        };
        let mut out = Vec::new();
        publish::encode(&message, &Head::default(), V5, &mut out);
        out
    }

    #[track_caller]
    fn check_forwarded_unaltered(block: &str) {
        let len = bytes(block).len();
        assert_eq!(
            forwarded(block),
            frame(0x30, &format!(r#""a" {len:02x} {block} 'payload'"#))
        );
    }

    #[test]
    fn mqtt_1_5_4_1_text_is_well_formed_utf_8() {
        let surrogate = [0xED, 0xA0, 0x80];
        let overlong = [0xC0, 0x80];
        let above_unicode = [0xF4, 0x90, 0x80, 0x80];
        for bad in [&surrogate[..], &overlong, &above_unicode, &[0xFF], b"a\xC3"] {
            for (name, frame) in texts(bad) {
                println!("{name} {bad:?}");
                malformed(&frame, "[MQTT-1.5.4-1]");
            }
        }
    }

    #[test]
    fn mqtt_1_5_4_2_text_has_no_null_character() {
        for (name, frame) in texts(b"a\0") {
            println!("{name}");
            malformed(
                &frame,
                if name.starts_with("topic") {
                    "[MQTT-4.7.3-2]"
                } else {
                    "[MQTT-1.5.4-2]"
                },
            );
        }
    }

    #[test]
    fn mqtt_1_5_4_3_a_byte_order_mark_is_a_character() {
        let frame = frame_of(0x30, b"\0\x04\xEF\xBB\xBFa\0");
        let Packet::Publish(publish) = accepts(V5, &frame) else {
            panic!()
        };
        assert_eq!(publish.topic, "\u{FEFF}a");
    }

    #[test]
    fn mqtt_1_5_5_1_variable_byte_integers_are_shortest() {
        let words = "[MQTT-1.5.5-1]";
        malformed(&bytes("c0 80 00"), words); // remaining length
        malformed(&bytes(r#"10 8e 00 "MQTT" 05 02 003c 00 "c""#), words); // and of CONNECT
        malformed(&frame(0x30, r#""a" 80 00"#), words); // property length
        malformed(&frame(0x30, r#""a" 03 81 00 00"#), words); // property identifier
        malformed(&frame(0x30, r#""a" 03 0b 81 00"#), words); // subscription identifier
        for (value, hex) in [
            (1, "01"),
            (127, "7f"),
            (128, "80 01"),
            (16_383, "ff 7f"),
            (16_384, "80 80 01"),
            (2_097_151, "ff ff 7f"),
            (2_097_152, "80 80 80 01"),
            (268_435_455, "ff ff ff 7f"),
        ] {
            let len = bytes(hex).len() + 1;
            let frame = frame(0x30, &format!(r#""a" {len:02x} 0b {hex}"#));
            let Packet::Publish(publish) = accepts(V5, &frame) else {
                panic!()
            };
            assert_eq!(
                publish.properties.subscription_ids().collect::<Vec<_>>(),
                [value]
            );
        }
    }

    #[test]
    fn mqtt_1_5_7_1_both_strings_of_a_pair_are_text() {
        malformed(
            &frame(0x30, r#""a" 07 26 0001 ff "v""#),
            "name of a user property: must be well-formed",
        );
        malformed(
            &frame(0x30, r#""a" 07 26 "k" 0001 ff"#),
            "value of a user property: must be well-formed",
        );
        malformed(&frame(0x30, r#""a" 07 26 0001 00 "v""#), "[MQTT-1.5.4-2]");
        malformed(&frame(0x30, r#""a" 07 26 "k" 0001 00"#), "[MQTT-1.5.4-2]");
    }

    #[test]
    fn mqtt_2_1_3_1_reserved_flags_have_their_values() {
        let packets = [
            (0x10, r#""MQTT" 05 02 003c 00 "c""#),
            (0x20, "00 00 00"),
            (0x40, "0001"),
            (0x50, "0001"),
            (0x62, "0001"),
            (0x70, "0001"),
            (0x82, r#"0001 00 "a" 00"#),
            (0x90, "0001 00 00"),
            (0xA2, r#"0001 00 "a""#),
            (0xB0, "0001 00 00"),
            (0xC0, ""),
            (0xD0, ""),
            (0xE0, ""),
            (0xF0, ""),
        ];
        for (first_byte, body) in packets {
            accepts(V5, &frame(first_byte, body));
            for flags in 0..16 {
                let other = first_byte & 0xF0 | flags;
                if other != first_byte {
                    malformed(&frame(other, body), "[MQTT-2.1.3-1]");
                }
            }
        }
    }

    #[test]
    fn mqtt_2_2_1_2_publish_of_qos_0_has_no_packet_identifier() {
        let frame = frame(0x30, r#""a" 00 0001"#);
        let Packet::Publish(publish) = accepts(V5, &frame) else {
            panic!()
        };
        assert_eq!((publish.packet_id, publish.payload), (None, &[0, 1][..]));
    }

    #[test]
    fn mqtt_2_2_1_3_packet_identifiers_of_a_client_are_not_0() {
        protocol_error(&frame(0x32, r#""a" 0000 00"#), "[MQTT-2.2.1-3]");
        protocol_error(&frame(0x34, r#""a" 0000 00"#), "[MQTT-2.2.1-3]");
        protocol_error(&frame(0x82, r#"0000 00 "a" 00"#), "[MQTT-2.2.1-3]");
        protocol_error(&frame(0xA2, r#"0000 00 "a""#), "[MQTT-2.2.1-3]");
    }

    #[test]
    fn mqtt_2_2_1_4_packet_identifiers_of_a_server_are_not_0() {
        for first_byte in [0x32, 0x33, 0x3A, 0x34, 0x3D] {
            protocol_error(&frame(first_byte, r#""a" 0000 00"#), "[MQTT-2.2.1-4]");
        }
    }

    #[test]
    fn mqtt_2_2_2_1_no_properties_are_a_property_length_of_0() {
        // Read: the length must be there.
        malformed(&frame(0x30, r#""a""#), "property length");
        malformed(&frame(0x20, "00 00"), "property length");
        malformed(&frame(0x90, "0001"), "property length");
        malformed(&frame(0xB0, "0001"), "property length");
        malformed(&frame(0x10, r#""MQTT" 05 02 003c"#), "property length");
        // Written: golden bytes of a PUBLISH and a SUBSCRIBE.
        accepts(V5, &bytes(r#"30 04 "a" 00"#));
        accepts(V5, &bytes(r#"82 07 0001 00 "a" 00"#));
    }

    #[test]
    fn mqtt_3_1_2_1_the_protocol_name_is_mqtt() {
        for name in [r#""MQTX""#, r#""mqtt""#, r#""MQTTx""#, r#""""#] {
            let frame = frame(0x10, &format!(r#"{name} 05 02 003c 00 "c""#));
            refuses(
                V5,
                &frame,
                Reason::UnsupportedProtocolVersion,
                "[MQTT-3.1.2-1]",
            );
        }
    }

    #[test]
    fn mqtt_3_1_2_2_other_protocol_versions_are_refused() {
        for level in [0, 1, 2, 3, 6, 7, 0x84, 255] {
            let frame = frame(0x10, &format!(r#""MQTT" {level:02x} 02 003c 00 "c""#));
            refuses(
                V5,
                &frame,
                Reason::UnsupportedProtocolVersion,
                "[MQTT-3.1.2-2]",
            );
        }
    }

    #[test]
    fn mqtt_3_1_2_3_the_reserved_connect_flag_is_0() {
        malformed(&connect(0x03, r#""c""#), "connect flags 3: bit 0");
        malformed(&connect(0x01, r#""c""#), "[MQTT-3.1.2-3]");
    }

    #[test]
    fn mqtt_3_1_2_9_a_will_has_topic_and_payload() {
        let frame = connect(0x2E, r#""c" 00 "w" 'x'"#); // a payload without its length
        malformed(&frame, "will payload");
        malformed(&connect(0x06, r#""c" 00 "w""#), "will payload");
        malformed(&connect(0x06, r#""c" 00"#), "will topic");
        let frame = connect(0x2E, r#""c" 00 "w" "x""#);
        let Packet::Connect(connect) = accepts(V5, &frame) else {
            panic!()
        };
        let will = connect.will.unwrap();
        assert_eq!(
            (will.qos as u8, will.retain, will.topic, will.payload),
            (1, true, "w", &b"x"[..])
        );
    }

    #[test]
    fn mqtt_3_1_2_11_without_a_will_its_qos_is_0() {
        for qos in 1..=3 {
            malformed(&connect(qos << 3, r#""c""#), "[MQTT-3.1.2-11]");
        }
    }

    #[test]
    fn mqtt_3_1_2_12_the_qos_of_a_will_is_0_1_or_2() {
        for qos in 0..=2 {
            accepts(V5, &connect(0x04 | qos << 3, r#""c" 00 "w" "x""#));
        }
        malformed(&connect(0x1C, r#""c" 00 "w" "x""#), "[MQTT-3.1.2-12]");
    }

    #[test]
    fn mqtt_3_1_2_13_without_a_will_its_retain_flag_is_0() {
        malformed(&connect(0x20, r#""c""#), "[MQTT-3.1.2-13]");
    }

    #[test]
    fn mqtt_3_1_2_16_without_the_flag_there_is_no_user_name() {
        malformed(
            &connect(0x02, r#""c" "user""#),
            "bytes after the end of the packet 6",
        );
        malformed(
            &connect(0x42, r#""c" "user" "password""#),
            "bytes after the end",
        );
    }

    #[test]
    fn mqtt_3_1_2_17_with_the_flag_there_is_a_user_name() {
        malformed(&connect(0x82, r#""c""#), "user name");
        accepts(V5, &connect(0x82, r#""c" """#));
    }

    #[test]
    fn mqtt_3_1_2_18_without_the_flag_there_is_no_password() {
        malformed(
            &connect(0x82, r#""c" "user" "password""#),
            "bytes after the end",
        );
    }

    #[test]
    fn mqtt_3_1_2_19_with_the_flag_there_is_a_password() {
        malformed(&connect(0xC2, r#""c" "user""#), "password");
        malformed(&connect(0x42, r#""c""#), "password");
        accepts(V5, &connect(0x42, r#""c" "password""#));
    }

    #[test]
    fn mqtt_3_1_3_1_the_fields_of_the_payload_come_in_order() {
        let frame = connect(
            0xC6,
            r#""id" 05 18 00000001 "topic" "payload" "user" "password""#,
        );
        let Packet::Connect(connect) = accepts(V5, &frame) else {
            panic!()
        };
        let will = connect.will.unwrap();
        assert_eq!(connect.client_id, "id");
        assert_eq!(will.properties.will_delay(), Some(1));
        assert_eq!((will.topic, will.payload), ("topic", &b"payload"[..]));
        assert_eq!(
            (connect.username, connect.password),
            (Some("user"), Some(&b"password"[..]))
        );
    }

    #[test]
    fn mqtt_3_1_3_3_the_client_identifier_is_present() {
        malformed(&connect(0x02, ""), "client identifier");
        accepts(V5, &connect(0x02, r#""""#));
    }

    #[test]
    fn mqtt_3_1_3_4_the_client_identifier_is_text() {
        malformed(
            &connect(0x02, "0001 ff"),
            "client identifier: must be well-formed",
        );
        malformed(&connect(0x02, "0001 00"), "client identifier");
    }

    #[test]
    fn mqtt_3_1_3_10_the_user_properties_of_a_will_keep_their_order() {
        let block = r#"26 "b" "1" 26 "a" "2" 26 "b" "1""#;
        let frame = connect(0x06, &format!(r#""c" 1a 18 00000001 {block} "w" "x""#));
        let Packet::Connect(connect) = accepts(V5, &frame) else {
            panic!()
        };
        let mut forwarded = Vec::new();
        connect
            .will
            .unwrap()
            .properties
            .write_forwardable(&mut forwarded);
        assert_eq!(forwarded, bytes(block));
    }

    #[test]
    fn mqtt_3_1_3_11_the_will_topic_is_text() {
        malformed(
            &connect(0x06, r#""c" 00 0001 ff "x""#),
            "will topic: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_1_3_12_the_user_name_is_text() {
        malformed(
            &connect(0x82, r#""c" 0001 ff"#),
            "user name: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_1_4_1_a_connect_of_another_format_is_refused() {
        let whole = bytes(r#""MQTT" 05 c6 003c 03 21 0001 "c" 00 "w" "x" "u" "p""#);
        accepts(V5, &frame_of(0x10, &whole));
        for len in 0..whole.len() {
            Packet::decode(&frame_of(0x10, &whole[..len]), V5).unwrap_err();
        }
        malformed(
            &frame_of(0x10, &[&whole[..], &[0]].concat()),
            "bytes after the end of the packet 1",
        );
    }

    #[test]
    fn mqtt_3_2_2_1_reserved_connack_flags_are_0() {
        for bit in 1..8 {
            malformed(&frame_of(0x20, &[1 << bit, 0, 0]), "[MQTT-3.2.2-1]");
        }
    }

    #[test]
    fn mqtt_3_2_2_6_session_present_is_0_in_a_refusal() {
        protocol_error(&bytes("20 03 01 87 00"), "[MQTT-3.2.2-6]");
    }

    /// Of all 256 codes, `body` with `{}` for the code is accepted with `allowed` alone.
    #[track_caller]
    fn check_codes(first_byte: u8, body: &str, allowed: &[u8], words: &str) {
        for code in 0..=255 {
            let frame = frame(first_byte, &body.replace("{}", &format!("{code:02x}")));
            if allowed.contains(&code) {
                let decoded = Packet::decode(&frame, V5);
                assert!(decoded.is_ok(), "{code:#x}: {decoded:?}");
            } else {
                protocol_error(&frame, words);
            }
        }
    }

    #[test]
    fn mqtt_3_2_2_8_connack_has_a_connect_reason_code() {
        let allowed = [
            0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95,
            0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ];
        check_codes(0x20, "00 {} 00", &allowed, "[MQTT-3.2.2-8]");
    }

    #[test]
    fn mqtt_3_3_1_2_dup_is_zero_for_qos_0() {
        malformed(&frame(0x38, r#""a" 00"#), "[MQTT-3.3.1-2]");
        malformed(&frame(0x39, r#""a" 00"#), "[MQTT-3.3.1-2]");
        accepts(V5, &frame(0x3A, r#""a" 0001 00"#));
    }

    #[test]
    fn mqtt_3_3_1_4_qos_is_not_3() {
        for first_byte in [0x36, 0x37, 0x3E, 0x3F] {
            malformed(&frame(first_byte, r#""a" 0001 00"#), "[MQTT-3.3.1-4]");
        }
    }

    #[test]
    fn mqtt_3_3_2_1_the_topic_name_is_the_first_field_and_text() {
        malformed(
            &frame(0x30, "0001 ff 00"),
            "topic name: must be well-formed",
        );
        malformed(&frame(0x30, "0002 'a'"), "topic name");
        malformed(&frame(0x30, ""), "topic name");
    }

    #[test]
    fn mqtt_3_3_2_2_the_topic_name_has_no_wildcards() {
        for name in ["#", "+", "a/#", "a/+/b", "a+", "a#b"] {
            malformed(&frame(0x30, &format!(r#""{name}" 00"#)), "[MQTT-3.3.2-2]");
        }
    }

    #[test]
    fn mqtt_3_3_2_4_the_payload_format_is_forwarded_unaltered() {
        check_forwarded_unaltered("01 00");
        check_forwarded_unaltered("01 01");
    }

    #[test]
    fn mqtt_3_3_2_8_a_topic_alias_is_not_0() {
        protocol_error(&frame(0x30, r#""a" 03 23 0000"#), "[MQTT-3.3.2-8]");
        accepts(V5, &frame(0x30, r#""a" 03 23 0001"#));
    }

    #[test]
    fn mqtt_3_3_2_13_the_response_topic_is_text() {
        malformed(
            &frame(0x30, r#""a" 04 08 0001 ff"#),
            "response topic: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_3_2_14_the_response_topic_has_no_wildcards() {
        protocol_error(&frame(0x30, r#""a" 04 08 "+""#), "[MQTT-3.3.2-14]");
        protocol_error(&frame(0x30, r#""a" 06 08 "a/#""#), "[MQTT-3.3.2-14]");
        protocol_error(
            &connect(0x06, r#""c" 04 08 "+" "w" "x""#),
            "[MQTT-3.3.2-14]",
        );
    }

    #[test]
    fn mqtt_3_3_2_15_the_response_topic_is_forwarded_unaltered() {
        check_forwarded_unaltered(r#"08 "answer/here""#);
    }

    #[test]
    fn mqtt_3_3_2_16_the_correlation_data_is_forwarded_unaltered() {
        check_forwarded_unaltered("09 0003 00 ff 26");
        check_forwarded_unaltered("09 0000");
    }

    #[test]
    fn mqtt_3_3_2_17_all_user_properties_are_forwarded_unaltered() {
        check_forwarded_unaltered(r#"26 "k" "v" 26 "" """#);
    }

    #[test]
    fn mqtt_3_3_2_18_user_properties_keep_their_order() {
        check_forwarded_unaltered(r#"26 "b" "1" 26 "a" "2" 26 "b" "3" 26 "b" "1""#);
    }

    #[test]
    fn mqtt_3_3_2_19_the_content_type_is_text() {
        malformed(
            &frame(0x30, r#""a" 04 03 0001 ff"#),
            "content type: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_3_2_20_the_content_type_is_forwarded_unaltered() {
        check_forwarded_unaltered(r#"03 "text/plain""#);
    }

    #[test]
    fn mqtt_3_4_2_1_puback_has_a_puback_reason_code() {
        let allowed = [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
        check_codes(0x40, "0001 {}", &allowed, "[MQTT-3.4.2-1]");
    }

    #[test]
    fn mqtt_3_5_2_1_pubrec_has_a_pubrec_reason_code() {
        let allowed = [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
        check_codes(0x50, "0001 {}", &allowed, "[MQTT-3.5.2-1]");
    }

    #[test]
    fn mqtt_3_6_1_1_the_flags_of_pubrel_are_2() {
        for flags in (0..16).filter(|&flags| flags != 2) {
            malformed(&frame(0x60 | flags, "0001"), "[MQTT-3.6.1-1]");
        }
    }

    #[test]
    fn mqtt_3_6_2_1_pubrel_has_a_pubrel_reason_code() {
        check_codes(0x62, "0001 {}", &[0, 0x92], "[MQTT-3.6.2-1]");
    }

    #[test]
    fn mqtt_3_7_2_1_pubcomp_has_a_pubcomp_reason_code() {
        check_codes(0x70, "0001 {}", &[0, 0x92], "[MQTT-3.7.2-1]");
    }

    #[test]
    fn mqtt_3_8_1_1_the_flags_of_subscribe_are_2() {
        for flags in (0..16).filter(|&flags| flags != 2) {
            malformed(&frame(0x80 | flags, r#"0001 00 "a" 00"#), "[MQTT-3.8.1-1]");
        }
    }

    #[test]
    fn mqtt_3_8_3_1_the_topic_filters_are_text() {
        malformed(
            &frame(0x82, r#"0001 00 "a" 00 0001 ff 00"#),
            "topic filter: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_8_3_2_subscribe_has_a_topic_filter_and_options() {
        protocol_error(&bytes("82 03 0001 00"), "[MQTT-3.8.3-2]");
        malformed(&frame(0x82, r#"0001 00 "a""#), "subscription options");
    }

    #[test]
    fn mqtt_3_8_3_4_no_local_is_an_error_on_a_shared_subscription() {
        protocol_error(&frame(0x82, r#"0001 00 "$share/g/a" 04"#), "[MQTT-3.8.3-4]");
        accepts(V5, &frame(0x82, r#"0001 00 "$share/g/a" 00"#));
        accepts(V5, &frame(0x82, r#"0001 00 "a" 04"#));
    }

    #[test]
    fn mqtt_3_8_3_5_reserved_bits_of_the_options_are_0() {
        malformed(&frame(0x82, r#"0001 00 "a" 40"#), "[MQTT-3.8.3-5]");
        malformed(&frame(0x82, r#"0001 00 "a" 80"#), "[MQTT-3.8.3-5]");
        malformed(&frame(0x82, r#"0001 00 "a" 00 "b" c1"#), "[MQTT-3.8.3-5]");
    }

    #[test]
    fn mqtt_3_9_3_2_suback_has_subscribe_reason_codes() {
        let allowed = [
            0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
        ];
        check_codes(0x90, "0001 00 00 {}", &allowed, "[MQTT-3.9.3-2]");
    }

    #[test]
    fn mqtt_3_10_1_1_the_flags_of_unsubscribe_are_2() {
        for flags in (0..16).filter(|&flags| flags != 2) {
            malformed(&frame(0xA0 | flags, r#"0001 00 "a""#), "[MQTT-3.10.1-1]");
        }
    }

    #[test]
    fn mqtt_3_10_3_1_the_topic_filters_are_text() {
        malformed(
            &frame(0xA2, r#"0001 00 "a" 0001 ff"#),
            "topic filter: must be well-formed",
        );
    }

    #[test]
    fn mqtt_3_10_3_2_unsubscribe_has_a_topic_filter() {
        protocol_error(&bytes("a2 03 0001 00"), "[MQTT-3.10.3-2]");
    }

    #[test]
    fn mqtt_3_11_3_2_unsuback_has_unsubscribe_reason_codes() {
        let allowed = [0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
        check_codes(0xB0, "0001 00 00 {}", &allowed, "[MQTT-3.11.3-2]");
    }

    #[test]
    fn mqtt_3_14_1_1_reserved_bits_of_disconnect_are_0() {
        for flags in 1..16 {
            malformed(&frame(0xE0 | flags, ""), "flags of the fixed header");
        }
    }

    #[test]
    fn mqtt_3_14_2_1_disconnect_has_a_disconnect_reason_code() {
        // The table of section 3.14.2.1, and 0x8C, which section 2.4 gives to DISCONNECT.
        let mut allowed = vec![
            0, 4, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90,
        ];
        allowed.extend(0x93..=0xA2);
        check_codes(0xE0, "{}", &allowed, "[MQTT-3.14.2-1]");
    }

    #[test]
    fn mqtt_3_15_1_1_the_flags_of_auth_are_0() {
        for flags in 1..16 {
            malformed(&frame(0xF0 | flags, ""), "flags of the fixed header");
        }
    }

    #[test]
    fn mqtt_3_15_2_1_auth_has_an_authenticate_reason_code() {
        check_codes(0xF0, r#"{} 04 15 "m""#, &[0, 0x18, 0x19], "[MQTT-3.15.2-1]");
    }

    #[test]
    fn mqtt_4_7_0_1_wildcards_are_for_filters_alone() {
        for wildcard in ["#", "+", "a/+", "+/a", "a/#"] {
            assert_eq!(topic::validate_filter(wildcard), Ok(()));
            assert_eq!(
                topic::validate_name(wildcard),
                Err(topic::NameError::Wildcard)
            );
            malformed(
                &connect(0x06, &format!(r#""c" 00 "{wildcard}" "x""#)),
                "will topic",
            );
        }
    }

    #[track_caller]
    fn check_filter(filter: &str, words: &str) {
        malformed(&frame(0x82, &format!(r#"0001 00 "{filter}" 00"#)), words);
        malformed(&frame(0xA2, &format!(r#"0001 00 "{filter}""#)), words);
    }

    #[test]
    fn mqtt_4_7_1_1_the_multi_level_wildcard_is_a_whole_and_the_last_level() {
        for filter in ["#", "a/#", "/#", "a/b/#", "+/#"] {
            accepts(V5, &frame(0xA2, &format!(r#"0001 00 "{filter}""#)));
        }
        for filter in ["a/#/b", "#/a", "a#", "a/b#", "#a", "##", "#/"] {
            check_filter(filter, "[MQTT-4.7.1-1]");
        }
        let error = refuses(
            V5,
            &frame(0xA2, r#"0001 00 "a/#/b""#),
            Reason::MalformedPacket,
            "",
        );
        assert_eq!(
            error.to_string(),
            r##"topic filter "a/#/b": "#" must be the last level [MQTT-4.7.1-1]"##
        );
    }

    #[test]
    fn mqtt_4_7_1_2_the_single_level_wildcard_is_a_whole_level() {
        for filter in ["+", "a/+", "+/a", "a/+/b", "+/+", "/+", "+/"] {
            accepts(V5, &frame(0xA2, &format!(r#"0001 00 "{filter}""#)));
        }
        for filter in ["a+", "+a", "a/b+/c", "++", "a/+b"] {
            check_filter(filter, "[MQTT-4.7.1-2]");
        }
    }

    #[test]
    fn mqtt_4_7_2_1_leading_wildcards_do_not_match_dollar_topics() {
        for filter in ["#", "+", "+/monitor", "+/#", "+/monitor/+"] {
            for name in ["$SYS", "$SYS/monitor", "$SYS/monitor/x"] {
                assert!(!topic::matches(filter, name), "{filter} {name}");
            }
        }
        assert!(topic::matches("$SYS/#", "$SYS/monitor"));
        assert!(topic::matches("$SYS/monitor/+", "$SYS/monitor/x"));
        assert!(topic::matches("+/$x", "a/$x"));
    }

    #[test]
    fn mqtt_4_7_3_1_names_and_filters_have_a_character() {
        protocol_error(&frame(0x30, r#""" 00"#), "topic name");
        protocol_error(&connect(0x06, r#""c" 00 "" "x""#), "[MQTT-4.7.3-1]");
        protocol_error(&frame(0x82, r#"0001 00 "" 00"#), "[MQTT-4.7.3-1]");
        protocol_error(&frame(0xA2, r#"0001 00 """#), "[MQTT-4.7.3-1]");
        accepts(V5, &frame(0x30, r#""/" 00"#));
        accepts(V5, &frame(0x30, r#"" " 00"#));
    }

    #[test]
    fn mqtt_4_7_3_2_names_and_filters_have_no_null_character() {
        malformed(&frame(0x30, "0001 00 00"), "[MQTT-4.7.3-2]");
        malformed(&frame(0x82, "0001 00 0002 'a' 00 00"), "[MQTT-4.7.3-2]");
        malformed(&frame(0xA2, "0001 00 0002 'a' 00"), "[MQTT-4.7.3-2]");
    }

    #[test]
    fn mqtt_4_7_3_3_names_and_filters_have_at_most_65535_bytes() {
        let longest = "a".repeat(65_535);
        assert_eq!(topic::validate_name(&longest), Ok(()));
        assert_eq!(topic::validate_filter(&longest), Ok(()));
        let longer = "é".repeat(32_768);
        assert_eq!(
            topic::validate_name(&longer),
            Err(topic::NameError::TooLong)
        );
        assert_eq!(
            topic::validate_filter(&longer),
            Err(topic::FilterError::TooLong)
        );
    }

    #[test]
    fn mqtt_4_7_3_4_topics_are_not_normalized() {
        assert!(!topic::matches("ACCOUNTS", "Accounts"));
        assert!(
            !topic::matches("a", "a/")
                && !topic::matches("/a", "a")
                && !topic::matches("a//b", "a/b")
        );
        assert!(
            !topic::matches("\u{E9}", "e\u{301}"),
            "composed and decomposed"
        );
        assert!(topic::matches("\u{FEFF}a", "\u{FEFF}a") && !topic::matches("a", "\u{FEFF}a"));
        assert!(topic::matches("Accounts payable", "Accounts payable"));
    }

    #[test]
    fn mqtt_4_8_2_1_a_share_name_has_a_character() {
        check_filter("$share//a", "[MQTT-4.8.2-1]");
        check_filter("$share/", "[MQTT-4.8.2-1]");
        assert_eq!(topic::parse_shared("$share/g/a/b"), Ok(Some(("g", "a/b"))));
        assert_eq!(topic::parse_shared("$shared/g/a"), Ok(None));
        assert_eq!(topic::parse_shared("share/g/a"), Ok(None));
    }

    #[test]
    fn mqtt_4_8_2_2_a_share_name_has_no_wildcards_and_a_filter_follows() {
        for filter in [
            "$share/g+/a",
            "$share/+/a",
            "$share/#/a",
            "$share/g#/a",
            "$share/g",
            "$share/g/",
        ] {
            check_filter(filter, "[MQTT-4.8.2-2]");
        }
        check_filter("$share/g/a/#/b", "[MQTT-4.7.1-1]");
        accepts(V5, &frame(0xA2, r#"0001 00 "$share/g/#""#));
        assert_eq!(topic::parse_shared("$share/g//"), Ok(Some(("g", "/"))));
    }

    #[test]
    fn nothing_is_forwarded_that_belongs_to_one_connection() {
        let block = r#"23 0001 02 00000009 0b 01 26 "k" "v""#;
        assert_eq!(
            forwarded(block),
            frame(0x30, r#""a" 07 26 "k" "v" 'payload'"#)
        );
    }
}
