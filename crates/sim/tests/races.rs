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
