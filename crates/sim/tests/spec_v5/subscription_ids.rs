//! Subscription identifiers, section 3.3.4.

use campanile_mqtt::Property;
use campanile_sim::{packets::*, pair::Pair};

use super::V;
use crate::rules::{clean, durable};

fn identified(number: u16, filter: &str, level: u8, subscription: u32) -> Subscribe {
    subscribe(number)
        .filter(filter, level)
        .with(Property::SubscriptionId(subscription))
}

fn ids(heard: &Heard) -> Vec<u32> {
    let mut ids: Vec<u32> = heard.publish().properties.subscription_ids().collect();
    ids.sort();
    ids
}

#[test]
fn mqtt_3_3_4_3_the_identifier_of_the_subscription_is_sent() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let mut pair = Pair::new();
        let sub = pair.connect(client);
        pair.subscribe_with(sub, identified(1, "a", 2, 268_435_455));
        pair.subscribe(sub, "b", 2);
        let publisher = pair.connect(clean(V, "pub"));
        for level in 0..=2 {
            pair.publish(publisher, "a", "x", level);
            assert_eq!(ids(&pair.take(sub, "x")), [268_435_455]);
            pair.publish(publisher, "b", "y", level);
            assert_eq!(ids(&pair.take(sub, "y")), [0; 0]);
        }
        // A new one replaces it, or takes it away.
        pair.subscribe_with(sub, identified(2, "a", 2, 5));
        pair.publish(publisher, "a", "x", 1);
        assert_eq!(ids(&pair.take(sub, "x")), [5]);
        pair.subscribe(sub, "a", 2);
        pair.publish(publisher, "a", "x", 1);
        assert_eq!(ids(&pair.take(sub, "x")), [0; 0]);
    }
}

#[test]
fn mqtt_3_3_4_4_one_copy_bears_the_identifiers_of_all_that_match() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let mut pair = Pair::new();
        let sub = pair.connect(client);
        pair.subscribe_with(sub, identified(1, "a/b", 2, 1));
        pair.subscribe_with(sub, identified(2, "a/+", 0, 2));
        pair.subscribe_with(sub, identified(3, "#", 1, 3));
        pair.subscribe(sub, "+/b", 2);
        pair.subscribe_with(sub, identified(4, "other", 2, 4));
        // The same identifier may stand for several.
        pair.subscribe_with(sub, identified(5, "+/+", 0, 2));
        let publisher = pair.connect(clean(V, "pub"));
        for level in 0..=2 {
            pair.publish(publisher, "a/b", "x", level);
            let mut found = ids(&pair.take(sub, "x"));
            found.dedup();
            assert_eq!(found, [1, 2, 3], "at qos {level}");
            pair.expect_silence(sub);
        }
    }
}

#[test]
fn mqtt_3_3_4_5_each_of_several_copies_bears_its_own_identifier() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let mut pair = Pair::new();
        let sub = pair.connect(client);
        pair.subscribe_with(sub, identified(1, "a", 1, 1));
        pair.subscribe_with(sub, identified(2, "$share/g/a", 1, 2));
        let publisher = pair.connect(clean(V, "pub"));
        for level in 0..=1 {
            pair.publish(publisher, "a", "x", level);
            let mut found = [ids(&pair.take(sub, "x")), ids(&pair.take(sub, "x"))];
            found.sort();
            assert_eq!(found, [vec![1], vec![2]]);
            pair.expect_silence(sub);
        }
    }
}

#[test]
fn retained_messages_bear_the_identifier() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let mut pair = Pair::new();
        let publisher = pair.connect(clean(V, "pub"));
        let sub = pair.connect(client);
        for level in 0..=2 {
            pair.publish_with(publisher, publish("a", "x").retain(), level);
            pair.subscribe_with(sub, identified(1, "a", 2, 9));
            assert_eq!(ids(&pair.take(sub, "x")), [9]);
            pair.unsubscribe(sub, "a");
        }
    }
}

#[test]
fn identifiers_last_as_long_as_the_session() {
    let mut pair = Pair::new();
    let sub = pair.connect(durable(V, "sub"));
    pair.subscribe_with(sub, identified(1, "a/+", 1, 1));
    pair.subscribe_with(sub, identified(2, "a/b", 1, 2));
    let publisher = pair.connect(clean(V, "pub"));
    pair.publish(publisher, "a/b", "unacknowledged", 1);
    assert_eq!(ids(&pair.expect_publish(sub, "unacknowledged")), [1, 2]);
    pair.cut(sub);
    pair.publish(publisher, "a/b", "missed", 1);
    pair.crash();
    let sub = pair.connect_present(durable(V, "sub"), true);
    assert_eq!(ids(&pair.take(sub, "unacknowledged")), [1, 2]);
    assert_eq!(ids(&pair.take(sub, "missed")), [1, 2]);
}
