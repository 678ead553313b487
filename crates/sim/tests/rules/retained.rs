//! Retained messages.

use campanile_mqtt::Version;
use campanile_sim::{packets::*, pair::Pair};

use super::{clean, clean_subscriber_and_publisher, durable};

/// A node where something was published with the retain flag.
pub fn with_retained(v: Version, messages: &[(&str, &str, u8)]) -> (Pair, usize) {
    let mut pair = Pair::new();
    let publisher = pair.connect(clean(v, "pub"));
    for (topic, payload, qos) in messages {
        pair.publish_with(publisher, publish(topic, payload).retain(), *qos);
    }
    (pair, publisher)
}

/// What a new subscriber of a filter gets: payloads and qualities of service.
pub fn retained_at(pair: &mut Pair, v: Version, filter: &str) -> Vec<(String, u8)> {
    let late = pair.connect(clean(v, "late"));
    pair.subscribe(late, filter, 2);
    let heard = pair.drain(late);
    let mut found: Vec<(String, u8)> = heard
        .iter()
        .map(|heard| {
            assert!(heard.publish().retain, "{heard:?}");
            (heard.payload().to_owned(), heard.publish().qos as u8)
        })
        .collect();
    found.sort();
    pair.send(late, disconnect());
    found
}

fn of(payload: &str, qos: u8) -> (String, u8) {
    (payload.to_owned(), qos)
}

pub fn a_retained_message_is_stored_with_its_qos_and_replaced(v: Version) {
    let (mut pair, publisher) = with_retained(v, &[("a", "0", 0), ("b", "1", 1), ("c", "2", 2)]);
    assert_eq!(
        retained_at(&mut pair, v, "#"),
        [of("0", 0), of("1", 1), of("2", 2)]
    );
    for level in 0..=2 {
        pair.publish_with(publisher, publish("a", "new").retain(), level);
        assert_eq!(retained_at(&mut pair, v, "a"), [of("new", level)]);
    }
    pair.crash();
    assert_eq!(
        retained_at(&mut pair, v, "#"),
        [of("1", 1), of("2", 2), of("new", 2)]
    );
}

pub fn each_matching_topic_sends_its_last_message(v: Version) {
    let messages = [
        ("a/b", "old", 1),
        ("a/b", "b", 1),
        ("a/c", "c", 0),
        ("a", "a", 2),
        ("x", "x", 1),
        ("$own/x", "hidden", 1),
    ];
    let (mut pair, _) = with_retained(v, &messages);
    assert_eq!(
        retained_at(&mut pair, v, "a/#"),
        [of("a", 2), of("b", 1), of("c", 0)]
    );
    assert_eq!(retained_at(&mut pair, v, "a/+"), [of("b", 1), of("c", 0)]);
    assert_eq!(retained_at(&mut pair, v, "+"), [of("a", 2), of("x", 1)]);
    assert_eq!(retained_at(&mut pair, v, "$own/+"), [of("hidden", 1)]);
    assert_eq!(retained_at(&mut pair, v, "#").len(), 4);
    assert_eq!(retained_at(&mut pair, v, "a/b/c"), []);
}

pub fn retained_messages_reach_durable_sessions_too(v: Version) {
    let (mut pair, _) = with_retained(v, &[("a", "0", 0), ("b", "1", 1), ("c", "2", 2)]);
    let late = pair.connect(durable(v, "late"));
    pair.subscribe(late, "#", 2);
    let mut heard: Vec<(String, u8)> = Vec::new();
    for _ in 0..3 {
        let next = pair.next(late);
        assert!(next.publish().retain);
        heard.push(of(next.payload(), next.publish().qos as u8));
        pair.acknowledge(late, &next);
    }
    pair.expect_silence(late);
    heard.sort();
    assert_eq!(heard, [of("0", 0), of("1", 1), of("2", 2)]);
}

pub fn an_empty_payload_removes_and_is_sent_on(v: Version) {
    for level in 0..=2 {
        let (mut pair, sub, publisher) = clean_subscriber_and_publisher(v, "a", 2);
        pair.publish_with(publisher, publish("a", "kept").retain(), 1);
        pair.take(sub, "kept");
        pair.publish_with(publisher, publish("a", "").retain(), level);
        let heard = pair.take(sub, "");
        assert_eq!(
            (heard.publish().retain, heard.publish().qos),
            (false, qos(level))
        );
        assert_eq!(retained_at(&mut pair, v, "#"), []);
        pair.crash();
        assert_eq!(retained_at(&mut pair, v, "#"), []);
    }
}

pub fn an_empty_payload_is_not_retained(v: Version) {
    for level in 0..=2 {
        let (mut pair, _) = with_retained(v, &[("a", "", level)]);
        assert_eq!(retained_at(&mut pair, v, "a"), []);
    }
}

pub fn without_the_flag_nothing_is_retained_or_replaced(v: Version) {
    let (mut pair, publisher) = with_retained(v, &[("a", "kept", 1)]);
    for level in 0..=2 {
        for (topic, payload) in [("a", "other"), ("a", ""), ("b", "other")] {
            pair.publish(publisher, topic, payload, level);
        }
    }
    assert_eq!(retained_at(&mut pair, v, "#"), [of("kept", 1)]);
}

pub fn an_established_subscription_gets_it_without_the_flag(v: Version) {
    let mut pair = Pair::new();
    let publisher = pair.connect(clean(v, "pub"));
    let subs = [clean(v, "c"), durable(v, "d")].map(|client| pair.connect(client));
    for sub in subs {
        pair.subscribe(sub, "a", 2);
    }
    for level in 0..=2 {
        pair.publish_with(publisher, publish("a", "x").retain(), level);
        for sub in subs {
            assert!(!pair.take(sub, "x").publish().retain);
        }
    }
}

pub fn a_retained_message_of_qos_0_replaces(v: Version) {
    let (mut pair, _) = with_retained(v, &[("a", "old", 2), ("a", "new", 0)]);
    let found = retained_at(&mut pair, v, "a");
    assert_eq!(found, [of("new", 0)]);
}

pub fn what_the_client_retained_just_before_is_found(v: Version) {
    for client in [clean(v, "c"), durable(v, "d")] {
        let mut pair = Pair::new();
        let wire = pair.connect(client);
        // In one piece, before the store has answered.
        let mut bytes = publish("a", "mine").qos1(1).retain().bytes(v);
        bytes.extend(subscribe(2).filter("a", 1).bytes(v));
        pair.send_bytes(wire, &bytes);
        pair.expect_puback(wire, 1);
        pair.answer(wire).suback();
        pair.take(wire, "mine");
        pair.expect_silence(wire);
    }
}
