//! CONNECT and CONNACK.

use campanile_broker::config::Config;
use campanile_mqtt::{Packet, Reason, Version};
use campanile_sim::{node::NodeConfig, packets::*, pair::Pair};

use super::{clean, durable};

pub fn the_first_packet_is_connect(v: Version) {
    let packets = [
        Packet::PingReq.bytes(v),
        publish("a", "x").bytes(v),
        subscribe(1).filter("a", 0).bytes(v),
        disconnect().bytes(v),
    ];
    for packet in packets {
        let mut pair = Pair::new();
        let other = pair.connect(clean(v, "other"));
        pair.subscribe(other, "a", 0);
        let wire = pair.open(v);
        pair.send(wire, packet);
        pair.expect_closed(wire);
        pair.expect_silence(other);
    }
}

pub fn a_second_connect_is_an_error(v: Version) {
    let mut pair = Pair::new();
    let wire = pair.connect(clean(v, "a"));
    pair.send(wire, clean(v, "a"));
    pair.expect_disconnect(wire, Reason::ProtocolError);
    // As another client, too.
    let wire = pair.connect(clean(v, "a"));
    pair.send(wire, clean(v, "b"));
    pair.expect_disconnect(wire, Reason::ProtocolError);
}

pub fn the_client_id_identifies_the_session(v: Version) {
    let mut pair = Pair::new();
    for name in ["a", "b"] {
        let wire = pair.connect_present(durable(v, name), false);
        pair.subscribe(wire, name, 1);
        pair.send(wire, disconnect());
    }
    let publisher = pair.connect(clean(v, "pub"));
    pair.publish(publisher, "a", "for a", 1);
    pair.publish(publisher, "b", "for b", 1);
    for name in ["b", "a"] {
        let wire = pair.connect_present(durable(v, name), true);
        pair.take(wire, &format!("for {name}"));
        pair.expect_silence(wire);
    }
    // Identifiers are compared as they are.
    pair.connect_present(durable(v, "A"), false);
}

pub fn letters_and_digits_are_allowed_in_client_ids(v: Version) {
    let all = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut pair = Pair::new();
    for len in 1..=23 {
        for start in 0..=all.len() - len {
            let wire = pair.connect(clean(v, &all[start..start + len]));
            pair.send(wire, disconnect());
        }
    }
}

pub fn clients_without_an_id_get_one_each(v: Version) {
    let mut pair = Pair::new();
    let wires: Vec<usize> = (0..5).map(|_| pair.connect(clean(v, ""))).collect();
    for &wire in &wires {
        pair.subscribe(wire, "to/all", 0);
    }
    pair.publish(wires[0], "to/all", "x", 0);
    for &wire in &wires {
        pair.take(wire, "x");
        pair.expect_alive(wire);
    }
}

pub fn a_rejected_client_id_is_answered_so(v: Version) {
    let broker = Config {
        allow_empty_client_id: false,
        ..Config::default()
    };
    let mut pair = Pair::with(NodeConfig {
        broker,
        ..NodeConfig::default()
    });
    let wire = pair.try_connect(clean(v, ""));
    pair.expect_refused(wire, Reason::ClientIdentifierNotValid);
}

pub fn the_older_connection_of_a_client_is_closed(v: Version) {
    let mut pair = Pair::new();
    let mut old = pair.connect(clean(v, "a"));
    for connect in [clean(v, "a"), durable(v, "a"), durable(v, "a")] {
        let new = pair.connect(connect);
        pair.expect_disconnect(old, Reason::SessionTakenOver);
        pair.expect_alive(new);
        old = new;
    }
}

pub fn two_claims_at_once_leave_one_connection(v: Version) {
    let mut pair = Pair::new();
    let wires: Vec<usize> = (0..4)
        .map(|_| {
            let wire = pair.open(v);
            pair.post(wire, durable(v, "a"));
            wire
        })
        .collect();
    pair.node.settle();
    let open: Vec<usize> = wires
        .into_iter()
        .filter(|&wire| !pair.node.is_closed(wire))
        .collect();
    let [wire] = open[..] else {
        panic!("{open:?} are open")
    };
    assert_eq!(pair.next(wire).connack().reason, Reason::Success);
    pair.expect_alive(wire);
}

pub fn a_valid_connect_is_acknowledged(v: Version) {
    let mut pair = Pair::new();
    for connect in [
        clean(v, "a"),
        durable(v, "b"),
        clean(v, "c").login("user", "password").keep_alive(10),
        clean(v, "d").will(will("t", "gone").qos(2).retain()),
    ] {
        let wire = pair.connect(connect);
        pair.expect_alive(wire);
    }
}

pub fn nothing_behind_a_refused_connect_is_processed(v: Version) {
    let broker = Config {
        allow_empty_client_id: false,
        ..Config::default()
    };
    let mut pair = Pair::with(NodeConfig {
        broker,
        ..NodeConfig::default()
    });
    let sub = pair.connect(clean(v, "sub"));
    pair.subscribe(sub, "#", 2);
    let wire = pair.open(v);
    let mut bytes = clean(v, "").bytes(v);
    bytes.extend(publish("a", "x").bytes(v));
    bytes.extend(publish("a", "y").qos1(1).retain().bytes(v));
    pair.send_bytes(wire, &bytes);
    pair.expect_refused(wire, Reason::ClientIdentifierNotValid);
    pair.send(wire, publish("a", "z"));
    pair.expect_silence(sub);
}

pub fn connack_comes_before_all_else(v: Version) {
    let mut pair = Pair::new();
    let sub = pair.connect(durable(v, "sub"));
    pair.subscribe(sub, "#", 2);
    pair.cut(sub);
    let publisher = pair.connect(clean(v, "pub"));
    pair.publish(publisher, "a", "waiting", 2);
    // What comes in one piece with the CONNECT is answered after the CONNACK, too.
    let sub = pair.open(v);
    let mut bytes = durable(v, "sub").bytes(v);
    bytes.extend(Packet::PingReq.bytes(v));
    bytes.extend(publish("a", "echo").bytes(v));
    pair.send_bytes(sub, &bytes);
    let heard = pair.drain(sub);
    assert_eq!(heard[0].connack().reason, Reason::Success);
    assert_eq!(heard.len(), 4, "{heard:?}");
    assert!(heard.iter().any(|h| h.packet() == Packet::PingResp));
}

pub fn the_keep_alive_ends_after_one_and_a_half(v: Version) {
    let mut pair = Pair::new();
    let other = pair.connect(clean(v, "other"));
    pair.subscribe(other, "gone", 0);
    let wire = pair.connect(clean(v, "a").keep_alive(10).will(will("gone", "a")));
    pair.wait(14);
    pair.expect_alive(wire);
    pair.wait(14);
    // Any packet counts.
    pair.send(wire, publish("x", "y"));
    pair.wait(14);
    pair.expect_silence(wire);
    assert!(!pair.node.is_closed(wire));
    pair.wait(4);
    pair.expect_disconnect(wire, Reason::KeepAliveTimeout);
    // As if the network had failed: the will is published.
    pair.take(other, "a");
}

pub fn without_keep_alive_silence_may_last(v: Version) {
    let mut pair = Pair::new();
    let wire = pair.connect(clean(v, "a").keep_alive(0));
    pair.wait(100_000);
    pair.expect_alive(wire);
}

pub fn ping_is_answered(v: Version) {
    let mut pair = Pair::new();
    let wire = pair.connect(clean(v, "a"));
    pair.expect_alive(wire);
    pair.send_bytes(wire, &hex("c0 00 c0 00"));
    assert_eq!(pair.receive_bytes(wire), hex("d0 00"));
    assert_eq!(pair.receive_bytes(wire), hex("d0 00"));
    pair.expect_silence(wire);
}
