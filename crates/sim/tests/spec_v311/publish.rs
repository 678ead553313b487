//! PUBLISH of 3.1.1.

use super::V;
use crate::rules::{publish, qos};

#[test]
fn mqtt_3_3_1_1_dup_is_set_when_a_publish_is_sent_again() {
    qos::dup_is_set_when_a_publish_is_sent_again(V);
}

#[test]
fn mqtt_3_3_1_3_dup_is_not_propagated() {
    publish::the_dup_flag_is_not_propagated(V);
}

#[test]
fn mqtt_3_3_2_3_only_matching_topics_reach_a_subscriber() {
    publish::only_matching_topics_reach_a_subscriber(V);
}

#[test]
fn mqtt_3_3_4_1_a_publish_is_answered_by_its_qos() {
    publish::a_publish_is_answered_by_its_qos(V);
}

#[test]
fn mqtt_3_3_5_1_overlapping_subscriptions_give_the_highest_qos() {
    publish::overlapping_subscriptions_give_the_highest_qos(V);
}

#[test]
fn mqtt_3_3_5_2_a_forbidden_publish_is_acknowledged_and_dropped() {
    publish::a_forbidden_publish_is_refused_or_dropped(V);
}

#[test]
fn mqtt_4_6_0_5_topics_are_ordered_by_default() {
    publish::order_is_kept_for_a_client_that_was_away(V);
}

#[test]
fn mqtt_4_6_0_6_the_order_of_a_publisher_is_kept() {
    publish::order_of_a_publisher_is_kept(V);
}

#[test]
fn acknowledgements_come_in_the_order_of_the_messages() {
    publish::acknowledgements_come_in_the_order_of_the_messages(V);
}

#[test]
fn packets_may_come_in_any_pieces() {
    publish::packets_may_come_in_any_pieces(V);
}

#[test]
fn a_full_socket_delays_and_drops_nothing_below_the_limit() {
    publish::a_full_socket_delays_and_drops_nothing_below_the_limit(V);
}
