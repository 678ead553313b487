//! Retained messages of 5.0.

use campanile_mqtt::{Property, RetainHandling, SubscriptionOptions};
use campanile_sim::{packets::*, pair::Pair};

use super::V;
use crate::rules::{
    clean, durable,
    retained::{self, retained_at, with_retained},
};

fn handling(retain_handling: RetainHandling) -> SubscriptionOptions {
    SubscriptionOptions {
        retain_handling,
        ..options(2)
    }
}

#[test]
fn mqtt_3_3_1_5_a_retained_message_is_stored_with_its_qos_and_replaced() {
    retained::a_retained_message_is_stored_with_its_qos_and_replaced(V);
    retained::a_retained_message_of_qos_0_replaces(V);
}

#[test]
fn mqtt_3_3_1_6_an_empty_payload_removes_and_is_sent_on() {
    retained::an_empty_payload_removes_and_is_sent_on(V);
}

#[test]
fn mqtt_3_3_1_7_an_empty_payload_is_not_retained() {
    retained::an_empty_payload_is_not_retained(V);
}

#[test]
fn mqtt_3_3_1_8_without_the_flag_nothing_is_retained_or_replaced() {
    retained::without_the_flag_nothing_is_retained_or_replaced(V);
}

#[test]
fn mqtt_3_3_1_9_retain_handling_0_sends_all_that_match() {
    retained::each_matching_topic_sends_its_last_message(V);
    retained::retained_messages_reach_durable_sessions_too(V);
    retained::what_the_client_retained_just_before_is_found(V);
}

#[test]
fn mqtt_3_3_1_12_without_retain_as_published_the_flag_is_0() {
    retained::an_established_subscription_gets_it_without_the_flag(V);
}

#[test]
fn mqtt_3_3_1_10_retain_handling_1_sends_to_new_subscriptions_only() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let (mut pair, _) = with_retained(V, &[("a/b", "x", 1)]);
        let sub = pair.connect(client);
        let packet = |n| subscribe(n).filter_with("a/+", handling(RetainHandling::SendIfNew));
        pair.subscribe_with(sub, packet(1));
        pair.take(sub, "x");
        pair.subscribe_with(sub, packet(2));
        pair.expect_silence(sub);
        pair.unsubscribe(sub, "a/+");
        pair.subscribe_with(sub, packet(3));
        pair.take(sub, "x");
    }
    // A session that is taken up has the subscription already.
    let (mut pair, _) = with_retained(V, &[("a", "x", 1)]);
    let sub = pair.connect(durable(V, "sub"));
    pair.subscribe(sub, "a", 1);
    pair.take(sub, "x");
    pair.cut(sub);
    let sub = pair.connect_present(durable(V, "sub"), true);
    let packet = subscribe(1).filter_with("a", handling(RetainHandling::SendIfNew));
    pair.subscribe_with(sub, packet);
    pair.expect_silence(sub);
}

#[test]
fn mqtt_3_3_1_11_retain_handling_2_sends_nothing() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let (mut pair, publisher) = with_retained(V, &[("a", "x", 1)]);
        let sub = pair.connect(client);
        for n in 1..3 {
            let packet = subscribe(n).filter_with("a", handling(RetainHandling::DoNotSend));
            pair.subscribe_with(sub, packet);
            pair.expect_silence(sub);
        }
        pair.publish_with(publisher, publish("a", "new").retain(), 1);
        pair.take(sub, "new");
    }
}

#[test]
fn mqtt_3_3_1_13_with_retain_as_published_the_flag_stays() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let mut pair = Pair::new();
        let publisher = pair.connect(clean(V, "pub"));
        let sub = pair.connect(client);
        let keep = SubscriptionOptions {
            retain_as_published: true,
            ..options(2)
        };
        pair.subscribe_with(sub, subscribe(1).filter_with("a", keep));
        for level in 0..=2 {
            pair.publish_with(publisher, publish("a", "x").retain(), level);
            assert!(pair.take(sub, "x").publish().retain);
            pair.publish(publisher, "a", "y", level);
            assert!(!pair.take(sub, "y").publish().retain);
        }
    }
}

#[test]
fn an_expired_retained_message_is_not_sent() {
    let mut pair = Pair::new();
    let publisher = pair.connect(clean(V, "pub"));
    let packet = publish("a", "x").retain().with(Property::MessageExpiry(10));
    pair.publish_with(publisher, packet, 1);
    pair.wait(4);
    let sub = pair.connect(clean(V, "sub"));
    pair.subscribe(sub, "a", 1);
    let left = pair.take(sub, "x").publish().properties.message_expiry();
    assert_eq!(left, Some(6));
    pair.wait(7);
    assert_eq!(retained_at(&mut pair, V, "a"), []);
    pair.crash();
    assert_eq!(retained_at(&mut pair, V, "a"), []);
}

#[test]
fn a_shared_subscription_gets_no_retained_messages() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let (mut pair, _) = with_retained(V, &[("a", "x", 1)]);
        let sub = pair.connect(client);
        pair.subscribe(sub, "$share/g/a", 1);
        pair.expect_silence(sub);
    }
}

#[test]
fn no_local_holds_for_retained_messages_too() {
    let mut pair = Pair::new();
    let wire = pair.connect(clean(V, "a"));
    pair.publish_with(wire, publish("a", "x").retain(), 1);
    let no_local = SubscriptionOptions {
        no_local: true,
        ..options(1)
    };
    pair.subscribe_with(wire, subscribe(9).filter_with("a", no_local));
    pair.expect_silence(wire);
}

#[test]
fn all_that_is_retained_comes_however_small_the_window_is() {
    let broker = campanile_broker::config::Config {
        max_queued_messages: 10,
        max_queued_bytes: 100,
        ..Default::default()
    };
    let mut pair = Pair::with(campanile_sim::node::NodeConfig {
        broker,
        ..Default::default()
    });
    let publisher = pair.connect(clean(V, "pub"));
    for n in 0..100 {
        let packet = publish(&format!("t/{n}"), &n.to_string()).retain();
        pair.publish_with(publisher, packet, 1 + (n % 2) as u8);
    }
    for client in [clean(V, "c"), durable(V, "d")] {
        let sub = pair.connect(client.with(Property::ReceiveMaximum(3)));
        pair.subscribe(sub, "t/+", 2);
        let mut heard = std::collections::BTreeSet::new();
        while let Some(next) = pair.poll(sub) {
            assert!(heard.insert(next.payload().to_owned()));
            pair.acknowledge(sub, &next);
        }
        assert_eq!(heard.len(), 100);
    }
}
