//! SUBSCRIBE and UNSUBSCRIBE of 3.1.1.

use super::V;
use crate::rules::{publish, subscribe};

#[test]
fn mqtt_3_8_4_1_subscribe_is_answered_by_suback() {
    subscribe::subscribe_is_answered_with_its_identifier(V);
}

#[test]
fn mqtt_3_8_4_2_suback_bears_the_identifier_of_subscribe() {
    subscribe::subscribe_is_answered_with_its_identifier(V);
}

#[test]
fn mqtt_3_8_4_3_a_subscription_is_replaced() {
    subscribe::a_subscription_is_replaced(V);
    subscribe::nothing_is_lost_while_a_subscription_is_replaced(V);
}

#[test]
fn mqtt_3_8_4_4_many_filters_are_as_many_subscribes() {
    subscribe::many_filters_are_as_many_subscribes(V);
}

#[test]
fn mqtt_3_8_4_5_suback_shows_the_granted_qos_or_a_failure_for_each_filter() {
    subscribe::codes_show_the_granted_qos(V);
    subscribe::codes_come_in_the_order_of_the_filters(V);
    subscribe::too_many_subscriptions_are_refused(V);
}

#[test]
fn mqtt_3_8_4_6_the_qos_is_the_lower_of_both() {
    publish::the_qos_is_the_lower_of_both(V);
}

#[test]
fn mqtt_3_9_3_1_codes_come_in_the_order_of_the_filters() {
    subscribe::codes_come_in_the_order_of_the_filters(V);
}

#[test]
fn mqtt_3_10_4_1_filters_are_compared_character_by_character() {
    subscribe::unsubscribe_compares_filters_character_by_character(V);
}

#[test]
fn mqtt_3_10_4_2_unsubscribe_stops_new_messages() {
    subscribe::unsubscribe_stops_new_messages(V);
}

#[test]
fn mqtt_3_10_4_3_unsubscribe_lets_deliveries_end() {
    subscribe::unsubscribe_lets_deliveries_end(V);
}

#[test]
fn mqtt_3_10_4_4_unsuback_bears_the_identifier_of_unsubscribe() {
    subscribe::unsubscribe_is_answered_with_its_identifier(V);
}

#[test]
fn mqtt_3_10_4_5_unsubscribe_is_answered_where_nothing_is_deleted() {
    subscribe::unsubscribe_is_answered_with_its_identifier(V);
}

#[test]
fn mqtt_3_10_4_6_many_filters_are_as_many_unsubscribes() {
    subscribe::many_filters_are_as_many_unsubscribes(V);
}
