//! The delivery protocols, both ways, over connections that break and nodes that die.

use campanile_mqtt::{Packet, QoS, Version};
use campanile_sim::{packets::*, pair::Pair};

use super::{clean, clean_subscriber_and_publisher, durable, subscriber_and_publisher};

pub fn acknowledgements_bear_the_identifier_of_the_publish(v: Version) {
    let (mut pair, sub, publisher) = clean_subscriber_and_publisher(v, "a", 2);
    for number in [1, 77, 65535] {
        pair.send(publisher, publish("a", "1").qos1(number));
        pair.expect_puback(publisher, number);
        pair.take(sub, "1");
        pair.send(publisher, publish("a", "2").qos2(number));
        pair.expect_pubrec(publisher, number);
        pair.send(publisher, pubrel(number));
        pair.expect_pubcomp(publisher, number);
        let heard = pair.expect_publish(sub, "2");
        pair.send(sub, pubrec(heard.id()));
        pair.expect_pubrel(sub, heard.id());
        pair.send(sub, pubcomp(heard.id()));
    }
}

pub fn subscribe_and_unsubscribe_are_answered_with_their_identifiers(v: Version) {
    super::subscribe::subscribe_is_answered_with_its_identifier(v);
    super::subscribe::unsubscribe_is_answered_with_its_identifier(v);
}

pub fn dup_is_set_when_a_publish_is_sent_again(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.publish(publisher, "a", "1", 1);
    pair.publish(publisher, "a", "2", 2);
    for payload in ["1", "2"] {
        assert!(!pair.expect_publish(sub, payload).publish().dup);
    }
    for _ in 0..3 {
        pair.cut(sub);
        let again = pair.connect_present(durable(v, "sub"), true);
        for payload in ["1", "2"] {
            assert!(pair.expect_publish(again, payload).publish().dup);
        }
        pair.node.cut(again);
    }
    let again = pair.connect_present(durable(v, "sub"), true);
    pair.take(again, "1");
    pair.take(again, "2");
    pair.publish(publisher, "a", "3", 1);
    assert!(!pair.take(again, "3").publish().dup);
}

pub fn qos_0_is_sent_once_without_dup(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 0);
    for level in 0..=2 {
        pair.publish(publisher, "a", "x", level);
        let heard = pair.expect_publish(sub, "x");
        let packet = heard.publish();
        assert_eq!(
            (packet.qos, packet.dup, packet.packet_id),
            (QoS::AtMostOnce, false, None)
        );
    }
    pair.cut(sub);
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.expect_silence(sub);
}

/// Messages of a level under way to clients of both kinds have different identifiers, and are sent without DUP.
pub fn every_message_under_way_has_its_own_identifier(v: Version, level: u8) {
    for client in [clean(v, "sub"), durable(v, "sub")] {
        let mut pair = Pair::new();
        let sub = pair.connect(client);
        pair.subscribe(sub, "a", 2);
        let publisher = pair.connect(clean(v, "pub"));
        let mut under_way: Vec<u16> = Vec::new();
        for round in 0..40 {
            pair.publish(publisher, "a", "x", level);
            let heard = pair.expect_publish(sub, "x");
            let packet = heard.publish();
            assert_eq!((packet.qos, packet.dup), (qos(level), false));
            assert!(!under_way.contains(&heard.id()), "{} twice", heard.id());
            under_way.push(heard.id());
            if round % 3 == 2 {
                // One ends, not always the oldest.
                let done = under_way.remove(under_way.len() / 2);
                if level == 1 {
                    pair.send(sub, puback(done));
                } else {
                    pair.send(sub, pubrec(done));
                    pair.expect_pubrel(sub, done);
                    pair.send(sub, pubcomp(done));
                }
            }
        }
    }
}

pub fn qos_1_is_unacknowledged_until_puback(v: Version) {
    let (mut pair, mut sub, publisher) = subscriber_and_publisher(v, "a", 1);
    pair.publish(publisher, "a", "x", 1);
    let first = pair.expect_publish(sub, "x").id();
    for _ in 0..3 {
        pair.wait(10);
        pair.cut(sub);
        sub = pair.connect_present(durable(v, "sub"), true);
        assert_eq!(pair.expect_publish(sub, "x").id(), first);
    }
    pair.send(sub, puback(first));
    pair.wait(1);
    pair.cut(sub);
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.expect_silence(sub);
}

pub fn qos_1_is_acknowledged_by_puback(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 1);
    pair.send(publisher, publish("a", "x").qos1(5));
    assert!(!pair.expect_puback(publisher, 5).is_error());
    // The node owns it now: the publisher may vanish, and the node die.
    pair.cut(publisher);
    pair.cut(sub);
    pair.crash();
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.take(sub, "x");
}

pub fn after_puback_an_identifier_means_a_new_message(v: Version) {
    for client in [clean(v, "pub"), durable(v, "pub")] {
        let (mut pair, sub, _) = clean_subscriber_and_publisher(v, "a", 1);
        let publisher = pair.connect(client);
        pair.send(publisher, publish("a", "1").qos1(5));
        pair.expect_puback(publisher, 5);
        pair.send(publisher, publish("a", "2").qos1(5).dup());
        pair.expect_puback(publisher, 5);
        pair.take(sub, "1");
        pair.take(sub, "2");
    }
}

pub fn qos_2_is_unacknowledged_until_pubrec(v: Version) {
    let (mut pair, mut sub, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.publish(publisher, "a", "x", 2);
    let first = pair.expect_publish(sub, "x").id();
    for crash in [false, true, false] {
        if crash {
            pair.crash();
        } else {
            pair.cut(sub);
        }
        sub = pair.connect_present(durable(v, "sub"), true);
        let heard = pair.expect_publish(sub, "x");
        assert_eq!((heard.id(), heard.publish().dup), (first, true));
    }
    pair.send(sub, pubrec(first));
    pair.expect_pubrel(sub, first);
}

pub fn pubrec_is_answered_by_pubrel(v: Version) {
    for client in [clean(v, "sub"), durable(v, "sub")] {
        let mut pair = Pair::new();
        let sub = pair.connect(client);
        pair.subscribe(sub, "a", 2);
        let publisher = pair.connect(clean(v, "pub"));
        pair.publish(publisher, "a", "1", 2);
        pair.publish(publisher, "a", "2", 2);
        let first = pair.expect_publish(sub, "1").id();
        let second = pair.expect_publish(sub, "2").id();
        for number in [second, first] {
            pair.send(sub, pubrec(number));
            assert!(!pair.expect_pubrel(sub, number).is_error());
            // Said twice, answered twice.
            pair.send(sub, pubrec(number));
            assert!(!pair.expect_pubrel(sub, number).is_error());
        }
        pair.expect_silence(sub);
    }
}

pub fn pubrel_is_unacknowledged_until_pubcomp(v: Version) {
    let (mut pair, mut sub, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.publish(publisher, "a", "x", 2);
    let number = pair.expect_publish(sub, "x").id();
    pair.send(sub, pubrec(number));
    pair.expect_pubrel(sub, number);
    for crash in [false, true, false] {
        if crash {
            pair.crash();
        } else {
            pair.cut(sub);
        }
        sub = pair.connect_present(durable(v, "sub"), true);
        // Not the PUBLISH again.
        pair.expect_pubrel(sub, number);
        pair.expect_silence(sub);
    }
    pair.send(sub, pubcomp(number));
    pair.wait(1);
    pair.crash();
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.expect_silence(sub);
}

pub fn qos_2_is_acknowledged_by_pubrec(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.send(publisher, publish("a", "x").qos2(5));
    assert!(!pair.expect_pubrec(publisher, 5).is_error());
    pair.cut(publisher);
    pair.cut(sub);
    pair.crash();
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.take(sub, "x");
}

pub fn until_pubrel_a_repetition_is_no_new_message(v: Version) {
    for client in [clean(v, "pub"), durable(v, "pub")] {
        let (mut pair, sub, _) = clean_subscriber_and_publisher(v, "a", 2);
        let away = pair.connect(durable(v, "away"));
        pair.subscribe(away, "a", 2);
        let publisher = pair.connect(client);
        pair.send(publisher, publish("a", "x").qos2(5));
        pair.expect_pubrec(publisher, 5);
        for _ in 0..3 {
            pair.send(publisher, publish("a", "x").qos2(5).dup());
            pair.expect_pubrec(publisher, 5);
        }
        pair.send(publisher, pubrel(5));
        pair.expect_pubcomp(publisher, 5);
        for wire in [sub, away] {
            pair.take(wire, "x");
            pair.expect_silence(wire);
        }
    }
    // A repetition before the first was answered.
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.post(publisher, publish("a", "x").qos2(5));
    pair.post(publisher, publish("a", "x").qos2(5).dup());
    pair.node.settle();
    pair.expect_pubrec(publisher, 5);
    pair.take(sub, "x");
    pair.expect_silence(sub);
}

pub fn until_pubrel_a_repetition_after_a_loss_is_no_new_message(v: Version) {
    for crash in [false, true] {
        let (mut pair, sub, _) = subscriber_and_publisher(v, "a", 2);
        let publisher = pair.connect(durable(v, "pub2"));
        pair.send(publisher, publish("a", "x").qos2(5));
        // The PUBREC is lost with the connection.
        pair.lose_output(publisher);
        pair.cut(publisher);
        pair.take(sub, "x");
        pair.wait(1);
        let mut sub = sub;
        if crash {
            pair.crash();
            sub = pair.connect_present(durable(v, "sub"), true);
        }
        let publisher = pair.connect_present(durable(v, "pub2"), true);
        pair.send(publisher, publish("a", "x").qos2(5).dup());
        pair.expect_pubrec(publisher, 5);
        pair.send(publisher, pubrel(5));
        pair.expect_pubcomp(publisher, 5);
        pair.expect_silence(sub);
    }
}

pub fn pubrel_is_answered_by_pubcomp(v: Version) {
    for client in [clean(v, "pub"), durable(v, "pub")] {
        let mut pair = Pair::new();
        let publisher = pair.connect(client);
        for number in [9, 1, 65535] {
            pair.send(publisher, publish("a", "x").qos2(number));
            pair.expect_pubrec(publisher, number);
        }
        for number in [1, 65535, 9] {
            pair.send(publisher, pubrel(number));
            assert!(!pair.expect_pubcomp(publisher, number).is_error());
            // Again, because the PUBCOMP may have been lost.
            pair.send(publisher, pubrel(number));
            pair.expect_pubcomp(publisher, number);
        }
        pair.expect_silence(publisher);
    }
}

pub fn after_pubcomp_an_identifier_means_a_new_message(v: Version) {
    for client in [clean(v, "pub"), durable(v, "pub")] {
        let (mut pair, sub, _) = clean_subscriber_and_publisher(v, "a", 2);
        let publisher = pair.connect(client);
        for payload in ["1", "2", "3"] {
            pair.send(publisher, publish("a", payload).qos2(5).dup());
            pair.expect_pubrec(publisher, 5);
            pair.send(publisher, pubrel(5));
            pair.expect_pubcomp(publisher, 5);
            pair.take(sub, payload);
        }
    }
}

pub fn what_is_unacknowledged_is_sent_again_at_reconnect_only(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 2);
    for (payload, level) in [("1", 1), ("2", 2), ("3", 2), ("4", 1)] {
        pair.publish(publisher, "a", payload, level);
    }
    let ids = ["1", "2", "3", "4"].map(|payload| pair.expect_publish(sub, payload).id());
    pair.send(sub, pubrec(ids[1]));
    pair.expect_pubrel(sub, ids[1]);
    // Not because time passes, nor because of other packets.
    pair.wait(600);
    pair.expect_alive(sub);
    pair.subscribe(sub, "b", 0);
    pair.expect_silence(sub);
    pair.cut(sub);
    let sub = pair.connect_present(durable(v, "sub"), true);
    let heard = pair.drain(sub);
    let told: Vec<(bool, u16)> = heard
        .iter()
        .map(|heard| match heard.packet() {
            Packet::Publish(packet) => {
                assert!(packet.dup);
                (true, heard.id())
            }
            Packet::PubRel(ack) => (false, ack.packet_id.get()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (true, ids[0]),
        (false, ids[1]),
        (true, ids[2]),
        (true, ids[3]),
    ];
    assert_eq!(told, expected);
}

pub fn a_takeover_goes_on_with_what_is_under_way(v: Version) {
    let (mut pair, mut sub, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.publish(publisher, "a", "1", 1);
    pair.publish(publisher, "a", "2", 2);
    let ids = ["1", "2"].map(|payload| pair.expect_publish(sub, payload).id());
    for _ in 0..3 {
        let next = pair.connect_present(durable(v, "sub"), true);
        pair.expect_disconnect(sub, campanile_mqtt::Reason::SessionTakenOver);
        for (payload, number) in ["1", "2"].into_iter().zip(ids) {
            let heard = pair.expect_publish(next, payload);
            assert_eq!((heard.id(), heard.publish().dup), (number, true));
        }
        sub = next;
    }
    pair.send(sub, puback(ids[0]));
    pair.send(sub, pubrec(ids[1]));
    pair.expect_pubrel(sub, ids[1]);
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.expect_pubrel(sub, ids[1]);
    pair.expect_silence(sub);
}

/// PUBRELs come in the order of the PUBRECs, wherever the messages are kept.
pub fn releases_come_in_the_order_of_the_receptions(v: Version) {
    for client in [clean(v, "sub"), durable(v, "sub")] {
        let mut pair = Pair::new();
        let sub = pair.connect(client);
        pair.subscribe(sub, "a", 2);
        let publisher = pair.connect(clean(v, "pub"));
        let ids: Vec<u16> = (0..9)
            .map(|n| {
                pair.publish(publisher, "a", &n.to_string(), 2);
                pair.expect_publish(sub, &n.to_string()).id()
            })
            .collect();
        let order: Vec<u16> = [4, 0, 8, 1, 2, 7, 3, 6, 5].map(|n: usize| ids[n]).to_vec();
        for &number in &order {
            pair.post(sub, pubrec(number));
        }
        pair.node.settle();
        let heard: Vec<u16> = pair
            .drain(sub)
            .iter()
            .map(|heard| heard.pubrel().packet_id.get())
            .collect();
        assert_eq!(heard, order);
    }
}

pub fn what_is_sent_again_keeps_its_order(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "#", 2);
    let payloads: Vec<String> = (0..30).map(|n| format!("{n}")).collect();
    for (n, payload) in payloads.iter().enumerate() {
        pair.publish(
            publisher,
            &format!("t/{}", n % 3),
            payload,
            1 + (n % 2) as u8,
        );
    }
    for payload in &payloads {
        pair.expect_publish(sub, payload);
    }
    for crash in [false, true] {
        if crash {
            pair.crash();
        } else {
            pair.cut(sub);
        }
        let sub = pair.connect_present(durable(v, "sub"), true);
        let again: Vec<Vec<String>> = [1, 2]
            .iter()
            .map(|level| {
                payloads
                    .iter()
                    .enumerate()
                    .filter(|(n, _)| 1 + n % 2 == *level)
                    .map(|(_, payload)| payload.clone())
                    .collect()
            })
            .collect();
        let mut heard = [Vec::new(), Vec::new()];
        for packet in pair.drain(sub) {
            let level = packet.publish().qos as usize;
            heard[level - 1].push(packet.payload().to_owned());
        }
        assert_eq!(heard.to_vec(), again);
        if !crash {
            pair.cut(sub);
        }
    }
}
