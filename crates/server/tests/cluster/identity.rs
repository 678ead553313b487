//! Devices with credentials, on any node: where they are connected, and their end.

use campanile_mqtt::{Reason, Version};
use campanile_testbed::{
    conversation::{Conversation, kept},
    node::Node,
};
use serde_json::{Value, json};

use crate::setup::{Cluster, PATIENCE, eventually};

fn ask(node: &Node, method: &str, path: &str) -> Value {
    let line = format!("{method} /v1/apps/default/{path}");
    let answer = node.ask(&[&line], "").unwrap();
    assert!((200..300).contains(&answer.status), "{answer:?}");
    answer.json()
}

#[test]
fn any_node_finds_a_device_and_ends_its_connection() {
    let mut cluster = Cluster::start(3);
    for home in 0..3 {
        let name = format!("phone-{home}");
        let made = ask(cluster.node(0), "POST", &format!("devices/{name}:token"));
        let token = made["token"].as_str().unwrap().to_owned();
        let mut settings = kept(&name, Version::V5);
        settings.username = Some(name.clone());
        settings.password = Some(token.into_bytes());
        let mut device = Conversation::new(settings);
        device
            .connect(cluster.addresses()[home].mqtt, false)
            .unwrap();
        let node_name = cluster.node(home).name().to_owned();
        for other in 0..3 {
            // Registered by connecting, through its own node.
            let shown = eventually("the device is registered", || {
                let line = format!("GET /v1/apps/default/devices/{name}");
                let answer = cluster.node(other).ask(&[&line], "").unwrap();
                (answer.status == 200).then(|| answer.json())
            });
            let connection = &shown["connection"];
            assert_eq!(connection["node"], node_name.as_str(), "{shown}");
            assert_eq!(connection["lag"], json!({"push_log": 0, "inbox": false}));
            assert!(connection["address"].is_string() && connection["since"].is_string());
        }
        let kicked = ask(
            cluster.node((home + 1) % 3),
            "POST",
            &format!("devices/{name}:kick"),
        );
        assert_eq!(
            (&kicked["kicked"], &kicked["node"]),
            (&json!(true), &json!(node_name))
        );
        let end = device.closed(PATIENCE).unwrap();
        assert_eq!(end, Some(Reason::AdministrativeAction));
    }
}

#[test]
fn any_node_tells_what_waits_for_a_device_that_is_away() {
    let mut cluster = Cluster::start(2);
    let line = "PUT /v1/apps/default/devices/phone";
    let registered = cluster.node(0).ask(&[line], "{}").unwrap();
    assert_eq!(registered.status, 201, "{registered:?}");
    let places = cluster.addresses();
    let mut device = Conversation::new(kept("phone", Version::V5));
    device.connect(places[1].mqtt, false).unwrap();
    device.disconnect();
    let away = |cluster: &mut Cluster, asked: usize| {
        let shown = ask(cluster.node(asked), "GET", "devices/phone");
        shown.get("away").cloned()
    };
    for asked in 0..2 {
        eventually("it is away", || away(&mut cluster, asked));
    }
    for audience in [json!({"all": true}), json!({"devices": ["phone"]})] {
        let push = json!({"audience": audience, "data": {}}).to_string();
        let line = "POST /v1/apps/default/pushes";
        assert_eq!(cluster.node(0).ask(&[line], &push).unwrap().status, 202);
    }
    let lag = json!({"push_log": 1, "inbox": true, "inbox_entries": 1});
    for asked in 0..2 {
        let away = away(&mut cluster, asked).unwrap();
        assert_eq!(away["lag"], lag, "{away}");
        assert!(away["since"].as_str() < away["expires_at"].as_str());
    }
    // It may be there again, and nobody could tell.
    cluster.node(1).freeze().unwrap();
    let shown = ask(cluster.node(0), "GET", "devices/phone");
    assert_eq!(shown["silent_nodes"], json!(["node-2"]), "{shown}");
    assert_eq!(shown.get("away"), None, "{shown}");
    cluster.node(1).thaw().unwrap();
}
