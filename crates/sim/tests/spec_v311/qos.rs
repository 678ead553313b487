//! Delivery protocols of 3.1.1.

use super::V;
use crate::rules::qos;

#[test]
fn mqtt_2_3_1_4_identifiers_of_the_server_are_unused() {
    qos::every_message_under_way_has_its_own_identifier(V, 1);
    qos::every_message_under_way_has_its_own_identifier(V, 2);
}

#[test]
fn mqtt_2_3_1_6_acknowledgements_bear_the_identifier_of_the_publish() {
    qos::acknowledgements_bear_the_identifier_of_the_publish(V);
}

#[test]
fn mqtt_2_3_1_7_suback_and_unsuback_bear_the_identifier_of_the_request() {
    qos::subscribe_and_unsubscribe_are_answered_with_their_identifiers(V);
}

#[test]
fn mqtt_4_3_1_1_qos_0_is_sent_without_dup() {
    qos::qos_0_is_sent_once_without_dup(V);
}

#[test]
fn mqtt_4_3_2_1_qos_1_has_its_own_identifier_until_puback() {
    qos::every_message_under_way_has_its_own_identifier(V, 1);
    qos::qos_1_is_unacknowledged_until_puback(V);
}

#[test]
fn mqtt_4_3_2_2_qos_1_is_acknowledged_and_then_new() {
    qos::qos_1_is_acknowledged_by_puback(V);
    qos::after_puback_an_identifier_means_a_new_message(V);
}

#[test]
fn mqtt_4_3_3_1_qos_2_is_sent_released_and_completed() {
    qos::every_message_under_way_has_its_own_identifier(V, 2);
    qos::qos_2_is_unacknowledged_until_pubrec(V);
    qos::pubrec_is_answered_by_pubrel(V);
    qos::pubrel_is_unacknowledged_until_pubcomp(V);
}

#[test]
fn mqtt_4_3_3_2_qos_2_is_received_once() {
    qos::qos_2_is_acknowledged_by_pubrec(V);
    qos::until_pubrel_a_repetition_is_no_new_message(V);
    qos::until_pubrel_a_repetition_after_a_loss_is_no_new_message(V);
    qos::pubrel_is_answered_by_pubcomp(V);
    qos::after_pubcomp_an_identifier_means_a_new_message(V);
}

#[test]
fn mqtt_4_4_0_1_what_is_unacknowledged_is_sent_again_at_reconnect() {
    qos::what_is_unacknowledged_is_sent_again_at_reconnect_only(V);
}

#[test]
fn mqtt_4_6_0_1_what_is_sent_again_keeps_its_order() {
    qos::what_is_sent_again_keeps_its_order(V);
}

#[test]
fn a_takeover_goes_on_with_what_is_under_way() {
    qos::a_takeover_goes_on_with_what_is_under_way(V);
}

#[test]
fn releases_come_in_the_order_of_the_receptions() {
    qos::releases_come_in_the_order_of_the_receptions(V);
}
