//! Clients that break the rules, and those beside them.

use crate::harness::{Client, Kind, Node, Protocol, Push, Raw, Session, Transport};

/// What a connected client sends, and the reason code that a 5.0 client is closed with.
const VIOLATIONS: &[(&str, &[u8], u8)] = &[
    ("reserved packet type", b"\x00\x00", 0x81),
    ("QoS 3", b"\x36\x05\0\x01a\0\x01", 0x81),
    ("DUP with QoS 0", b"\x38\x04\0\x01a\0", 0x81),
    (
        "reserved flags of SUBSCRIBE",
        b"\x80\x07\0\x01\0\0\x01a\0",
        0x81,
    ),
    ("SUBSCRIBE of nothing", b"\x82\x03\0\x01\0", 0x82),
    ("packet identifier 0", b"\x32\x06\0\x01a\0\0\0", 0x82),
    (
        "remaining length of five bytes",
        b"\x30\xff\xff\xff\xff\x01",
        0x81,
    ),
    ("topic with a wildcard", b"\x30\x06\0\x03a/#\0", 0x81),
    ("topic that is not UTF-8", b"\x30\x05\0\x02\xc3\x28\0", 0x81),
    ("topic with U+0000", b"\x30\x05\0\x02a\0\0", 0x81),
    ("topic alias 0", b"\x30\x07\0\x01a\x03\x23\0\0", 0x82),
    (
        "topic alias above the maximum",
        b"\x30\x07\0\x01a\x03\x23\xff\xff",
        0x94,
    ),
    ("empty topic without an alias", b"\x30\x03\0\0\0", 0x82),
    (
        "property of another packet",
        b"\x30\x06\0\x01a\x02\x24\x01",
        0x81,
    ),
    ("property twice", b"\x30\x08\0\x01a\x04\x01\0\x01\0", 0x82),
    (
        "second CONNECT",
        b"\x10\x0f\0\x04MQTT\x05\x02\0\x3c\0\0\x02me",
        0x82,
    ),
    ("packet of a server", b"\x20\x03\0\0\0", 0x82),
    ("PINGREQ with a body", b"\xc0\x01\0", 0x81),
    (
        "packet that announces more than the maximum",
        b"\x30\xff\xff\xff\x7f",
        0x95,
    ),
];

#[test]
fn each_violation_gets_its_reason_and_touches_nobody_else() {
    let node = Node::start();
    let mut bystander = Client::v5(&node, Session::clean("bystander"));
    bystander.subscribe("marker", 1);
    let mut wrong = Vec::new();
    for (what, bytes, reason) in VIOLATIONS {
        let mut offender = Raw::connected(&node, 5, "offender");
        offender.send(bytes);
        let found = offender.reason_of_close();
        if found != Some(*reason) {
            wrong.push(format!(
                "{what}: closed with {found:02x?}, not {reason:#04x}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    bystander.publish("marker", "fine", 1);
    assert_eq!(bystander.next_message().payload, "fine");
}

#[test]
fn each_violation_of_3_1_1_ends_in_a_close_without_a_word() {
    let node = Node::start();
    let violations: &[&[u8]] = &[
        b"\x00\x00",
        b"\x36\x05\0\x01a\0\x01",
        b"\x80\x06\0\x01\0\x01a\0",
        b"\x82\x02\0\x01",
        b"\x82\x06\0\x01\0\x01a\x03",
        b"\x30\x05\0\x03a/#",
        b"\x30\x04\0\x02\xc3\x28",
        b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02me",
        b"\xf0\x00",
    ];
    for bytes in violations {
        let mut offender = Raw::connected(&node, 4, "offender");
        offender.send(bytes);
        assert_eq!(offender.packet(), None, "{bytes:02x?}");
    }
}

#[test]
fn what_is_not_mqtt_is_closed() {
    let node = Node::start();
    let tries: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xc0\x00",
        b"\x30\x03\0\x01a",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\x10\x0c\0\x04MQTX\x04\x02\0\x3c\0\0",
    ];
    for bytes in tries {
        let mut stranger = Raw::open(&node);
        stranger.send(bytes);
        assert_eq!(stranger.packet(), None, "{bytes:02x?}");
    }
}

#[test]
fn an_unknown_version_is_told_so() {
    let node = Node::start();
    let mut future = Raw::open(&node);
    future.send_packet(0x10, b"\0\x04MQTT\x06\x02\0\x3c\0\0\0");
    let (kind, body) = future.packet().expect("a CONNACK");
    assert_eq!(kind, 0x20);
    assert!([0x01, 0x84].contains(&body[1]), "{body:02x?}");
    assert_eq!(future.packet(), None);
}

#[test]
fn too_many_unfinished_messages_exceed_the_receive_maximum() {
    let node = Node::start();
    let mut greedy = Raw::connected(&node, 5, "greedy");
    for id in 1..=21 {
        greedy.send_packet(0x34, &[0, 1, b'a', 0, id, 0]);
    }
    assert_eq!(greedy.reason_of_close(), Some(0x93));
}

#[test]
fn a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    let node = Node::start();
    let mut silent = Raw::open(&node);
    silent.send_packet(0x10, b"\0\x04MQTT\x05\x02\0\x01\0\0\x01s");
    assert_eq!(silent.packet().map(|(kind, _)| kind), Some(0x20));
    assert_eq!(silent.reason_of_close(), Some(0x8d));
}

#[test]
fn reserved_topics_cannot_be_published_to() {
    let node = Node::start();
    // Paho would go on with a PUBREL after a PUBREC that refuses.
    let mut client = Client::connect(
        &node,
        Kind::MqttJs,
        Protocol::V5,
        Transport::Tcp,
        Session::clean("client"),
    );
    for topic in ["$SYS/broker/uptime", "$share/group/a"] {
        assert_eq!(client.publish(topic, "x", 1), 0x87, "{topic}");
        assert_eq!(client.publish(topic, "x", 2), 0x87, "{topic}");
    }
    client.subscribe("a", 1);
    client.publish("a", "still here", 1);
    assert_eq!(client.next_message().payload, "still here");
}

#[test]
fn a_subscriber_that_does_not_read_harms_nobody() {
    const MESSAGES: u32 = 4000;
    let node = Node::start();
    let mut slow = Raw::connected(&node, 5, "slow");
    slow.send_packet(0x82, b"\0\x01\0\0\x04fire\0");
    assert_eq!(slow.packet().map(|(kind, _)| kind), Some(0x90));
    let mut fast = Client::v5(&node, Session::clean("fast"));
    fast.subscribe("fire", 1);
    let mut publisher = Client::connect(
        &node,
        Kind::MqttJs,
        Protocol::V5,
        Transport::Tcp,
        Session::clean("publisher"),
    );
    // 16 MB: more than the buffers of the kernel and the node's queue for one client hold.
    let filler = "x".repeat(4096);
    let published: Vec<_> = (0..MESSAGES)
        .map(|n| publisher.publish_later("fire", &format!("{n} {filler}"), 1))
        .collect();
    for n in 0..MESSAGES {
        let message = fast.next_message();
        assert_eq!(
            message
                .payload
                .split_once(' ')
                .map(|(number, _)| number.to_owned()),
            Some(n.to_string())
        );
    }
    published
        .into_iter()
        .for_each(|id| assert_eq!(publisher.await_published(id), 0));
    Push::to_device("fast", 1).send(&node);
    assert_eq!(fast.next_message().topic, "push/in");
    // What was kept for it comes when it reads again: the beginning, whole packets.
    let (kind, body) = slow.packet().expect("a message");
    assert_eq!((kind, body.get(7..9)), (0x30, Some(b"0 ".as_slice())));
    let metrics = node.get("/metrics").body;
    assert!(
        metrics
            .lines()
            .any(|line| line.contains("drop") && !line.starts_with('#') && !line.ends_with(" 0")),
        "{metrics}"
    );
}
