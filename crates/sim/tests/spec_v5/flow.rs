//! Flow control, section 4.9.

use std::collections::BTreeSet;

use campanile_broker::config::Config;
use campanile_mqtt::{Packet, Property, Reason};
use campanile_sim::{node::NodeConfig, packets::*, pair::Pair};

use super::V;
use crate::rules::{clean, durable, subscriber_and_publisher};

/// A node with a subscriber of `a` that takes so many at once, and a publisher.
fn narrow(client: Connect, maximum: u16) -> (Pair, usize, usize) {
    let mut pair = Pair::new();
    let sub = pair.connect(client.with(Property::ReceiveMaximum(maximum)));
    pair.subscribe(sub, "a", 2);
    let publisher = pair.connect(clean(V, "pub"));
    (pair, sub, publisher)
}

#[test]
fn mqtt_3_3_4_9_the_server_keeps_within_the_receive_maximum_of_the_client() {
    for client in [clean(V, "c"), durable(V, "d")] {
        for maximum in [1, 2, 7] {
            let (mut pair, sub, publisher) = narrow(client.clone(), maximum);
            for n in 0..20 {
                pair.publish(publisher, "a", &n.to_string(), 1 + n % 2);
            }
            // By identifier: whether PUBREC was sent.
            let mut open: BTreeSet<u16> = BTreeSet::new();
            let mut heard = BTreeSet::new();
            loop {
                let mut waiting = Vec::new();
                while let Some(next) = pair.poll(sub) {
                    match next.packet() {
                        Packet::Publish(_) => {
                            assert!(open.insert(next.id()));
                            assert!(heard.insert(next.payload().to_owned()));
                            waiting.push(next.clone());
                        }
                        Packet::PubRel(_) => {}
                        other => panic!("{other:?}"),
                    }
                    assert!(open.len() <= usize::from(maximum));
                }
                if waiting.is_empty() {
                    break;
                }
                // PUBREC does not make room yet.
                for next in &waiting {
                    if next.publish().qos == qos(2) {
                        pair.send(sub, pubrec(next.id()));
                        pair.expect_pubrel(sub, next.id());
                    }
                }
                let next = waiting.pop().unwrap();
                for next in waiting.into_iter().chain([next]) {
                    open.remove(&next.id());
                    if next.publish().qos == qos(2) {
                        pair.send(sub, pubcomp(next.id()));
                    } else {
                        pair.send(sub, puback(next.id()));
                    }
                }
            }
            assert_eq!(heard.len(), 20);
        }
    }
}

#[test]
fn mqtt_4_9_0_2_without_quota_no_publish_is_sent() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let (mut pair, sub, publisher) = narrow(client, 2);
        for n in 0..5 {
            pair.publish(publisher, "a", &n.to_string(), 2);
        }
        let first = pair.expect_publish(sub, "0");
        let second = pair.expect_publish(sub, "1");
        pair.expect_silence(sub);
        pair.wait(60);
        pair.expect_silence(sub);
        // Room comes with PUBCOMP, or with a PUBREC that refuses.
        pair.send(sub, pubrec(first.id()));
        pair.expect_pubrel(sub, first.id());
        pair.expect_silence(sub);
        pair.send(sub, pubcomp(first.id()));
        pair.expect_publish(sub, "2");
        pair.expect_silence(sub);
        pair.send(sub, pubrec(second.id()).reason(Reason::QuotaExceeded));
        pair.expect_publish(sub, "3");
        pair.expect_silence(sub);
        // An acknowledgement of nothing makes none.
        pair.send(sub, puback(60_000));
        pair.send(sub, pubcomp(60_000));
        pair.expect_silence(sub);
    }
}

#[test]
fn mqtt_4_9_0_1_the_initial_quota_is_within_the_receive_maximum() {
    for client in [clean(V, "c"), durable(V, "d")] {
        for maximum in [1, 5, 65535] {
            let (mut pair, sub, publisher) = narrow(client.clone(), maximum);
            for _ in 0..30 {
                pair.publish(publisher, "a", "x", 1);
            }
            assert_eq!(pair.drain(sub).len(), usize::from(maximum).min(30));
        }
    }
    // On the next connection, too, with what is sent again.
    let (mut pair, sub, publisher) = subscriber_and_publisher(V, "a", 1);
    for _ in 0..30 {
        pair.publish(publisher, "a", "x", 1);
    }
    assert_eq!(pair.drain(sub).len(), 30);
    pair.cut(sub);
    let sub = pair.connect_present(durable(V, "sub").with(Property::ReceiveMaximum(4)), true);
    assert_eq!(pair.drain(sub).len(), 4);
}

#[test]
fn mqtt_3_3_4_10_other_packets_are_not_delayed() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let (mut pair, sub, publisher) = narrow(client, 1);
        pair.publish(publisher, "a", "1", 1);
        pair.publish(publisher, "a", "2", 1);
        let first = pair.expect_publish(sub, "1");
        pair.expect_alive(sub);
        pair.subscribe(sub, "b", 1);
        pair.unsubscribe(sub, "b");
        pair.publish(sub, "x", "y", 1);
        pair.publish(sub, "x", "y", 2);
        pair.expect_silence(sub);
        pair.acknowledge(sub, &first);
        pair.take(sub, "2");
    }
}

#[test]
fn mqtt_4_9_0_3_all_else_is_processed_without_quota() {
    // QoS 0 to the client goes on, and acknowledgements both ways.
    let (mut pair, sub, publisher) = narrow(clean(V, "c"), 1);
    pair.subscribe(sub, "zero", 0);
    pair.publish(publisher, "a", "1", 2);
    let first = pair.expect_publish(sub, "1");
    pair.publish(publisher, "zero", "0", 1);
    pair.take(sub, "0");
    pair.send(sub, pubrec(first.id()));
    pair.expect_pubrel(sub, first.id());
    pair.publish(publisher, "a", "2", 1);
    pair.expect_silence(sub);
    pair.publish(sub, "x", "y", 2);
    pair.expect_alive(sub);
    pair.send(sub, pubcomp(first.id()));
    pair.take(sub, "2");
}

#[test]
fn mqtt_3_3_4_7_a_client_that_exceeds_the_receive_maximum_is_cut_off() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let broker = Config {
            receive_maximum: 3,
            ..Config::default()
        };
        let mut pair = Pair::with(NodeConfig {
            broker,
            ..NodeConfig::default()
        });
        let (wire, heard) = pair.connack(client);
        assert_eq!(heard.connack().properties.receive_maximum(), Some(3));
        for number in 1..=3 {
            pair.send(wire, publish("a", "x").qos2(number));
            pair.expect_pubrec(wire, number);
        }
        // A repetition is none more, and QoS 0 does not count.
        pair.send(wire, publish("a", "x").qos2(1).dup());
        pair.expect_pubrec(wire, 1);
        pair.publish(wire, "a", "x", 0);
        pair.send(wire, pubrel(2));
        pair.expect_pubcomp(wire, 2);
        pair.send(wire, publish("a", "x").qos2(4));
        pair.expect_pubrec(wire, 4);
        pair.send(wire, publish("a", "x").qos1(5));
        pair.expect_disconnect(wire, Reason::ReceiveMaximumExceeded);
    }
}

#[test]
fn who_is_refused_gets_the_quota_back() {
    let broker = Config {
        receive_maximum: 1,
        ..Config::default()
    };
    let mut pair = Pair::with(NodeConfig {
        broker,
        ..NodeConfig::default()
    });
    let wire = pair.connect(clean(V, "a"));
    for number in 1..10 {
        pair.send(wire, publish("$SYS/x", "x").qos2(number));
        assert!(pair.expect_pubrec(wire, number).is_error());
        pair.send(wire, publish("$SYS/x", "x").qos1(number));
        assert!(pair.expect_puback(wire, number).is_error());
    }
}
