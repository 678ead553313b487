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
fn a_will_reaches_durable_subscribers_that_came_after_its_client() {
    let mut pair = Pair::new();
    let ill = pair.connect(connect("ill").will(will("w", "gone").qos(1)));
    pair.advance(10);
    let sub = pair.connect(connect("sub").durable());
    pair.subscribe(sub, "w", 1);
    pair.cut(ill);
    pair.take(sub, "gone");
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
