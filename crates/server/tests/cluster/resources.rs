//! The resources of the API: what is written through one node is there on the others at once, and pushes find its devices wherever they are connected.

use campanile_mqtt::Version;
use campanile_testbed::{
    conversation::{Conversation, kept},
    http::{self, Response},
    node::KEY,
};
use serde_json::{Value, json};

use crate::setup::{Cluster, PATIENCE, eventually};

const NODES: usize = 3;

/// An app server whose every request goes to the next node.
struct Caller {
    cluster: Cluster,
    requests: usize,
}

impl Caller {
    fn request(&mut self, method: &str, path: &str, head: &[&str], body: &str) -> Response {
        let line = format!("{method} /v1/apps/default/{path}");
        self.requests += 1;
        let node = self.cluster.node(self.requests % NODES);
        node.ask(&[&[line.as_str()], head].concat(), body).unwrap()
    }

    fn call(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.request(method, path, &[], &body.to_string());
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path}: {answer:?}"
        );
        match answer.body.is_empty() {
            true => Value::Null,
            false => answer.json(),
        }
    }

    /// Hands in a list of devices; answers with its id.
    fn upload(&mut self, lines: &str) -> String {
        self.requests += 1;
        let address = self.cluster.addresses()[self.requests % NODES].http;
        let head = [
            "POST /v1/apps/default/uploads",
            &format!("Authorization: Bearer {KEY}"),
            "Content-Type: text/plain",
        ];
        let answer = http::request(address, &head, lines, PATIENCE).unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["upload"].as_str().unwrap().to_owned()
    }

    /// Pushes to an audience; answers with the push.
    fn push(&mut self, audience: &Value, number: usize) -> String {
        let body = json!({"audience": audience, "data": {"n": number}});
        let accepted = self.call("POST", "pushes", &body);
        accepted["push_id"].as_str().unwrap().to_owned()
    }
}

fn number_of(device: &mut Conversation) -> u64 {
    let message = device.message(PATIENCE).expect("a push");
    assert_eq!(message.topic, "push/in");
    let push: Value = serde_json::from_slice(&message.payload).unwrap();
    push["data"]["n"].as_u64().unwrap()
}

#[test]
fn what_is_written_through_one_node_is_there_on_the_others() {
    let mut caller = Caller {
        cluster: Cluster::start(NODES),
        requests: 0,
    };
    let places = caller.cluster.addresses();
    let mut devices: Vec<Conversation> = (0..NODES)
        .map(|number| {
            let platform = ["ios", "android", "web"][number];
            let body = json!({"platform": platform, "attributes": {"level": number}});
            caller.call("PUT", &format!("devices/device-{number}"), &body);
            let mut device = Conversation::new(kept(&format!("device-{number}"), Version::V5));
            device.connect(places[number].mqtt, false).unwrap();
            device
        })
        .collect();
    let one = |number: usize| json!({"devices": [format!("device-{number}")]});
    caller.call("POST", "tags/vip:add", &one(0));
    caller.call("PUT", "users/ann/devices/device-1", &json!({}));
    caller.call("POST", "topics/news:subscribe", &one(2));
    caller.call(
        "PUT",
        "segments/gold",
        &json!({"expr": "vip && platform == \"ios\""}),
    );
    caller.call(
        "PATCH",
        "devices/device-1",
        &json!({"attributes": {"level": 70}}),
    );

    let users = caller.call("GET", "users/ann/devices", &Value::Null);
    assert_eq!(users["devices"][0]["device"], "device-1", "{users}");
    let segments = caller.call("GET", "segments", &Value::Null);
    assert_eq!(segments["segments"][0]["segment"], "gold", "{segments}");
    let filtered = caller.call("GET", "devices?filter=vip", &Value::Null);
    assert_eq!(filtered["devices"][0]["device"], "device-0", "{filtered}");

    let upload = caller.upload("device-0\nnobody\ndevice-2\n");
    let audiences = [
        (json!({"all": true}), vec![0, 1, 2]),
        (one(1), vec![1]),
        (json!({"users": ["ann"]}), vec![1]),
        (json!({"topic": "news"}), vec![2]),
        (
            json!({"tags": {"any": ["vip"], "none": ["muted"]}}),
            vec![0],
        ),
        (
            json!({"expr": "platform in [\"ios\", \"web\"]"}),
            vec![0, 2],
        ),
        (json!({"expr": "attr.level >= 2"}), vec![1, 2]),
        (json!({"segment": "gold"}), vec![0]),
        (json!({"upload": upload}), vec![0, 2]),
    ];
    for (number, (audience, receivers)) in audiences.iter().enumerate() {
        let push = caller.push(audience, number);
        for &receiver in receivers {
            let got = number_of(&mut devices[receiver]);
            assert_eq!(got, number as u64, "{audience} to {receiver}");
        }
        let report = eventually("the report to add up", || {
            for device in &mut devices {
                device.turn(std::time::Duration::from_millis(1));
            }
            let report = caller.call("GET", &format!("pushes/{push}"), &Value::Null);
            (report["delivered"] == json!(receivers.len()) && report["pending"] == 0)
                .then_some(report)
        });
        assert_eq!(report["targeted"], json!(receivers.len()), "{audience}");
    }
    let listed = caller.call("GET", "pushes?limit=100", &Value::Null);
    assert_eq!(listed["pushes"].as_array().unwrap().len(), audiences.len());

    let made = caller.call("POST", "keys", &json!({"permissions": ["read"]}));
    let keys = caller.call("GET", "keys", &Value::Null);
    let ids: Vec<&Value> = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["id"])
        .collect();
    assert!(ids.contains(&&made["id"]), "{keys}");
    let id = made["id"].as_str().unwrap();
    caller.call("DELETE", &format!("keys/{id}"), &Value::Null);
    let audit = caller.call("GET", "audit?limit=1000", &Value::Null);
    let actions: Vec<&Value> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["action"])
        .collect();
    for action in ["key.created", "key.revoked"] {
        assert!(actions.contains(&&json!(action)), "{action}: {audit}");
    }

    for path in [
        "segments/gold",
        "users/ann/devices/device-1",
        "devices/device-0",
    ] {
        caller.call("DELETE", path, &Value::Null);
        let again = caller.request("GET", path, &[], "");
        assert!(matches!(again.status, 404 | 405), "{path}: {again:?}");
    }
}
