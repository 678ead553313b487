//! Campaigns over several nodes: what one node is asked, all keep.

use std::time::Duration;

use campanile_mqtt::{Version, client::Message};
use campanile_testbed::conversation::{Conversation, kept};
use serde_json::Value;

use crate::setup::{Cluster, PATIENCE, eventually};

/// Long enough for what must not come.
const QUIET: Duration = Duration::from_millis(500);

fn connected(cluster: &Cluster, node: usize, client_id: &str) -> Conversation {
    let mut device = Conversation::new(kept(client_id, Version::V5));
    connect(cluster, node, &mut device);
    device
}

fn connect(cluster: &Cluster, node: usize, device: &mut Conversation) {
    let address = cluster.addresses()[node].mqtt;
    device.connect(address, false).unwrap();
}

fn ask(cluster: &mut Cluster, node: usize, request: &str, body: &str) -> Value {
    let answer = cluster.node(node).ask(&[request], body).unwrap();
    assert!((200..300).contains(&answer.status), "{answer:?}");
    answer.json()
}

fn push(cluster: &mut Cluster, node: usize, n: u32, options: &str) -> String {
    let body =
        format!(r#"{{"audience": {{"all": true}}, "data": {{"n": {n}}}, "options": {options}}}"#);
    let accepted = ask(cluster, node, "POST /v1/apps/default/pushes", &body);
    accepted["push_id"].as_str().unwrap().to_owned()
}

fn act(cluster: &mut Cluster, node: usize, push: &str, verb: &str) -> Value {
    ask(
        cluster,
        node,
        &format!("POST /v1/apps/default/pushes/{push}:{verb}"),
        "",
    )
}

fn number(message: &Message) -> Value {
    let document: Value = serde_json::from_slice(&message.payload).unwrap();
    document["data"]["n"].clone()
}

#[track_caller]
fn expect(device: &mut Conversation, n: u32) {
    let message = device.message(PATIENCE).expect("a message");
    assert_eq!(number(&message), n);
    // Lets the acknowledgement out.
    device.turn(Duration::from_millis(10));
}

#[track_caller]
fn expect_nothing(device: &mut Conversation) {
    let message = device.message(QUIET);
    assert_eq!(message.map(|message| number(&message)), None);
}

#[test]
fn a_pause_through_one_node_stops_delivery_at_the_others() {
    let mut cluster = Cluster::start(3);
    let mut probes: Vec<_> = (0..3)
        .map(|node| connected(&cluster, node, &format!("probe-{node}")))
        .collect();
    let mut devices: Vec<_> = (0..3)
        .map(|node| connected(&cluster, node, &format!("device-{node}")))
        .collect();
    for device in &mut devices {
        device.close();
    }
    let paused = push(&mut cluster, 2, 1, r#"{"priority": "low"}"#);
    for probe in &mut probes {
        expect(probe, 1);
    }
    assert_eq!(act(&mut cluster, 0, &paused, "pause")["status"], "paused");
    // Rows are heard of in their order: whoever has this one knows of the pause.
    let behind = push(&mut cluster, 0, 2, r#"{"priority": "low"}"#);
    for probe in &mut probes {
        expect(probe, 2);
    }
    // At another node than before.
    for (node, device) in devices.iter_mut().enumerate() {
        connect(&cluster, (node + 1) % 3, device);
        expect(device, 2);
        expect_nothing(device);
    }
    assert_eq!(act(&mut cluster, 1, &paused, "resume")["status"], "active");
    for device in &mut devices {
        expect(device, 1);
        expect_nothing(device);
    }
    for id in [&paused, &behind] {
        let report = format!("GET /v1/apps/default/pushes/{id}");
        eventually("receipts of all devices", || {
            let report = ask(&mut cluster, 0, &report, "");
            (report["targeted"] == 6 && report["delivered"] == 6).then_some(())
        });
    }
}

#[test]
fn what_a_device_is_done_with_goes_with_it_from_node_to_node() {
    let mut cluster = Cluster::start(2);
    let mut device = connected(&cluster, 0, "device");
    let options = r#"{"frequency_cap": {"key": "offers", "count": 1, "per": 3600}}"#;
    push(&mut cluster, 0, 1, options);
    expect(&mut device, 1);
    for round in 0..4 {
        // With a goodbye, and taken over while it is connected.
        if round % 2 == 0 {
            device.disconnect();
        }
        connect(&cluster, (round + 1) % 2, &mut device);
        expect_nothing(&mut device);
    }
    let capped = push(&mut cluster, 1, 2, options);
    expect_nothing(&mut device);
    let report = format!("GET /v1/apps/default/pushes/{capped}");
    eventually("that it is dropped", || {
        let report = ask(&mut cluster, 0, &report, "");
        (report["dropped_by"]["frequency_cap"] == 1).then_some(())
    });
    // A node that starts knows of all campaigns before it serves.
    let later = push(&mut cluster, 1, 3, r#"{"priority": "low"}"#);
    expect(&mut device, 3);
    act(&mut cluster, 1, &later, "pause");
    let mut away = connected(&cluster, 1, "away");
    away.close();
    let waiting = push(&mut cluster, 1, 4, r#"{"priority": "low"}"#);
    expect(&mut device, 4);
    let report = format!("GET /v1/apps/default/pushes/{waiting}");
    eventually(
        "the receipt of the device, which a crash could lose",
        || (ask(&mut cluster, 1, &report, "")["delivered"] == 1).then_some(()),
    );
    device.close();
    cluster.node(0).kill();
    cluster.node(0).start().unwrap();
    eventually("the node that was started again", || {
        away.connect(cluster.addresses()[0].mqtt, false).ok()
    });
    expect(&mut away, 4);
    eventually("the receipts", || {
        (ask(&mut cluster, 1, &report, "")["delivered"] == 2).then_some(())
    });
}
