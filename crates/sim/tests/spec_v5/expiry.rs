//! Message expiry, section 3.3.2.3.3.

use campanile_mqtt::Property;
use campanile_sim::packets::*;

use super::V;
use crate::rules::{clean, durable, subscriber_and_publisher};

fn mortal(payload: &str, seconds: u32) -> Publish {
    publish("a", payload).with(Property::MessageExpiry(seconds))
}

#[test]
fn mqtt_3_3_2_5_an_expired_message_is_not_delivered() {
    for level in [1, 2] {
        let (mut pair, sub, publisher) = subscriber_and_publisher(V, "a", 2);
        pair.cut(sub);
        pair.publish_with(publisher, mortal("short", 10), level);
        pair.publish_with(publisher, mortal("long", 100), level);
        pair.wait(11);
        let sub = pair.connect_present(durable(V, "sub"), true);
        pair.take(sub, "long");
        pair.expect_silence(sub);
    }
    // Nor to one that is connected but has no room.
    for client in [clean(V, "c"), durable(V, "d")] {
        let (mut pair, _, publisher) = subscriber_and_publisher(V, "x", 2);
        let sub = pair.connect(client.with(Property::ReceiveMaximum(1)));
        pair.subscribe(sub, "a", 1);
        pair.publish(publisher, "a", "first", 1);
        pair.publish_with(publisher, mortal("short", 10), 1);
        pair.publish_with(publisher, mortal("long", 100), 1);
        let first = pair.expect_publish(sub, "first");
        pair.wait(11);
        pair.acknowledge(sub, &first);
        pair.take(sub, "long");
        pair.expect_silence(sub);
    }
}

#[test]
fn mqtt_3_3_2_6_the_time_that_a_message_waited_is_subtracted() {
    let (mut pair, sub, publisher) = subscriber_and_publisher(V, "a", 2);
    for level in 0..=2 {
        pair.publish_with(publisher, mortal("now", 100), level);
        let left = pair.take(sub, "now").publish().properties.message_expiry();
        assert_eq!(left, Some(100));
    }
    pair.cut(sub);
    pair.publish_with(publisher, mortal("later", 100), 1);
    pair.publish(publisher, "a", "eternal", 1);
    pair.wait(30);
    pair.crash();
    pair.wait(12);
    let sub = pair.connect_present(durable(V, "sub"), true);
    let left = pair
        .take(sub, "later")
        .publish()
        .properties
        .message_expiry();
    assert_eq!(left, Some(58));
    let left = pair
        .take(sub, "eternal")
        .publish()
        .properties
        .message_expiry();
    assert_eq!(left, None);
}
