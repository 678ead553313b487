//! Who is told what happens: webhooks and callbacks at a receiver of their own, whose signatures are checked by the code in the documentation; and the event stream, read
//! by a client that goes on by itself.

use std::{
    io::Write,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{
    Client, Lines, Node, NodeOptions, Session, Tool, eventually, installed, request, root,
};

/// As a laboratory needs it: receivers are on this machine.
const LABORATORY: &str = "[webhooks]\nallow_http = true\nallow_private_targets = true\n";

fn laboratory() -> Node {
    Node::with(NodeOptions {
        settings: LABORATORY.to_owned(),
        ..NodeOptions::default()
    })
}

/// A request below the app's path; it must be answered with success.
fn call(node: &Node, method: &str, path: &str, body: Value) -> Value {
    let head = format!(
        "{method} /v1/apps/default/{path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
        node.api_key()
    );
    let body = match method {
        "GET" => String::new(),
        _ => body.to_string(),
    };
    let response = request(node.http(), &head, &body).expect("the node answers");
    assert!((200..300).contains(&response.status), "{response:?}");
    response.json()
}

fn get(node: &Node, path: &str) -> Value {
    call(node, "GET", path, Value::Null)
}

fn push(node: &Node, audience: Value, options: Value) -> String {
    let body = json!({"audience": audience, "data": {}, "options": options});
    let accepted = call(node, "POST", "pushes", body);
    accepted["push_id"].as_str().expect("an id").to_owned()
}

/// A receiver of webhooks (`tests/e2e/webhook_receiver.py`).
struct Receiver {
    process: Child,
    input: ChildStdin,
    lines: Lines,
    port: u64,
}

impl Receiver {
    fn start() -> Receiver {
        let python = installed(root().join(".local/venv/bin/python"));
        let mut process = Command::new(python)
            .arg(root().join("tests/e2e/webhook_receiver.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the receiver starts");
        let input = process.stdin.take().expect("the input is piped");
        let lines = Lines::of(process.stdout.take().expect("the output is piped"));
        let port = lines.take(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["port"].as_u64()
        });
        Receiver {
            process,
            input,
            lines,
            port: port.expect("the receiver says where it is"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Gives it a secret to check by, or the next answers.
    fn order(&mut self, order: Value) {
        writeln!(self.input, "{order}").expect("the receiver reads");
        let done = |line: &str| line.contains("\"done\"").then_some(());
        self.lines.take(done).expect("the receiver has it");
    }

    /// The next request to a path.
    fn next(&self, path: &str) -> Value {
        let got = self.lines.take(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["path"] == path).then_some(line)
        });
        got.unwrap_or_else(|| panic!("nothing comes to {path}"))
    }

    /// A webhook that leads here; the receiver knows its secret.
    fn hook(&mut self, node: &Node, path: &str, events: Value) -> String {
        let body = json!({"url": self.url(path), "events": events});
        let made = call(node, "POST", "webhooks", body);
        self.order(json!({"secret": made["secret"]}));
        made["id"].as_str().expect("an id").to_owned()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_receiver_gets_signed_events_in_order() {
    let node = laboratory();
    let mut receiver = Receiver::start();
    receiver.hook(&node, "/hook", json!(["*"]));
    let device = Client::v5(&node, Session::kept("phone"));
    let ids: Vec<String> = (0..5)
        .map(|_| push(&node, json!({"devices": ["phone"]}), json!({})))
        .collect();
    for _ in &ids {
        device.next_message();
    }
    let mut delivered = Vec::new();
    while delivered.len() < ids.len() {
        let got = receiver.next("/hook");
        assert_eq!(got["valid"], true, "{got}");
        let event = &got["body"];
        assert_eq!(event["app"], "default");
        if event["type"] == "push.delivered" {
            assert_eq!(event["device"], "phone");
            delivered.push(event["push_id"].as_str().expect("an id").to_owned());
        }
    }
    assert_eq!(delivered, ids);
    call(&node, "PUT", "devices/phone", json!({"language": "de"}));
    let registered = loop {
        let got = receiver.next("/hook");
        if got["body"]["type"] == "device.registered" {
            break got;
        }
    };
    assert_eq!(registered["body"]["device"], "phone");
}

#[test]
fn what_is_not_taken_comes_again_and_what_is_refused_can_be_replayed() {
    let node = laboratory();
    let mut receiver = Receiver::start();
    let id = receiver.hook(&node, "/hook", json!(["push.accepted"]));
    receiver.order(json!({"answers": [500, 422]}));
    let first = push(&node, json!({"devices": ["phone"]}), json!({}));
    let got = receiver.next("/hook");
    assert_eq!(
        (&got["status"], &got["body"]["push_id"]),
        (&json!(500), &json!(first))
    );
    let refused = push(&node, json!({"devices": ["phone"]}), json!({}));
    let got = receiver.next("/hook");
    assert_eq!(
        (&got["status"], &got["body"]["push_id"]),
        (&json!(422), &json!(refused))
    );
    // The same event, five seconds later.
    let again = receiver.next("/hook");
    assert_eq!(
        (&again["status"], &again["body"]["push_id"]),
        (&json!(204), &json!(first))
    );
    let path = format!("webhooks/{id}/dead-letters");
    let dead = eventually("the dead letter", || {
        let page = get(&node, &path);
        page["dead_letters"]
            .as_array()
            .and_then(|dead| dead.first().cloned())
    });
    assert_eq!(
        (&dead["event"]["push_id"], &dead["last_answer"]),
        (&json!(refused), &json!("HTTP 422"))
    );
    let replayed = call(&node, "POST", &format!("{path}:replay"), json!({}));
    assert_eq!(replayed, json!({"replayed": 1}));
    let got = receiver.next("/hook");
    assert_eq!(
        (&got["valid"], &got["body"]),
        (&json!(true), &dead["event"])
    );
}

#[test]
fn what_a_node_has_not_told_is_told_after_its_death() {
    let mut node = laboratory();
    let mut receiver = Receiver::start();
    receiver.hook(&node, "/hook", json!(["push.accepted"]));
    let ids: Vec<String> = (0..20)
        .map(|_| push(&node, json!({"devices": ["phone"]}), json!({})))
        .collect();
    node.kill9();
    node.start_again();
    let mut missing: std::collections::BTreeSet<String> = ids.into_iter().collect();
    while !missing.is_empty() {
        let got = receiver.next("/hook");
        missing.remove(got["body"]["push_id"].as_str().expect("an id"));
    }
}

#[test]
fn the_end_of_a_push_is_told_to_its_callback_address() {
    let node = laboratory();
    let mut receiver = Receiver::start();
    let secret = get(&node, "callback-secret")["secret"].clone();
    receiver.order(json!({"secret": secret, "answers": [503]}));
    let options = json!({
        "callback_url": receiver.url("/done"),
        "labels": {"team": "growth"},
        "external_id": "order-7",
    });
    let id = push(&node, json!({"devices": ["phone"]}), options);
    let device = Client::v5(&node, Session::kept("phone"));
    device.next_message();
    let failed = receiver.next("/done");
    assert_eq!(
        (&failed["status"], &failed["valid"]),
        (&json!(503), &json!(true))
    );
    let told = receiver.next("/done");
    assert_eq!(told["valid"], true);
    let report = &told["body"];
    assert_eq!(
        (&report["push_id"], &report["status"], &report["delivered"]),
        (&json!(id), &json!("done"), &json!(1))
    );
    assert_eq!(report, &get(&node, &format!("pushes/{id}")));
    let listed = get(&node, "pushes?label=team:growth");
    assert_eq!(listed["pushes"][0]["external_id"], "order-7");
    // One that nobody gets is done when its time is up.
    let options = json!({"callback_url": receiver.url("/expired"), "ttl": 1});
    push(&node, json!({"devices": ["away"]}), options);
    let told = receiver.next("/expired");
    assert_eq!(told["body"]["expired"], 1);
}

#[test]
fn an_event_stream_goes_on_where_it_was_after_a_restart() {
    let mut node = Node::start();
    let modules = installed(root().join(".local/npm/node_modules/eventsource")).join("../..");
    let url = format!("http://{}/v1/apps/default/events", node.http());
    let reader = Tool::of(
        Command::new("node")
            .arg(root().join("tests/e2e/event_source.mjs"))
            .args([&url, node.api_key()])
            .env("CAMPANILE_NPM", modules),
    );
    let next = || -> Value { serde_json::from_str(&reader.next_line()).expect("a line of JSON") };
    assert_eq!(next()["type"], "open");
    let audience = || json!({"devices": ["phone"]});
    let first = push(&node, audience(), json!({}));
    let event = next();
    assert_eq!(
        (&event["type"], &event["data"]["push_id"]),
        (&json!("push.accepted"), &json!(first))
    );
    assert_eq!(event["id"], event["data"]["id"]);
    // A node that stops ends its streams, so that it need not wait for them.
    let began = std::time::Instant::now();
    node.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
    node.start_again();
    let second = push(&node, audience(), json!({}));
    let event = loop {
        let event = next();
        if event["type"] != "open" {
            break event;
        }
    };
    assert_eq!(
        (&event["type"], &event["data"]["push_id"]),
        (&json!("push.accepted"), &json!(second))
    );
    let timeline = get(&node, "devices/phone/timeline");
    assert_eq!(
        timeline["events"],
        json!([]),
        "an acceptance is of no device"
    );
    let device = Client::v5(&node, Session::kept("phone"));
    for _ in 0..2 {
        device.next_message();
    }
    for _ in 0..2 {
        assert_eq!(next()["type"], "push.delivered");
    }
    let timeline = get(&node, "devices/phone/timeline");
    let events = timeline["events"].as_array().expect("events").iter();
    let told: Vec<(&Value, &Value)> = events
        .map(|event| (&event["type"], &event["push_id"]))
        .collect();
    let (delivered, connected) = (json!("push.delivered"), json!("device.connected"));
    assert_eq!(
        told,
        [
            (&delivered, &json!(second)),
            (&delivered, &json!(first)),
            (&connected, &Value::Null),
        ]
    );
}

#[test]
fn a_webhook_reaches_no_private_network_unless_it_may() {
    let node = Node::with(NodeOptions {
        settings: "[webhooks]\nallow_http = true\n".to_owned(),
        ..NodeOptions::default()
    });
    let mut receiver = Receiver::start();
    let id = receiver.hook(&node, "/hook", json!(["*"]));
    let tested = call(&node, "POST", &format!("webhooks/{id}:test"), json!({}));
    assert_eq!(tested["taken"], false);
    let answer = tested["answer"].as_str().expect("an answer");
    assert!(answer.contains("allow_private_targets"), "{answer}");
}
