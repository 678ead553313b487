//! Nodes that die, stand still, stop and come back.

use std::time::Duration;

use campanile_mqtt::{
    QoS, Version,
    client::{Options, WillMessage},
};
use campanile_testbed::{
    conversation::{Conversation, kept},
    nodes::Nodes,
};

use crate::setup::{Cluster, PATIENCE, SOME, eventually, fleet, survive};

#[test]
fn nothing_is_lost_or_repeated_while_nothing_fails() {
    let cluster = Cluster::start(3);
    let fleet = fleet(&cluster);
    fleet.wait_accepted(3 * SOME, PATIENCE).unwrap();
    let figures = fleet.settle(PATIENCE).unwrap();
    println!("{figures:?}");
    assert_eq!(figures.refused, 0);
}

#[test]
fn nothing_is_lost_when_a_node_is_killed() {
    let mut cluster = Cluster::start(3);
    survive(&mut cluster, |cluster, fleet| {
        for node in [1, 0] {
            cluster.node(node).kill();
            fleet.wait_accepted(SOME, PATIENCE).unwrap();
            cluster.node(node).start().unwrap();
        }
    });
}

#[test]
fn nothing_is_lost_when_all_nodes_are_killed_at_once() {
    let mut cluster = Cluster::start(3);
    survive(&mut cluster, |cluster, _| {
        (0..3).for_each(|node| cluster.node(node).kill());
        for node in 0..3 {
            cluster.node(node).launch().unwrap();
        }
        for node in 0..3 {
            cluster.node(node).wait_ready().unwrap();
        }
    });
}

#[test]
fn nodes_restart_one_after_the_other_in_order() {
    let mut cluster = Cluster::start(3);
    survive(&mut cluster, |cluster, fleet| {
        for node in 0..3 {
            cluster.node(node).terminate().unwrap();
            cluster.node(node).start().unwrap();
            fleet.wait_accepted(SOME / 4, PATIENCE).unwrap();
        }
        cluster.wait_together().unwrap();
    });
}

#[test]
fn a_node_that_stood_still_harms_nobody_when_it_goes_on() {
    let mut cluster = Cluster::start(3);
    survive(&mut cluster, |cluster, fleet| {
        cluster.node(0).freeze().unwrap();
        eventually("the others to miss it", || {
            (members(cluster, 1) < 3 && members(cluster, 2) < 3).then_some(())
        });
        fleet.wait_accepted(SOME, PATIENCE).unwrap();
        cluster.node(0).thaw().unwrap();
        cluster.wait_together().unwrap();
    });
}

#[test]
fn will_of_a_killed_nodes_client_is_published_once() {
    let mut cluster = Cluster::start(3);
    let places = cluster.addresses();
    let mut watcher = Conversation::new(kept("watcher", Version::V5));
    watcher.connect(places[1].mqtt, false).unwrap();
    watcher.subscribe("will/#", QoS::ExactlyOnce).unwrap();
    let mut mortals: Vec<_> = (0..5)
        .map(|number| {
            let will = WillMessage {
                topic: format!("will/{number}"),
                payload: b"gone".to_vec(),
                qos: QoS::AtLeastOnce,
                ..WillMessage::default()
            };
            let mut mortal = Conversation::new(Options {
                will: Some(will),
                session_expiry: 0,
                ..kept(&format!("mortal-{number}"), Version::V5)
            });
            mortal.connect(places[0].mqtt, true).unwrap();
            mortal
        })
        .collect();
    cluster.node(0).kill();
    mortals.iter_mut().for_each(Conversation::close);
    let mut topics: Vec<_> = (0..5)
        .map(|_| watcher.message(PATIENCE).expect("a will").topic)
        .collect();
    topics.sort();
    assert_eq!(topics, ["will/0", "will/1", "will/2", "will/3", "will/4"]);
    // The node comes back, and does not publish them once more.
    cluster.node(0).start().unwrap();
    cluster.wait_together().unwrap();
    assert_eq!(watcher.message(Duration::from_millis(500)), None);
}

/// How many members a node sees.
fn members(cluster: &mut Nodes, node: usize) -> usize {
    let status = cluster.node(node).operate(&["status", "--json"]).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["nodes"].as_array().unwrap().len()
}
