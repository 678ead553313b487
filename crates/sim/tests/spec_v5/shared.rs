//! Shared subscriptions, section 4.8.2.

use std::collections::BTreeMap;

use campanile_broker::{ids::AppId, shard::Shard};
use campanile_mqtt::{Property, Reason};
use campanile_sim::{packets::*, pair::Pair};

use super::V;
use crate::rules::{clean, durable};

/// A node with members of `$share/g/a`, spread over both shards, and a publisher.
fn group(members: &[(Connect, u8)]) -> (Pair, Vec<usize>, usize) {
    let mut pair = Pair::new();
    let wires = members
        .iter()
        .map(|(member, level)| {
            let wire = pair.connect(member.clone());
            pair.subscribe(wire, "$share/g/a", *level);
            wire
        })
        .collect();
    let publisher = pair.connect(clean(V, "pub"));
    (pair, wires, publisher)
}

#[test]
fn members_take_turns_across_shards() {
    for is_durable in [false, true] {
        for level in 0..=2 {
            let member = |n: u32| {
                let name = format!("member{n}");
                let client = if is_durable {
                    durable(V, &name)
                } else {
                    clean(V, &name)
                };
                (client, 2)
            };
            let (mut pair, wires, publisher) = group(&[0, 1, 2, 3].map(member));
            let app = AppId::new("default");
            let home = |n| Shard::of_client(&app, &format!("member{n}"), 2);
            assert!(
                (1..4).any(|n| home(n) != home(0)),
                "they are on both shards"
            );
            let mut counts: BTreeMap<usize, u32> = BTreeMap::new();
            for n in 0..40 {
                pair.publish(publisher, "a", &n.to_string(), level);
                let takers: Vec<usize> = wires
                    .iter()
                    .copied()
                    .filter(|&wire| match pair.poll(wire) {
                        Some(heard) => {
                            assert_eq!(heard.payload(), n.to_string());
                            pair.acknowledge(wire, &heard);
                            true
                        }
                        None => false,
                    })
                    .collect();
                assert_eq!(takers.len(), 1, "{takers:?} got {n}");
                *counts.entry(takers[0]).or_default() += 1;
            }
            assert!(counts.values().all(|&count| count == 10), "{counts:?}");
        }
    }
}

#[test]
fn groups_and_plain_subscriptions_each_get_a_copy() {
    let mut pair = Pair::new();
    let wires = ["a", "b", "c", "d", "e"].map(|name| pair.connect(clean(V, name)));
    pair.subscribe(wires[0], "$share/g/t/+", 1);
    pair.subscribe(wires[1], "$share/g/t/+", 1);
    pair.subscribe(wires[2], "$share/h/t/+", 1);
    pair.subscribe(wires[3], "$share/g/t/#", 1);
    pair.subscribe(wires[4], "t/x", 1);
    let publisher = pair.connect(clean(V, "pub"));
    pair.publish(publisher, "t/x", "x", 1);
    let counts = wires.map(|wire| pair.drain(wire).len());
    assert_eq!(counts[0] + counts[1], 1);
    assert_eq!(counts[2..], [1, 1, 1]);
}

#[test]
fn mqtt_4_8_2_3_the_granted_qos_is_respected() {
    for is_durable in [false, true] {
        for granted in 0..=2 {
            for published in 0..=2 {
                let client = if is_durable {
                    durable(V, "a")
                } else {
                    clean(V, "a")
                };
                let (mut pair, wires, publisher) = group(&[(client, granted)]);
                pair.publish(publisher, "a", "x", published);
                let heard = pair.take(wires[0], "x");
                assert_eq!(heard.publish().qos, qos(granted.min(published)));
            }
        }
    }
}

#[test]
fn mqtt_4_8_2_4_a_delivery_of_qos_2_is_completed_after_a_reconnect() {
    let other = pair_of_durables();
    let (mut pair, wires, publisher) = group(&other);
    pair.publish(publisher, "a", "x", 2);
    let (taker, name) = if let Some(heard) = pair.poll(wires[0]) {
        assert_eq!(heard.payload(), "x");
        (0, "one")
    } else {
        pair.expect_publish(wires[1], "x");
        (1, "two")
    };
    pair.cut(wires[taker]);
    pair.wait(100);
    pair.expect_silence(wires[1 - taker]);
    let wire = pair.connect_present(durable(V, name), true);
    let heard = pair.take(wire, "x");
    assert!(heard.publish().dup);
    pair.expect_silence(wires[1 - taker]);
}

fn pair_of_durables() -> [(Connect, u8); 2] {
    [(durable(V, "one"), 2), (durable(V, "two"), 2)]
}

#[test]
fn mqtt_4_8_2_5_a_delivery_of_qos_2_that_cannot_be_completed_goes_to_nobody_else() {
    for members in [
        pair_of_durables(),
        [(clean(V, "one"), 2), (clean(V, "two"), 2)],
    ] {
        let (mut pair, wires, publisher) = group(&members);
        pair.publish(publisher, "a", "x", 2);
        let taker = usize::from(pair.poll(wires[0]).is_none());
        pair.node.cut(wires[taker]);
        pair.node.settle();
        // The session ends.
        pair.wait(4000);
        pair.expect_silence(wires[1 - taker]);
        pair.connect_present(members[taker].0.clone().clean(true), false);
        pair.expect_silence(wires[1 - taker]);
    }
}

#[test]
fn what_a_member_has_not_acknowledged_goes_to_another() {
    // QoS 1, of sessions that end with their connection.
    let members = [(clean(V, "one"), 1), (clean(V, "two"), 1)];
    let (mut pair, wires, publisher) = group(&members);
    for n in 0..6 {
        pair.publish(publisher, "a", &n.to_string(), 1);
    }
    let left = pair.drain(wires[1]);
    assert_eq!(left.len(), 3);
    pair.send(wires[1], puback(left[0].id()));
    pair.cut(wires[1]);
    let payloads: Vec<String> = pair
        .drain(wires[0])
        .iter()
        .map(|heard| heard.payload().to_owned())
        .collect();
    assert_eq!(payloads.len(), 5);
    for unacknowledged in &left[1..] {
        assert!(payloads.contains(&unacknowledged.payload().to_owned()));
    }
}

#[test]
fn mqtt_4_8_2_6_a_refused_message_goes_to_nobody_else() {
    for members in [
        pair_of_durables(),
        [(clean(V, "one"), 2), (clean(V, "two"), 2)],
    ] {
        for level in [1, 2] {
            let (mut pair, wires, publisher) = group(&members);
            pair.publish(publisher, "a", "x", level);
            let (taker, heard) = match pair.poll(wires[0]) {
                Some(heard) => (0, heard),
                None => (1, pair.next(wires[1])),
            };
            let refusal = if level == 1 {
                puback(heard.id())
            } else {
                pubrec(heard.id())
            };
            pair.send(wires[taker], refusal.reason(Reason::UnspecifiedError));
            pair.expect_silence(wires[taker]);
            pair.wait(1);
            pair.cut(wires[taker]);
            pair.expect_silence(wires[1 - taker]);
            let wire = pair.connect(members[taker].0.clone());
            pair.expect_silence(wire);
            pair.expect_silence(wires[1 - taker]);
        }
    }
}

#[test]
fn members_that_are_away_get_nothing_while_others_are_there() {
    let (mut pair, wires, publisher) = group(&pair_of_durables());
    pair.cut(wires[0]);
    for n in 0..4 {
        pair.publish(publisher, "a", &n.to_string(), 1);
        pair.take(wires[1], &n.to_string());
    }
    pair.cut(wires[1]);
    // Nobody is there: it waits for one of them.
    pair.publish(publisher, "a", "waiting", 1);
    let wires = ["one", "two"].map(|name| pair.connect_present(durable(V, name), true));
    let heard: Vec<Heard> = wires.iter().flat_map(|&wire| pair.drain(wire)).collect();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].payload(), "waiting");
}

#[test]
fn who_unsubscribes_is_no_member_any_more() {
    let members = [(clean(V, "one"), 1), (durable(V, "two"), 1)];
    let (mut pair, wires, publisher) = group(&members);
    for leaver in [1, 0] {
        pair.unsubscribe(wires[leaver], "$share/g/a");
        for n in 0..4 {
            pair.publish(publisher, "a", &n.to_string(), 1);
            if leaver == 1 {
                pair.take(wires[0], &n.to_string());
            }
        }
        pair.expect_silence(wires[1]);
    }
    pair.expect_silence(wires[0]);
}

#[test]
fn a_group_survives_a_crash() {
    let (mut pair, _, _) = group(&pair_of_durables());
    pair.crash();
    let publisher = pair.connect(clean(V, "pub"));
    pair.publish(publisher, "a", "x", 1);
    let wires = ["one", "two"].map(|name| pair.connect_present(durable(V, name), true));
    let heard: Vec<Heard> = wires.iter().flat_map(|&wire| pair.drain(wire)).collect();
    assert_eq!(heard.len(), 1);
}

#[test]
fn a_subscription_id_of_a_member_is_sent() {
    for client in [clean(V, "c"), durable(V, "d")] {
        let mut pair = Pair::new();
        let wire = pair.connect(client);
        let packet = subscribe(1)
            .filter("$share/g/a", 2)
            .with(Property::SubscriptionId(7));
        pair.subscribe_with(wire, packet);
        let publisher = pair.connect(clean(V, "pub"));
        for level in 0..=2 {
            pair.publish(publisher, "a", "x", level);
            let heard = pair.take(wire, "x");
            let ids: Vec<u32> = heard.publish().properties.subscription_ids().collect();
            assert_eq!(ids, [7]);
        }
    }
}

#[test]
fn what_a_member_was_not_sent_yet_goes_to_another() {
    for level in [1, 2] {
        let narrow = |name| clean(V, name).with(Property::ReceiveMaximum(1));
        let (mut pair, wires, publisher) = group(&[(narrow("one"), 2), (narrow("two"), 2)]);
        for n in 0..8 {
            pair.publish(publisher, "a", &n.to_string(), level);
        }
        let held = pair.next(wires[1]);
        pair.cut(wires[1]);
        let mut heard = Vec::new();
        while let Some(next) = pair.poll(wires[0]) {
            heard.push(next.payload().to_owned());
            pair.acknowledge(wires[0], &next);
        }
        heard.sort();
        let mut expected: Vec<String> = (0..8).map(|n| n.to_string()).collect();
        if level == 2 {
            expected.retain(|payload| payload != held.payload());
        }
        assert_eq!(heard, expected);
    }
}
