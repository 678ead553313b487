//! Sessions of 5.0.

use campanile_broker::config::Config;
use campanile_mqtt::{Property, Reason};
use campanile_sim::{node::NodeConfig, packets::*, pair::Pair};

use super::V;
use crate::rules::{clean, durable, session, subscriber_and_publisher};

#[test]
fn mqtt_3_1_2_4_clean_start_discards_the_session() {
    session::clean_start_discards_the_session(V);
}

#[test]
fn mqtt_3_1_2_5_without_clean_start_the_session_is_taken_up() {
    session::the_session_is_taken_up(V);
    session::the_session_survives_a_crash_of_the_node(V);
}

#[test]
fn mqtt_3_1_2_6_without_a_session_a_new_one_begins() {
    session::without_a_session_a_new_one_begins(V);
}

#[test]
fn mqtt_3_2_2_2_session_present_is_0_after_clean_start() {
    session::session_present_is_0_after_clean_start(V);
}

#[test]
fn mqtt_3_2_2_3_session_present_tells_of_the_session() {
    session::session_present_tells_of_the_session(V);
}

#[test]
fn mqtt_4_1_0_1_the_session_lasts_as_long_as_the_connection() {
    session::the_session_lasts_as_long_as_the_connection(V);
}

#[test]
fn mqtt_4_5_0_1_a_message_is_added_to_all_sessions_that_match() {
    session::a_message_is_added_to_all_sessions_that_match(V);
    session::messages_are_stored_for_a_client_that_is_away(V);
}

#[test]
fn mqtt_3_1_2_23_the_session_is_stored_if_it_expires_later() {
    for expiry in [1, 100, u32::MAX] {
        let mut pair = Pair::new();
        let sub = pair.connect(clean(V, "sub").expiry(expiry));
        pair.subscribe(sub, "a", 1);
        pair.cut(sub);
        let publisher = pair.connect(clean(V, "pub"));
        pair.publish(publisher, "a", "x", 1);
        let sub = pair.connect_present(clean(V, "sub").clean(false), true);
        pair.take(sub, "x");
    }
}

#[test]
fn mqtt_4_1_0_2_an_expired_session_is_gone() {
    for sweep in [true, false] {
        let mut pair = Pair::new();
        let sub = pair.connect(clean(V, "sub").expiry(100));
        pair.subscribe(sub, "a", 1);
        pair.cut(sub);
        let publisher = pair.connect(clean(V, "pub"));
        pair.publish(publisher, "a", "x", 1);
        if sweep {
            pair.wait(101);
        } else {
            // At the CONNECT at the latest.
            pair.node.advance(101_000);
            pair.node.settle();
        }
        let sub = pair.connect_present(clean(V, "sub").clean(false).expiry(100), false);
        pair.publish(publisher, "a", "y", 1);
        pair.expect_silence(sub);
    }
    // Until then it is there, and counts anew from each end of a connection.
    let mut pair = Pair::new();
    for _ in 0..3 {
        let sub = pair.connect(clean(V, "sub").clean(false).expiry(100));
        pair.wait(50);
        pair.cut(sub);
        pair.wait(99);
    }
    pair.connect_present(clean(V, "sub").clean(false), true);
    // Without expiry it ends with the connection.
    session::a_clean_session_ends_with_its_connection(V);
}

#[test]
fn the_session_expiry_can_be_changed_at_disconnect() {
    let bye = |seconds| disconnect().with(Property::SessionExpiry(seconds));
    // Shorter.
    let (mut pair, sub, _) = subscriber_and_publisher(V, "a", 1);
    pair.send(sub, bye(10));
    pair.expect_closed(sub);
    pair.wait(11);
    pair.connect_present(durable(V, "sub"), false);
    // Longer.
    let sub = pair.connect(clean(V, "long").expiry(10));
    pair.send(sub, bye(100));
    pair.wait(90);
    let sub = pair.connect_present(durable(V, "long"), true);
    // Not at all any more.
    pair.send(sub, bye(0));
    let sub = pair.connect_present(durable(V, "long"), false);
    // For ever.
    pair.send(sub, bye(u32::MAX));
    pair.wait(10_000);
    pair.connect_present(durable(V, "long"), true);
}

#[test]
fn a_session_that_ends_with_its_connection_cannot_be_prolonged_at_disconnect() {
    let mut pair = Pair::new();
    let sub = pair.connect(clean(V, "sub"));
    pair.send(sub, disconnect().with(Property::SessionExpiry(1)));
    pair.expect_disconnect(sub, Reason::ProtocolError);
    let sub = pair.connect(clean(V, "sub"));
    pair.send(sub, disconnect().with(Property::SessionExpiry(0)));
    pair.expect_closed(sub);
}

#[test]
fn a_session_expiry_above_the_maximum_is_cut_and_told() {
    let broker = Config {
        max_session_expiry_seconds: 100,
        ..Config::default()
    };
    let mut pair = Pair::with(NodeConfig {
        broker,
        ..NodeConfig::default()
    });
    for (asked, told) in [(100, None), (101, Some(100)), (u32::MAX, Some(100))] {
        let (wire, heard) = pair.connack(clean(V, "a").expiry(asked));
        assert_eq!(heard.connack().properties.session_expiry(), told);
        pair.cut(wire);
        pair.wait(101);
        pair.connect_present(clean(V, "a").clean(false), false);
    }
}

#[test]
fn a_session_can_become_durable_and_back() {
    let mut pair = Pair::new();
    let publisher = pair.connect(clean(V, "pub"));
    let sub = pair.connect(durable(V, "sub"));
    pair.subscribe(sub, "a", 1);
    pair.cut(sub);
    // Taken up without expiry: it goes on, and ends with this connection.
    let sub = pair.connect_present(clean(V, "sub").clean(false), true);
    pair.publish(publisher, "a", "x", 1);
    pair.take(sub, "x");
    pair.cut(sub);
    pair.publish(publisher, "a", "missed", 1);
    let sub = pair.connect_present(durable(V, "sub"), false);
    pair.publish(publisher, "a", "not subscribed", 1);
    pair.expect_silence(sub);
}

#[test]
fn a_session_goes_on_in_another_version() {
    use campanile_mqtt::Version::{V5, V31, V311};
    let (mut pair, sub, publisher) = subscriber_and_publisher(V, "a", 2);
    pair.publish(publisher, "a", "unacknowledged", 2);
    let number = pair.expect_publish(sub, "unacknowledged").id();
    for version in [V311, V5, V31, V5, V311] {
        let sub = pair.connect(durable(version, "sub"));
        let heard = pair.expect_publish(sub, "unacknowledged");
        assert_eq!((heard.id(), heard.publish().dup), (number, true));
        pair.publish(publisher, "a", "new", 1);
        pair.take(sub, "new");
        pair.wait(1);
        pair.cut(sub);
    }
    // Who cannot say that it wants none gets a session that stays for long.
    pair.wait(86_400);
    let sub = pair.connect_present(durable(V5, "sub"), true);
    pair.take(sub, "unacknowledged");
}

#[test]
fn nothing_is_lost_if_the_clock_is_set_back_while_the_node_is_down() {
    let mut pair = Pair::new();
    pair.wait(100);
    let sub = pair.connect(durable(V, "sub"));
    pair.subscribe(sub, "a", 1);
    pair.cut(sub);
    pair.node.now.0 -= 50_000;
    pair.crash();
    let publisher = pair.connect(clean(V, "pub"));
    pair.publish(publisher, "a", "x", 1);
    let sub = pair.connect_present(durable(V, "sub"), true);
    pair.take(sub, "x");
}

#[test]
fn retained_messages_survive_the_session() {
    session::retained_messages_survive_the_session(V);
}
