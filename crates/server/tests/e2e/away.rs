//! Devices that are away: since when, for how long, and what waits for them.

use serde_json::{Value, json};

use crate::harness::{Client, Node, Push, Session, eventually, request};

fn shown(node: &Node) -> Value {
    let path = "/v1/apps/default/devices/phone";
    node.get_with_key(path).json()
}

fn explained(node: &Node, push: &str) -> Value {
    let path = format!("/v1/apps/default/pushes/{push}/devices/phone");
    node.get_with_key(&path).json()
}

fn register(node: &Node) {
    let head = format!(
        "PUT /v1/apps/default/devices/phone HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
        node.api_key()
    );
    let registered = request(node.http(), &head, "{}").expect("the node answers");
    assert_eq!(registered.status, 201, "{registered:?}");
}

/// Once the node knows that the device has left.
fn away(node: &Node) -> Value {
    eventually("the device is away", || {
        let mut shown = shown(node);
        assert!(shown.get("silent_nodes").is_none(), "{shown}");
        shown["away"].is_object().then(|| shown["away"].take())
    })
}

#[test]
fn a_device_that_is_away_is_shown_with_what_waits_for_it() {
    let mut node = Node::start();
    register(&node);
    assert_eq!(shown(&node)["connection"], Value::Null);
    assert_eq!(shown(&node).get("away"), None, "it was never there");
    Client::v5(&node, Session::kept("phone")).disconnect();
    let left = away(&node);
    let [since, end] = ["since", "expires_at"].map(|name| left[name].as_str().unwrap());
    assert!(since < end, "{left}");
    let nothing = json!({"push_log": 0, "inbox": false, "inbox_entries": 0});
    assert_eq!(left["lag"], nothing);

    for n in 1..=2 {
        Push::to_all(n).send(&node);
    }
    Push::to_device("phone", 3).send(&node);
    Push::to_device("other", 4).send(&node);
    let mut waits = left.clone();
    waits["lag"] = json!({"push_log": 2, "inbox": true, "inbox_entries": 1});
    assert_eq!(away(&node), waits);
    node.kill9();
    node.start_again();
    assert_eq!(away(&node), waits);

    let phone = Client::v5(&node, Session::kept("phone"));
    assert_eq!([(); 3].map(|()| phone.next_message().topic), ["push/in"; 3]);
    eventually("nothing waits any more", || {
        let shown = shown(&node);
        assert_eq!(shown.get("away"), None, "{shown}");
        let lag = &shown["connection"]["lag"];
        (*lag == json!({"push_log": 0, "inbox": false})).then_some(())
    });
    phone.disconnect();
    assert_eq!(away(&node)["lag"], nothing);
}

#[test]
fn what_a_device_misses_is_explained_with_its_absence() {
    let node = Node::start();
    register(&node);
    Client::v5(&node, Session::kept("phone")).disconnect();
    let since = away(&node)["since"].take();
    for push in [Push::to_all(1), Push::to_device("phone", 2)] {
        let lasting = push.clone().send(&node);
        let why = explained(&node, &lasting);
        assert_eq!((&why["code"], &why["since"]), (&json!("away"), &since));
        let brief = push.ttl(1).send(&node);
        let why = eventually("the time of the push is up", || {
            let why = explained(&node, &brief);
            (why["code"] == "expired").then_some(why)
        });
        assert_eq!(why["away_since"], since, "{why}");
    }
}
