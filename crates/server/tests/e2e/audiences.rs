//! Pushes to audiences: devices that are registered through the API, and who of them gets what.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Client, Message, Node, NodeOptions, Response, Session, eventually, request};

/// How long nothing must come to a device that is left out, after another got the same push.
const MOMENT: Duration = Duration::from_millis(300);

/// A request below the app's path; it must be answered with success.
fn call(node: &Node, method: &str, path: &str, body: &str) -> Value {
    let response = ask(node, method, path, "application/json", body);
    assert!((200..300).contains(&response.status), "{response:?}");
    match response.body.is_empty() {
        true => Value::Null,
        false => response.json(),
    }
}

fn ask(node: &Node, method: &str, path: &str, kind: &str, body: &str) -> Response {
    let head = format!(
        "{method} /v1/apps/default/{path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: {kind}",
        node.api_key()
    );
    request(node.http(), &head, body).expect("the node answers")
}

/// The id of the push.
fn push(node: &Node, audience: Value, n: u32) -> Value {
    let body = json!({"audience": audience, "data": {"n": n}});
    call(node, "POST", "pushes", &body.to_string())["push_id"].clone()
}

fn number(message: &Message) -> Value {
    assert_eq!((message.topic.as_str(), message.qos), ("push/in", 1));
    message.json()["data"]["n"].clone()
}

#[track_caller]
fn expect(device: &Client, numbers: impl IntoIterator<Item = u32>) {
    for n in numbers {
        assert_eq!(number(&device.next_message()), n);
    }
}

#[track_caller]
fn expect_nothing(device: &Client) {
    let message = device.message_within(MOMENT);
    assert_eq!(message.map(|message| message.payload), None);
}

#[test]
fn every_kind_of_audience_reaches_the_devices_in_it_and_no_other() {
    let node = Node::start();
    call(
        &node,
        "PUT",
        "devices/in",
        r#"{"platform": "ios", "user": "u1"}"#,
    );
    call(
        &node,
        "PUT",
        "devices/out",
        r#"{"platform": "android", "user": "u2"}"#,
    );
    let tagged = call(
        &node,
        "POST",
        "tags/vip:add",
        r#"{"devices": ["in", "stranger"]}"#,
    );
    assert_eq!(
        (&tagged["changed"], &tagged["refused"][0]["code"]),
        (&json!(1), &json!("missing"))
    );
    call(
        &node,
        "POST",
        "topics/news:subscribe",
        r#"{"devices": ["in"]}"#,
    );
    call(
        &node,
        "PUT",
        "segments/s1",
        r#"{"expr": "vip && platform == \"ios\""}"#,
    );
    let upload = ask(&node, "POST", "uploads", "text/plain", "stranger\nin\n");
    assert_eq!(upload.status, 201, "{upload:?}");
    let upload = upload.json();
    assert_eq!(
        (&upload["found"], &upload["unknown_devices"]),
        (&json!(1), &json!(["stranger"]))
    );

    let inside = Client::v5(&node, Session::kept("in"));
    let outside = Client::v5(&node, Session::clean("out"));
    let audiences = [
        json!({"tags": {"any": ["vip", "beta"]}}),
        json!({"tags": {"none": ["muted"], "all": ["vip"]}}),
        json!({"topic": "news"}),
        json!({"expr": "platform == \"ios\" && !muted"}),
        json!({"users": ["u1", "nobody"]}),
        json!({"segment": "s1"}),
        json!({"upload": upload["upload"]}),
    ];
    for (audience, n) in audiences.iter().zip(0..) {
        push(&node, audience.clone(), n);
        expect(&inside, [n]);
    }
    expect_nothing(&outside);

    // The same for a device that was away.
    inside.disconnect();
    for (audience, n) in audiences.iter().zip(100..) {
        push(&node, audience.clone(), n);
    }
    let inside = Client::v5(&node, Session::kept("in"));
    expect(&inside, 100..107);
    expect_nothing(&inside);
    expect_nothing(&outside);
}

#[test]
fn a_push_is_for_those_that_were_in_when_it_was_made_and_are_when_it_comes() {
    let node = Node::start();
    for device in ["always", "later", "no-longer"] {
        call(&node, "PUT", &format!("devices/{device}"), "{}");
        Client::v5(&node, Session::kept(device)).disconnect();
    }
    call(
        &node,
        "POST",
        "tags/vip:add",
        r#"{"devices": ["always", "no-longer"]}"#,
    );
    push(&node, json!({"tags": {"any": ["vip"]}}), 1);
    call(&node, "POST", "tags/vip:add", r#"{"devices": ["later"]}"#);
    call(
        &node,
        "POST",
        "tags/vip:remove",
        r#"{"devices": ["no-longer"]}"#,
    );

    let always = Client::v5(&node, Session::kept("always"));
    expect(&always, [1]);
    let later = Client::v5(&node, Session::kept("later"));
    let no_longer = Client::v5(&node, Session::kept("no-longer"));
    expect_nothing(&later);
    expect_nothing(&no_longer);

    push(&node, json!({"tags": {"any": ["vip"]}}), 2);
    expect(&always, [2]);
    expect(&later, [2]);
    expect_nothing(&no_longer);
}

#[test]
fn what_changes_while_a_device_is_connected_counts_at_once() {
    let node = Node::start();
    call(&node, "PUT", "devices/phone", "{}");
    let phone = Client::v5(&node, Session::clean("phone"));
    let other = Client::v5(&node, Session::clean("other"));
    for n in 0..20 {
        call(&node, "PATCH", "devices/phone", r#"{"tags": ["vip"]}"#);
        push(&node, json!({"expr": "vip"}), n);
        expect(&phone, [n]);
        call(&node, "PATCH", "devices/phone", r#"{"tags": []}"#);
        push(&node, json!({"expr": "vip"}), 1000 + n);
    }
    expect_nothing(&phone);
    expect_nothing(&other);
}

#[test]
fn what_is_registered_survives_a_crash() {
    let mut node = Node::start();
    call(
        &node,
        "PUT",
        "devices/phone",
        r#"{"tags": ["vip"], "user": "u1"}"#,
    );
    call(&node, "PUT", "segments/s1", r#"{"expr": "vip"}"#);
    node.kill9();
    node.start_again();
    let phone = call(&node, "GET", "devices/phone", "");
    assert_eq!(
        (&phone["tags"], &phone["user"]),
        (&json!(["vip"]), &json!("u1"))
    );
    let of_user = call(&node, "GET", "users/u1/devices", "");
    assert_eq!(of_user["devices"][0]["device"], "phone");
    let found = call(&node, "GET", "devices?filter=vip", "");
    assert_eq!(found["devices"][0]["device"], "phone");
    assert_eq!(call(&node, "GET", "segments/s1", "")["expr"], "vip");
}

#[test]
fn a_count_that_a_killed_node_left_behind_is_taken_up() {
    const PUSHES: u32 = 20;
    let mut node = Node::with(NodeOptions {
        settings: "[node]\ncount_interval = \"1s\"\n".to_owned(),
        ..NodeOptions::default()
    });
    for device in 0..3 {
        let path = format!("devices/phone-{device}");
        call(&node, "PUT", &path, r#"{"tags": ["vip"]}"#);
        let id = format!("phone-{device}");
        drop(Client::v5(&node, Session::kept(&id)));
    }
    let ids: Vec<Value> = (0..PUSHES)
        .map(|n| push(&node, json!({"expr": "vip"}), n))
        .collect();
    // The orders to count are durable, the last counts are not made.
    node.kill9();
    node.start_again();
    for id in ids {
        eventually("the push is counted", || {
            let id = id.as_str().unwrap();
            let report = call(&node, "GET", &format!("pushes/{id}"), "");
            (report["targeted"] == 3).then_some(())
        });
    }
}

#[test]
fn an_accepted_push_to_an_audience_outlives_the_node() {
    let mut node = Node::start();
    call(&node, "PUT", "devices/phone", r#"{"tags": ["vip"]}"#);
    drop(Client::v5(&node, Session::kept("phone")));
    // Killed as soon as the 202 is read: before the push was counted, and while nobody has it.
    push(&node, json!({"expr": "vip"}), 1);
    node.kill9();
    node.start_again();
    expect(&Client::v5(&node, Session::kept("phone")), [1]);
}
