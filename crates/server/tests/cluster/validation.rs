//! `pushes:validate`: any node knows of the devices that are connected to the others.

use campanile_mqtt::Version;
use campanile_testbed::conversation::{Conversation, kept};
use serde_json::Value;

use crate::setup::{Cluster, eventually};

fn ask(cluster: &mut Cluster, node: usize, request: &str, body: &str) -> Value {
    let answer = cluster.node(node).ask(&[request], body).unwrap();
    assert!((200..300).contains(&answer.status), "{answer:?}");
    answer.json()
}

/// Targeted, connected, away.
fn counts(cluster: &mut Cluster, node: usize, audience: &str) -> [u64; 3] {
    let body = format!(r#"{{"audience": {audience}, "data": {{"n": 1}}}}"#);
    let valid = ask(
        cluster,
        node,
        "POST /v1/apps/default/pushes:validate",
        &body,
    );
    ["targeted", "connected", "away"].map(|name| valid["audience"][name].as_u64().unwrap())
}

#[test]
fn devices_connected_to_any_node_are_counted() {
    const VIP: &str = r#"{"tags": {"any": ["vip"]}}"#;
    const ALL: &str = r#"{"all": true}"#;
    let mut cluster = Cluster::start(2);
    for number in 0..6 {
        let tags = ["[]", r#"["vip"]"#][number % 2];
        ask(
            &mut cluster,
            number % 2,
            &format!("PUT /v1/apps/default/devices/device-{number}"),
            &format!(r#"{{"tags": {tags}}}"#),
        );
    }
    let mut devices: Vec<Conversation> = (0..4)
        .map(|number| {
            let mut device = Conversation::new(kept(&format!("device-{number}"), Version::V5));
            let address = cluster.addresses()[number / 2].mqtt;
            device.connect(address, false).unwrap();
            device
        })
        .collect();
    for node in 0..2 {
        eventually("both nodes to count the devices of both", || {
            let found = counts(&mut cluster, node, VIP);
            (found == [3, 2, 1]).then_some(())
        });
        assert_eq!(counts(&mut cluster, node, ALL), [4, 4, 0]);
        let negative = r#"{"expr": "!vip"}"#;
        assert_eq!(counts(&mut cluster, node, negative), [3, 2, 1]);
    }
    devices[1].disconnect();
    eventually("one to be away", || {
        (counts(&mut cluster, 1, VIP) == [3, 1, 2]).then_some(())
    });
    assert_eq!(counts(&mut cluster, 1, ALL), [4, 3, 1]);
    cluster.node(1).kill();
    eventually("the node's devices to be away", || {
        (counts(&mut cluster, 0, VIP) == [3, 0, 3]).then_some(())
    });
}
