//! What an app may use, set by the command line and by operators, and what happens at the limit.

use serde_json::{Value, json};

use crate::harness::{Client, Kind, Node, Protocol, Session, Tool, Transport, eventually, request};

/// A request of an operator.
fn operate(node: &Node, method: &str, path: &str, body: Value) -> (u16, Value) {
    let head = format!(
        "{method} /v1/admin/{path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
        node.api_key()
    );
    let response = request(node.http(), &head, &body.to_string()).expect("the node answers");
    let answer = match response.body.is_empty() {
        true => Value::Null,
        false => response.json(),
    };
    (response.status, answer)
}

fn set_quota(node: &Node, arguments: &[&str]) {
    let data = node.data().to_str().expect("the path is UTF-8");
    let mut all = vec!["app", "quota", "default", "--data", data];
    all.extend(arguments);
    Tool::campanile(all).succeed();
}

#[test]
fn connections_above_the_quota_are_refused_in_the_words_of_each_version() {
    let node = Node::start();
    let first = Client::v5(&node, Session::clean("first"));
    set_quota(&node, &["--connections", "1"]);
    let code_of = |protocol| {
        let mut client = Client::start(&node, Kind::Paho, protocol, Transport::Tcp);
        client
            .try_connect(Session::clean("second"))
            .map(|connack| connack["code"].clone())
    };
    // A change of a quota is taken up within some seconds.
    eventually("the quota holds", || {
        (code_of(Protocol::V5) == Ok(json!(0x97))).then_some(())
    });
    // Return code 3, which the library tells in the words of MQTT 5.
    assert_eq!(code_of(Protocol::V311), Ok(json!(0x88)));
    drop(first);
    set_quota(&node, &["--connections", "0"]);
    eventually("the quota is lifted", || {
        (code_of(Protocol::V5) == Ok(json!(0))).then_some(())
    });
}

#[test]
fn pushes_above_the_quota_are_refused_and_the_app_shows_its_quotas() {
    let node = Node::start();
    let (status, app) = operate(
        &node,
        "PATCH",
        "apps/default",
        json!({"quotas": {"stored_bytes": 1, "pushes_per_second": 1000}}),
    );
    assert_eq!((status, &app["quotas"]["stored_bytes"]), (200, &json!(1)));
    let body = json!({"audience": {"devices": ["phone"]}, "data": {}}).to_string();
    let send = || {
        let head = format!(
            "POST /v1/apps/default/pushes HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
            node.api_key()
        );
        request(node.http(), &head, &body).expect("the node answers")
    };
    // What is known of a key and of what is stored is believed for some seconds.
    let refused = eventually("pushes are refused", || {
        let response = send();
        (response.status == 429).then_some(response)
    });
    assert_eq!(refused.json()["code"], "stored_bytes_exceeded");
    assert_eq!(refused.header("retry-after"), Some("60"));
    let (_, app) = operate(&node, "GET", "apps/default", json!(null));
    assert!(app["usage"]["stored_bytes"].as_u64() > Some(1), "{app}");
    let (status, problem) = operate(&node, "DELETE", "apps/default", json!(null));
    assert_eq!((status, &problem["code"]), (409, &json!("clash")));
}

#[test]
fn an_app_is_made_and_removed_by_the_command_line() {
    let node = Node::start();
    let data = node.data().to_str().expect("the path is UTF-8");
    let app = |command: &str| ["app", command, "shop", "--data", data].map(str::to_owned);
    Tool::campanile(app("create")).succeed();
    let (status, shown) = operate(&node, "GET", "apps/shop", json!(null));
    assert_eq!((status, &shown["quotas"]["devices"]), (200, &json!(null)));
    Tool::campanile(app("delete")).succeed();
    let complaint = Tool::campanile(app("create")).fail();
    assert!(complaint.contains("is being deleted"), "{complaint}");
    eventually("it is gone", || {
        (operate(&node, "GET", "apps/shop", json!(null)).0 == 404).then_some(())
    });
    let complaint = Tool::campanile(app("delete")).fail();
    assert!(complaint.contains("there is no app shop"), "{complaint}");
    let (_, audit) = operate(&node, "GET", "audit?limit=1000", json!(null));
    let entries = audit["entries"].as_array().expect("a list");
    let of_shop = entries.iter().filter(|entry| entry["app"] == "shop");
    let actions: Vec<&Value> = of_shop.map(|entry| &entry["action"]).collect();
    assert_eq!(
        actions,
        ["app.created", "app.deletion_begun", "app.deleted"]
    );
    let (_, nodes) = operate(&node, "GET", "nodes", json!(null));
    assert_eq!(nodes["nodes"][0]["this"], true);
}
