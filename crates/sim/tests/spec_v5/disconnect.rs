//! DISCONNECT, section 3.14.

use campanile_mqtt::{Packet, Property, Reason};
use campanile_sim::{packets::*, pair::Pair};

use super::V;
use crate::rules::{access::guarded, clean, durable, subscriber_and_publisher};

#[test]
fn mqtt_3_14_0_1_the_server_sends_no_disconnect_before_a_connack() {
    let first = [
        hex("00 00"),
        hex("c0 00"),
        hex("e0 00"),
        hex("30 ff ff ff ff 7f"),
        hex("10 04 00 04 4d 51"),
        hex("10 0c 0004 4d515454 05 03 0000 00 0000"),
    ];
    for bytes in first {
        let mut pair = Pair::new();
        let wire = pair.open(V);
        pair.send_bytes(wire, &bytes);
        pair.wait(20);
        let heard = pair.drain(wire);
        let told = |h: &Heard| matches!(h.packet(), Packet::Disconnect(_));
        assert!(!heard.iter().any(told), "{heard:?}");
        assert!(pair.node.is_closed(wire));
    }
    // Nor after one that says no, nor while an authentication goes on.
    let mut pair = guarded();
    let wire = pair.try_connect(clean(V, "a").login("wrong", "x"));
    pair.expect_refused(wire, Reason::BadUserNameOrPassword);
    let wire = pair.try_connect(clean(V, "a").with(Property::AuthMethod("riddle")));
    pair.next(wire).auth();
    pair.send_bytes(wire, &hex("00 00"));
    let heard = pair.drain(wire);
    assert!(
        !heard
            .iter()
            .any(|h| matches!(h.packet(), Packet::Disconnect(_)))
    );
    assert!(pair.node.is_closed(wire));
}

#[test]
fn mqtt_3_14_2_2_the_server_sends_no_session_expiry_in_a_disconnect() {
    let mut pair = Pair::new();
    let wire = pair.connect(durable(V, "a"));
    pair.connect(durable(V, "a"));
    let heard = pair.next(wire);
    assert_eq!(heard.disconnect().reason, Reason::SessionTakenOver);
    assert_eq!(heard.disconnect().properties.session_expiry(), None);
}

#[test]
fn mqtt_3_14_4_1_nothing_follows_a_disconnect() {
    let (mut pair, sub, publisher) = subscriber_and_publisher(V, "a", 1);
    pair.connect(durable(V, "sub"));
    pair.publish(publisher, "a", "x", 1);
    pair.send(sub, Packet::PingReq);
    let heard = pair.drain(sub);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].disconnect().reason, Reason::SessionTakenOver);
    // What a client sends behind its own is not processed.
    let sub = pair.connect(clean(V, "other"));
    pair.subscribe(sub, "b", 0);
    let mut bytes = disconnect().bytes(V);
    bytes.extend(publish("b", "x").bytes(V));
    pair.send_bytes(publisher, &bytes);
    pair.expect_closed(publisher);
    pair.expect_silence(sub);
}

#[test]
fn mqtt_3_14_4_2_after_a_disconnect_the_connection_is_closed() {
    let mut pair = Pair::new();
    let wire = pair.connect(clean(V, "a"));
    pair.send_bytes(wire, &hex("00 00"));
    pair.next(wire).disconnect();
    assert!(pair.node.is_closed(wire));
    let wire = pair.connect(clean(V, "a"));
    pair.send(wire, disconnect());
    pair.expect_closed(wire);
}
