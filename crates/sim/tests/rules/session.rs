//! What outlives a connection, and for how long.

use campanile_mqtt::{QoS, Version};
use campanile_sim::{packets::*, pair::Pair};

use super::{clean, durable, subscriber_and_publisher};

pub fn clean_start_discards_the_session(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.publish(publisher, "a", "unacknowledged", 1);
    pair.expect_publish(sub, "unacknowledged");
    pair.send(sub, publish("b", "unreleased").qos2(7));
    pair.expect_pubrec(sub, 7);
    pair.cut(sub);
    pair.publish(publisher, "a", "missed", 1);
    let sub = pair.connect_present(durable(v, "sub").clean(true), false);
    pair.publish(publisher, "a", "later", 1);
    pair.expect_silence(sub);
    // Nothing of it comes back with the next connection.
    pair.cut(sub);
    let sub = pair.connect(durable(v, "sub"));
    pair.expect_silence(sub);
    // An identifier that waited for its PUBREL is free.
    pair.subscribe(sub, "b", 0);
    pair.send(sub, publish("b", "new").qos2(7));
    let heard = pair.drain(sub);
    assert!(heard.iter().any(|h| matches!(
        h.packet(),
        campanile_mqtt::Packet::Publish(p) if p.payload == b"new"
    )));
}

pub fn the_session_is_taken_up(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.publish(publisher, "a", "unacknowledged", 1);
    let first = pair.expect_publish(sub, "unacknowledged");
    pair.cut(sub);
    pair.publish(publisher, "a", "missed", 2);
    let sub = pair.connect_present(durable(v, "sub"), true);
    let again = pair.take(sub, "unacknowledged");
    assert_eq!(again.id(), first.id());
    pair.take(sub, "missed");
    pair.publish(publisher, "a", "still subscribed", 2);
    pair.take(sub, "still subscribed");
    pair.expect_silence(sub);
}

pub fn the_session_survives_a_crash_of_the_node(v: Version) {
    let (mut pair, _, publisher) = subscriber_and_publisher(v, "a", 2);
    pair.publish(publisher, "a", "kept", 2);
    pair.crash();
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.take(sub, "kept");
    let publisher = pair.connect(clean(v, "pub"));
    pair.publish(publisher, "a", "still subscribed", 1);
    pair.take(sub, "still subscribed");
    pair.restart();
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.expect_silence(sub);
}

pub fn without_a_session_a_new_one_begins(v: Version) {
    let mut pair = Pair::new();
    let publisher = pair.connect(clean(v, "pub"));
    let sub = pair.connect_present(durable(v, "sub"), false);
    pair.subscribe(sub, "a", 1);
    pair.cut(sub);
    pair.publish(publisher, "a", "missed", 1);
    let sub = pair.connect_present(durable(v, "sub"), true);
    pair.take(sub, "missed");
}

pub fn messages_are_stored_for_a_client_that_is_away(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a/#", 2);
    pair.subscribe(sub, "b", 1);
    pair.send(sub, disconnect());
    pair.publish(publisher, "a/1", "qos 1", 1);
    pair.publish(publisher, "a/2", "qos 2", 2);
    pair.publish(publisher, "b", "cut to qos 1", 2);
    pair.publish(publisher, "c", "not subscribed", 2);
    let sub = pair.connect_present(durable(v, "sub"), true);
    // Order is per quality of service.
    let mut heard: Vec<(String, QoS)> = Vec::new();
    for _ in 0..3 {
        let next = pair.next(sub);
        heard.push((next.payload().to_owned(), next.publish().qos));
    }
    heard.sort();
    let expected = [("cut to qos 1", 1), ("qos 1", 1), ("qos 2", 2)];
    assert_eq!(
        heard,
        expected.map(|(payload, level)| (payload.to_owned(), qos(level)))
    );
    pair.expect_silence(sub);
}

pub fn a_clean_session_ends_with_its_connection(v: Version) {
    let mut pair = Pair::new();
    let sub = pair.connect(clean(v, "sub"));
    pair.subscribe(sub, "a", 1);
    pair.cut(sub);
    let publisher = pair.connect(clean(v, "pub"));
    pair.publish(publisher, "a", "missed", 1);
    let sub = pair.connect_present(clean(v, "sub").clean(false), false);
    pair.publish(publisher, "a", "not subscribed", 1);
    pair.expect_silence(sub);
}

pub fn session_present_is_0_after_clean_start(v: Version) {
    let mut pair = Pair::new();
    for _ in 0..2 {
        pair.connect_present(durable(v, "a"), false);
        pair.connect_present(durable(v, "a"), true);
        pair.connect_present(clean(v, "a"), false);
    }
}

pub fn session_present_tells_of_the_session(v: Version) {
    let mut pair = Pair::new();
    for name in ["a", "b", "c"] {
        let wire = pair.connect_present(durable(v, name), false);
        pair.send(wire, disconnect());
        let wire = pair.connect_present(durable(v, name), true);
        pair.cut(wire);
        pair.connect_present(durable(v, name), true);
    }
    pair.crash();
    pair.connect_present(durable(v, "a"), true);
    pair.connect_present(durable(v, "d"), false);
}

pub fn the_session_lasts_as_long_as_the_connection(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 1);
    // Far beyond the expiry interval, which counts from the end of the connection.
    pair.publish(publisher, "a", "early", 1);
    pair.wait(2 * 3600);
    pair.take(sub, "early");
    pair.publish(publisher, "a", "late", 1);
    pair.take(sub, "late");
    pair.cut(sub);
    pair.connect_present(durable(v, "sub"), true);
}

pub fn retained_messages_survive_the_session(v: Version) {
    let mut pair = Pair::new();
    for publisher in [clean(v, "x"), durable(v, "y")] {
        let wire = pair.connect(publisher.clone());
        pair.publish_with(wire, publish("a", "kept").retain(), 1);
        pair.send(wire, disconnect());
        let wire = pair.connect(publisher.clean(true));
        pair.send(wire, disconnect());
        let sub = pair.connect(clean(v, "sub"));
        pair.subscribe(sub, "a", 1);
        pair.take(sub, "kept");
    }
}

pub fn a_message_is_added_to_all_sessions_that_match(v: Version) {
    let mut pair = Pair::new();
    let filters = ["a/b", "a/+", "#", "+/b", "x"];
    for (n, filter) in filters.iter().enumerate() {
        let wire = pair.connect(durable(v, &format!("sub{n}")));
        pair.subscribe(wire, filter, 2);
        if n % 2 == 0 {
            pair.cut(wire);
        }
    }
    let publisher = pair.connect(clean(v, "pub"));
    pair.publish(publisher, "a/b", "x", 2);
    for n in 0..filters.len() {
        let wire = pair.connect_present(durable(v, &format!("sub{n}")), true);
        if n < 4 {
            pair.take(wire, "x");
        }
        pair.expect_silence(wire);
    }
}
