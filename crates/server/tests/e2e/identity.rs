//! Who a device is: credentials of its app, what it may do with them, and what follows from it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::{
    Client, Kind, Node, NodeOptions, Protocol, Response, Session, Tool, Transport, eventually,
    installed, request, root,
};

/// How long nothing must come.
const MOMENT: Duration = Duration::from_millis(300);
const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const BAD_CREDENTIALS: u64 = 0x86;
const NOT_AUTHORIZED: u64 = 0x87;
const KICKED: u64 = 0x98;
const EXPIRED: u64 = 0xA0;

/// A node that takes devices with credentials only, and says why it refuses one.
fn node() -> Node {
    Node::with(NodeOptions {
        settings: "[clients]\nallow_anonymous = false\n[log]\nlevel = \"info,campanile=debug\"\n"
            .to_owned(),
        ..NodeOptions::default()
    })
}

fn ask(node: &Node, method: &str, path: &str, body: &str) -> Response {
    let head = format!(
        "{method} /v1/apps/default/{path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
        node.api_key()
    );
    request(node.http(), &head, body).expect("the node answers")
}

fn call(node: &Node, method: &str, path: &str, body: &str) -> Value {
    let response = ask(node, method, path, body);
    assert!((200..300).contains(&response.status), "{response:?}");
    match response.body.is_empty() {
        true => Value::Null,
        false => response.json(),
    }
}

fn token(node: &Node, device: &str, body: &str) -> String {
    let made = call(node, "POST", &format!("devices/{device}:token"), body);
    made["token"].as_str().expect("it is shown once").to_owned()
}

fn add_key(node: &Node, kid: &str) {
    let body = json!({"kid": kid, "algorithm": "HS256", "secret": SECRET});
    call(node, "POST", "device-keys", &body.to_string());
}

/// A token as an app's backend signs it, for so many seconds.
fn signed(device: &str, seconds: i64, changes: Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut claims =
        json!({"sub": device, "aud": "default", "exp": now.as_secs() as i64 + seconds});
    let more = changes.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(more);
    let header = Header {
        kid: Some("k1".to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    encode(
        &header,
        &claims,
        &EncodingKey::from_base64_secret(SECRET).unwrap(),
    )
    .unwrap()
}

fn code(node: &Node, kind: Kind, protocol: Protocol, device: &str, password: &str) -> u64 {
    let mut client = Client::start(node, kind, protocol, Transport::Tcp);
    let session = Session::clean(device).credentials(device, password);
    let connack = client.try_connect(session).expect("the server answers");
    connack["code"].as_u64().expect("an answer has a code")
}

fn connect(node: &Node, kind: Kind, protocol: Protocol, device: &str, password: &str) -> Client {
    let session = Session::clean(device).credentials(device, password);
    Client::connect(node, kind, protocol, Transport::Tcp, session)
}

/// What the device is told next on `push/ctl`.
fn told(device: &Client) -> Value {
    let message = device.next_message();
    assert_eq!(message.topic, "push/ctl");
    message.json()
}

#[test]
fn a_token_lets_a_device_in_and_registers_it() {
    let node = node();
    let secret = token(&node, "phone-1", "");
    for (kind, protocol) in [
        (Kind::Paho, Protocol::V5),
        (Kind::Paho, Protocol::V311),
        (Kind::MqttJs, Protocol::V5),
        (Kind::MqttJs, Protocol::V311),
    ] {
        assert_eq!(
            code(&node, kind, protocol, "phone-1", &secret),
            0,
            "{kind:?}"
        );
    }
    eventually("the device is registered by that", || {
        (ask(&node, "GET", "devices/phone-1", "").status == 200).then_some(())
    });
    for (device, password, why) in [
        ("phone-2", secret.as_str(), "unknown_token"),
        ("phone-1", "cdt_wrong", "unknown_token"),
        ("phone-1", "nonsense", ""),
    ] {
        let refused = code(&node, Kind::Paho, Protocol::V5, device, password);
        // Without a password file a name and a password are no credentials at all.
        let expected = if why.is_empty() {
            NOT_AUTHORIZED
        } else {
            BAD_CREDENTIALS
        };
        assert_eq!(refused, expected, "{device} {password}");
        let is_logged = |line: &String| line.contains("device refused") && line.contains(why);
        assert!(why.is_empty() || node.log().iter().any(is_logged), "{why}");
    }
    // Return code 4 of MQTT 3.1.1, as Paho shows it.
    let refused = code(&node, Kind::Paho, Protocol::V311, "phone-2", &secret);
    assert_eq!(refused, BAD_CREDENTIALS);
    let metrics = node.get("/metrics").body;
    assert!(
        metrics.contains(
            "campanile_device_credentials_refused_total{way=\"token\",reason=\"unknown_token\"}"
        ),
        "{metrics}"
    );
}

#[test]
fn a_new_token_replaces_the_old_one_and_a_revoked_one_ends_the_connection() {
    let node = node();
    let first = token(&node, "phone-1", "");
    let second = token(&node, "phone-1", "");
    for secret in [&first, &second] {
        assert_eq!(code(&node, Kind::Paho, Protocol::V5, "phone-1", secret), 0);
    }
    let third = token(&node, "phone-1", r#"{"grace": 0}"#);
    let refused = code(&node, Kind::Paho, Protocol::V5, "phone-1", &second);
    assert_eq!(refused, BAD_CREDENTIALS);
    let device = connect(&node, Kind::MqttJs, Protocol::V5, "phone-1", &third);
    call(&node, "DELETE", "devices/phone-1/token", "");
    assert_eq!(device.await_disconnected(), Some(KICKED));
    let refused = code(&node, Kind::MqttJs, Protocol::V5, "phone-1", &third);
    assert_eq!(refused, BAD_CREDENTIALS);
    assert_eq!(
        ask(&node, "DELETE", "devices/phone-1/token", "").status,
        404
    );
}

#[test]
fn a_signed_token_lets_in_whom_it_names() {
    let node = node();
    add_key(&node, "k1");
    let good = signed("phone-1", 60, json!({"user": "ann"}));
    for (kind, protocol) in [(Kind::Paho, Protocol::V311), (Kind::MqttJs, Protocol::V5)] {
        assert_eq!(code(&node, kind, protocol, "phone-1", &good), 0, "{kind:?}");
    }
    eventually(
        "the device is bound to the user that the token names",
        || {
            let shown = ask(&node, "GET", "devices/phone-1", "").json();
            (shown["user"] == "ann").then_some(())
        },
    );
    for (password, why) in [
        (signed("phone-1", -60, json!({})), "expired"),
        (signed("phone-2", 60, json!({})), "wrong_device"),
        (signed("phone-1", 60, json!({"aud": "forum"})), "wrong_app"),
        (
            signed("phone-1", 60, json!({"nbf": 32503680000u64})),
            "too_early",
        ),
        (signed("phone-1", 60, json!({"sub": 7})), "missing_claim"),
        ("eyJhbGc.e30.x".to_owned(), "malformed"),
        (format!("{good}A"), "wrong_signature"),
    ] {
        for kind in [Kind::Paho, Kind::MqttJs] {
            let refused = code(&node, kind, Protocol::V5, "phone-1", &password);
            assert_eq!(refused, BAD_CREDENTIALS, "{why}");
        }
        let log = node.log();
        let is_logged = |line: &String| line.contains("device refused") && line.contains(why);
        assert!(log.iter().any(is_logged), "{why}: {log:#?}");
        assert!(
            !log.iter().any(|line| line.contains(&password)),
            "never logged"
        );
    }
    call(&node, "DELETE", "device-keys/k1", "");
    eventually("the key is forgotten", || {
        let refused = code(&node, Kind::Paho, Protocol::V5, "phone-1", &good);
        (refused == BAD_CREDENTIALS).then_some(())
    });
}

#[test]
fn a_connection_ends_with_its_signed_token() {
    let node = node();
    add_key(&node, "k1");
    // The leeway for clocks is half a minute, so that this one has some seconds left.
    let short = signed("phone-1", -22, json!({}));
    let device = connect(&node, Kind::Paho, Protocol::V5, "phone-1", &short);
    assert_eq!(device.await_disconnected(), Some(EXPIRED));
}

#[test]
fn a_device_may_do_what_its_app_allows() {
    let node = node();
    let secret = token(&node, "phone-1", "");
    call(&node, "PUT", "devices/phone-1", r#"{"user": "ann"}"#);
    let rules = r#"{"publish": ["devices/{client}/#"], "subscribe": ["users/{user}/#", "devices/{client}/#"]}"#;
    call(&node, "PUT", "device-rules", rules);
    eventually("the rules hold", || {
        let mut device = connect(&node, Kind::Paho, Protocol::V5, "phone-1", &secret);
        (device.subscribe("devices/phone-1/#", 1) == 1).then_some(())
    });
    let mut device = connect(&node, Kind::MqttJs, Protocol::V5, "phone-1", &secret);
    for (filter, granted) in [
        ("users/ann/#", 1),
        ("push/in", 1),
        ("users/bob/#", NOT_AUTHORIZED),
        ("users/+/x", NOT_AUTHORIZED),
        ("#", NOT_AUTHORIZED),
        ("$SYS/#", NOT_AUTHORIZED),
    ] {
        assert_eq!(device.subscribe(filter, 1), granted, "{filter}");
    }
    assert_eq!(device.publish("devices/phone-2/x", "x", 1), NOT_AUTHORIZED);
    assert_eq!(device.publish("push/in", "x", 1), NOT_AUTHORIZED);
    device.subscribe("devices/phone-1/#", 1);
    assert_eq!(device.publish("devices/phone-1/x", "x", 1), 0);
    assert_eq!(device.next_message().topic, "devices/phone-1/x");
    // Its own pushes need no rule.
    let push = r#"{"audience": {"devices": ["phone-1"]}, "data": {}}"#;
    call(&node, "POST", "pushes", push);
    assert_eq!(device.next_message().topic, "push/in");
}

#[test]
fn a_device_describes_itself_and_is_told_what_is_wrong() {
    let node = node();
    let secret = token(&node, "phone-1", "");
    call(&node, "PUT", "device-rules", r#"{"tags": ["beta"]}"#);
    call(&node, "PUT", "devices/phone-1", r#"{"tags": ["vip"]}"#);
    let mut device = connect(&node, Kind::Paho, Protocol::V5, "phone-1", &secret);
    let body =
        r#"{"platform": "ios", "app_version": "3.2", "tags": ["beta"], "tokens": {"apns": "t1"}}"#;
    assert_eq!(device.publish("push/reg", body, 1), 0);
    // PUBACK says that it is durable.
    let shown = call(&node, "GET", "devices/phone-1", "");
    assert_eq!(shown["platform"], "ios");
    assert_eq!(shown["tags"], json!(["beta", "vip"]), "others stay");
    const IMPLEMENTATION_SPECIFIC_ERROR: u64 = 0x83;
    for (body, code, field) in [
        (r#"{"tags": ["vip"]}"#, "invalid_field", json!("/tags")),
        (r#"{"user": "eve"}"#, "unknown_field", json!("/user")),
        (
            r#"{"time_zone": "Mars/Base"}"#,
            "invalid_field",
            json!("/time_zone"),
        ),
        ("{", "malformed_json", Value::Null),
    ] {
        assert_eq!(
            device.publish("push/reg", body, 1),
            IMPLEMENTATION_SPECIFIC_ERROR
        );
        let told = told(&device);
        assert_eq!(
            (&told["type"], &told["topic"], &told["code"], &told["field"]),
            (&json!("refused"), &json!("push/reg"), &json!(code), &field),
            "{told}"
        );
    }
    // What an older client says is refused on the same way, since its PUBACK cannot.
    let mut older = connect(&node, Kind::MqttJs, Protocol::V311, "phone-1", &secret);
    assert_eq!(older.publish("push/reg", "[]", 1), 0);
    assert_eq!(told(&older)["type"], "refused");
}

#[test]
fn a_device_says_how_far_it_has_got_and_is_replayed_from_there() {
    let node = node();
    let secret = token(&node, "phone-1", "");
    let mut device = connect(&node, Kind::Paho, Protocol::V5, "phone-1", &secret);
    let push = |n: u32| {
        let body = json!({"audience": {"all": true}, "data": {"n": n}});
        call(&node, "POST", "pushes", &body.to_string());
    };
    let next = |device: &Client| {
        let message = device.next_message();
        assert_eq!(message.topic, "push/in");
        message.json()["data"]["n"].clone()
    };
    // What is still on its way to it when it asks does not come again: its client may acknowledge after it has shown.
    let place_after = |device: &mut Client, before: u64| {
        eventually("it has acknowledged what came", || {
            device.publish("push/sync", "{}", 1);
            let told = told(device);
            assert_eq!(
                (&told["type"], &told["log"]),
                (&json!("position"), &json!("push"))
            );
            let place = told["offset"].as_str().expect("a place is a string");
            let place: u64 = place.parse().expect("a number");
            (place > before).then_some(place)
        })
    };
    push(1);
    assert_eq!(next(&device), 1);
    let first = place_after(&mut device, 0);
    push(2);
    push(3);
    assert_eq!((next(&device), next(&device)), (json!(2), json!(3)));
    let third = place_after(&mut device, first + 1);
    // Its store was wiped since it saved that place.
    let back = json!({"log": "push", "offset": first.to_string()}).to_string();
    assert_eq!(device.publish("push/sync", &back, 1), 0);
    assert_eq!((next(&device), next(&device)), (json!(2), json!(3)));
    assert_eq!(place_after(&mut device, first + 1), third);
    assert_eq!(device.publish("push/sync", r#"{"offset": "0"}"#, 1), 0);
    assert_eq!(next(&device), 1);
    assert_eq!((next(&device), next(&device)), (json!(2), json!(3)));
    assert_eq!(place_after(&mut device, first + 1), third);
    assert_eq!(
        device.publish("push/sync", r#"{"offset": "9999999999999999999"}"#, 1),
        0
    );
    assert_eq!(told(&device)["type"], "gap", "nobody knows that place");
    device.publish("push/sync", r#"{"log": "topics"}"#, 1);
    assert_eq!(told(&device)["type"], "refused");
    push(4);
    assert_eq!(next(&device), 4);
    assert_eq!(device.message_within(MOMENT), None);
}

#[test]
fn a_device_that_missed_more_than_is_kept_is_told_of_the_gap() {
    let node = Node::with(NodeOptions {
        settings: "[store]\nretention_bytes = \"1 MiB\"\n[limits]\ntail_entries = 4\n".to_owned(),
        ..NodeOptions::default()
    });
    call(&node, "PUT", "devices/phone-1", "{}");
    let mut device = Client::v5(&node, Session::kept("phone-1"));
    device.subscribe("news", 1);
    device.disconnect();
    let mut publisher = Client::v5(&node, Session::clean("publisher"));
    let (articles, text) = (48, "x".repeat(64 << 10));
    for number in 0..articles {
        assert_eq!(publisher.publish("news", &format!("{number} {text}"), 1), 0);
    }
    // The oldest went: what it gets is the rest, in order, and the word that there was more.
    let device = Client::v5(&node, Session::kept("phone-1"));
    let (mut gaps, mut numbers) = (0, Vec::new());
    while numbers.last() != Some(&(articles - 1)) || gaps == 0 {
        let message = device.next_message();
        match message.topic.as_str() {
            "push/ctl" => {
                assert_eq!(message.json(), json!({"type": "gap", "log": "topics"}));
                gaps += 1;
            }
            _ => {
                let number = message.payload.split(' ').next().expect("its number");
                numbers.push(number.parse::<u32>().expect("a number"));
            }
        }
    }
    assert_eq!(gaps, 1);
    assert!(numbers[0] > 0 && numbers.is_sorted(), "{numbers:?}");
}

#[test]
fn a_device_is_shown_where_it_is_and_kicked_there() {
    let node = node();
    let secret = token(&node, "phone-1", "");
    call(&node, "PUT", "devices/phone-1", "{}");
    let shown = call(&node, "GET", "devices/phone-1", "");
    assert_eq!(shown["connection"], Value::Null);
    let kicked = call(&node, "POST", "devices/phone-1:kick", "");
    assert_eq!(kicked, json!({"kicked": false}));
    let mut device = connect(&node, Kind::Paho, Protocol::V5, "phone-1", &secret);
    device.subscribe("users/x", 1);
    device.subscribe("push/in", 1);
    let connection = call(&node, "GET", "devices/phone-1", "")["connection"].take();
    assert_eq!(connection["protocol"], "MQTT 5.0");
    assert_eq!(connection["filters"], json!(["push/in"]));
    assert_eq!(connection["lag"], json!({"push_log": 0, "inbox": false}));
    let address = connection["address"].as_str().expect("it has an address");
    assert!(address.parse::<std::net::SocketAddr>().is_ok(), "{address}");
    assert!(
        connection["since"]
            .as_str()
            .is_some_and(|since| since.ends_with('Z'))
    );
    let kicked = call(&node, "POST", "devices/phone-1:kick", "");
    assert_eq!(
        (&kicked["kicked"], &kicked["node"]),
        (&json!(true), &connection["node"])
    );
    assert_eq!(device.await_disconnected(), Some(KICKED));
    assert_eq!(ask(&node, "POST", "devices/phone-1:burn", "").status, 404);
}

/// The last example of a language in `docs/devices.md`, for a node that is elsewhere.
fn example(node: &Node, language: &str) -> String {
    let text = fs::read_to_string(root().join("docs/devices.md")).expect("the page is there");
    let fence = format!("```{language}\n");
    let (_, code) = text.rsplit_once(&fence).expect("it has an example");
    let (code, _) = code.split_once("```").expect("the example ends");
    let address = node.address(Transport::Tcp);
    let (host, port) = (address.ip(), address.port());
    code.replace("\"localhost\", 1883", &format!("\"{host}\", {port}"))
        .replace("localhost:1883", &address.to_string())
}

fn check_example(node: &Node, mut command: Command, file: &Path) {
    let secret = token(node, "phone-1", "");
    let device = Tool::of(command.arg(file).env("DEVICE_TOKEN", secret));
    eventually("the device has described itself", || {
        let shown = ask(node, "GET", "devices/phone-1", "");
        (shown.status == 200 && shown.json()["platform"].is_string()).then_some(())
    });
    let push = r#"{"audience": {"devices": ["phone-1"]}, "notification": {"title": "Shipped"}}"#;
    let push = call(node, "POST", "pushes", push)["push_id"].clone();
    assert_eq!(device.next_line(), "shown: Shipped");
    let path = format!("pushes/{}", push.as_str().expect("a push has an id"));
    eventually("what it showed is counted", || {
        let report = call(node, "GET", &path, "");
        (report["displayed"] == 1).then_some(())
    });
}

#[test]
fn the_example_for_paho_works() {
    let node = node();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("device.py");
    fs::write(&file, example(&node, "python")).unwrap();
    let mut python = Command::new(installed(root().join(".local/venv/bin/python")));
    python.arg("-u");
    check_example(&node, python, &file);
}

#[test]
fn the_example_for_mqtt_js_works() {
    let node = node();
    let directory = tempfile::tempdir().unwrap();
    let modules = installed(root().join(".local/npm/node_modules/mqtt")).join("..");
    symlink(modules, directory.path().join("node_modules")).unwrap();
    let file = directory.path().join("device.mjs");
    fs::write(&file, example(&node, "js")).unwrap();
    check_example(&node, Command::new("node"), &file);
}
