//! An app is deleted whole, by whichever node leads.

use campanile_mqtt::{Reason, Version};
use campanile_testbed::{
    conversation::{Conversation, kept},
    http::{self, Response},
    node::Node,
};
use serde_json::{Value, json};

use crate::{
    schedules::leader,
    setup::{Cluster, PATIENCE, eventually},
};

/// More than one step of an erasure.
const DEVICES: usize = 700;
const APP: &str = "/v1/apps/default";
const ADMIN: &str = "/v1/admin/apps";

fn ask(node: &Node, key: &str, method: &str, path: &str, body: &Value) -> Response {
    let head = [
        &*format!("{method} {path}"),
        &*format!("Authorization: Bearer {key}"),
        "Content-Type: application/json",
    ];
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    http::request(node.addresses().http, &head, &body, PATIENCE).unwrap()
}

/// `campanile app` with a node.
fn operate(node: &Node, arguments: &[&str]) -> String {
    let mut command = node.campanile(&["app"]);
    command.args(arguments).arg("--data").arg(node.data());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn key_of(text: &str) -> String {
    let made: Value = serde_json::from_str(text).unwrap();
    made["key"].as_str().unwrap().to_owned()
}

fn connect(node: &Node, name: &str) -> (Conversation, bool) {
    let mut device = Conversation::new(kept(name, Version::V5));
    let is_present = device.connect(node.addresses().mqtt, false).unwrap();
    (device, is_present)
}

#[test]
fn a_deleted_app_leaves_nothing_behind_although_the_node_that_deletes_it_is_killed() {
    let mut cluster = Cluster::start(3);
    let node = cluster.node(0);
    operate(node, &["create", "ops"]);
    let operator = key_of(&operate(
        node,
        &["key", "ops", "--may", "operator", "--json"],
    ));
    let key = key_of(&operate(node, &["key", "default", "--json"]));

    let mut connected = Vec::new();
    for home in 0..3 {
        let name = format!("phone-{home}");
        connected.push(connect(cluster.node(home), &name).0);
    }
    let (mut away, _) = connect(cluster.node(1), "away");
    away.subscribe("news/#", campanile_mqtt::QoS::AtLeastOnce)
        .unwrap();
    away.disconnect();
    let node = cluster.node(0);
    for from in (0..DEVICES).step_by(100) {
        let named: Vec<String> = (from..from + 100).map(|n| format!("unseen-{n}")).collect();
        let push = json!({"audience": {"devices": named}, "data": {"n": 1}});
        let path = format!("{APP}/pushes");
        assert_eq!(ask(node, &key, "POST", &path, &push).status, 202);
    }
    for (method, path, body) in [
        (
            "PUT",
            "devices/away",
            json!({"user": "ann", "tags": ["vip"]}),
        ),
        ("POST", "devices/away:token", json!(null)),
        (
            "POST",
            "pushes",
            json!({"audience": {"all": true}, "data": {"n": 1}}),
        ),
        (
            "POST",
            "pushes",
            json!({"audience": {"all": true}, "data": {}, "options": {"priority": "low"}}),
        ),
        (
            "POST",
            "schedules",
            json!({
                "when": {"cron": "* * * * *", "time_zone": "UTC"},
                "push": {"audience": {"devices": ["away"]}, "data": {"n": 1}},
            }),
        ),
    ] {
        let made = ask(node, &key, method, &format!("{APP}/{path}"), &body);
        assert!((200..300).contains(&made.status), "{path}: {made:?}");
    }

    let one = format!("{ADMIN}/default");
    let asked = ask(cluster.node(2), &operator, "DELETE", &one, &json!(null));
    assert_eq!(asked.status, 202, "{asked:?}");
    // Its own messages come first.
    for device in &mut connected {
        let end = eventually("the end", || device.closed(PATIENCE).ok());
        assert_eq!(end, Some(Reason::AdministrativeAction));
    }
    let first = eventually("a leader", || leader(&mut cluster));
    let other = (first + 1) % 3;
    let erased = |node: &Node| {
        let shown = ask(node, &operator, "GET", &one, &json!(null));
        (shown.status == 404)
            .then_some(u64::MAX)
            .or_else(|| shown.json()["deletion"]["erased"].as_u64())
    };
    eventually("it is under way", || {
        erased(cluster.node(other)).filter(|erased| *erased > 0)
    });
    cluster.node(first).kill();
    eventually("it is gone", || {
        let node = cluster.node(other);
        (ask(node, &operator, "GET", &one, &json!(null)).status == 404).then_some(())
    });

    let node = cluster.node(other);
    let made = ask(node, &operator, "POST", ADMIN, &json!({"app": "default"}));
    assert_eq!(made.status, 201, "{made:?}");
    let new_key = key_of(&made.body);
    assert_eq!(
        ask(node, &key, "GET", &format!("{APP}/devices"), &json!(null)).status,
        401
    );
    for (path, member) in [
        ("devices", "devices"),
        ("schedules", "schedules"),
        ("pushes", "pushes"),
    ] {
        let found = ask(
            node,
            &new_key,
            "GET",
            &format!("{APP}/{path}"),
            &json!(null),
        );
        assert_eq!(found.json()[member], json!([]), "{path}");
    }
    for name in ["away", "phone-0", "unseen-7"] {
        let (mut device, is_present) = eventually("devices are welcome", || {
            let mut device = Conversation::new(kept(name, Version::V5));
            let is_present = device
                .connect(cluster.node(other).addresses().mqtt, false)
                .ok()?;
            Some((device, is_present))
        });
        assert!(!is_present, "{name}");
        let push = json!({"audience": {"devices": [name]}, "data": {"n": 2}});
        let node = cluster.node(other);
        assert_eq!(
            ask(node, &new_key, "POST", &format!("{APP}/pushes"), &push).status,
            202
        );
        let message = device.message(PATIENCE).unwrap();
        let document: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(document["data"]["n"], 2, "and nothing before it");
    }
}
