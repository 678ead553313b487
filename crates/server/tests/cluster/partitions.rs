//! Nodes that are cut off from Redis, from ZooKeeper, from each other.

use campanile_testbed::{
    nodes::Nodes,
    proxy::{Flow, Wire},
};

use crate::setup::{Cluster, PATIENCE, SOME, eventually, survive};

#[test]
fn a_node_without_redis_refuses_and_the_others_go_on() {
    let mut cluster = Cluster::start(3);
    for lose in [Wire::cut, Wire::hold] {
        survive(&mut cluster, |cluster, fleet| {
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
    for lose in [Wire::cut, Wire::hold] {
        survive(&mut cluster, |cluster, fleet| {
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
    for (there, back) in flows {
        survive(&mut cluster, |cluster, fleet| {
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
