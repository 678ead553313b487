//! PUBLISH of 5.0.

use campanile_mqtt::{Property, Reason};
use campanile_sim::packets::*;

use super::V;
use crate::rules::{clean, clean_subscriber_and_publisher, durable, publish as rules};

#[test]
fn mqtt_3_3_1_3_dup_is_not_propagated() {
    rules::the_dup_flag_is_not_propagated(V);
}

#[test]
fn mqtt_3_3_2_3_only_matching_topics_reach_a_subscriber() {
    rules::only_matching_topics_reach_a_subscriber(V);
}

#[test]
fn mqtt_3_3_4_1_a_publish_is_answered_by_its_qos() {
    rules::a_publish_is_answered_by_its_qos(V);
    rules::a_forbidden_publish_is_refused_or_dropped(V);
}

#[test]
fn mqtt_3_3_4_2_overlapping_subscriptions_give_the_highest_qos() {
    rules::overlapping_subscriptions_give_the_highest_qos(V);
}

#[test]
fn mqtt_4_6_0_5_the_order_of_a_publisher_is_kept() {
    rules::order_of_a_publisher_is_kept(V);
}

#[test]
fn mqtt_4_6_0_6_every_topic_is_ordered() {
    rules::order_is_kept_for_a_client_that_was_away(V);
}

#[test]
fn properties_go_on_unaltered_and_in_order_to_all() {
    let (mut pair, sub, publisher) = clean_subscriber_and_publisher(V, "a", 2);
    let away = pair.connect(durable(V, "away"));
    pair.subscribe(away, "a", 2);
    let old = pair.connect(clean(campanile_mqtt::Version::V311, "old"));
    pair.subscribe(old, "a", 2);
    let with_all = |packet: Publish| {
        packet
            .with(Property::UserProperty(("b", "1")))
            .with(Property::PayloadFormat(true))
            .with(Property::UserProperty(("a", "2")))
            .with(Property::ContentType("text/plain"))
            .with(Property::ResponseTopic("answer/here"))
            .with(Property::UserProperty(("b", "1")))
            .with(Property::CorrelationData(&[0, 255, 1]))
    };
    for level in 0..=2 {
        pair.publish_with(publisher, with_all(publish("a", "x")).retain(), level);
        let late = pair.connect(clean(V, "late"));
        pair.subscribe(late, "a", 2);
        for wire in [sub, away, late] {
            let heard = pair.take(wire, "x");
            let properties = heard.publish().properties;
            let users: Vec<_> = properties.user_properties().collect();
            assert_eq!(users, [("b", "1"), ("a", "2"), ("b", "1")]);
            assert_eq!(properties.payload_format(), Some(true));
            assert_eq!(properties.content_type(), Some("text/plain"));
            assert_eq!(properties.response_topic(), Some("answer/here"));
            assert_eq!(properties.correlation_data(), Some(&[0, 255, 1][..]));
            assert_eq!(properties.iter().count(), 7);
        }
        pair.take(old, "x");
    }
    // Over the death of the node, too.
    pair.cut(away);
    pair.publish_with(publisher, with_all(publish("a", "y")), 1);
    pair.crash();
    let away = pair.connect_present(durable(V, "away"), true);
    let heard = pair.take(away, "y");
    assert_eq!(heard.publish().properties.iter().count(), 7);
}

#[test]
fn mqtt_3_3_4_6_a_subscription_id_from_a_client_is_a_protocol_error() {
    let (mut pair, sub, publisher) = clean_subscriber_and_publisher(V, "a", 2);
    let mut publisher = publisher;
    for level in 0..=2 {
        let packet = publish("a", "x").with(Property::SubscriptionId(1));
        pair.send(publisher, packet.qos(level, 1));
        pair.expect_disconnect(publisher, Reason::ProtocolError);
        pair.expect_silence(sub);
        publisher = pair.connect(clean(V, "pub"));
    }
}

#[test]
fn publishing_where_nobody_listens_is_told() {
    let (mut pair, _, publisher) = clean_subscriber_and_publisher(V, "a", 2);
    pair.send(publisher, publish("a", "x").qos1(1));
    assert_eq!(pair.expect_puback(publisher, 1), Reason::Success);
    pair.send(publisher, publish("b", "x").qos1(1));
    assert_eq!(
        pair.expect_puback(publisher, 1),
        Reason::NoMatchingSubscribers
    );
    pair.send(publisher, publish("b", "x").qos2(1));
    assert_eq!(
        pair.expect_pubrec(publisher, 1),
        Reason::NoMatchingSubscribers
    );
}

#[test]
fn acknowledgements_come_in_the_order_of_the_messages() {
    rules::acknowledgements_come_in_the_order_of_the_messages(V);
}

#[test]
fn packets_may_come_in_any_pieces() {
    rules::packets_may_come_in_any_pieces(V);
}

#[test]
fn a_full_socket_delays_and_drops_nothing_below_the_limit() {
    rules::a_full_socket_delays_and_drops_nothing_below_the_limit(V);
}
