//! Sessions: what is kept, what is forgotten, and who owns it.

use std::time::Duration;

use crate::harness::{
    Client, Kind, MessageOptions, Node, Protocol, Push, Raw, Session, Transport, Will, eventually,
};

/// Long enough for a message that must not come to show on this machine. Only ever waited out together with a marker that must come.
const MOMENT: Duration = Duration::from_millis(50);

#[test]
fn a_kept_session_survives_restarts_of_the_node() {
    let mut node = Node::start();
    let mut device = Client::v5(&node, Session::kept("device"));
    device.subscribe("news/#", 2);
    device.disconnect();
    for n in 0..3 {
        let payload = n.to_string();
        Client::v5(&node, Session::clean("publisher")).publish("news/today", &payload, 2);
        if n == 0 {
            node.stop();
        } else {
            node.kill9();
        }
        node.start_again();
    }
    let device = Client::v5(&node, Session::kept("device"));
    assert!(device.session_present());
    let payloads: Vec<_> = (0..3).map(|_| device.next_message().payload).collect();
    assert_eq!(payloads, ["0", "1", "2"]);
    assert_eq!(device.message_within(MOMENT), None);
}

#[test]
fn a_clean_session_forgets_everything() {
    let node = Node::start();
    let mut device = Client::v5(&node, Session::kept("device"));
    device.subscribe("a", 1);
    device.disconnect();
    let mut publisher = Client::v5(&node, Session::clean("publisher"));
    publisher.publish("a", "missed", 1);
    Client::v5(&node, Session::clean("device")).disconnect();
    let mut device = Client::v5(&node, Session::kept("device"));
    assert!(!device.session_present());
    device.subscribe("b", 1);
    publisher.publish("a", "not wanted any more", 1);
    publisher.publish("b", "marker", 1);
    assert_eq!(device.next_message().payload, "marker");
}

#[test]
fn an_expired_session_is_gone_also_if_it_expired_after_a_crash() {
    let mut node = Node::start();
    for crash in [false, true] {
        let mut watcher = Client::v5(&node, Session::kept("watcher").reconnecting());
        watcher.subscribe("wills/device", 1);
        // The delay ends with the session, so that the will tells when that is.
        let will = Will {
            topic: "wills/device",
            payload: "expired",
            qos: 1,
            retain: false,
            delay: Some(3600),
        };
        let mut device = Client::v5(&node, Session::kept("device").expiry(1).will(&will));
        device.subscribe("a", 1);
        if crash {
            node.kill9();
            node.start_again();
        }
        device.vanish();
        assert_eq!(watcher.next_message().payload, "expired");
        let device = Client::v5(&node, Session::kept("device").expiry(0));
        assert!(!device.session_present());
    }
}

#[test]
fn a_second_connection_of_the_same_client_takes_over() {
    let node = Node::start();
    let mut first = Raw::connected(&node, 5, "device");
    let mut second = Raw::connected(&node, 5, "device");
    assert_eq!(first.reason_of_close(), Some(0x8e));
    let mut third = Client::connect(
        &node,
        Kind::Paho,
        Protocol::V311,
        Transport::Ws,
        Session::clean("device"),
    );
    assert_eq!(second.reason_of_close(), Some(0x8e));
    third.subscribe("a", 1);
    third.publish("a", "alive", 1);
    assert_eq!(third.next_message().payload, "alive");
}

#[test]
fn an_expired_message_does_not_reach_a_device_that_was_away() {
    let node = Node::start();
    let mut device = Client::v5(&node, Session::kept("device"));
    device.subscribe("a", 1);
    device.disconnect();
    let mut publisher = Client::v5(&node, Session::clean("publisher"));
    publisher.publish(
        "a",
        "short-lived",
        MessageOptions {
            qos: 1,
            expiry: Some(1),
            ..MessageOptions::default()
        },
    );
    publisher.publish(
        "a",
        "lasting",
        MessageOptions {
            qos: 1,
            expiry: Some(3600),
            ..MessageOptions::default()
        },
    );
    // The push's time runs out after that of the message.
    let push = Push::to_device("device", 1).ttl(1).send(&node);
    eventually("the push's expiry", || {
        (node.report(&push).expired == 1).then_some(())
    });
    let device = Client::v5(&node, Session::kept("device"));
    assert_eq!(device.next_message().payload, "lasting");
    assert_eq!(device.message_within(MOMENT), None);
}

#[test]
fn unacknowledged_messages_come_again_with_dup_in_their_order() {
    let node = Node::start();
    let mut device = Raw::open(&node);
    // CONNECT 5.0, clean start 0, session expiry 60 s, client id "device".
    let connect = b"\0\x04MQTT\x05\0\0\x3c\x05\x11\0\0\0\x3c\0\x06device";
    device.send_packet(0x10, connect);
    assert_eq!(device.packet().map(|(kind, _)| kind), Some(0x20));
    device.send_packet(0x82, b"\0\x01\0\0\x01a\x02");
    assert_eq!(device.packet().map(|(kind, _)| kind), Some(0x90));
    let mut publisher = Client::v5(&node, Session::clean("publisher"));
    for n in ["1", "2", "3"] {
        publisher.publish("a", n, 1);
    }
    let first: Vec<_> = (0..3)
        .map(|_| device.packet().expect("a message"))
        .collect();
    assert!(first.iter().all(|(kind, _)| *kind == 0x32), "{first:x?}");
    drop(device);

    let mut device = Raw::open(&node);
    device.send_packet(0x10, connect);
    let (kind, connack) = device.packet().expect("a CONNACK");
    assert_eq!((kind, connack[0], connack[1]), (0x20, 1, 0));
    let again: Vec<_> = (0..3)
        .map(|_| device.packet().expect("a message"))
        .collect();
    assert!(again.iter().all(|(kind, _)| *kind == 0x3a), "{again:x?}");
    let bodies = |packets: &[(u8, Vec<u8>)]| {
        packets
            .iter()
            .map(|(_, body)| body.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        bodies(&again),
        bodies(&first),
        "the packet identifiers are the same, too"
    );
}
