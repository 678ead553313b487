//! The Maximum Packet Size of the client, and what is left out to keep within it.

use campanile_mqtt::{Packet, Properties, Property, Reason};
use campanile_sim::{packets::*, pair::Pair};

use super::V;
use crate::rules::{access::guarded, clean, durable};

/// A client that takes packets of 30 bytes at most: what it needs to connect, but no explanations.
fn small(client: Connect) -> Connect {
    client.with(Property::MaximumPacketSize(30))
}

/// A guarded node with such a client.
fn with_small() -> (Pair, usize) {
    let mut pair = guarded();
    let wire = pair.connect(small(clean(V, "a")));
    (pair, wire)
}

/// The packet keeps within the size, and has neither reason string nor user properties.
#[track_caller]
fn check(heard: &Heard, properties: Properties<'_>) {
    assert!(heard.bytes.len() <= 30, "{heard:?}");
    assert_eq!(properties.reason_string(), None);
    assert_eq!(properties.user_properties().count(), 0);
}

fn refused_connack() -> Heard {
    let mut pair = guarded();
    // The reason would be explained at length.
    let wire = pair.try_connect(small(clean(V, "a").will(will("secret/topic", "x"))));
    let heard = pair.expect_refused(wire, Reason::NotAuthorized);
    // And is, to who has room.
    let wire = pair.try_connect(clean(V, "a").will(will("secret/topic", "x")));
    let explained = pair.expect_refused(wire, Reason::NotAuthorized);
    assert!(explained.connack().properties.reason_string().is_some());
    heard
}

#[test]
fn mqtt_3_2_2_19_no_reason_string_makes_a_connack_too_large() {
    let heard = refused_connack();
    check(&heard, heard.connack().properties);
}

#[test]
fn mqtt_3_2_2_20_no_user_property_makes_a_connack_too_large() {
    let heard = refused_connack();
    check(&heard, heard.connack().properties);
}

fn refused_puback() -> Heard {
    let (mut pair, wire) = with_small();
    pair.send(wire, publish("secret", "x").qos1(1));
    pair.next(wire)
}

#[test]
fn mqtt_3_4_2_2_no_reason_string_makes_a_puback_too_large() {
    let heard = refused_puback();
    assert_eq!(heard.puback().reason, Reason::NotAuthorized);
    check(&heard, heard.puback().properties);
}

#[test]
fn mqtt_3_4_2_3_no_user_property_makes_a_puback_too_large() {
    let heard = refused_puback();
    check(&heard, heard.puback().properties);
}

fn refused_pubrec() -> Heard {
    let (mut pair, wire) = with_small();
    pair.send(wire, publish("secret", "x").qos2(1));
    pair.next(wire)
}

#[test]
fn mqtt_3_5_2_2_no_reason_string_makes_a_pubrec_too_large() {
    let heard = refused_pubrec();
    assert_eq!(heard.pubrec().reason, Reason::NotAuthorized);
    check(&heard, heard.pubrec().properties);
}

#[test]
fn mqtt_3_5_2_3_no_user_property_makes_a_pubrec_too_large() {
    let heard = refused_pubrec();
    check(&heard, heard.pubrec().properties);
}

fn unknown_pubrel() -> Heard {
    let (mut pair, wire) = with_small();
    pair.send(wire, pubrec(7));
    pair.next(wire)
}

#[test]
fn mqtt_3_6_2_2_no_reason_string_makes_a_pubrel_too_large() {
    let heard = unknown_pubrel();
    assert_eq!(heard.pubrel().reason, Reason::PacketIdentifierNotFound);
    check(&heard, heard.pubrel().properties);
}

#[test]
fn mqtt_3_6_2_3_no_user_property_makes_a_pubrel_too_large() {
    let heard = unknown_pubrel();
    check(&heard, heard.pubrel().properties);
}

fn unknown_pubcomp() -> Heard {
    let (mut pair, wire) = with_small();
    pair.send(wire, pubrel(7));
    pair.next(wire)
}

#[test]
fn mqtt_3_7_2_2_no_reason_string_makes_a_pubcomp_too_large() {
    let heard = unknown_pubcomp();
    assert_eq!(heard.pubcomp().reason, Reason::PacketIdentifierNotFound);
    check(&heard, heard.pubcomp().properties);
}

#[test]
fn mqtt_3_7_2_3_no_user_property_makes_a_pubcomp_too_large() {
    let heard = unknown_pubcomp();
    check(&heard, heard.pubcomp().properties);
}

fn refused_suback() -> Heard {
    let (mut pair, wire) = with_small();
    pair.send(wire, subscribe(1).filter("secret", 1));
    pair.next(wire)
}

#[test]
fn mqtt_3_9_2_1_no_reason_string_makes_a_suback_too_large() {
    let heard = refused_suback();
    assert_eq!(heard.suback().codes, [0x87]);
    check(&heard, heard.suback().properties);
}

#[test]
fn mqtt_3_9_2_2_no_user_property_makes_a_suback_too_large() {
    let heard = refused_suback();
    check(&heard, heard.suback().properties);
}

fn unknown_unsuback() -> Heard {
    let (mut pair, wire) = with_small();
    pair.send(wire, unsubscribe(1).filter("a"));
    pair.next(wire)
}

#[test]
fn mqtt_3_11_2_1_no_reason_string_makes_an_unsuback_too_large() {
    let heard = unknown_unsuback();
    assert_eq!(heard.unsuback().codes, [0x11]);
    check(&heard, heard.unsuback().properties);
}

#[test]
fn mqtt_3_11_2_2_no_user_property_makes_an_unsuback_too_large() {
    let heard = unknown_unsuback();
    check(&heard, heard.unsuback().properties);
}

fn farewell() -> Heard {
    let (mut pair, wire) = with_small();
    pair.send(wire, publish("a", "x").with(Property::TopicAlias(17)));
    pair.next(wire)
}

#[test]
fn mqtt_3_14_2_3_no_reason_string_makes_a_disconnect_too_large() {
    let heard = farewell();
    assert_eq!(heard.disconnect().reason, Reason::TopicAliasInvalid);
    check(&heard, heard.disconnect().properties);
    // Who has room is told.
    let mut pair = Pair::new();
    let wire = pair.connect(clean(V, "a"));
    pair.send(wire, publish("a", "x").with(Property::TopicAlias(17)));
    let heard = pair.next(wire);
    assert!(heard.disconnect().properties.reason_string().is_some());
}

#[test]
fn mqtt_3_14_2_4_no_user_property_makes_a_disconnect_too_large() {
    let heard = farewell();
    check(&heard, heard.disconnect().properties);
}

fn challenge() -> Heard {
    let mut pair = guarded();
    let wire = pair.try_connect(small(clean(V, "a").with(Property::AuthMethod("riddle"))));
    pair.next(wire)
}

#[test]
fn mqtt_3_15_2_2_no_reason_string_makes_an_auth_too_large() {
    let heard = challenge();
    check(&heard, heard.auth().properties);
}

#[test]
fn mqtt_3_15_2_3_no_user_property_makes_an_auth_too_large() {
    let heard = challenge();
    check(&heard, heard.auth().properties);
}

#[test]
fn mqtt_3_1_2_24_no_packet_exceeds_the_maximum_size() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let mut pair = guarded();
        let publisher = pair.connect(clean(V, "pub"));
        for (client, limit) in [(small(client.clone()), 30), (client, u32::MAX as usize)] {
            let wire = pair.connect(client);
            pair.subscribe(wire, "topic/#", 2);
            let mut largest = 0;
            for len in 0..40 {
                let payload = "x".repeat(len);
                pair.publish(publisher, "topic/name", &payload, (len % 3) as u8);
                while let Some(heard) = pair.poll(wire) {
                    largest = largest.max(heard.bytes.len());
                    assert!(heard.bytes.len() <= limit, "{heard:?}");
                    if let Packet::Publish(_) = heard.packet() {
                        pair.acknowledge(wire, &heard);
                    }
                }
            }
            // It is used up, too, but for what an alias might add.
            assert!(largest + 3 >= limit.min(50), "{largest}");
        }
    }
}

#[test]
fn an_answer_that_cannot_be_made_to_fit_closes_the_connection() {
    let (mut pair, wire) = with_small();
    let mut packet = subscribe(1);
    for n in 0..40 {
        packet = packet.filter(&format!("{n}"), 0);
    }
    pair.send(wire, packet);
    pair.expect_disconnect(wire, Reason::PacketTooLarge);
    let wire = pair.try_connect(clean(V, "a").with(Property::MaximumPacketSize(10)));
    let heard = pair.expect_refused(wire, Reason::PacketTooLarge);
    assert!(heard.bytes.len() <= 10);
}

#[test]
fn mqtt_3_1_2_25_a_message_that_is_too_large_counts_as_delivered() {
    for client in [clean(V, "sub"), durable(V, "sub")] {
        let mut pair = Pair::new();
        let publisher = pair.connect(clean(V, "pub"));
        let narrow = small(client.clone()).with(Property::ReceiveMaximum(1));
        let mut sub = pair.connect(narrow.clone());
        pair.subscribe(sub, "a", 2);
        for level in 0..=2 {
            // It takes no place in the window, not even over a lost connection.
            pair.publish(publisher, "a", &"x".repeat(100), level);
            pair.publish(publisher, "a", "small", level);
            pair.take(sub, "small");
            pair.expect_silence(sub);
        }
        if client.bytes(V) == durable(V, "sub").bytes(V) {
            pair.cut(sub);
            pair.publish(publisher, "a", &"x".repeat(100), 2);
            pair.publish(publisher, "a", "waiting", 2);
            sub = pair.connect_present(narrow.clone(), true);
            pair.take(sub, "waiting");
            pair.wait(1);
            pair.cut(sub);
            // It does not come back when there is room.
            sub = pair.connect_present(client.clone(), true);
            pair.expect_silence(sub);
        }
    }
}
