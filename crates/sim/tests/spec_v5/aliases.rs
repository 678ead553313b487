//! Topic aliases, both ways.

use campanile_broker::config::Config;
use campanile_mqtt::{Property, Reason};
use campanile_sim::{node::NodeConfig, packets::*, pair::Pair};

use super::V;
use crate::rules::{clean, clean_subscriber_and_publisher, durable};

fn aliased(topic: &str, payload: &str, alias: u16) -> Publish {
    publish(topic, payload).with(Property::TopicAlias(alias))
}

/// A node with a subscriber of `t/#` that takes so many aliases, and a publisher.
fn with_aliases(client: Connect, maximum: u16) -> (Pair, usize, usize) {
    let mut pair = Pair::new();
    let sub = pair.connect(client.with(Property::TopicAliasMaximum(maximum)));
    pair.subscribe(sub, "t/#", 2);
    let publisher = pair.connect(clean(V, "pub"));
    (pair, sub, publisher)
}

/// Publishes to some topics over and over, at every quality of service, and follows the aliases as a client has to. The highest alias seen.
fn highest_alias(pair: &mut Pair, sub: usize, publisher: usize) -> u16 {
    let mut known: Vec<Option<String>> = vec![None; 100];
    let mut highest = 0;
    for round in 0..12u32 {
        for level in 0..=2 {
            let topic = format!("t/{}", round * round % 7);
            pair.publish(publisher, &topic, &topic, level);
            let heard = pair.take(sub, &topic);
            let packet = heard.publish();
            assert_eq!(packet.qos, qos(level));
            let Some(alias) = packet.properties.topic_alias() else {
                assert_eq!(packet.topic, topic);
                continue;
            };
            assert!(alias > 0);
            highest = highest.max(alias);
            let entry = &mut known[usize::from(alias)];
            if !packet.topic.is_empty() {
                *entry = Some(packet.topic.to_owned());
            }
            assert_eq!(entry.as_deref(), Some(topic.as_str()), "alias {alias}");
        }
    }
    highest
}

#[test]
fn mqtt_3_1_2_26_aliases_do_not_exceed_the_maximum_of_the_client() {
    for client in [clean(V, "c"), durable(V, "d")] {
        for maximum in [1, 3, 50] {
            let (mut pair, sub, publisher) = with_aliases(client.clone(), maximum);
            let highest = highest_alias(&mut pair, sub, publisher);
            // They are used, too.
            assert!((1..=maximum).contains(&highest), "{highest}");
        }
    }
}

#[test]
fn mqtt_3_1_2_27_without_a_maximum_there_are_no_aliases() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let (mut pair, sub, publisher) = with_aliases(client.clone(), 0);
        assert_eq!(highest_alias(&mut pair, sub, publisher), 0);
        let mut pair = Pair::new();
        let sub = pair.connect(client);
        pair.subscribe(sub, "t/#", 2);
        let publisher = pair.connect(clean(V, "pub"));
        assert_eq!(highest_alias(&mut pair, sub, publisher), 0);
    }
}

#[test]
fn mqtt_3_3_2_11_the_server_uses_no_alias_above_the_maximum() {
    let (mut pair, sub, publisher) = with_aliases(durable(V, "a"), 2);
    assert!(highest_alias(&mut pair, sub, publisher) <= 2);
    // The next connection has its own.
    pair.cut(sub);
    let sub = pair.connect_present(durable(V, "a").with(Property::TopicAliasMaximum(1)), true);
    assert!(highest_alias(&mut pair, sub, publisher) <= 1);
    pair.cut(sub);
    let sub = pair.connect_present(durable(V, "a"), true);
    assert_eq!(highest_alias(&mut pair, sub, publisher), 0);
}

#[test]
fn a_message_that_is_too_large_teaches_no_alias() {
    let client = clean(V, "a").with(Property::MaximumPacketSize(60));
    let (mut pair, sub, publisher) = with_aliases(client, 5);
    pair.publish(publisher, "t/1", &"x".repeat(100), 1);
    pair.publish(publisher, "t/1", "small", 1);
    assert_eq!(pair.take(sub, "small").publish().topic, "t/1");
}

#[test]
fn mqtt_3_3_2_7_aliases_end_with_their_connection() {
    let (mut pair, sub, _) = clean_subscriber_and_publisher(V, "a", 2);
    let publisher = pair.connect(durable(V, "x"));
    pair.send(publisher, aliased("a", "1", 3));
    pair.send(publisher, aliased("", "2", 3));
    pair.take(sub, "1");
    pair.take(sub, "2");
    pair.cut(publisher);
    let publisher = pair.connect_present(durable(V, "x"), true);
    pair.send(publisher, aliased("", "3", 3));
    pair.expect_disconnect(publisher, Reason::ProtocolError);
    pair.expect_silence(sub);
    // Of another connection they are none of its business.
    let publisher = pair.connect(clean(V, "x"));
    pair.send(publisher, aliased("a", "4", 3));
    let other = pair.connect(clean(V, "y"));
    pair.send(other, aliased("", "5", 3));
    pair.expect_disconnect(other, Reason::ProtocolError);
}

#[test]
fn mqtt_3_3_2_8_an_alias_of_0_closes_the_connection() {
    let mut pair = Pair::new();
    let wire = pair.connect(clean(V, "a"));
    pair.send_bytes(wire, &hex("30 07 0001 61 03 23 0000"));
    pair.expect_disconnect(wire, Reason::ProtocolError);
}

#[test]
fn mqtt_3_3_2_9_an_alias_above_the_maximum_closes_the_connection() {
    for maximum in [0, 4] {
        let broker = Config {
            topic_alias_maximum: maximum,
            ..Config::default()
        };
        let mut pair = Pair::with(NodeConfig {
            broker,
            ..NodeConfig::default()
        });
        let wire = pair.connect(clean(V, "a"));
        if maximum > 0 {
            pair.send(wire, aliased("a", "x", maximum));
            pair.expect_alive(wire);
        }
        pair.send(wire, aliased("a", "x", maximum + 1));
        pair.expect_disconnect(wire, Reason::TopicAliasInvalid);
    }
}

#[test]
fn mqtt_3_3_2_12_all_aliases_up_to_the_maximum_are_accepted() {
    let (mut pair, sub, publisher) = clean_subscriber_and_publisher(V, "t/#", 2);
    let (wire, heard) = pair.connack(clean(V, "x"));
    let maximum = heard.connack().properties.topic_alias_maximum().unwrap();
    assert!(maximum > 0);
    for alias in (1..=maximum).rev() {
        pair.send(wire, aliased(&format!("t/{alias}"), "named", alias));
        let heard = pair.take(sub, "named");
        assert_eq!(heard.publish().properties.topic_alias(), None);
    }
    for alias in 1..=maximum {
        for level in 0..=2 {
            pair.publish_with(wire, aliased("", "aliased", alias), level);
            let heard = pair.take(sub, "aliased");
            assert_eq!(heard.publish().topic, format!("t/{alias}"));
        }
    }
    // Given to another topic.
    pair.send(wire, aliased("t/new", "named", 1));
    pair.send(wire, aliased("", "aliased", 1));
    for payload in ["named", "aliased"] {
        assert_eq!(pair.take(sub, payload).publish().topic, "t/new");
    }
    pair.expect_alive(publisher);
}

#[test]
fn an_aliased_message_is_retained_under_its_topic() {
    let mut pair = Pair::new();
    let wire = pair.connect(clean(V, "x"));
    pair.send(wire, aliased("a", "x", 1));
    pair.publish_with(wire, aliased("", "kept", 1).retain(), 1);
    let sub = pair.connect(clean(V, "sub"));
    pair.subscribe(sub, "#", 1);
    assert_eq!(pair.take(sub, "kept").publish().topic, "a");
}

#[test]
fn neither_topic_nor_alias_is_a_protocol_error() {
    let mut pair = Pair::new();
    let wire = pair.connect(clean(V, "x"));
    pair.send_bytes(wire, &hex("30 03 0000 00"));
    pair.expect_disconnect(wire, Reason::ProtocolError);
}
