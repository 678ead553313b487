//! SUBSCRIBE and UNSUBSCRIBE of 5.0.

use campanile_mqtt::SubscriptionOptions;
use campanile_sim::{packets::*, pair::Pair};

use super::V;
use crate::rules::{self, access::guarded, clean, durable};

#[test]
fn mqtt_3_8_4_1_subscribe_is_answered_by_suback() {
    rules::subscribe::subscribe_is_answered_with_its_identifier(V);
}

#[test]
fn mqtt_3_8_4_2_suback_bears_the_identifier_of_subscribe() {
    rules::subscribe::subscribe_is_answered_with_its_identifier(V);
}

#[test]
fn mqtt_3_8_4_3_a_subscription_is_replaced() {
    rules::subscribe::a_subscription_is_replaced(V);
}

#[test]
fn mqtt_3_8_4_4_nothing_is_lost_while_a_subscription_is_replaced() {
    rules::subscribe::a_subscription_is_replaced(V);
    rules::subscribe::nothing_is_lost_while_a_subscription_is_replaced(V);
}

#[test]
fn mqtt_3_8_4_5_many_filters_are_as_many_subscribes() {
    rules::subscribe::many_filters_are_as_many_subscribes(V);
}

#[test]
fn mqtt_3_8_4_6_each_filter_has_its_code() {
    rules::subscribe::codes_come_in_the_order_of_the_filters(V);
}

#[test]
fn mqtt_3_8_4_7_codes_show_the_granted_qos_or_a_failure() {
    rules::subscribe::codes_show_the_granted_qos(V);
    rules::subscribe::too_many_subscriptions_are_refused(V);
}

#[test]
fn mqtt_3_8_4_8_the_qos_is_the_lower_of_both() {
    rules::publish::the_qos_is_the_lower_of_both(V);
}

#[test]
fn mqtt_3_9_3_1_codes_come_in_the_order_of_the_filters() {
    rules::subscribe::codes_come_in_the_order_of_the_filters(V);
}

#[test]
fn mqtt_3_10_4_1_filters_are_compared_character_by_character() {
    rules::subscribe::unsubscribe_compares_filters_character_by_character(V);
}

#[test]
fn mqtt_3_10_4_2_unsubscribe_stops_new_messages() {
    rules::subscribe::unsubscribe_stops_new_messages(V);
}

#[test]
fn mqtt_3_10_4_3_unsubscribe_lets_deliveries_end() {
    rules::subscribe::unsubscribe_lets_deliveries_end(V);
}

#[test]
fn mqtt_3_10_4_4_unsubscribe_is_answered_by_unsuback() {
    rules::subscribe::unsubscribe_is_answered_with_its_identifier(V);
}

#[test]
fn mqtt_3_10_4_5_unsuback_bears_the_identifier_of_unsubscribe() {
    rules::subscribe::unsubscribe_is_answered_with_its_identifier(V);
}

#[test]
fn mqtt_3_10_4_6_many_filters_are_as_many_unsubscribes() {
    rules::subscribe::many_filters_are_as_many_unsubscribes(V);
}

#[test]
fn mqtt_3_8_3_3_no_local_keeps_a_client_from_its_own_messages() {
    let no_local = SubscriptionOptions {
        no_local: true,
        ..options(2)
    };
    for client in [clean(V, "c"), durable(V, "d")] {
        let mut pair = Pair::new();
        let other = pair.connect(clean(V, "other"));
        pair.subscribe(other, "a", 2);
        let wire = pair.connect(client.clone());
        pair.subscribe_with(wire, subscribe(100).filter_with("a", no_local));
        for level in 0..=2 {
            pair.publish(wire, "a", "own", level);
            pair.expect_silence(wire);
            pair.take(other, "own");
            pair.publish(other, "a", "foreign", level);
            pair.take(other, "foreign");
            pair.take(wire, "foreign");
        }
        // It goes by the client identifier, not by the connection.
        pair.publish(wire, "a", "before", 2);
        pair.cut(wire);
        let wire = pair.connect(client.clone());
        pair.expect_silence(wire);
        // Another subscription without it gets the message.
        pair.subscribe_with(wire, subscribe(100).filter_with("a", no_local));
        pair.subscribe(wire, "+", 1);
        pair.publish(wire, "a", "own", 2);
        assert_eq!(pair.take(wire, "own").publish().qos, qos(1));
        pair.expect_silence(wire);
    }
}

#[test]
fn mqtt_3_11_3_1_unsuback_codes_come_in_the_order_of_the_filters() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let mut pair = Pair::new();
        let wire = pair.connect(client);
        pair.subscribe(wire, "a", 0);
        pair.subscribe(wire, "b", 0);
        pair.subscribe(wire, "$share/g/a", 0);
        let packet = unsubscribe(9)
            .filter("x")
            .filter("b")
            .filter("$share/h/a")
            .filter("a")
            .filter("$share/g/a")
            .filter("a");
        pair.send(wire, packet);
        let codes = [0x11, 0, 0x11, 0, 0, 0x11];
        assert_eq!(pair.next(wire).unsuback().codes, codes);
    }
}

#[test]
fn a_forbidden_filter_is_refused() {
    let mut pair = guarded();
    let wire = pair.connect(clean(V, "a"));
    let packet = subscribe(1)
        .filter("secret/x", 1)
        .filter("open", 1)
        .filter("$share/g/secret", 1);
    pair.send(wire, packet);
    assert_eq!(pair.next(wire).suback().codes, [0x87, 1, 0x87]);
    let publisher = pair.connect(clean(V, "pub"));
    pair.publish(publisher, "open", "x", 1);
    pair.take(wire, "x");
}
