//! CONNECT and CONNACK of 5.0.

use campanile_broker::config::Config;
use campanile_mqtt::{Packet, Property, Reason};
use campanile_sim::{node::NodeConfig, packets::*, pair::Pair};

use super::V;
use crate::rules::{self, access::guarded, clean, connect, durable, session};

fn with(broker: Config) -> Pair {
    Pair::with(NodeConfig {
        broker,
        ..NodeConfig::default()
    })
}

#[test]
fn mqtt_3_1_0_1_the_first_packet_is_connect() {
    connect::the_first_packet_is_connect(V);
}

#[test]
fn mqtt_3_1_0_2_a_second_connect_is_a_protocol_error() {
    connect::a_second_connect_is_an_error(V);
}

#[test]
fn mqtt_3_1_2_22_the_connection_ends_after_one_and_a_half_keep_alives() {
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
fn mqtt_3_1_3_8_a_rejected_client_id_is_answered_so() {
    connect::a_rejected_client_id_is_answered_so(V);
}

#[test]
fn mqtt_3_1_4_3_the_older_connection_of_a_client_is_closed() {
    connect::the_older_connection_of_a_client_is_closed(V);
    connect::two_claims_at_once_leave_one_connection(V);
}

#[test]
fn mqtt_3_1_4_4_clean_start_is_processed() {
    session::clean_start_discards_the_session(V);
    session::the_session_is_taken_up(V);
}

#[test]
fn mqtt_3_1_4_5_a_valid_connect_is_acknowledged() {
    connect::a_valid_connect_is_acknowledged(V);
}

#[test]
fn mqtt_3_1_4_6_nothing_behind_a_refused_connect_is_processed() {
    connect::nothing_behind_a_refused_connect_is_processed(V);
}

#[test]
fn mqtt_3_2_0_1_connack_comes_before_all_else() {
    connect::connack_comes_before_all_else(V);
}

#[test]
fn mqtt_3_12_4_1_ping_is_answered() {
    connect::ping_is_answered(V);
}

#[test]
fn mqtt_3_1_2_28_response_information_comes_only_if_asked_for() {
    let mut pair = Pair::new();
    for asked in [None, Some(false), Some(true)] {
        let mut packet = clean(V, "a");
        if let Some(asked) = asked {
            packet = packet.with(Property::RequestResponseInformation(asked));
        }
        let (_, heard) = pair.connack(packet);
        let expected = (asked == Some(true)).then_some("response/a");
        assert_eq!(heard.connack().properties.response_information(), expected);
    }
}

#[test]
fn mqtt_3_1_2_29_reasons_are_explained_only_if_wanted() {
    for (wanted, packet) in [
        (true, clean(V, "a")),
        (
            true,
            clean(V, "a").with(Property::RequestProblemInformation(true)),
        ),
        (
            false,
            clean(V, "a").with(Property::RequestProblemInformation(false)),
        ),
    ] {
        let mut pair = guarded();
        let wire = pair.connect(packet);
        pair.send(wire, publish("secret", "x").qos1(1));
        pair.send(wire, publish("secret", "x").qos2(2));
        pair.send(wire, subscribe(3).filter("secret", 1));
        pair.send(wire, unsubscribe(4).filter("secret"));
        pair.send(wire, pubrel(5));
        pair.send(wire, pubrec(6));
        let heard = pair.drain(wire);
        let properties = [
            heard[0].puback().properties,
            heard[1].pubrec().properties,
            heard[2].suback().properties,
            heard[3].unsuback().properties,
            heard[4].pubcomp().properties,
            heard[5].pubrel().properties,
        ];
        for (n, properties) in properties.into_iter().enumerate() {
            let may = wanted && n < 3;
            assert_eq!(properties.reason_string().is_some(), may, "{:?}", heard[n]);
            assert_eq!(properties.user_properties().count(), 0);
        }
    }
}

#[test]
fn mqtt_3_1_3_7_the_assigned_client_id_is_told_and_used() {
    let mut pair = Pair::new();
    let (first, heard) = pair.connack(durable(V, "").clean(true));
    let assigned = heard
        .connack()
        .properties
        .assigned_client_id()
        .unwrap()
        .to_owned();
    pair.subscribe(first, "a", 1);
    let second = pair.connect_present(durable(V, &assigned), true);
    pair.expect_disconnect(first, Reason::SessionTakenOver);
    let publisher = pair.connect(clean(V, "pub"));
    pair.publish(publisher, "a", "x", 1);
    pair.take(second, "x");
}

#[test]
fn mqtt_3_2_2_16_an_assigned_client_id_is_new() {
    let mut pair = Pair::new();
    let mut ids = std::collections::BTreeSet::new();
    for round in 0..3 {
        for _ in 0..20 {
            let (_, heard) = pair.connack(durable(V, ""));
            assert!(!heard.connack().session_present);
            let id = heard
                .connack()
                .properties
                .assigned_client_id()
                .unwrap()
                .to_owned();
            assert!(ids.insert(id.clone()), "{id} twice in round {round}");
        }
        pair.crash();
        pair.wait(1);
    }
    // Who brings one is assigned none.
    let (_, heard) = pair.connack(clean(V, "a"));
    assert_eq!(heard.connack().properties.assigned_client_id(), None);
}

#[test]
fn mqtt_3_1_4_2_who_fails_a_check_is_refused_and_cut_off() {
    let mut pair = guarded();
    let refusals = [
        (
            clean(V, "a").login("wrong", "x"),
            Reason::BadUserNameOrPassword,
        ),
        (clean(V, "a").login("banned", "x"), Reason::Banned),
        (
            clean(V, "a").will(will("secret/x", "y")),
            Reason::NotAuthorized,
        ),
        (
            clean(V, "a").will(will("$SYS/x", "y")),
            Reason::NotAuthorized,
        ),
    ];
    for (packet, reason) in refusals {
        let wire = pair.try_connect(packet);
        pair.expect_refused(wire, reason);
    }
    let wire = pair.connect(clean(V, "a").login("slow", "x"));
    pair.expect_alive(wire);
}

#[test]
fn mqtt_3_2_0_2_there_is_one_connack() {
    let mut pair = Pair::new();
    let wire = pair.connect(durable(V, "a"));
    pair.subscribe(wire, "a", 1);
    pair.wait(100);
    pair.send(wire, clean(V, "a"));
    let heard = pair.drain(wire);
    assert!(
        !heard
            .iter()
            .any(|h| matches!(h.packet(), Packet::ConnAck(_)))
    );
}

#[test]
fn mqtt_3_2_2_7_after_a_refusal_the_connection_is_closed() {
    let mut pair = guarded();
    for packet in [
        clean(V, "a").login("wrong", "x"),
        clean(V, "a").with(Property::AuthMethod("unknown")),
    ] {
        let wire = pair.try_connect(packet);
        assert!(pair.next(wire).connack().reason.is_error());
        pair.expect_closed(wire);
    }
}

#[test]
fn mqtt_3_2_2_9_a_lower_maximum_qos_is_announced() {
    for max in 0..=2 {
        let mut pair = with(Config {
            max_qos: qos(max),
            ..Config::default()
        });
        let (_, heard) = pair.connack(clean(V, "a"));
        let expected = (max < 2).then(|| qos(max));
        assert_eq!(heard.connack().properties.maximum_qos(), expected);
    }
}

#[test]
fn mqtt_3_2_2_10_any_qos_may_be_subscribed_to() {
    rules::subscribe::codes_show_the_granted_qos(V);
}

#[test]
fn mqtt_3_2_2_11_a_publish_above_the_maximum_qos_closes_the_connection() {
    for max in 0..=1 {
        let mut pair = with(Config {
            max_qos: qos(max),
            ..Config::default()
        });
        let wire = pair.connect(clean(V, "a"));
        pair.publish(wire, "a", "x", max);
        pair.send(wire, publish("a", "x").qos(max + 1, 9));
        pair.expect_disconnect(wire, Reason::QoSNotSupported);
    }
}

#[test]
fn mqtt_3_2_2_12_a_will_above_the_maximum_qos_is_refused() {
    let mut pair = with(Config {
        max_qos: qos(1),
        ..Config::default()
    });
    let wire = pair.try_connect(clean(V, "a").will(will("t", "x").qos(2)));
    pair.expect_refused(wire, Reason::QoSNotSupported);
    pair.connect(clean(V, "a").will(will("t", "x").qos(1)));
}

#[test]
fn mqtt_3_2_2_13_a_retained_will_is_refused_where_nothing_is_retained() {
    let mut pair = with(Config {
        retain_available: false,
        ..Config::default()
    });
    let wire = pair.try_connect(clean(V, "a").will(will("t", "x").retain()));
    pair.expect_refused(wire, Reason::RetainNotSupported);
    pair.connect(clean(V, "a").will(will("t", "x")));
}

#[test]
fn mqtt_3_2_2_14_a_retained_publish_closes_the_connection_where_nothing_is_retained() {
    let mut pair = with(Config {
        retain_available: false,
        ..Config::default()
    });
    let (wire, heard) = pair.connack(clean(V, "a"));
    assert_eq!(heard.connack().properties.retain_available(), Some(false));
    pair.send(wire, publish("a", "x").retain());
    pair.expect_disconnect(wire, Reason::RetainNotSupported);
}

#[test]
fn mqtt_3_2_2_15_a_packet_above_the_maximum_size_closes_the_connection() {
    let mut pair = Pair::new();
    let (_, heard) = pair.connack(clean(V, "a"));
    let announced = heard.connack().properties.maximum_packet_size();
    assert_eq!(announced, Some(Config::default().max_packet_bytes));
    rules::malformed::a_packet_that_is_too_large_closes_the_connection(V);
}

#[test]
fn mqtt_3_1_2_21_the_server_keep_alive_is_told_and_obeyed() {
    for asked in [0, 60] {
        let mut pair = with(Config {
            max_keep_alive_seconds: 10,
            ..Config::default()
        });
        let (wire, heard) = pair.connack(clean(V, "a").keep_alive(asked));
        assert_eq!(heard.connack().properties.server_keep_alive(), Some(10));
        pair.wait(14);
        pair.expect_alive(wire);
        pair.wait(18);
        pair.expect_disconnect(wire, Reason::KeepAliveTimeout);
    }
}

#[test]
fn mqtt_3_2_2_22_without_a_server_keep_alive_that_of_the_client_counts() {
    for max in [0, 20] {
        let mut pair = with(Config {
            max_keep_alive_seconds: max,
            ..Config::default()
        });
        let (wire, heard) = pair.connack(clean(V, "a").keep_alive(20));
        assert_eq!(heard.connack().properties.server_keep_alive(), None);
        pair.wait(29);
        pair.expect_alive(wire);
        pair.wait(33);
        pair.expect_disconnect(wire, Reason::KeepAliveTimeout);
    }
}

#[test]
fn who_does_not_connect_in_time_is_cut_off() {
    let mut pair = Pair::new();
    let wire = pair.open(V);
    pair.wait(9);
    assert!(!pair.node.is_closed(wire));
    pair.send_bytes(wire, &hex("10"));
    pair.wait(3);
    pair.expect_closed(wire);
}

#[test]
fn the_receive_maximum_and_alias_maximum_are_announced() {
    let (_, heard) = Pair::new().connack(clean(V, "a"));
    let properties = heard.connack().properties;
    assert_eq!(properties.receive_maximum(), Some(20));
    assert_eq!(properties.topic_alias_maximum(), Some(16));
}
