//! PUBLISH: from a client to those who subscribed.

use campanile_mqtt::{Packet, Reason, Version};
use campanile_sim::packets::*;

use super::{clean, clean_subscriber_and_publisher, durable, subscriber_and_publisher};

pub fn a_publish_is_answered_by_its_qos(v: Version) {
    let (mut pair, _, publisher) = clean_subscriber_and_publisher(v, "a", 2);
    // With a subscriber, without one, and for a client that is away.
    let away = pair.connect(durable(v, "away"));
    pair.subscribe(away, "b", 2);
    pair.cut(away);
    for topic in ["a", "b", "nobody"] {
        pair.send(publisher, publish(topic, "0"));
        pair.expect_silence(publisher);
        pair.send(publisher, publish(topic, "1").qos1(10));
        assert!(!pair.expect_puback(publisher, 10).is_error());
        pair.send(publisher, publish(topic, "2").qos2(11));
        assert!(!pair.expect_pubrec(publisher, 11).is_error());
        pair.send(publisher, pubrel(11));
        assert_eq!(pair.expect_pubcomp(publisher, 11), Reason::Success);
        pair.expect_silence(publisher);
    }
}

pub fn only_matching_topics_reach_a_subscriber(v: Version) {
    let topics = [
        "a", "a/", "a/b", "a/b/c", "a/b/d", "/a", "b", "A", "A/B", "aa", "$a", "a/$b",
    ];
    let expected: [(&str, &[&str]); 8] = [
        ("a", &["a"]),
        ("a/#", &["a", "a/", "a/b", "a/b/c", "a/b/d", "a/$b"]),
        ("a/+", &["a/", "a/b", "a/$b"]),
        ("+", &["a", "b", "A", "aa"]),
        ("+/+", &["a/", "a/b", "/a", "A/B", "a/$b"]),
        ("a/+/c", &["a/b/c"]),
        ("+/b/#", &["a/b", "a/b/c", "a/b/d"]),
        (
            "#",
            &[
                "a", "a/", "a/b", "a/b/c", "a/b/d", "/a", "b", "A", "A/B", "aa", "a/$b",
            ],
        ),
    ];
    for (filter, matching) in expected {
        for level in [0, 1] {
            let (mut pair, sub, publisher) = subscriber_and_publisher(v, filter, level);
            for topic in topics {
                pair.publish(publisher, topic, "x", level);
            }
            let heard: Vec<String> = pair
                .drain(sub)
                .iter()
                .map(|heard| heard.publish().topic.to_owned())
                .collect();
            assert_eq!(heard, matching, "of {filter}");
        }
    }
}

pub fn the_dup_flag_is_not_propagated(v: Version) {
    let (mut pair, sub, publisher) = clean_subscriber_and_publisher(v, "a", 2);
    let away = pair.connect(durable(v, "away"));
    pair.subscribe(away, "a", 2);
    pair.send(publisher, publish("a", "1").qos1(1).dup());
    pair.expect_puback(publisher, 1);
    pair.send(publisher, publish("a", "2").qos2(2).dup());
    pair.expect_pubrec(publisher, 2);
    for wire in [sub, away] {
        assert!(!pair.take(wire, "1").publish().dup);
        assert!(!pair.take(wire, "2").publish().dup);
    }
}

pub fn overlapping_subscriptions_give_the_highest_qos(v: Version) {
    for client in [clean(v, "c"), durable(v, "d")] {
        for (published, expected) in [(0, 0), (1, 1), (2, 2)] {
            let mut pair = campanile_sim::pair::Pair::new();
            let sub = pair.connect(client.clone());
            for (filter, level) in [("a/#", 1), ("a/b", 2), ("+/b", 0)] {
                pair.subscribe(sub, filter, level);
            }
            let publisher = pair.connect(clean(v, "pub"));
            pair.publish(publisher, "a/b", "x", published);
            let heard = pair.take(sub, "x");
            assert_eq!(heard.publish().qos, qos(expected));
            // One copy.
            pair.expect_silence(sub);
        }
    }
}

pub fn the_qos_is_the_lower_of_both(v: Version) {
    for client in [clean(v, "c"), durable(v, "d")] {
        let mut pair = campanile_sim::pair::Pair::new();
        let publisher = pair.connect(clean(v, "pub"));
        for granted in 0..=2 {
            let sub = pair.connect(client.clone());
            pair.subscribe(sub, "a", granted);
            for published in 0..=2 {
                pair.publish(publisher, "a", "x", published);
                let heard = pair.take(sub, "x");
                assert_eq!(heard.publish().qos, qos(granted.min(published)));
            }
        }
    }
}

pub fn order_of_a_publisher_is_kept(v: Version) {
    for client in [clean(v, "sub"), durable(v, "sub")] {
        for level in 0..=2 {
            let mut pair = campanile_sim::pair::Pair::new();
            let sub = pair.connect(client.clone());
            pair.subscribe(sub, "a", 2);
            let publishers: Vec<usize> = (0..3)
                .map(|n| pair.connect(clean(v, &format!("pub{n}"))))
                .collect();
            for n in 0..10 {
                for &publisher in &publishers {
                    let packet = publish("a", &format!("{publisher} {n:02}"));
                    pair.post(publisher, packet.qos(level, n + 1));
                }
            }
            pair.node.settle();
            let mut heard: Vec<String> = Vec::new();
            while let Some(next) = pair.poll(sub) {
                if let Packet::Publish(packet) = next.packet() {
                    heard.push(next.payload().to_owned());
                    match level {
                        0 => {}
                        1 => pair.send(sub, puback(next.id())),
                        _ => pair.send(sub, pubrec(next.id())),
                    }
                    assert_eq!(packet.qos, qos(level));
                }
            }
            assert_eq!(heard.len(), 30);
            for publisher in publishers {
                let own: Vec<&String> = heard
                    .iter()
                    .filter(|payload| payload.starts_with(&publisher.to_string()))
                    .collect();
                assert!(own.is_sorted(), "{own:?}");
            }
        }
    }
}

pub fn order_is_kept_for_a_client_that_was_away(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.publish(publisher, "a", "0", 1);
    pair.expect_publish(sub, "0");
    pair.cut(sub);
    for n in 1..50 {
        pair.publish(publisher, "a", &n.to_string(), 1);
    }
    let sub = pair.connect_present(durable(v, "sub"), true);
    for n in 0..50 {
        // New ones do not overtake.
        pair.publish(publisher, "a", &(50 + n).to_string(), 1);
        pair.take(sub, &n.to_string());
    }
    for n in 50..100 {
        pair.take(sub, &n.to_string());
    }
    pair.expect_silence(sub);
}

/// Some messages wait for the store, others do not: still, the acknowledgements of each kind come in the order of the messages.
pub fn acknowledgements_come_in_the_order_of_the_messages(v: Version) {
    for client in [clean(v, "x"), durable(v, "x")] {
        let (mut pair, _, _) = subscriber_and_publisher(v, "kept/#", 2);
        let wire = pair.connect(client);
        let mut expected = [Vec::new(), Vec::new()];
        for number in 1..=18u16 {
            let topic = ["kept/a", "nobody", "$SYS/x"][usize::from(number % 3)];
            let level = 1 + u8::from(number % 4 < 2);
            let mut packet = publish(topic, "x").qos(level, number);
            if number % 5 == 0 {
                packet = packet.retain();
            }
            pair.post(wire, packet);
            expected[usize::from(level) - 1].push(number);
        }
        pair.node.settle();
        let mut heard = [Vec::new(), Vec::new()];
        for answer in pair.drain(wire) {
            match answer.packet() {
                Packet::PubAck(ack) => heard[0].push(ack.packet_id.get()),
                Packet::PubRec(ack) => heard[1].push(ack.packet_id.get()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard, expected);
    }
}

/// Bytes may come one by one, or many packets at once.
pub fn packets_may_come_in_any_pieces(v: Version) {
    let say = |number: u16| {
        let mut bytes = clean(v, "talker").bytes(v);
        bytes.extend(subscribe(1).filter("a", 2).bytes(v));
        for n in 0..number {
            bytes.extend(
                publish("a", &n.to_string())
                    .qos((n % 3) as u8, n + 1)
                    .bytes(v),
            );
        }
        bytes.extend(Packet::PingReq.bytes(v));
        bytes
    };
    let bytes = say(9);
    for size in [1, 2, 7, bytes.len()] {
        let mut pair = campanile_sim::pair::Pair::new();
        let wire = pair.open(v);
        for piece in bytes.chunks(size) {
            pair.send_bytes(wire, piece);
        }
        let mut payloads = Vec::new();
        let mut others = Vec::new();
        for heard in pair.drain(wire) {
            match heard.packet() {
                Packet::Publish(_) => payloads.push(heard.payload().to_owned()),
                packet => others.push(packet.name()),
            }
        }
        payloads.sort();
        let expected: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        assert_eq!(payloads, expected, "in pieces of {size}");
        others.sort();
        let answers = [
            "CONNACK", "PINGRESP", "PUBACK", "PUBACK", "PUBACK", "PUBREC", "PUBREC", "PUBREC",
            "SUBACK",
        ];
        assert_eq!(others, answers, "in pieces of {size}");
    }
}

pub fn a_full_socket_delays_and_drops_nothing_below_the_limit(v: Version) {
    for client in [clean(v, "sub"), durable(v, "sub")] {
        let mut pair = campanile_sim::pair::Pair::new();
        let sub = pair.connect(client);
        pair.subscribe(sub, "a", 2);
        let publisher = pair.connect(clean(v, "pub"));
        pair.node.set_blocked(sub, true);
        for n in 0..90 {
            pair.publish(publisher, "a", &n.to_string(), (n % 3) as u8);
        }
        pair.expect_silence(sub);
        pair.node.set_blocked(sub, false);
        pair.node.settle();
        let mut heard: [Vec<u32>; 3] = Default::default();
        for _ in 0..90 {
            let next = pair.next(sub);
            let level = next.publish().qos as usize;
            heard[level].push(next.payload().parse().unwrap());
        }
        for (level, numbers) in heard.iter().enumerate() {
            let expected: Vec<u32> = (0..90).filter(|n| *n as usize % 3 == level).collect();
            assert_eq!(*numbers, expected, "at qos {level}");
        }
    }
}

pub fn a_forbidden_publish_is_refused_or_dropped(v: Version) {
    let (mut pair, sub, publisher) = clean_subscriber_and_publisher(v, "#", 2);
    pair.subscribe(sub, "$SYS/#", 2);
    for topic in ["$SYS/broker", "$share/g/a", "$SYS"] {
        pair.send(publisher, publish(topic, "x"));
        pair.expect_silence(publisher);
        let expected = if v.is_v5() {
            Reason::NotAuthorized
        } else {
            Reason::Success
        };
        pair.send(publisher, publish(topic, "x").qos1(1));
        assert_eq!(pair.expect_puback(publisher, 1), expected);
        pair.send(publisher, publish(topic, "x").qos2(1).retain());
        assert_eq!(pair.expect_pubrec(publisher, 1), expected);
        pair.send(publisher, pubrel(1));
        pair.next(publisher).pubcomp();
    }
    pair.expect_silence(sub);
}
