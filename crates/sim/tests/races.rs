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
