//! Deleting an app that has something of everything, while its devices are connected.

use serde_json::{Value, json};

use crate::harness::{
    Client, Kind, MessageOptions, Node, Protocol, Response, Session, Tool, Transport, eventually,
    request,
};

const APP: &str = "/v1/apps/default";
const ADMIN: &str = "/v1/admin/apps";

struct Caller<'n> {
    node: &'n Node,
    key: String,
}

impl Caller<'_> {
    fn ask(&self, method: &str, path: &str, body: &Value) -> Response {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
            self.key
        );
        request(self.node.http(), &head, &body).expect("the node answers")
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.ask(method, path, &body);
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path}: {answer:?}"
        );
        match answer.body.is_empty() {
            true => Value::Null,
            false => answer.json(),
        }
    }

    fn of_app(&self, method: &str, path: &str, body: Value) -> Value {
        self.call(method, &format!("{APP}/{path}"), body)
    }
}

/// The key of an operator, of another app.
fn operator(node: &Node) -> String {
    let data = node.data().to_str().expect("the path is UTF-8");
    Tool::campanile(["app", "create", "ops", "--data", data]).succeed();
    let made = Tool::campanile([
        "app", "key", "ops", "--may", "operator", "--json", "--data", data,
    ])
    .succeed();
    let made: Value = serde_json::from_str(&made.concat()).expect("JSON");
    made["key"].as_str().expect("a key").to_owned()
}

/// How many things are in each list of what an app has.
fn counts(caller: &Caller<'_>) -> Vec<usize> {
    let lists = [
        "devices",
        "segments",
        "schedules",
        "pushes",
        "webhooks",
        "users/ann/devices",
    ];
    let count = |list: &str| {
        let found = caller
            .ask("GET", &format!("{APP}/{list}"), &json!(null))
            .json();
        let lists = found
            .as_object()
            .into_iter()
            .flat_map(|found| found.values());
        lists.filter_map(Value::as_array).map(Vec::len).sum()
    };
    lists.map(count).to_vec()
}

fn furnish(node: &Node) -> Client {
    let caller = Caller {
        node,
        key: node.api_key().to_owned(),
    };
    let phone = Client::v5(node, Session::kept("phone"));
    Client::v5(node, Session::kept("tablet")).disconnect();
    for device in ["phone", "tablet"] {
        let body = json!({"user": "ann", "tags": ["vip"], "topics": ["news"]});
        caller.of_app("PUT", &format!("devices/{device}"), body);
    }
    caller.of_app("POST", "devices/tablet:token", json!(null));
    caller.of_app("PUT", "segments/s", json!({"expr": "vip"}));
    let daily = json!({"cron": "0 9 * * *", "time_zone": "device"});
    let push = json!({"audience": {"all": true}, "data": {}});
    caller.of_app("POST", "schedules", json!({"when": daily, "push": push}));
    let webhook = json!({"url": "https://example.com/hook"});
    caller.of_app("POST", "webhooks", webhook);
    for audience in [
        json!({"all": true}),
        json!({"devices": ["tablet", "unseen"]}),
        json!({"expr": "vip"}),
    ] {
        let push = json!({"audience": audience, "data": {"n": 1}});
        caller.of_app("POST", "pushes", push);
    }
    let campaign = json!({
        "audience": {"all": true}, "data": {"n": 2}, "options": {"pace": {"over": 3600}, "ttl": 7200},
    });
    caller.of_app("POST", "pushes", campaign);
    let mut publisher = Client::v5(node, Session::clean("publisher"));
    let retained = MessageOptions {
        qos: 1,
        retain: true,
        ..MessageOptions::default()
    };
    publisher.publish("kept/topic", "old", retained);
    assert!(
        counts(&caller).iter().all(|count| *count > 0),
        "{:?}",
        counts(&caller)
    );
    phone
}

/// A device that may be refused, and the CONNACK.
fn connect(node: &Node) -> (Client, Value) {
    let mut phone = Client::start(node, Kind::Paho, Protocol::V5, Transport::Tcp);
    let connack = phone.try_connect(Session::kept("phone"));
    (phone, connack.expect("an answer"))
}

#[test]
fn a_deleted_app_leaves_nothing_to_the_next_of_its_name() {
    let mut node = Node::start();
    let phone = furnish(&node);
    let key = operator(&node);
    let ops = |node: &Node, method: &str, path: &str, body: Value| {
        let key = key.clone();
        Caller { node, key }.ask(method, path, &body)
    };
    let one = format!("{ADMIN}/default");
    let asked = ops(&node, "DELETE", &one, json!(null));
    assert_eq!(asked.status, 202, "{asked:?}");
    assert_eq!(asked.json()["deletion"]["erased"], 0);
    assert_eq!(phone.await_disconnected(), Some(0x98));
    let old = |node: &Node| {
        let key = node.api_key().to_owned();
        Caller { node, key }.ask("GET", &format!("{APP}/devices"), &json!(null))
    };
    eventually("its keys are refused", || {
        let refused = old(&node);
        (refused.status == 409).then(|| assert_eq!(refused.json()["code"], "app_leaving"))
    });
    let again = ops(&node, "POST", ADMIN, json!({"app": "default"}));
    assert_eq!(again.json()["code"], "app_leaving", "its name is not free");
    // Whoever starts next goes on.
    node.kill9();
    node.start_again();
    assert_eq!(connect(&node).1["code"], 0x87);
    eventually("it is gone", || {
        (ops(&node, "GET", &one, json!(null)).status == 404).then_some(())
    });
    assert_eq!(old(&node).status, 401, "its keys went with it");

    let made = ops(&node, "POST", ADMIN, json!({"app": "default"}));
    assert_eq!(made.status, 201, "{made:?}");
    let key = made.json()["key"].as_str().expect("a key").to_owned();
    let caller = Caller { node: &node, key };
    assert_eq!(counts(&caller), [0; 6]);
    let audit = caller.of_app("GET", "audit", json!(null));
    let entries = audit["entries"].as_array().expect("a list");
    let actions: Vec<&Value> = entries.iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions, ["app.created"]);
    let shown = ops(&node, "GET", &one, json!(null)).json();
    assert_eq!(
        (&shown["usage"]["devices"], &shown["usage"]["stored_bytes"]),
        (&json!(0), &json!(0))
    );

    // A quota is lifted within some seconds, and so is this.
    let mut phone = eventually("devices are welcome", || {
        let (phone, connack) = connect(&node);
        (connack["code"] == 0).then(|| {
            assert_eq!(connack["session_present"], false);
            phone
        })
    });
    phone.subscribe("kept/#", 1);
    let push = json!({"audience": {"all": true}, "data": {"n": 3}});
    let accepted = caller.of_app("POST", "pushes", push);
    assert_eq!(accepted["targeted"], 1);
    assert_eq!(
        phone.next_message().json()["data"]["n"],
        3,
        "and nothing before it"
    );
    let tablet = Client::v5(&node, Session::kept("tablet"));
    assert!(!tablet.session_present());
    let push = json!({"audience": {"devices": ["tablet"]}, "data": {"n": 4}});
    caller.of_app("POST", "pushes", push);
    assert_eq!(tablet.next_message().json()["data"]["n"], 4);
}
