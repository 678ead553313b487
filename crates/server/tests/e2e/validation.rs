//! `pushes:validate`: whom a push would be for, and when.

use std::{io::Read as _, io::Write as _, time::Duration};

use campanile_mqtt::Version;
use campanile_testbed::conversation::{Conversation, kept, passing};
use serde_json::{Value, json};

use crate::harness::{Node, Transport, eventually, request};

const PATIENCE: Duration = Duration::from_secs(20);

#[track_caller]
fn call(node: &Node, method: &str, path: &str, body: &Value) -> Value {
    let head = format!(
        "{method} /v1/apps/default/{path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
        node.api_key()
    );
    let response = request(node.http(), &head, &body.to_string()).expect("the node answers");
    assert!((200..300).contains(&response.status), "{response:?}");
    response.json()
}

fn validated(node: &Node, audience: Value, options: Value) -> Value {
    let push = json!({"audience": audience, "data": {"n": 1}, "options": options});
    let valid = call(node, "POST", "pushes:validate", &push);
    assert_eq!(valid["valid"], true);
    valid
}

fn counts(valid: &Value) -> [u64; 3] {
    ["targeted", "connected", "away"].map(|name| valid["audience"][name].as_u64().unwrap())
}

fn connect(node: &Node, mut device: Conversation) -> Conversation {
    let address = node.address(Transport::Tcp);
    device.connect(address, false).expect("the node accepts it");
    device
}

/// Takes a device away, and waits until the node knows.
fn leave(device: &mut Conversation) {
    let mut stream = device.abandon().expect("a connection");
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\xe0\x00").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

fn vip() -> Value {
    json!({"tags": {"any": ["vip"]}})
}

/// Three with the tag, in two zones, and two without.
fn register(node: &Node) {
    for (name, tags, zone) in [
        ("d1", json!(["vip"]), "Asia/Tokyo"),
        ("d2", json!(["vip"]), "Asia/Tokyo"),
        ("d3", json!(["vip", "beta"]), "America/New_York"),
        ("d4", json!([]), "Asia/Tokyo"),
        ("d5", json!(["beta"]), "UTC"),
    ] {
        let profile = json!({"tags": tags, "time_zone": zone, "user": "ann"});
        call(node, "PUT", &format!("devices/{name}"), &profile);
    }
}

#[test]
fn a_push_is_counted_without_being_made() {
    let node = Node::start();
    register(&node);
    let mut device = connect(&node, Conversation::new(kept("d1", Version::V5)));
    let _second = connect(&node, Conversation::new(passing("d3")));
    let _stranger = connect(&node, Conversation::new(passing("stranger")));

    let valid = validated(&node, vip(), json!({}));
    assert_eq!(counts(&valid), [3, 2, 1], "{valid}");
    assert_eq!(valid["audience"]["exact"], true);
    assert_eq!(valid["arrival"]["first_at"], valid["arrival"]["last_at"]);

    let count = |audience: Value| counts(&validated(&node, audience, json!({})));
    assert_eq!(count(json!({"expr": "vip && beta"})), [1, 1, 0]);
    assert_eq!(count(json!({"expr": "none"})), [0, 0, 0]);
    // Of whom nothing is known is found while it is connected.
    assert_eq!(count(json!({"expr": "!vip"})), [3, 1, 2]);
    assert_eq!(
        count(json!({"devices": ["d1", "d2", "unknown"]})),
        [3, 1, 2]
    );
    assert_eq!(count(json!({"users": ["ann"]})), [5, 2, 3]);
    assert_eq!(count(json!({"all": true})), [3, 3, 0]);
    leave(&mut device);
    eventually("the device is away", || {
        (count(json!({"all": true})) == [3, 2, 1]).then_some(())
    });
    assert_eq!(counts(&validated(&node, vip(), json!({}))), [3, 1, 2]);

    // The figure of the push itself is the same.
    let push = json!({"audience": vip(), "data": {"n": 1}});
    let id = call(&node, "POST", "pushes", &push)["push_id"].clone();
    let report = format!("pushes/{}", id.as_str().unwrap());
    eventually("the count of the push", || {
        (call(&node, "GET", &report, &json!({}))["targeted"] == 3).then_some(())
    });
}

#[test]
fn turns_of_a_campaign_are_foreseen() {
    let node = Node::start();
    register(&node);
    let times = |options: Value| {
        let valid = validated(&node, vip(), options);
        ["first_at", "half_at", "last_at"].map(|name| {
            let time = valid["arrival"][name].as_str().unwrap_or_default();
            time.to_owned()
        })
    };
    let [first, half, last] = times(json!({"pace": {"over": 600}}));
    assert!(first < half && half < last, "{first} {half} {last}");
    // Three devices at two a second.
    let [first, _, last] = times(json!({"pace": {"per_second": 2}}));
    assert_ne!(first, last);

    let [first, half, last] = times(
        json!({"local_time": {"at": "09:00", "date": "2099-06-01"}, "not_before": "2099-05-31T12:00:00Z"}),
    );
    assert_eq!(
        [&first[..16], &half[..16], &last[..16]],
        ["2099-06-01T00:00", "2099-06-01T00:00", "2099-06-01T13:00"]
    );
    let over = json!({"local_time": {"at": "09:00", "date": "2020-06-01", "if_past": "skip"}});
    let valid = validated(&node, vip(), over);
    assert_eq!(valid["arrival"]["never"], json!({"local_time_past": 3}));
    assert_eq!(valid["arrival"]["first_at"], Value::Null);

    let portion = validated(&node, vip(), json!({"portion": {"percent": 50}}));
    assert_eq!(
        portion["audience"]["exact"], false,
        "another push draws others"
    );
}
