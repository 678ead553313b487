//! Enhanced authentication, section 4.12.

use campanile_mqtt::{Auth, Packet, Property, Reason};
use campanile_sim::{packets::*, pair::Pair};

use super::V;
use crate::rules::{access::guarded, clean};

const CONTINUE: Reason = Reason::ContinueAuthentication;
const AGAIN: Reason = Reason::ReAuthenticate;

fn riddle() -> Connect {
    clean(V, "a").with(Property::AuthMethod("riddle"))
}

/// A node with a client that has been asked.
fn asked() -> (Pair, usize) {
    let mut pair = guarded();
    let wire = pair.try_connect(riddle());
    expect_auth(&mut pair, wire, CONTINUE, "who?");
    (pair, wire)
}

/// A node with a client that came in by the riddle.
fn admitted() -> (Pair, usize) {
    let (mut pair, wire) = asked();
    pair.send(wire, auth(CONTINUE, "riddle", "me"));
    let heard = pair.next(wire);
    assert_eq!(heard.connack().reason, Reason::Success);
    assert_eq!(heard.connack().properties.auth_method(), Some("riddle"));
    assert_eq!(
        heard.connack().properties.auth_data(),
        Some(&b"welcome"[..])
    );
    (pair, wire)
}

#[track_caller]
fn expect_auth(pair: &mut Pair, wire: usize, reason: Reason, data: &str) {
    let heard = pair.next(wire);
    let Auth {
        reason: told,
        properties,
    } = heard.auth();
    assert_eq!(told, reason);
    assert_eq!(properties.auth_method(), Some("riddle"));
    assert_eq!(properties.auth_data(), Some(data.as_bytes()));
}

#[test]
fn mqtt_4_12_0_1_an_unknown_method_is_refused() {
    let mut pair = guarded();
    let wire = pair.try_connect(clean(V, "a").with(Property::AuthMethod("unknown")));
    pair.expect_refused(wire, Reason::BadAuthenticationMethod);
}

#[test]
fn mqtt_4_12_0_2_the_server_asks_with_continue_authentication() {
    let (mut pair, wire) = asked();
    pair.expect_silence(wire);
    assert!(!pair.node.is_closed(wire));
}

#[test]
fn mqtt_4_12_0_3_the_client_answers_with_continue_authentication() {
    let (mut pair, wire) = admitted();
    pair.expect_alive(wire);
    for reason in [AGAIN, Reason::Success] {
        let (mut pair, wire) = asked();
        pair.send(wire, auth(reason, "riddle", "me"));
        pair.expect_refused(wire, Reason::ProtocolError);
    }
}

#[test]
fn mqtt_4_12_0_4_the_server_can_refuse_at_any_point() {
    let mut pair = guarded();
    let wire = pair.try_connect(riddle().with(Property::AuthData(b"forbid")));
    pair.expect_refused(wire, Reason::NotAuthorized);
    let (mut pair, wire) = asked();
    pair.send(wire, auth(CONTINUE, "riddle", "somebody else"));
    pair.expect_refused(wire, Reason::NotAuthorized);
}

#[test]
fn mqtt_4_12_0_5_all_auth_packets_and_the_connack_bear_the_method() {
    admitted();
    let (mut pair, wire) = asked();
    pair.send(wire, auth(CONTINUE, "another", "me"));
    assert!(pair.next(wire).connack().reason.is_error());
    pair.expect_closed(wire);
    // AUTH without a method.
    let (mut pair, wire) = asked();
    pair.send_bytes(wire, &hex("f0 02 18 00"));
    assert!(pair.next(wire).connack().reason.is_error());
    pair.expect_closed(wire);
}

#[test]
fn mqtt_4_12_0_6_without_a_method_the_server_sends_neither_auth_nor_method() {
    let mut pair = guarded();
    for packet in [clean(V, "a"), clean(V, "b").login("slow", "x")] {
        let (wire, heard) = pair.connack(packet);
        assert_eq!(heard.connack().properties.auth_method(), None);
        assert_eq!(heard.connack().properties.auth_data(), None);
        pair.expect_alive(wire);
    }
}

#[test]
fn mqtt_4_12_0_7_auth_without_a_method_in_the_connect_is_a_protocol_error() {
    for reason in [CONTINUE, AGAIN] {
        let mut pair = guarded();
        let wire = pair.connect(clean(V, "a"));
        pair.send(wire, auth(reason, "riddle", "me"));
        pair.expect_disconnect(wire, Reason::ProtocolError);
    }
}

#[test]
fn mqtt_3_1_2_30_until_the_connack_only_auth_and_disconnect_may_come() {
    let packets = [
        publish("a", "x").bytes(V),
        subscribe(1).filter("a", 1).bytes(V),
        Packet::PingReq.bytes(V),
        riddle().bytes(V),
    ];
    for packet in packets {
        let (mut pair, wire) = asked();
        let other = pair.connect(clean(V, "other"));
        pair.subscribe(other, "#", 1);
        pair.send(wire, packet);
        pair.expect_refused(wire, Reason::ProtocolError);
        pair.expect_silence(other);
    }
    let (mut pair, wire) = asked();
    pair.send(wire, disconnect());
    pair.expect_closed(wire);
}

#[test]
fn who_does_not_answer_is_cut_off() {
    let (mut pair, wire) = asked();
    pair.wait(20);
    assert!(pair.node.is_closed(wire));
}

#[test]
fn mqtt_4_12_1_1_a_client_can_authenticate_again() {
    let (mut pair, wire) = admitted();
    for _ in 0..2 {
        pair.send(wire, auth(AGAIN, "riddle", ""));
        expect_auth(&mut pair, wire, CONTINUE, "still?");
        // Meanwhile all else goes on.
        pair.expect_alive(wire);
        pair.publish(wire, "a", "x", 2);
        pair.send(wire, auth(CONTINUE, "riddle", "yes"));
        expect_auth(&mut pair, wire, Reason::Success, "welcome");
        pair.expect_alive(wire);
    }
    // With the method of the CONNECT only.
    pair.send(wire, auth(AGAIN, "another", ""));
    assert!(pair.next(wire).disconnect().reason.is_error());
    pair.expect_closed(wire);
    // Not in the middle of an exchange, nor without its beginning.
    let (mut pair, wire) = admitted();
    pair.send(wire, auth(AGAIN, "riddle", ""));
    expect_auth(&mut pair, wire, CONTINUE, "still?");
    pair.send(wire, auth(AGAIN, "riddle", ""));
    pair.expect_disconnect(wire, Reason::ProtocolError);
    let (mut pair, wire) = admitted();
    pair.send(wire, auth(CONTINUE, "riddle", "yes"));
    pair.expect_disconnect(wire, Reason::ProtocolError);
}

#[test]
fn mqtt_4_12_1_2_who_fails_to_authenticate_again_is_cut_off() {
    let (mut pair, wire) = admitted();
    pair.send(wire, auth(AGAIN, "riddle", ""));
    expect_auth(&mut pair, wire, CONTINUE, "still?");
    pair.send(wire, auth(CONTINUE, "riddle", "no"));
    pair.expect_disconnect(wire, Reason::NotAuthorized);
    let (mut pair, wire) = admitted();
    pair.send(wire, auth(AGAIN, "riddle", "forbid"));
    pair.expect_disconnect(wire, Reason::NotAuthorized);
}
