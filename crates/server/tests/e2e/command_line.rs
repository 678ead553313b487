//! The commands of `campanile` against a node.

use serde_json::{Value, json};

use crate::harness::{Client, Node, NodeOptions, Push, Session, Tool, Transport, request};

fn json_of(lines: &[String]) -> Value {
    serde_json::from_str(&lines.concat())
        .unwrap_or_else(|fault| panic!("no JSON ({fault}): {lines:?}"))
}

#[test]
fn pub_and_sub_exchange_messages_in_every_version() {
    let node = Node::start();
    let url = format!("mqtt://{}", node.address(Transport::Tcp));
    for version in ["3.1", "3.1.1", "5"] {
        let topic = format!("a/{version}");
        Tool::campanile([
            "pub", "--url", &url, "-V", version, "-q", "2", "-r", "-t", &topic, "-m", "hello",
        ])
        .succeed();
        let subscriber = Tool::campanile([
            "sub", "--url", &url, "-V", version, "-q", "2", "-n", "1", "-t", &topic, "--json",
        ]);
        let message = json_of(&subscriber.succeed());
        assert_eq!(
            (&message["topic"], &message["payload"], &message["qos"]),
            (&json!(topic), &json!("hello"), &json!(2))
        );
    }
}

#[test]
fn sub_without_topics_is_a_device_that_gets_pushes() {
    let node = Node::start();
    let url = format!("mqtt://{}", node.address(Transport::Tcp));
    let push = Push::to_device("phone", 1).send(&node);
    let device = Tool::campanile(["sub", "--url", &url, "-i", "phone", "-n", "1"]);
    assert_eq!(json_of(&device.succeed())["id"], json!(push));
}

#[test]
fn sub_works_over_tls() {
    let node = Node::with(NodeOptions {
        tls: true,
        ..NodeOptions::default()
    });
    let url = format!("mqtts://{}", node.address(Transport::Tls));
    let ca = node.authority().ca.to_str().expect("the path is UTF-8");
    Tool::campanile([
        "pub", "--url", &url, "--ca", ca, "-q", "1", "-r", "-t", "a", "-m", "secret",
    ])
    .succeed();
    assert_eq!(
        Tool::campanile(["sub", "--url", &url, "--ca", ca, "-n", "1", "-t", "a"]).succeed(),
        ["secret"]
    );
    let complaint = Tool::campanile(["sub", "--url", &url, "-n", "1", "-t", "a"]).fail();
    assert!(complaint.contains("certificate"), "{complaint}");
}

#[test]
fn push_waits_until_its_devices_have_it() {
    let node = Node::start();
    let device = Client::v5(&node, Session::clean("phone"));
    let url = format!("http://{}", node.http());
    let key = node.api_key();
    let arguments = [
        "push",
        "--url",
        &url,
        "--key",
        key,
        "--device",
        "phone",
        "--title",
        "Hi",
        "--data",
        r#"{"n":1}"#,
    ];
    let report = json_of(&Tool::campanile(arguments.iter().chain(&["--wait", "--json"])).succeed());
    assert_eq!(
        (&report["targeted"], &report["delivered"]),
        (&json!(1), &json!(1)),
        "{report}"
    );
    let message = device.next_message().json();
    assert_eq!(
        (&message["id"], &message["notification"]),
        (&report["push_id"], &json!({"title": "Hi"}))
    );

    let wrong = Tool::campanile([
        "push",
        "--url",
        &url,
        "--key",
        "cmp_nonsense",
        "--all",
        "--title",
        "Hi",
    ])
    .fail();
    assert!(
        wrong.contains("key_invalid") || wrong.contains("API key"),
        "{wrong}"
    );
}

#[test]
fn an_app_made_while_the_node_runs_has_its_own_devices_and_key() {
    let node = Node::start();
    let data = node.data().to_str().expect("the path is UTF-8");
    let made =
        json_of(&Tool::campanile(["app", "create", "shop", "--data", data, "--json"]).succeed());
    let key = made["key"]
        .as_str()
        .unwrap_or_else(|| panic!("no key in {made}"));
    let again = Tool::campanile(["app", "create", "shop", "--data", data]).fail();
    assert!(again.contains("shop"), "{again}");

    let push = |app: &str| {
        let head = format!(
            "POST /v1/apps/{app}/pushes HTTP/1.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json"
        );
        request(
            node.http(),
            &head,
            r#"{"audience": {"devices": ["phone"]}, "data": {}}"#,
        )
        .expect("the node answers")
    };
    assert_eq!(push("shop").status, 202);
    assert_eq!(push("default").json()["code"], "wrong_app");
    let phone = Client::v5(&node, Session::clean("phone"));
    let own = Push::to_device("phone", 1).send(&node);
    assert_eq!(
        phone.next_message().json()["id"],
        json!(own),
        "the listener is that of another app"
    );
}
