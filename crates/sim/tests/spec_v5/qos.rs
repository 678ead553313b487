//! Delivery protocols of 5.0.

use campanile_mqtt::{Property, Reason};
use campanile_sim::packets::*;

use super::V;
use crate::rules::{access::guarded, clean, durable, qos, subscriber_and_publisher};

#[test]
fn mqtt_2_2_1_4_identifiers_of_the_server_are_unused() {
    qos::every_message_under_way_has_its_own_identifier(V, 1);
    qos::every_message_under_way_has_its_own_identifier(V, 2);
}

#[test]
fn mqtt_2_2_1_5_acknowledgements_bear_the_identifier_of_the_publish() {
    qos::acknowledgements_bear_the_identifier_of_the_publish(V);
}

#[test]
fn mqtt_2_2_1_6_suback_and_unsuback_bear_the_identifier_of_the_request() {
    qos::subscribe_and_unsubscribe_are_answered_with_their_identifiers(V);
}

#[test]
fn mqtt_3_3_1_1_dup_is_set_when_a_publish_is_sent_again() {
    qos::dup_is_set_when_a_publish_is_sent_again(V);
}

#[test]
fn mqtt_4_3_1_1_qos_0_is_sent_without_dup() {
    qos::qos_0_is_sent_once_without_dup(V);
}

#[test]
fn mqtt_4_3_2_1_qos_1_has_an_unused_identifier() {
    qos::every_message_under_way_has_its_own_identifier(V, 1);
}

#[test]
fn mqtt_4_3_2_2_qos_1_is_sent_without_dup() {
    qos::every_message_under_way_has_its_own_identifier(V, 1);
}

#[test]
fn mqtt_4_3_2_3_qos_1_is_unacknowledged_until_puback() {
    qos::qos_1_is_unacknowledged_until_puback(V);
}

#[test]
fn mqtt_4_3_2_4_qos_1_is_acknowledged_by_puback() {
    qos::qos_1_is_acknowledged_by_puback(V);
}

#[test]
fn mqtt_4_3_2_5_after_puback_an_identifier_means_a_new_message() {
    qos::after_puback_an_identifier_means_a_new_message(V);
}

#[test]
fn mqtt_4_3_3_1_qos_2_has_an_unused_identifier() {
    qos::every_message_under_way_has_its_own_identifier(V, 2);
}

#[test]
fn mqtt_4_3_3_2_qos_2_is_sent_without_dup() {
    qos::every_message_under_way_has_its_own_identifier(V, 2);
}

#[test]
fn mqtt_4_3_3_3_qos_2_is_unacknowledged_until_pubrec() {
    qos::qos_2_is_unacknowledged_until_pubrec(V);
}

#[test]
fn mqtt_4_3_3_4_pubrec_is_answered_by_pubrel() {
    qos::pubrec_is_answered_by_pubrel(V);
}

#[test]
fn mqtt_4_3_3_5_pubrel_is_unacknowledged_until_pubcomp() {
    qos::pubrel_is_unacknowledged_until_pubcomp(V);
}

#[test]
fn mqtt_4_3_3_6_publish_is_not_sent_again_after_pubrel() {
    qos::pubrel_is_unacknowledged_until_pubcomp(V);
}

#[test]
fn mqtt_4_3_3_8_qos_2_is_acknowledged_by_pubrec() {
    qos::qos_2_is_acknowledged_by_pubrec(V);
}

#[test]
fn mqtt_4_3_3_10_until_pubrel_a_repetition_is_no_new_message() {
    qos::until_pubrel_a_repetition_is_no_new_message(V);
    qos::until_pubrel_a_repetition_after_a_loss_is_no_new_message(V);
}

#[test]
fn mqtt_4_3_3_11_pubrel_is_answered_by_pubcomp() {
    qos::pubrel_is_answered_by_pubcomp(V);
}

#[test]
fn mqtt_4_3_3_12_after_pubcomp_an_identifier_means_a_new_message() {
    qos::after_pubcomp_an_identifier_means_a_new_message(V);
}

#[test]
fn mqtt_4_4_0_1_what_is_unacknowledged_is_sent_again_at_reconnect_only() {
    qos::what_is_unacknowledged_is_sent_again_at_reconnect_only(V);
    qos::what_is_sent_again_keeps_its_order(V);
}

#[test]
fn mqtt_4_3_3_7_what_was_sent_does_not_expire() {
    for level in [1, 2] {
        let (mut pair, sub, publisher) = subscriber_and_publisher(V, "a", 2);
        let packet = publish("a", "x").with(Property::MessageExpiry(5));
        pair.publish_with(publisher, packet, level);
        let first = pair.expect_publish(sub, "x").id();
        pair.wait(10);
        pair.cut(sub);
        let sub = pair.connect_present(durable(V, "sub"), true);
        let heard = pair.expect_publish(sub, "x");
        assert_eq!(heard.id(), first);
        assert!(heard.publish().dup);
        pair.acknowledge(sub, &heard);
    }
}

#[test]
fn mqtt_4_3_3_9_after_a_refusal_an_identifier_means_a_new_message() {
    for client in [clean(V, "pub"), durable(V, "pub")] {
        let mut pair = guarded();
        let sub = pair.connect(clean(V, "sub"));
        pair.subscribe(sub, "open", 2);
        let publisher = pair.connect(client);
        pair.send(publisher, publish("secret", "x").qos2(5));
        assert_eq!(pair.expect_pubrec(publisher, 5), Reason::NotAuthorized);
        pair.send(publisher, publish("open", "y").qos2(5));
        assert!(!pair.expect_pubrec(publisher, 5).is_error());
        pair.send(publisher, pubrel(5));
        assert_eq!(pair.expect_pubcomp(publisher, 5), Reason::Success);
        pair.take(sub, "y");
    }
}

#[test]
fn mqtt_4_3_3_13_an_expired_message_is_acknowledged_to_the_end() {
    for client in [clean(V, "pub"), durable(V, "pub")] {
        let (mut pair, sub, _) = subscriber_and_publisher(V, "a", 2);
        let publisher = pair.connect(client);
        pair.cut(sub);
        let packet = publish("a", "x").with(Property::MessageExpiry(5));
        pair.send(publisher, packet.qos2(7));
        assert!(!pair.expect_pubrec(publisher, 7).is_error());
        pair.wait(10);
        pair.send(publisher, pubrel(7));
        assert_eq!(pair.expect_pubcomp(publisher, 7), Reason::Success);
        let sub = pair.connect_present(durable(V, "sub"), true);
        pair.expect_silence(sub);
    }
}

#[test]
fn mqtt_4_4_0_2_what_was_refused_is_not_sent_again() {
    for level in [1, 2] {
        let (mut pair, sub, publisher) = subscriber_and_publisher(V, "a", 2);
        pair.publish(publisher, "a", "x", level);
        let number = pair.expect_publish(sub, "x").id();
        let refusal = if level == 1 {
            puback(number)
        } else {
            pubrec(number)
        };
        pair.send(sub, refusal.reason(Reason::QuotaExceeded));
        // No PUBREL follows.
        pair.expect_silence(sub);
        for crash in [false, true] {
            pair.wait(1);
            if crash {
                pair.crash();
            } else {
                pair.cut(sub);
            }
            let sub = pair.connect_present(durable(V, "sub"), true);
            pair.expect_silence(sub);
        }
    }
}

#[test]
fn identifiers_that_are_not_known_are_told() {
    let mut pair = campanile_sim::pair::Pair::new();
    for client in [clean(V, "c"), durable(V, "d")] {
        let wire = pair.connect(client);
        pair.send(wire, pubrel(9));
        let told = pair.expect_pubcomp(wire, 9);
        assert_eq!(told, Reason::PacketIdentifierNotFound);
        pair.send(wire, pubrec(9));
        let told = pair.expect_pubrel(wire, 9);
        assert_eq!(told, Reason::PacketIdentifierNotFound);
        // A refusal has nothing to release.
        pair.send(wire, pubrec(9).reason(Reason::QuotaExceeded));
        pair.send(wire, puback(9));
        pair.send(wire, pubcomp(9));
        pair.expect_alive(wire);
    }
}

#[test]
fn a_takeover_goes_on_with_what_is_under_way() {
    qos::a_takeover_goes_on_with_what_is_under_way(V);
}

#[test]
fn releases_come_in_the_order_of_the_receptions() {
    qos::releases_come_in_the_order_of_the_receptions(V);
}
