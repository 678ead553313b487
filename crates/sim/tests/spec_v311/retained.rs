//! Retained messages of 3.1.1.

use super::V;
use crate::rules::retained;

#[test]
fn mqtt_3_3_1_5_a_retained_message_is_stored_with_its_qos() {
    retained::a_retained_message_is_stored_with_its_qos_and_replaced(V);
}

#[test]
fn mqtt_3_3_1_6_each_matching_topic_sends_its_last_message() {
    retained::each_matching_topic_sends_its_last_message(V);
    retained::what_the_client_retained_just_before_is_found(V);
}

#[test]
fn mqtt_3_3_1_7_a_retained_message_of_qos_0_replaces() {
    retained::a_retained_message_of_qos_0_replaces(V);
}

#[test]
fn mqtt_3_3_1_8_a_new_subscription_gets_it_with_the_flag() {
    retained::each_matching_topic_sends_its_last_message(V);
    retained::retained_messages_reach_durable_sessions_too(V);
}

#[test]
fn mqtt_3_3_1_9_an_established_subscription_gets_it_without_the_flag() {
    retained::an_established_subscription_gets_it_without_the_flag(V);
}

#[test]
fn mqtt_3_3_1_10_an_empty_payload_removes_and_is_sent_on() {
    retained::an_empty_payload_removes_and_is_sent_on(V);
}

#[test]
fn mqtt_3_3_1_11_an_empty_payload_is_not_retained() {
    retained::an_empty_payload_is_not_retained(V);
}

#[test]
fn mqtt_3_3_1_12_without_the_flag_nothing_is_retained_or_replaced() {
    retained::without_the_flag_nothing_is_retained_or_replaced(V);
}
