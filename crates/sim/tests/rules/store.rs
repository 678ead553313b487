//! A store that cannot write: what needs it is refused, nothing is lost, and all heals by itself.

use campanile_mqtt::{Reason, Version};
use campanile_sim::packets::*;

use super::{clean, clean_subscriber_and_publisher, durable, subscriber_and_publisher};

pub fn what_cannot_be_kept_is_not_acknowledged(v: Version) {
    for level in [1, 2] {
        for client in [clean(v, "x"), durable(v, "x")] {
            let (mut pair, sub, _) = subscriber_and_publisher(v, "a", 2);
            let wire = pair.connect(client.clone());
            pair.node.store().fail_commits(Some("disk full"));
            pair.send(wire, publish("a", "first").qos(level, 1));
            let wire = if v.is_v5() {
                let reason = match level {
                    1 => pair.expect_puback(wire, 1),
                    _ => pair.expect_pubrec(wire, 1),
                };
                assert_eq!(reason, Reason::QuotaExceeded);
                pair.node.store().fail_commits(None);
                wire
            } else {
                // There are no words for it: the client sends the message again.
                pair.expect_closed(wire);
                pair.node.store().fail_commits(None);
                pair.connect(client)
            };
            pair.expect_silence(sub);
            pair.send(wire, publish("a", "second").qos(level, 1).dup());
            match level {
                1 => assert!(!pair.expect_puback(wire, 1).is_error()),
                _ => assert!(!pair.expect_pubrec(wire, 1).is_error()),
            }
            pair.take(sub, "second");
            pair.expect_silence(sub);
        }
    }
}

pub fn what_needs_no_store_goes_on_without_it(v: Version) {
    let (mut pair, sub, publisher) = clean_subscriber_and_publisher(v, "a", 2);
    pair.node.store().fail_commits(Some("disk full"));
    for level in 0..=2 {
        pair.publish(publisher, "a", "x", level);
        pair.take(sub, "x");
    }
    pair.subscribe(sub, "b", 1);
    pair.unsubscribe(sub, "b");
    pair.expect_alive(sub);
}

pub fn a_durable_subscription_that_cannot_be_kept_is_refused(v: Version) {
    let (mut pair, sub, publisher) = subscriber_and_publisher(v, "a", 1);
    pair.node.store().fail_commits(Some("disk full"));
    pair.send(sub, subscribe(9).filter("b", 1));
    let refused = if v.is_v5() { 0x97 } else { 0x80 };
    assert_eq!(pair.answer(sub).suback().codes, [refused]);
    pair.node.store().fail_commits(None);
    pair.publish(publisher, "b", "not subscribed", 1);
    pair.expect_silence(sub);
    pair.subscribe(sub, "b", 1);
    pair.publish(publisher, "b", "x", 1);
    pair.take(sub, "x");
}

pub fn a_durable_session_that_cannot_be_kept_is_refused(v: Version) {
    let (mut pair, sub, _) = subscriber_and_publisher(v, "a", 1);
    pair.node.store().fail_commits(Some("disk full"));
    let wire = pair.try_connect(durable(v, "new"));
    pair.expect_refused(wire, Reason::ServerUnavailable);
    pair.node.store().fail_commits(None);
    pair.connect_present(durable(v, "new"), false);
    pair.expect_alive(sub);
}
