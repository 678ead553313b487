//! SUBSCRIBE and UNSUBSCRIBE.

use campanile_broker::config::Config;
use campanile_mqtt::{QoS, Version};
use campanile_sim::{node::NodeConfig, packets::*, pair::Pair};

use super::{clean, clean_subscriber_and_publisher, durable, subscriber_and_publisher};

pub fn subscribe_is_answered_with_its_identifier(v: Version) {
    for client in [clean(v, "c"), durable(v, "d")] {
        let mut pair = Pair::new();
        let wire = pair.connect(client);
        for number in [1, 2, 300, 65535] {
            pair.send(wire, subscribe(number).filter("a/+", 1));
            assert_eq!(pair.next(wire).suback().packet_id, id(number));
            pair.expect_silence(wire);
        }
        // Two of them under way at once.
        pair.post(wire, subscribe(5).filter("x", 1));
        pair.post(wire, subscribe(6).filter("y", 1));
        pair.node.settle();
        let mut numbers = [pair.next(wire), pair.next(wire)].map(|h| h.suback().packet_id.get());
        numbers.sort();
        assert_eq!(numbers, [5, 6]);
    }
}

pub fn codes_come_in_the_order_of_the_filters(v: Version) {
    let broker = Config {
        max_topic_levels: 2,
        ..Config::default()
    };
    let mut pair = Pair::with(NodeConfig {
        broker,
        ..NodeConfig::default()
    });
    for client in [clean(v, "c"), durable(v, "d")] {
        let wire = pair.connect(client);
        let packet = subscribe(1)
            .filter("a", 2)
            .filter("too/many/levels", 1)
            .filter("b", 0)
            .filter("c", 1)
            .filter("many/too/many", 0);
        pair.send(wire, packet);
        let refused = if v.is_v5() { 0x8F } else { 0x80 };
        assert_eq!(pair.next(wire).suback().codes, [2, refused, 0, 1, refused]);
    }
}

pub fn many_filters_are_as_many_subscribes(v: Version) {
    for client in [clean(v, "c"), durable(v, "d")] {
        let mut pair = Pair::new();
        let publisher = pair.connect(clean(v, "pub"));
        pair.publish_with(publisher, publish("a", "old a").retain(), 1);
        pair.publish_with(publisher, publish("b", "old b").retain(), 1);
        let sub = pair.connect(client);
        pair.send(
            sub,
            subscribe(1).filter("a", 1).filter("b", 0).filter("c", 2),
        );
        assert_eq!(pair.answer(sub).suback().codes, [1, 0, 2]);
        let mut old: Vec<String> = pair
            .drain(sub)
            .iter()
            .map(|heard| heard.payload().to_owned())
            .collect();
        old.sort();
        assert_eq!(old, ["old a", "old b"]);
        for (topic, level) in [("a", 1), ("b", 0), ("c", 2)] {
            pair.publish(publisher, topic, topic, 2);
            assert_eq!(pair.take(sub, topic).publish().qos, qos(level));
        }
        // The last of two that are the same counts.
        pair.send(sub, subscribe(2).filter("d", 2).filter("d", 0));
        assert_eq!(pair.next(sub).suback().codes, [2, 0]);
        pair.publish(publisher, "d", "d", 2);
        assert_eq!(pair.take(sub, "d").publish().qos, QoS::AtMostOnce);
        pair.expect_silence(sub);
    }
}

pub fn codes_show_the_granted_qos(v: Version) {
    for max in 0..=2 {
        let broker = Config {
            max_qos: qos(max),
            ..Config::default()
        };
        let mut pair = Pair::with(NodeConfig {
            broker,
            ..NodeConfig::default()
        });
        let wire = pair.connect(clean(v, "a"));
        pair.send(
            wire,
            subscribe(1).filter("a", 0).filter("b", 1).filter("c", 2),
        );
        let granted = [0, 1.min(max), 2.min(max)];
        assert_eq!(pair.next(wire).suback().codes, granted);
    }
}

pub fn too_many_subscriptions_are_refused(v: Version) {
    let broker = Config {
        max_subscriptions: 2,
        ..Config::default()
    };
    let mut pair = Pair::with(NodeConfig {
        broker,
        ..NodeConfig::default()
    });
    let wire = pair.connect(clean(v, "a"));
    pair.send(
        wire,
        subscribe(1).filter("a", 0).filter("b", 0).filter("c", 0),
    );
    let refused = if v.is_v5() { 0x97 } else { 0x80 };
    assert_eq!(pair.next(wire).suback().codes, [0, 0, refused]);
    // Replacing one adds none.
    pair.send(wire, subscribe(2).filter("b", 1));
    assert_eq!(pair.next(wire).suback().codes, [1]);
}

pub fn a_subscription_is_replaced(v: Version) {
    for client in [clean(v, "c"), durable(v, "d")] {
        let mut pair = Pair::new();
        let publisher = pair.connect(clean(v, "pub"));
        pair.publish_with(publisher, publish("a", "old").retain(), 2);
        let sub = pair.connect(client);
        for level in [2, 0, 1, 1] {
            pair.subscribe(sub, "a", level);
            assert_eq!(pair.take(sub, "old").publish().qos, qos(level));
            pair.publish(publisher, "a", "new", 2);
            assert_eq!(pair.take(sub, "new").publish().qos, qos(level));
            pair.expect_silence(sub);
        }
        // It is one subscription: one UNSUBSCRIBE ends it.
        pair.unsubscribe(sub, "a");
        pair.publish(publisher, "a", "x", 2);
        pair.expect_silence(sub);
    }
}

pub fn nothing_is_lost_while_a_subscription_is_replaced(v: Version) {
    for client in [clean(v, "c"), durable(v, "d")] {
        let mut pair = Pair::new();
        let sub = pair.connect(client);
        pair.subscribe(sub, "a", 1);
        let publisher = pair.connect(clean(v, "pub"));
        for n in 0..20u16 {
            pair.post(publisher, publish("a", &n.to_string()).qos1(n + 1));
            if n % 3 == 0 {
                pair.post(sub, subscribe(n + 100).filter("a", 1));
            }
            // A part of the work only, so that all stages meet.
            for _ in 0..n % 5 {
                if let Some(&queue) = pair.node.ready().last() {
                    pair.node.step(queue);
                }
            }
        }
        pair.node.settle();
        let mut payloads: Vec<u16> = Vec::new();
        while let Some(heard) = pair.poll(sub) {
            if let campanile_mqtt::Packet::Publish(_) = heard.packet() {
                payloads.push(heard.payload().parse().unwrap());
                pair.send(sub, puback(heard.id()));
            }
        }
        assert_eq!(payloads, (0..20).collect::<Vec<_>>());
    }
}

pub fn unsubscribe_compares_filters_character_by_character(v: Version) {
    for client in [clean(v, "c"), durable(v, "d")] {
        let mut pair = Pair::new();
        let publisher = pair.connect(clean(v, "pub"));
        let sub = pair.connect(client);
        pair.subscribe(sub, "a/+", 1);
        pair.subscribe(sub, "A/b", 1);
        for filter in ["a/#", "a/b", "a/+/", "A/+", "#", "+/+", "a/B"] {
            pair.unsubscribe(sub, filter);
        }
        pair.publish(publisher, "a/b", "x", 1);
        pair.take(sub, "x");
        pair.unsubscribe(sub, "a/+");
        pair.publish(publisher, "a/b", "y", 1);
        pair.expect_silence(sub);
        pair.publish(publisher, "A/b", "z", 1);
        pair.take(sub, "z");
    }
}

pub fn unsubscribe_stops_new_messages(v: Version) {
    for client in [clean(v, "sub"), durable(v, "sub")] {
        let mut pair = Pair::new();
        let publisher = pair.connect(clean(v, "pub"));
        let sub = pair.connect(client.clone());
        pair.subscribe(sub, "a", 2);
        for level in 0..=2 {
            pair.publish(publisher, "a", "x", level);
            pair.take(sub, "x");
        }
        pair.unsubscribe(sub, "a");
        for level in 0..=2 {
            pair.publish(publisher, "a", "x", level);
        }
        pair.expect_silence(sub);
        pair.cut(sub);
        pair.publish(publisher, "a", "x", 2);
        let sub = pair.connect(client);
        pair.expect_silence(sub);
    }
}

pub fn unsubscribe_lets_deliveries_end(v: Version) {
    for client in [clean(v, "sub"), durable(v, "sub")] {
        let mut pair = Pair::new();
        let publisher = pair.connect(clean(v, "pub"));
        let sub = pair.connect(client);
        pair.subscribe(sub, "a", 2);
        pair.publish(publisher, "a", "1", 1);
        pair.publish(publisher, "a", "2", 2);
        let first = pair.expect_publish(sub, "1");
        let second = pair.expect_publish(sub, "2");
        pair.unsubscribe(sub, "a");
        pair.send(sub, puback(first.id()));
        pair.send(sub, pubrec(second.id()));
        pair.expect_pubrel(sub, second.id());
        pair.send(sub, pubcomp(second.id()));
        pair.expect_silence(sub);
    }
    // Over a lost connection, too.
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.publish(publisher, "a", "1", 1);
    pair.publish(publisher, "a", "2", 2);
    pair.expect_publish(sub, "1");
    pair.expect_publish(sub, "2");
    pair.unsubscribe(sub, "a");
    pair.cut(sub);
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.take(sub, "1");
    pair.take(sub, "2");
    pair.expect_silence(sub);
}

pub fn unsubscribe_is_answered_with_its_identifier(v: Version) {
    for client in [clean(v, "c"), durable(v, "d")] {
        let mut pair = Pair::new();
        let wire = pair.connect(client);
        pair.subscribe(wire, "a", 1);
        for (number, filter) in [(7, "a"), (8, "a"), (65535, "never/subscribed")] {
            pair.send(wire, unsubscribe(number).filter(filter));
            assert_eq!(pair.next(wire).unsuback().packet_id, id(number));
            pair.expect_silence(wire);
        }
    }
}

pub fn many_filters_are_as_many_unsubscribes(v: Version) {
    let (mut pair, sub, publisher) = clean_subscriber_and_publisher(v, "a", 0);
    pair.subscribe(sub, "b", 0);
    pair.subscribe(sub, "c", 0);
    pair.send(sub, unsubscribe(9).filter("a").filter("x").filter("b"));
    pair.next(sub).unsuback();
    pair.expect_silence(sub);
    for topic in ["a", "b", "c"] {
        pair.publish(publisher, topic, topic, 0);
    }
    pair.take(sub, "c");
    pair.expect_silence(sub);
}
