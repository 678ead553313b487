//! Wills of 3.1.1.

use super::V;
use crate::rules::wills;

#[test]
fn mqtt_3_1_2_8_the_will_is_stored_and_published() {
    wills::the_will_is_published_when_the_connection_is_lost(V);
    wills::the_will_is_published_when_the_node_closes_the_connection(V);
    wills::the_will_is_stored(V);
}

#[test]
fn mqtt_3_1_2_10_the_will_is_removed_once_published_or_at_disconnect() {
    wills::the_will_is_removed_once_published(V);
    wills::the_will_is_removed_at_disconnect(V);
}

#[test]
fn mqtt_3_1_2_12_without_a_will_none_is_published() {
    wills::without_a_will_none_is_published(V);
}

#[test]
fn mqtt_3_1_2_16_a_will_without_retain_is_not_retained() {
    wills::a_will_without_retain_is_not_retained(V);
}

#[test]
fn mqtt_3_1_2_17_a_will_with_retain_is_retained() {
    wills::a_will_with_retain_is_retained(V);
}

#[test]
fn mqtt_3_14_4_3_disconnect_discards_the_will() {
    wills::disconnect_ends_the_connection_without_the_will(V);
    wills::the_will_is_removed_at_disconnect(V);
}
