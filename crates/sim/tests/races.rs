//! What must hold when two things happen at once, or the disk fails in between.

use campanile_broker::{
    ids::{AppId, ShardId},
    shard::Shard,
};
use campanile_mqtt::{Packet, Reason};
use campanile_sim::{
    node::{NodeConfig, Queue},
    packets::*,
    pair::Pair,
};

/// A node on which everything happens in one shard.
fn one_shard() -> Pair {
    Pair::with(NodeConfig {
        shards: 1,
        ..NodeConfig::default()
    })
}

/// The first of some client identifiers that belongs to a shard of two.
fn client_of(shard: u8, name: &str) -> String {
    let app = AppId::new("default");
    let mut names = (0..).map(|number| format!("{name}{number}"));
    names
        .find(|name| Shard::of_client(&app, name, 2) == ShardId(shard))
        .unwrap()
}

/// Moves everything but some queues, until nothing else is left to move.
fn settle_without(pair: &mut Pair, held: impl Fn(Queue) -> bool) {
    while let Some(queue) = pair.node.ready().into_iter().find(|queue| !held(*queue)) {
        pair.node.step(queue);
    }
}

fn payloads(heard: &[Heard]) -> Vec<String> {
    let publishes = heard
        .iter()
        .filter(|heard| matches!(heard.packet(), Packet::Publish(_)));
    publishes.map(|heard| heard.payload().to_owned()).collect()
}

#[test]
fn a_session_resumed_for_one_connection_only_gets_nothing_twice() {
    let mut pair = one_shard();
    let sub = pair.connect(connect("sub").durable());
    pair.subscribe(sub, "a", 2);
    pair.cut(sub);
    let publisher = pair.connect(connect("pub"));
    for number in 0..3 {
        pair.publish(publisher, "a", &format!("missed {number}"), 1);
    }
    // It has room for one at a time, so that it lags while the next message comes.
    let limit = campanile_mqtt::Property::ReceiveMaximum(1);
    let sub = pair.connect_present(connect("sub").clean(false).expiry(0).with(limit), true);
    pair.publish(publisher, "a", "live", 2);
    let mut got = Vec::new();
    for _ in 0..10 {
        let heard = pair.drain(sub);
        got.extend(payloads(&heard));
        for publish in heard
            .iter()
            .filter(|h| matches!(h.packet(), Packet::Publish(_)))
        {
            pair.acknowledge(sub, publish);
        }
    }
    assert_eq!(got, ["missed 0", "missed 1", "missed 2", "live"]);
}

#[test]
fn the_second_subscriber_of_a_filter_waits_for_the_other_shards_too() {
    for expiry in [0, 100] {
        check_second_subscriber(expiry);
    }
}

fn check_second_subscriber(expiry: u32) {
    let mut pair = Pair::new();
    let (a, b) = (client_of(0, "a"), client_of(0, "b"));
    let first = pair.connect(connect(&a).clean(false).expiry(expiry));
    let second = pair.connect(connect(&b).clean(false).expiry(expiry));
    let publisher = pair.connect(connect(&client_of(1, "pub")));
    let held = |queue| matches!(queue, Queue::Mail(ShardId(0), ShardId(1)));
    pair.post(first, subscribe(1).filter("t", 1));
    settle_without(&mut pair, held);
    pair.post(second, subscribe(1).filter("t", 1));
    settle_without(&mut pair, held);
    if let Some(heard) = pair.poll(second) {
        assert!(matches!(heard.packet(), Packet::SubAck(_)));
        pair.post(publisher, publish("t", "x").qos1(1));
        settle_without(&mut pair, held);
        pair.node.settle();
        assert_eq!(payloads(&pair.drain(second)), ["x"]);
    }
    pair.node.settle();
}

#[test]
fn a_will_whose_delay_runs_survives_a_failed_return() {
    let mut pair = one_shard();
    let sub = pair.connect(connect("sub"));
    pair.subscribe(sub, "w", 1);
    let ill = pair.connect(
        connect("ill")
            .durable()
            .will(will("w", "gone").qos(1).delay(5)),
    );
    pair.cut(ill);
    pair.node.store().fail_commits(Some("disk full"));
    let back = pair.try_connect(connect("ill").durable());
    pair.expect_refused(back, Reason::ServerUnavailable);
    pair.node.store().fail_commits(None);
    pair.wait(6);
    pair.take(sub, "gone");
}

#[test]
fn what_was_acknowledged_while_the_disk_failed_does_not_come_again() {
    let mut pair = one_shard();
    let sub = pair.connect(connect("sub").durable());
    let publisher = pair.connect(connect("pub"));
    pair.publish_with(publisher, publish("r", "kept").retain(), 2);
    pair.subscribe(sub, "r", 2);
    let heard = pair.expect_publish(sub, "kept");
    pair.send(sub, pubrec(heard.id()));
    pair.expect_pubrel(sub, heard.id());
    pair.send(sub, pubcomp(heard.id()));
    pair.node.store().fail_commits(Some("disk full"));
    pair.advance(500);
    pair.node.store().fail_commits(None);
    pair.wait(3);
    pair.cut(sub);
    let sub = pair.connect_present(connect("sub").durable(), true);
    pair.expect_silence(sub);
}

#[test]
fn a_filter_added_while_the_log_is_read_misses_nothing() {
    let mut config = NodeConfig {
        shards: 1,
        ..NodeConfig::default()
    };
    config.broker.tail_entries = 1;
    let mut pair = Pair::with(config);
    let sub = pair.connect(connect("sub").durable());
    pair.subscribe(sub, "a", 1);
    let other = pair.connect(connect("other").durable());
    pair.subscribe(other, "b", 1);
    pair.cut(sub);
    let publisher = pair.connect(connect("pub"));
    for number in 0..3 {
        pair.publish(publisher, "a", &format!("{number}"), 1);
    }
    let held = |queue| matches!(queue, Queue::Read(_));
    let sub = pair.open(campanile_mqtt::Version::V5);
    pair.post(sub, connect("sub").durable());
    settle_without(&mut pair, held);
    pair.post(sub, subscribe(1).filter("b", 1));
    settle_without(&mut pair, held);
    pair.post(publisher, publish("b", "new").qos1(50));
    settle_without(&mut pair, held);
    pair.node.settle();
    assert_eq!(payloads(&pair.drain(sub)), ["0", "1", "2", "new"]);
}

#[test]
fn a_connection_replaced_before_its_session_was_taken_ends_it_once() {
    let mut pair = one_shard();
    for name in ["leaves", "stays"] {
        let wire = pair.connect(connect(name).durable());
        pair.subscribe(wire, "a", 1);
        pair.cut(wire);
    }
    let first = pair.open(campanile_mqtt::Version::V5);
    pair.post(first, connect("leaves").clean(false).expiry(0));
    settle_without(&mut pair, |queue| matches!(queue, Queue::Commit));
    let second = pair.open(campanile_mqtt::Version::V5);
    pair.post(second, connect("leaves").clean(false).expiry(0));
    settle_without(&mut pair, |queue| matches!(queue, Queue::Commit));
    pair.node.settle();
    let publisher = pair.connect(connect("pub"));
    pair.publish(publisher, "a", "kept", 1);
    let stays = pair.connect_present(connect("stays").durable(), true);
    pair.take(stays, "kept");
}

#[test]
fn releases_of_one_identifier_do_not_pile_up_before_the_store() {
    let mut pair = one_shard();
    let client = pair.connect(connect("client").durable());
    pair.send(client, publish("a", "x").qos2(1));
    pair.expect_pubrec(client, 1);
    for _ in 0..1000 {
        pair.post(client, pubrel(1));
    }
    settle_without(&mut pair, |queue| matches!(queue, Queue::Commit));
    let waiting = pair.node.shards()[0].pending_requests();
    assert!(waiting <= 2, "{waiting}");
    pair.node.settle();
    assert!(!pair.drain(client).is_empty());
}

#[test]
fn a_client_that_withholds_one_acknowledgement_costs_a_bounded_memory() {
    let mut pair = one_shard();
    let sub = pair.connect(connect("sub").durable());
    pair.subscribe(sub, "a", 1);
    let publisher = pair.connect(connect("pub"));
    pair.publish(publisher, "a", "first", 1);
    let first = pair.expect_publish(sub, "first");
    let mut got = 0;
    for _ in 0..6000 {
        pair.publish(publisher, "a", "x", 1);
        for heard in pair.drain(sub) {
            got += 1;
            pair.acknowledge(sub, &heard);
        }
    }
    assert!(got < 5000, "{got}");
    pair.acknowledge(sub, &first);
    loop {
        let heard = pair.drain(sub);
        if heard.is_empty() {
            break;
        }
        got += heard.len();
        heard.iter().for_each(|heard| pair.acknowledge(sub, heard));
    }
    assert_eq!(got, 6000);
}

#[test]
fn one_subscribe_brings_a_bounded_number_of_retained_messages() {
    let mut pair = one_shard();
    let publisher = pair.connect(connect("pub"));
    for number in 0..300 {
        pair.publish_with(publisher, publish(&format!("t/{number}"), "x").retain(), 0);
    }
    let sub = pair.connect(connect("sub"));
    let many = (0..1000).fold(subscribe(1), |packet, _| packet.filter("#", 0));
    pair.send(sub, many);
    let suback = pair.next(sub);
    let codes = suback.suback().codes.to_vec();
    assert_eq!(codes[0], 0);
    assert_eq!(codes[999], Reason::QuotaExceeded.code());
    let granted = codes.iter().filter(|code| **code == 0).count();
    assert_eq!(pair.drain(sub).len(), granted * 300);
    assert!(granted * 300 < 101_000, "{granted}");
}

#[test]
fn a_session_that_ends_while_it_unsubscribes_ends_once() {
    let mut pair = one_shard();
    let leaves = pair.connect(connect("leaves").durable());
    let stays = pair.connect(connect("stays").durable());
    for wire in [leaves, stays] {
        pair.subscribe(wire, "a", 1);
    }
    pair.cut(stays);
    pair.post(leaves, unsubscribe(9).filter("a"));
    pair.post(
        leaves,
        disconnect().with(campanile_mqtt::Property::SessionExpiry(0)),
    );
    pair.node.settle();
    assert!(pair.node.is_closed(leaves));
    let publisher = pair.connect(connect("pub"));
    pair.publish(publisher, "a", "kept", 1);
    let stays = pair.connect_present(connect("stays").durable(), true);
    pair.take(stays, "kept");
}
