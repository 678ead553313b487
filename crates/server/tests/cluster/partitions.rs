//! Nodes that are cut off from Redis, from ZooKeeper, from each other.

use std::time::Duration;

use campanile_mqtt::{QoS, Version, client::Publication};
use campanile_testbed::{
    conversation::{Conversation, kept},
    nodes::Nodes,
    proxy::{Flow, Wire},
};

use crate::setup::{Cluster, PATIENCE, SOME, endure, eventually, fleet, survive};

#[test]
fn a_node_without_redis_refuses_and_the_others_go_on() {
    let mut cluster = Cluster::start(3);
    let fleet = fleet(&cluster);
    for lose in [Wire::cut, Wire::hold] {
        endure(&mut cluster, &fleet, |cluster, fleet| {
            lose(cluster.store_wire(1));
            eventually("a node that is not ready", || {
                let answer = cluster.node(1).get("/readyz").ok()?;
                (answer.status == 503).then_some(())
            });
            fleet.wait_accepted(SOME, PATIENCE).unwrap();
            cluster.mend();
            cluster.node(1).wait_ready().unwrap();
        });
    }
}

#[test]
fn all_nodes_without_redis_heal_by_themselves() {
    let mut cluster = Cluster::start(3);
    survive(&mut cluster, |cluster, _| {
        (0..3).for_each(|node| cluster.store_wire(node).hold());
        for node in 0..3 {
            eventually("a node that is not ready", || {
                let answer = cluster.node(node).get("/readyz").ok()?;
                (answer.status == 503).then_some(())
            });
        }
        cluster.mend();
        for node in 0..3 {
            cluster.node(node).wait_ready().unwrap();
        }
    });
}

#[test]
fn a_node_without_zookeeper_goes_on() {
    let mut cluster = Cluster::start(3);
    let fleet = fleet(&cluster);
    for lose in [Wire::cut, Wire::hold] {
        endure(&mut cluster, &fleet, |cluster, fleet| {
            lose(cluster.ensemble_wire(2));
            eventually("a node that knows that it is cut off", || {
                (reaches_zookeeper(cluster, 2) == Some(false)).then_some(())
            });
            fleet.wait_accepted(SOME, PATIENCE).unwrap();
            let answer = cluster.node(2).get("/readyz").unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            cluster.mend();
            cluster.wait_together().unwrap();
        });
    }
}

#[test]
fn nodes_without_links_serve_through_the_store() {
    let mut cluster = Cluster::start(3);
    let flows = [
        // Nobody reaches anybody.
        (Flow::Cut, Flow::Cut),
        // What is said is lost, and nobody knows.
        (Flow::Held, Flow::Held),
        // One hears the other, and is not heard.
        (Flow::Open, Flow::Held),
    ];
    let fleet = fleet(&cluster);
    for (there, back) in flows {
        endure(&mut cluster, &fleet, |cluster, fleet| {
            for (one, other) in [(0, 1), (0, 2), (1, 2)] {
                cluster.set_link(one, other, there, back);
            }
            eventually("nodes that miss each other", || {
                (links(cluster, 0) == Some(0)).then_some(())
            });
            fleet.wait_accepted(SOME, PATIENCE).unwrap();
            cluster.mend();
            cluster.wait_together().unwrap();
        });
    }
}

#[test]
fn exchange_that_ends_where_the_log_is_not_known_yet_is_not_begun_again() {
    // The other node polls the log now and then: in most rounds the exchange ends before.
    const ROUNDS: usize = 6;
    const TWO_POLLS: Duration = Duration::from_millis(500);
    let mut cluster = Cluster::start(2);
    let places = cluster.addresses();
    let mut publishers = [0, 1].map(|node| {
        let mut publisher = Conversation::new(kept(&format!("publisher-{node}"), Version::V5));
        publisher.connect(places[node].mqtt, false).unwrap();
        publisher
    });
    let mut device = Conversation::new(kept("device", Version::V5));
    device.connect(places[0].mqtt, false).unwrap();
    device.subscribe("t", QoS::ExactlyOnce).unwrap();
    cluster.set_link(0, 1, Flow::Cut, Flow::Cut);
    eventually("a link that is down", || {
        (links(&mut cluster, 1) == Some(0)).then_some(())
    });
    for round in 0..ROUNDS {
        device.is_mute = true;
        let payload = round.to_string();
        let publication = Publication {
            topic: "t",
            payload: payload.as_bytes(),
            qos: QoS::ExactlyOnce,
            ..Publication::default()
        };
        publishers[round % 2].publish(&publication).unwrap();
        let message = device.message(PATIENCE).unwrap();
        assert_eq!(message.payload, payload.as_bytes());
        let before = device.abandon();
        device.is_mute = false;
        let other = places[(round + 1) % 2].mqtt;
        assert!(device.connect(other, false).unwrap());
        assert_eq!(device.message(TWO_POLLS), None);
        drop(before);
    }
}

fn status(cluster: &mut Nodes, node: usize) -> Option<serde_json::Value> {
    let status = cluster.node(node).operate(&["status", "--json"]).ok()?;
    serde_json::from_str(&status).ok()
}

fn reaches_zookeeper(cluster: &mut Nodes, node: usize) -> Option<bool> {
    status(cluster, node)?["membership_reachable"].as_bool()
}

/// How many links of a node are up.
fn links(cluster: &mut Nodes, node: usize) -> Option<usize> {
    let status = status(cluster, node)?;
    let nodes = status["nodes"].as_array()?;
    Some(nodes.iter().filter(|node| node["linked"] == true).count())
}
