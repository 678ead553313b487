//! Wills.

use campanile_mqtt::{Packet, Version};
use campanile_sim::{
    packets::{Will, *},
    pair::Pair,
};

use super::{clean, durable};

/// A node with a subscriber of all topics and a client with a will.
pub fn with_will(v: Version, will: Will) -> (Pair, usize, usize) {
    let mut pair = Pair::new();
    let sub = pair.connect(clean(v, "sub"));
    pair.subscribe(sub, "#", 2);
    let wire = pair.connect(clean(v, "mortal").will(will));
    (pair, sub, wire)
}

pub fn the_will_is_published_when_the_connection_is_lost(v: Version) {
    for level in 0..=2 {
        let (mut pair, sub, wire) = with_will(v, will("t", "gone").qos(level));
        pair.expect_silence(sub);
        pair.cut(wire);
        let heard = pair.take(sub, "gone");
        let packet = heard.publish();
        assert_eq!((packet.topic, packet.qos), ("t", qos(level)));
        pair.expect_silence(sub);
    }
}

pub fn the_will_is_published_when_the_node_closes_the_connection(v: Version) {
    // A protocol error.
    let (mut pair, sub, wire) = with_will(v, will("t", "gone"));
    pair.send_bytes(wire, &hex("00 00"));
    assert!(pair.node.is_closed(wire));
    pair.take(sub, "gone");
    // A takeover.
    let (mut pair, sub, _) = with_will(v, will("t", "gone"));
    pair.connect(clean(v, "mortal"));
    pair.take(sub, "gone");
    pair.expect_silence(sub);
}

pub fn the_will_is_stored(v: Version) {
    let mut pair = Pair::new();
    let sub = pair.connect(durable(v, "sub"));
    pair.subscribe(sub, "#", 2);
    pair.connect(clean(v, "mortal").will(will("t", "gone").qos(1)));
    pair.crash();
    pair.wait(2);
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.take(sub, "gone");
    pair.expect_silence(sub);
    // Once.
    pair.wait(1);
    pair.crash();
    pair.wait(2);
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.expect_silence(sub);
}

pub fn the_will_is_removed_once_published(v: Version) {
    let (mut pair, sub, wire) = with_will(v, will("t", "gone").qos(1));
    pair.cut(wire);
    pair.take(sub, "gone");
    let wire = pair.connect(durable(v, "mortal"));
    pair.cut(wire);
    pair.expect_silence(sub);
    // Durable sessions keep no will either.
    let wire = pair.connect(durable(v, "mortal").will(will("t", "again").qos(1)));
    pair.cut(wire);
    pair.take(sub, "again");
    let wire = pair.connect_present(durable(v, "mortal"), true);
    pair.cut(wire);
    pair.expect_silence(sub);
}

pub fn the_will_is_removed_at_disconnect(v: Version) {
    for client in [clean(v, "a"), durable(v, "b")] {
        let mut pair = Pair::new();
        let sub = pair.connect(durable(v, "sub"));
        pair.subscribe(sub, "#", 2);
        let wire = pair.connect(client.clone().will(will("t", "gone").qos(1)));
        pair.send(wire, disconnect());
        pair.expect_closed(wire);
        pair.wait(2);
        pair.expect_silence(sub);
        let wire = pair.connect(client);
        pair.cut(wire);
        pair.expect_silence(sub);
        pair.crash();
        pair.wait(2);
        let sub = pair.connect(durable(v, "sub"));
        pair.expect_silence(sub);
    }
}

pub fn without_a_will_none_is_published(v: Version) {
    let mut pair = Pair::new();
    let sub = pair.connect(clean(v, "sub"));
    pair.subscribe(sub, "#", 2);
    for client in [clean(v, "a"), durable(v, "b")] {
        let wire = pair.connect(client);
        pair.cut(wire);
    }
    pair.wait(2);
    pair.expect_silence(sub);
}

pub fn a_will_without_retain_is_not_retained(v: Version) {
    let (mut pair, sub, wire) = with_will(v, will("t", "gone").qos(1));
    pair.cut(wire);
    assert!(!pair.take(sub, "gone").publish().retain);
    let late = pair.connect(clean(v, "late"));
    pair.subscribe(late, "t", 1);
    pair.expect_silence(late);
}

pub fn a_will_with_retain_is_retained(v: Version) {
    for level in 0..=2 {
        let (mut pair, sub, wire) = with_will(v, will("t", "gone").qos(level).retain());
        pair.cut(wire);
        assert!(!pair.take(sub, "gone").publish().retain);
        let late = pair.connect(clean(v, "late"));
        pair.subscribe(late, "t", 2);
        let heard = pair.take(late, "gone");
        assert!(heard.publish().retain);
        assert_eq!(heard.publish().qos, qos(level));
    }
}

pub fn disconnect_ends_the_connection_without_the_will(v: Version) {
    let (mut pair, sub, wire) = with_will(v, will("t", "gone"));
    pair.send_bytes(
        wire,
        &Packet::Disconnect(campanile_mqtt::Disconnect {
            reason: campanile_mqtt::Reason::NormalDisconnection,
            properties: campanile_mqtt::Properties::EMPTY,
        })
        .bytes(v),
    );
    pair.expect_closed(wire);
    pair.expect_silence(sub);
}
