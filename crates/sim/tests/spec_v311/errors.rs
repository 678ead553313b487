//! Violations and failures, sections 3.2.2.3 and 4.8.

use campanile_mqtt::Reason;
use campanile_sim::{packets::*, pair::Pair};

use super::V;
use crate::rules::{access::guarded, clean, malformed, store};

#[test]
fn mqtt_3_2_2_5_after_a_refusal_the_connection_is_closed() {
    let mut pair = guarded();
    for (name, reason) in [
        ("wrong", Reason::BadUserNameOrPassword),
        ("banned", Reason::NotAuthorized),
    ] {
        let wire = pair.try_connect(clean(V, "a").login(name, "x"));
        pair.expect_refused(wire, reason);
    }
    let wire = pair.try_connect(clean(V, "").clean(false));
    pair.expect_refused(wire, Reason::ClientIdentifierNotValid);
}

#[test]
fn mqtt_3_2_2_6_without_a_fitting_return_code_there_is_no_connack() {
    let mut pair = Pair::new();
    let table = [
        // The reserved flag, a password without a user name, a will of QoS 3, bytes behind the end.
        "10 0d 0004 4d515454 04 03 0000 0001 61",
        "10 10 0004 4d515454 04 42 0000 0001 61 0001 62",
        "10 13 0004 4d515454 04 1e 0000 0001 61 0001 74 0001 78",
        "10 0e 0004 4d515454 04 02 0000 0001 61 00",
        // Another protocol.
        "10 0d 0004 58515454 04 02 0000 0001 61",
    ];
    for bytes in table {
        let wire = pair.open(V);
        pair.send_bytes(wire, &hex(bytes));
        pair.expect_closed(wire);
    }
}

#[test]
fn mqtt_4_8_0_1_a_protocol_violation_closes_the_connection() {
    malformed::violations_close_the_connection(V);
    malformed::a_packet_that_is_too_large_closes_the_connection(V);
}

#[test]
fn mqtt_4_8_0_2_a_transient_error_closes_the_connection() {
    store::what_cannot_be_kept_is_not_acknowledged(V);
}

#[test]
fn a_store_that_fails_is_not_the_end() {
    store::what_needs_no_store_goes_on_without_it(V);
    store::a_durable_subscription_that_cannot_be_kept_is_refused(V);
    store::a_durable_session_that_cannot_be_kept_is_refused(V);
}
