//! Sessions of 3.1.1.

use super::V;
use crate::rules::session;

#[test]
fn mqtt_3_1_2_4_without_clean_session_the_session_is_taken_up() {
    session::the_session_is_taken_up(V);
    session::without_a_session_a_new_one_begins(V);
    session::the_session_survives_a_crash_of_the_node(V);
}

#[test]
fn mqtt_3_1_2_5_messages_are_stored_for_a_client_that_is_away() {
    session::messages_are_stored_for_a_client_that_is_away(V);
}

#[test]
fn mqtt_3_1_2_6_clean_session_discards_the_session() {
    session::clean_start_discards_the_session(V);
    session::a_clean_session_ends_with_its_connection(V);
}

#[test]
fn mqtt_3_1_2_7_retained_messages_survive_the_session() {
    session::retained_messages_survive_the_session(V);
}

#[test]
fn mqtt_4_1_0_1_the_session_is_stored_for_its_whole_duration() {
    session::the_session_is_taken_up(V);
    session::the_session_survives_a_crash_of_the_node(V);
}

#[test]
fn mqtt_4_1_0_2_the_session_lasts_as_long_as_the_connection() {
    session::the_session_lasts_as_long_as_the_connection(V);
}

#[test]
fn mqtt_4_5_0_1_a_message_is_added_to_all_sessions_that_match() {
    session::a_message_is_added_to_all_sessions_that_match(V);
}
