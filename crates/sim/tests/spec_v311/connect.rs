//! CONNECT and CONNACK of 3.1.1.

use super::V;
use crate::rules::{connect, session};

#[test]
fn mqtt_3_1_0_1_the_first_packet_is_connect() {
    connect::the_first_packet_is_connect(V);
}

#[test]
fn mqtt_3_1_0_2_a_second_connect_closes_the_connection() {
    connect::a_second_connect_is_an_error(V);
}

#[test]
fn mqtt_3_1_2_24_the_connection_ends_after_one_and_a_half_keep_alives() {
    connect::the_keep_alive_ends_after_one_and_a_half(V);
    connect::without_keep_alive_silence_may_last(V);
}

#[test]
fn mqtt_3_1_3_2_the_client_id_identifies_the_session() {
    connect::the_client_id_identifies_the_session(V);
}

#[test]
fn mqtt_3_1_3_5_letters_and_digits_are_allowed_in_client_ids() {
    connect::letters_and_digits_are_allowed_in_client_ids(V);
}

#[test]
fn mqtt_3_1_3_6_clients_without_an_id_get_one_each() {
    connect::clients_without_an_id_get_one_each(V);
}

#[test]
fn mqtt_3_1_3_9_a_rejected_client_id_is_return_code_2() {
    connect::a_rejected_client_id_is_answered_so(V);
}

#[test]
fn mqtt_3_1_4_2_the_older_connection_of_a_client_is_closed() {
    connect::the_older_connection_of_a_client_is_closed(V);
    connect::two_claims_at_once_leave_one_connection(V);
}

#[test]
fn mqtt_3_1_4_3_clean_session_is_processed() {
    session::clean_start_discards_the_session(V);
    session::the_session_is_taken_up(V);
}

#[test]
fn mqtt_3_1_4_4_a_valid_connect_is_acknowledged() {
    connect::a_valid_connect_is_acknowledged(V);
}

#[test]
fn mqtt_3_1_4_5_nothing_behind_a_refused_connect_is_processed() {
    connect::nothing_behind_a_refused_connect_is_processed(V);
}

#[test]
fn mqtt_3_2_0_1_the_first_packet_of_the_server_is_connack() {
    connect::connack_comes_before_all_else(V);
}

#[test]
fn mqtt_3_2_2_1_session_present_is_0_after_clean_session() {
    session::session_present_is_0_after_clean_start(V);
}

#[test]
fn mqtt_3_2_2_2_session_present_is_1_where_there_is_one() {
    session::session_present_tells_of_the_session(V);
}

#[test]
fn mqtt_3_2_2_3_session_present_is_0_where_there_is_none() {
    session::session_present_tells_of_the_session(V);
}

#[test]
fn mqtt_3_12_4_1_ping_is_answered() {
    connect::ping_is_answered(V);
}
