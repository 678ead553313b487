//! What operators do with a cluster.

use std::time::Duration;

use campanile_mqtt::{Reason, Version};
use campanile_testbed::conversation::{Conversation, kept};
use serde_json::Value;

use crate::setup::{Cluster, PATIENCE, eventually, survive};

#[test]
fn every_node_shows_all_and_finds_every_client() {
    let mut cluster = Cluster::start(3);
    let mut device = Conversation::new(kept("device", Version::V5));
    device.connect(cluster.addresses()[1].mqtt, false).unwrap();
    for node in 0..3 {
        let status = cluster.node(node).operate(&["status"]).unwrap();
        for name in ["node-1", "node-2", "node-3"] {
            assert!(status.contains(name), "{status}");
        }
        let located = cluster
            .node(node)
            .operate(&["where", "default", "device", "--json"])
            .unwrap();
        let located: Value = serde_json::from_str(&located).unwrap();
        assert_eq!(located["connection"]["node"], "node-2", "{located}");
    }
    let nobody = cluster.node(0).operate(&["where", "default", "nobody"]);
    assert!(nobody.is_err());
}

#[test]
fn rolling_restart_with_drain_loses_nothing() {
    let mut cluster = Cluster::start(3);
    survive(&mut cluster, |cluster, _| {
        for node in 0..3 {
            let name = cluster.node(node).name().to_owned();
            let other = (node + 1) % 3;
            let order = ["drain", &name, "--rate", "1000"];
            cluster.node(other).operate(&order).unwrap();
            cluster.node(node).wait_end().unwrap();
            cluster.node(other).operate(&["undrain", &name]).unwrap();
            cluster.node(node).start().unwrap();
            cluster.wait_together().unwrap();
        }
    });
}

#[test]
fn drained_devices_are_told_where_to_go() {
    let mut cluster = Cluster::start(2);
    let places = cluster.addresses();
    let mut device = Conversation::new(kept("device", Version::V5));
    device.connect(places[0].mqtt, false).unwrap();
    cluster.node(1).operate(&["drain", "node-1"]).unwrap();
    let told = device.closed(PATIENCE).unwrap();
    assert!(
        matches!(told, Some(Reason::UseAnotherServer | Reason::ServerMoved)),
        "{told:?}"
    );
    assert!(device.connect(places[1].mqtt, false).unwrap());
}

#[test]
fn an_older_device_is_told_of_its_move_in_a_message() {
    let mut cluster = Cluster::start(2);
    let places = cluster.addresses();
    let line = "PUT /v1/apps/default/devices/device";
    let registered = cluster.node(0).ask(&[line], "{}").unwrap();
    assert_eq!(registered.status, 201, "{registered:?}");
    let mut device = Conversation::new(kept("device", Version::V311));
    device.connect(places[0].mqtt, false).unwrap();
    cluster.node(1).operate(&["drain", "node-1"]).unwrap();
    device.closed(PATIENCE).unwrap();
    // MQTT 3.1.1 has no DISCONNECT of the server that could say so.
    let told = device.message(Duration::ZERO).expect("a word of the move");
    assert_eq!(told.topic, "push/ctl");
    let told: Value = serde_json::from_slice(&told.payload).unwrap();
    assert_eq!(told["type"], "move", "{told}");
    assert!(device.connect(places[1].mqtt, false).unwrap());
}

#[test]
fn rebalance_moves_the_surplus() {
    const DEVICES: usize = 30;
    let mut cluster = Cluster::with(2, |options| {
        options.cluster_settings = "rebalance = \"manual\"".to_owned();
    });
    let places = cluster.addresses();
    let mut devices: Vec<_> = (0..DEVICES)
        .map(|number| {
            let mut device = Conversation::new(kept(&format!("device-{number}"), Version::V5));
            device.connect(places[0].mqtt, false).unwrap();
            device
        })
        .collect();
    // Nodes tell each other how full they are from time to time.
    eventually("the load to be known", || {
        (connections(&mut cluster) == [DEVICES as u64, 0]).then_some(())
    });
    cluster.node(1).operate(&["rebalance"]).unwrap();
    eventually("a fair share", || {
        for device in &mut devices {
            if !device.turn(Duration::from_millis(1)) {
                let _ = device.connect(places[1].mqtt, false);
            }
        }
        let [first, second] = connections(&mut cluster)[..] else {
            return None;
        };
        (first + second == DEVICES as u64 && second >= DEVICES as u64 * 2 / 5).then_some(())
    });
}

/// Connections by node, as the second node knows them.
fn connections(cluster: &mut Cluster) -> Vec<u64> {
    let status = cluster.node(1).operate(&["status", "--json"]).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    let connections = nodes.iter().map(|node| node["connections"].as_u64());
    connections.map(Option::unwrap_or_default).collect()
}
