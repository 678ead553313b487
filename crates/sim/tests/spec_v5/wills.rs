//! Wills of 5.0.

use campanile_mqtt::{Property, Reason};
use campanile_sim::{packets::*, pair::Pair};

use super::V;
use crate::rules::{
    clean, durable,
    wills::{self, with_will},
};

/// A node with a durable subscriber of all topics and a durable client whose will has a delay.
fn with_delay(delay: u32, expiry: u32) -> (Pair, usize, usize) {
    let mut pair = Pair::new();
    let sub = pair.connect(durable(V, "sub"));
    pair.subscribe(sub, "#", 2);
    let will = will("t", "gone").qos(1).delay(delay);
    let wire = pair.connect(clean(V, "mortal").expiry(expiry).will(will));
    (pair, sub, wire)
}

#[test]
fn mqtt_3_1_2_7_the_will_is_stored() {
    wills::the_will_is_stored(V);
}

#[test]
fn mqtt_3_1_2_10_the_will_is_removed_once_published_or_at_disconnect() {
    wills::the_will_is_removed_once_published(V);
    wills::the_will_is_removed_at_disconnect(V);
    wills::without_a_will_none_is_published(V);
}

#[test]
fn mqtt_3_1_2_14_a_will_without_retain_is_not_retained() {
    wills::a_will_without_retain_is_not_retained(V);
}

#[test]
fn mqtt_3_1_2_15_a_will_with_retain_is_retained() {
    wills::a_will_with_retain_is_retained(V);
}

#[test]
fn mqtt_3_14_4_3_disconnect_discards_the_will() {
    wills::disconnect_ends_the_connection_without_the_will(V);
    wills::the_will_is_removed_at_disconnect(V);
}

#[test]
fn mqtt_3_1_2_8_the_will_is_published_after_its_delay_or_with_the_end_of_the_session() {
    wills::the_will_is_published_when_the_connection_is_lost(V);
    wills::the_will_is_published_when_the_node_closes_the_connection(V);
    for (delay, expiry, due) in [(10, 100, 10), (100, 10, 10), (10, u32::MAX, 10), (10, 0, 0)] {
        let (mut pair, sub, wire) = with_delay(delay, expiry);
        pair.cut(wire);
        if due > 0 {
            pair.wait(due - 1);
            pair.expect_silence(sub);
            pair.wait(2);
        }
        pair.take(sub, "gone");
        pair.wait(200);
        pair.expect_silence(sub);
    }
}

#[test]
fn the_delay_of_a_will_goes_on_after_a_crash() {
    let (mut pair, _, wire) = with_delay(10, 100);
    pair.cut(wire);
    pair.wait(5);
    pair.crash();
    let sub = pair.connect_present(durable(V, "sub"), true);
    pair.wait(4);
    pair.expect_silence(sub);
    pair.wait(2);
    pair.take(sub, "gone");
    // It begins with the crash for who was connected.
    let (mut pair, _, _) = with_delay(10, 100);
    pair.wait(50);
    pair.crash();
    let sub = pair.connect_present(durable(V, "sub"), true);
    pair.wait(9);
    pair.expect_silence(sub);
    pair.wait(2);
    pair.take(sub, "gone");
    pair.wait(100);
    pair.expect_silence(sub);
}

#[test]
fn a_new_session_of_the_client_makes_the_will_due() {
    let (mut pair, sub, wire) = with_delay(10, 100);
    pair.cut(wire);
    pair.connect_present(durable(V, "mortal").clean(true), false);
    pair.take(sub, "gone");
    pair.wait(100);
    pair.expect_silence(sub);
    // A takeover with clean start, too.
    let (mut pair, sub, _) = with_delay(10, 100);
    pair.connect_present(clean(V, "mortal"), false);
    pair.take(sub, "gone");
    pair.wait(100);
    pair.expect_silence(sub);
}

#[test]
fn mqtt_3_1_3_9_who_returns_in_time_cancels_the_will() {
    let (mut pair, sub, wire) = with_delay(10, 100);
    pair.cut(wire);
    pair.wait(9);
    let wire = pair.connect_present(durable(V, "mortal"), true);
    pair.wait(100);
    pair.expect_silence(sub);
    pair.cut(wire);
    pair.wait(100);
    pair.expect_silence(sub);
    // A takeover, too.
    let (mut pair, sub, _) = with_delay(10, 100);
    pair.connect_present(durable(V, "mortal"), true);
    pair.wait(200);
    pair.expect_silence(sub);
    // And a return after a crash.
    let (mut pair, _, _) = with_delay(10, 100);
    pair.crash();
    pair.wait(5);
    pair.connect_present(durable(V, "mortal"), true);
    let sub = pair.connect_present(durable(V, "sub"), true);
    pair.wait(200);
    pair.expect_silence(sub);
}

#[test]
fn disconnect_with_will_publishes_it() {
    let (mut pair, sub, wire) = with_will(V, will("t", "gone"));
    pair.send(wire, disconnect().reason(Reason::DisconnectWithWill));
    pair.expect_closed(wire);
    pair.take(sub, "gone");
    let (mut pair, sub, wire) = with_delay(10, 100);
    pair.send(wire, disconnect().reason(Reason::UnspecifiedError));
    pair.wait(9);
    pair.expect_silence(sub);
    pair.wait(2);
    pair.take(sub, "gone");
}

#[test]
fn a_session_that_ends_at_disconnect_makes_the_will_due() {
    let (mut pair, sub, wire) = with_delay(10, 100);
    let bye = disconnect()
        .reason(Reason::DisconnectWithWill)
        .with(Property::SessionExpiry(0));
    pair.send(wire, bye);
    pair.take(sub, "gone");
    pair.wait(100);
    pair.expect_silence(sub);
}

#[test]
fn the_properties_of_a_will_go_out_with_it() {
    let will = will("t", "gone")
        .qos(1)
        .delay(5)
        .with(Property::UserProperty(("b", "1")))
        .with(Property::UserProperty(("a", "2")))
        .with(Property::MessageExpiry(20))
        .with(Property::ContentType("text"));
    for away in [false, true] {
        let mut pair = Pair::new();
        let mut sub = pair.connect(durable(V, "sub"));
        pair.subscribe(sub, "#", 2);
        let wire = pair.connect(clean(V, "mortal").expiry(100).will(will.clone()));
        if away {
            pair.cut(sub);
        }
        pair.cut(wire);
        pair.wait(8);
        if away {
            sub = pair.connect_present(durable(V, "sub"), true);
        }
        let heard = pair.take(sub, "gone");
        let properties = heard.publish().properties;
        let users: Vec<_> = properties.user_properties().collect();
        assert_eq!(users, [("b", "1"), ("a", "2")]);
        assert_eq!(properties.content_type(), Some("text"));
        assert_eq!(properties.will_delay(), None);
        // It counts from the publication.
        let left = properties.message_expiry().unwrap();
        assert_eq!(left, if away { 17 } else { 20 });
    }
}

#[test]
fn who_subscribed_after_the_connect_gets_the_will() {
    let mut pair = Pair::new();
    let wire = pair.connect(clean(V, "mortal").will(will("t", "gone").qos(1)));
    pair.wait(10);
    let subs = [clean(V, "c"), durable(V, "d")].map(|client| pair.connect(client));
    for sub in subs {
        pair.subscribe(sub, "t", 1);
    }
    pair.wait(10);
    pair.cut(wire);
    for sub in subs {
        pair.take(sub, "gone");
    }
}
