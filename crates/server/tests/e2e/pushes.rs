//! Pushes: from an HTTP request to the device, and the figures of what became of them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Client, Kind, Message, MessageOptions, Node, Protocol, Push, Report, Response, Session, Tool,
    Transport, eventually, request,
};

const MOMENT: Duration = Duration::from_millis(50);

fn number(message: &Message) -> Value {
    assert_eq!((message.topic.as_str(), message.qos), ("push/in", 1));
    message.json()["data"]["n"].clone()
}

fn post(node: &Node, key: &str, body: &str) -> Response {
    let head =
        format!("POST /v1/apps/default/pushes HTTP/1.1\r\n{key}Content-Type: application/json");
    request(node.http(), &head, body).expect("the node answers")
}

#[test]
fn a_push_with_curl_reaches_a_device_that_never_subscribed() {
    let node = Node::start();
    let device = Client::v5(&node, Session::clean("phone"));
    let url = format!("http://{}/v1/apps/default/pushes", node.http());
    let key = format!("Authorization: Bearer {}", node.api_key());
    let body = r#"{"audience": {"devices": ["phone"]}, "notification": {"title": "Hello", "x": [1.50]}, "data": {"n": 1}}"#;
    let arguments = [
        "--silent",
        "--show-error",
        "--fail-with-body",
        &url,
        "-H",
        &key,
        "--json",
        body,
    ];
    let answer: Value =
        serde_json::from_str(&Tool::start("curl", arguments).succeed().concat()).expect("JSON");
    assert_eq!(answer["targeted"], 1);

    let message = device.next_message();
    let document = message.json();
    assert_eq!(document["id"], answer["push_id"]);
    assert_eq!(document["data"], json!({"n": 1}));
    assert!(
        message
            .payload
            .contains(r#""notification":{"title":"Hello","x":[1.50]}"#),
        "as it was sent: {}",
        message.payload
    );
    let id = message
        .user
        .iter()
        .find(|(_, value)| answer["push_id"] == value.as_str());
    assert!(
        id.is_some(),
        "5.0 clients get the id as a user property: {:?}",
        message.user
    );
    assert!(
        message.user.len() >= 2,
        "and the position: {:?}",
        message.user
    );
}

#[test]
fn a_device_that_was_away_gets_its_pushes_on_return_in_order_and_once() {
    let mut node = Node::start();
    Client::v5(&node, Session::kept("phone")).disconnect();
    let mut last = String::new();
    for n in 0..5 {
        last = Push::to_device("phone", n).send(&node);
        if n == 2 {
            node.stop();
            node.start_again();
        }
    }
    let device = Client::v5(&node, Session::kept("phone"));
    for n in 0..5 {
        assert_eq!(number(&device.next_message()), n);
    }
    assert_eq!(device.message_within(MOMENT), None);
    let delivered = Report {
        targeted: 1,
        delivered: 1,
        pending: 0,
        expired: 0,
    };
    node.await_report(&last, delivered);
    device.disconnect();
    let last = Push::to_device("phone", 5).send(&node);
    let device = Client::v5(&node, Session::kept("phone"));
    assert_eq!(number(&device.next_message()), 5);
    node.await_report(&last, delivered);
}

#[test]
fn a_device_gets_what_was_pushed_before_it_first_connected() {
    let node = Node::start();
    let push = Push::to_device("new", 1).send(&node);
    assert_eq!(
        node.report(&push),
        Report {
            targeted: 1,
            delivered: 0,
            pending: 1,
            expired: 0
        }
    );
    let device = Client::connect(
        &node,
        Kind::Paho,
        Protocol::V311,
        Transport::Tcp,
        Session::clean("new"),
    );
    assert_eq!(number(&device.next_message()), 1);
    node.await_report(
        &push,
        Report {
            targeted: 1,
            delivered: 1,
            pending: 0,
            expired: 0,
        },
    );
}

#[test]
fn a_push_to_all_reaches_who_is_here_and_who_returns() {
    let node = Node::start();
    Client::v5(&node, Session::kept("away")).disconnect();
    let here = Client::v5(&node, Session::clean("here"));
    let old = Client::connect(
        &node,
        Kind::MqttJs,
        Protocol::V311,
        Transport::Ws,
        Session::kept("old"),
    );
    let push = Push::to_all(1).send(&node);
    assert_eq!(number(&here.next_message()), 1);
    assert_eq!(number(&old.next_message()), 1);
    node.await_report(
        &push,
        Report {
            targeted: 3,
            delivered: 2,
            pending: 1,
            expired: 0,
        },
    );
    let away = Client::v5(&node, Session::kept("away"));
    assert_eq!(number(&away.next_message()), 1);
    node.await_report(
        &push,
        Report {
            targeted: 3,
            delivered: 3,
            pending: 0,
            expired: 0,
        },
    );

    let late = Client::v5(&node, Session::clean("late"));
    assert_eq!(
        late.message_within(MOMENT),
        None,
        "it was not there when the push was made"
    );
}

#[test]
fn pushes_to_one_and_to_all_come_in_the_order_of_acceptance() {
    let node = Node::start();
    Client::v5(&node, Session::kept("phone")).disconnect();
    for n in 0..10 {
        let push = if n % 3 == 0 {
            Push::to_all(n)
        } else {
            Push::to_device("phone", n)
        };
        push.send(&node);
    }
    let device = Client::v5(&node, Session::kept("phone"));
    for n in 0..10 {
        assert_eq!(number(&device.next_message()), n);
    }
}

#[test]
fn a_push_of_now_or_never_does_not_wait_for_anybody() {
    let node = Node::start();
    Client::v5(&node, Session::kept("away")).disconnect();
    let here = Client::v5(&node, Session::clean("here"));
    let push = Push::to_devices(&["here", "away"], 1).ttl(0).send(&node);
    assert_eq!(number(&here.next_message()), 1);
    node.await_report(
        &push,
        Report {
            targeted: 2,
            delivered: 1,
            pending: 0,
            expired: 1,
        },
    );
    let lasting = Push::to_device("away", 2).send(&node);
    let away = Client::v5(&node, Session::kept("away"));
    assert_eq!(number(&away.next_message()), 2);
    node.await_report(
        &lasting,
        Report {
            targeted: 1,
            delivered: 1,
            pending: 0,
            expired: 0,
        },
    );
}

#[test]
fn an_expired_push_is_not_delivered_but_reported() {
    let mut node = Node::start();
    Client::v5(&node, Session::kept("away")).disconnect();
    let to_one = Push::to_device("away", 1).ttl(1).send(&node);
    let to_all = Push::to_all(2).ttl(1).send(&node);
    let lasting = Push::to_all(3).ttl(3600).send(&node);
    let expired = Report {
        targeted: 1,
        delivered: 0,
        pending: 0,
        expired: 1,
    };
    node.await_report(&to_one, expired);
    node.await_report(&to_all, expired);
    let away = Client::v5(&node, Session::kept("away"));
    assert_eq!(number(&away.next_message()), 3);
    node.await_report(
        &lasting,
        Report {
            targeted: 1,
            delivered: 1,
            pending: 0,
            expired: 0,
        },
    );
    node.kill9();
    node.start_again();
    assert_eq!(node.report(&to_one), expired);
    assert_eq!(node.report(&to_all), expired);
}

#[test]
fn a_repeated_request_gets_the_first_answer_and_pushes_once() {
    let mut node = Node::start();
    let device = Client::v5(&node, Session::kept("phone"));
    let push = Push::to_device("phone", 1).idempotency_key("order-17");
    let first = push.send(&node);
    assert_eq!(push.send(&node), first);
    device.disconnect();
    node.kill9();
    node.start_again();
    assert_eq!(push.send(&node), first);

    let other = Push::to_device("phone", 2)
        .idempotency_key("order-17")
        .try_send(&node)
        .expect("the node answers");
    assert_eq!(
        (other.status, &other.json()["code"]),
        (422, &json!("idempotency_key_reused"))
    );

    let device = Client::v5(&node, Session::kept("phone"));
    Push::to_device("phone", 3).send(&node);
    let numbers: Vec<_> = std::iter::from_fn(|| Some(number(&device.next_message())))
        .take_while(|n| n != 3)
        .collect();
    assert!(
        numbers.is_empty() || numbers == [1],
        "at most the unacknowledged one comes again: {numbers:?}"
    );
}

#[test]
fn bad_requests_are_refused_with_a_problem_document() {
    let node = Node::start();
    let key = format!("Authorization: Bearer {}\r\n", node.api_key());
    let good = r#"{"audience": {"all": true}, "data": {}}"#;
    let other_key = key.replace("cmp_Z", "cmp_A");
    let check = |key: &str, body: &str, status: u16, code: &str, field: Option<&str>| {
        let response = post(&node, key, body);
        let problem = response.json();
        assert_eq!(
            (response.status, problem["code"].as_str()),
            (status, Some(code)),
            "{body}: {response:?}"
        );
        assert_eq!(problem["field"].as_str(), field, "{body}: {response:?}");
        assert_eq!(
            response.header("content-type"),
            Some("application/problem+json")
        );
        assert!(
            problem["detail"].is_string()
                && problem["title"].is_string()
                && problem["status"] == status
        );
    };
    check("", good, 401, "key_missing", None);
    check(&other_key, good, 401, "key_invalid", None);
    check(&key, "{", 400, "malformed_json", None);
    check(
        &key,
        r#"{"data": {}}"#,
        400,
        "missing_field",
        Some("/audience"),
    );
    check(
        &key,
        r#"{"audience": {}, "data": {}}"#,
        400,
        "invalid_field",
        Some("/audience"),
    );
    check(
        &key,
        r#"{"audience": {"all": true}, "data": {}, "dta": 1}"#,
        400,
        "unknown_field",
        Some("/dta"),
    );
    check(
        &key,
        r#"{"audience": {"all": true}, "data": {}, "options": {"ttl": -1}}"#,
        400,
        "invalid_field",
        Some("/options/ttl"),
    );
    check(
        &key,
        r#"{"audience": {"devices": []}, "data": {}}"#,
        400,
        "invalid_field",
        Some("/audience/devices"),
    );
    let large = format!(
        r#"{{"audience": {{"all": true}}, "data": {{"x": "{}"}}}}"#,
        "x".repeat(5000)
    );
    check(&key, &large, 413, "payload_too_large", Some("/data"));
    check(&key, &" ".repeat(1 << 20), 413, "body_too_large", None);

    let get = |path: &str| {
        request(
            node.http(),
            &format!("GET {path} HTTP/1.1\r\n{}", key.trim_end()),
            "",
        )
        .expect("an answer")
    };
    assert_eq!(
        get("/v1/apps/default/pushes/nonsense").json()["code"],
        "invalid_push_id"
    );
    assert_eq!(
        get("/v1/apps/default/pushes/01ARZ3NDEKTSV4RRFFQ69G5FAV").json()["code"],
        "push_not_found"
    );
    assert_eq!(
        get("/v1/apps/other/pushes/01ARZ3NDEKTSV4RRFFQ69G5FAV").json()["code"],
        "wrong_app"
    );
    assert_eq!(get("/nowhere").status, 404);
    assert_eq!(get("/v1/apps/default/pushes:batch").status, 405);
}

#[test]
fn devices_cannot_publish_into_each_others_inboxes() {
    let node = Node::start();
    let device = Client::v5(&node, Session::clean("phone"));
    let mut other = Client::v5(&node, Session::clean("other"));
    other.subscribe("push/in", 1);
    other.publish("push/in", "forged", 1);
    Push::to_device("phone", 1).send(&node);
    assert_eq!(number(&device.next_message()), 1);
}

fn seen(node: &Node, push: &str) -> [u64; 4] {
    let path = format!("/v1/apps/default/pushes/{push}");
    let report = node.get_with_key(&path).json();
    ["delivered", "displayed", "clicked", "dismissed"]
        .map(|figure| report[figure].as_u64().expect("a figure"))
}

fn explained(node: &Node, push: &str, device: &str) -> Value {
    let path = format!("/v1/apps/default/pushes/{push}/devices/{device}");
    node.get_with_key(&path).json()["code"].clone()
}

#[test]
fn devices_tell_what_became_of_their_pushes() {
    let mut node = Node::start();
    let mut phone = Client::v5(&node, Session::kept("phone"));
    let mut old = Client::connect(
        &node,
        Kind::Paho,
        Protocol::V311,
        Transport::Tcp,
        Session::kept("old"),
    );
    let named = Push::to_device("phone", 1).send(&node);
    assert_eq!(explained(&node, &named, "old"), "not_in_audience");
    let all = Push::to_all(2).send(&node);
    for client in [&phone, &old] {
        while number(&client.next_message()) != 2 {}
    }
    let both = format!(r#"{{"displayed":["{named}","{all}"]}}"#);
    assert_eq!(phone.publish("push/ack", &both, 1), 0);
    // The acknowledgement came once it was durable, so that nobody has to wait.
    assert_eq!(seen(&node, &named), [1, 1, 0, 0]);
    let clicked = format!(r#"{{"clicked":[{{"id":"{named}","action":"reply"}}]}}"#);
    for _ in 0..2 {
        assert_eq!(phone.publish("push/ack", &clicked, 2), 0);
    }
    // What is for others is not to be told, and takes nothing from the rest.
    let dismissed = format!(r#"{{"dismissed":["{all}"],"clicked":["{named}"]}}"#);
    old.publish("push/ack", &dismissed, 2);
    let expected = ([1, 1, 1, 0], [2, 2, 0, 1]);
    assert_eq!((seen(&node, &named), seen(&node, &all)), expected);
    node.stop();
    node.start_again();
    assert_eq!((seen(&node, &named), seen(&node, &all)), expected);
    assert_eq!(explained(&node, &named, "phone"), "clicked");
    assert_eq!(explained(&node, &all, "phone"), "displayed");
    assert_eq!(explained(&node, &all, "old"), "dismissed");
    assert_eq!(explained(&node, &all, "nobody"), "device_not_found");
}

#[test]
fn what_devices_tell_is_for_the_node_alone() {
    let node = Node::start();
    let mut phone = Client::v5(&node, Session::clean("phone"));
    let mut other = Client::v5(&node, Session::clean("other"));
    other.subscribe("#", 1);
    let push = Push::to_device("phone", 1).send(&node);
    number(&phone.next_message());
    let told = format!(r#"{{"displayed":["{push}"]}}"#);
    let retained = MessageOptions {
        retain: true,
        ..MessageOptions::from(0)
    };
    phone.publish("push/ack", &told, retained);
    eventually("a receipt without an acknowledgement", || {
        (seen(&node, &push) == [1, 1, 0, 0]).then_some(())
    });
    const IMPLEMENTATION_SPECIFIC_ERROR: u64 = 0x83;
    const NOT_AUTHORIZED: u64 = 0x87;
    let code = phone.publish("push/ack", "7", 1);
    assert_eq!(code, IMPLEMENTATION_SPECIFIC_ERROR);
    let code = phone.publish("push/ctl", "{}", 1);
    assert_eq!(code, NOT_AUTHORIZED);
    phone.publish("a", "x", 1);
    assert_eq!(other.next_message().topic, "a");
    other.subscribe("push/ack", 1);
    assert_eq!(other.message_within(MOMENT), None);
}

#[test]
fn the_node_tells_how_it_is() {
    let node = Node::start();
    assert_eq!(node.get("/healthz").status, 200);
    assert_eq!(node.get("/readyz").status, 200);
    let mut client = Client::v5(&node, Session::clean("a"));
    client.subscribe("a", 1);
    client.publish("a", "x", 1);
    client.next_message();
    let metrics = node.get("/metrics");
    let kind = metrics
        .header("content-type")
        .expect("the answer has a type");
    assert!(kind.starts_with("text/plain"), "{kind}");
    for wanted in [
        "campanile_clients_connected",
        "campanile_publishes_total",
        "campanile_publish_bytes_total",
        "campanile_queued_messages",
        "campanile_messages_dropped_total",
        "campanile_store_commit_seconds_count",
        "campanile_loop_turn_seconds_count",
    ] {
        let found = metrics.body.lines().any(|line| line.starts_with(wanted));
        assert!(found, "no {wanted}:\n{}", metrics.body);
    }
    eventually("the count of clients", || {
        let is_one =
            |line: &str| line.starts_with("campanile_clients_connected") && line.ends_with(" 1");
        node.get("/metrics").body.lines().any(is_one).then_some(())
    });
    client.subscribe("$SYS/broker/#", 0);
    assert!(client.next_message().topic.starts_with("$SYS/broker/"));
}
