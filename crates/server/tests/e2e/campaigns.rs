//! Campaigns: pushes whose devices have their turns at different times.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use campanile_mqtt::{Version, client::Message};
use campanile_testbed::conversation::{Conversation, kept, passing};
use serde_json::{Value, json};

use crate::harness::{Node, Transport, eventually, request};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must come.
const MOMENT: Duration = Duration::from_millis(400);

fn ask(node: &Node, method: &str, path: &str, body: &str) -> (u16, Value) {
    let head = format!(
        "{method} /v1/apps/default/{path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
        node.api_key()
    );
    let response = request(node.http(), &head, body).expect("the node answers");
    let json = match response.body.is_empty() {
        true => Value::Null,
        false => response.json(),
    };
    (response.status, json)
}

#[track_caller]
fn call(node: &Node, method: &str, path: &str, body: &str) -> Value {
    let (status, answer) = ask(node, method, path, body);
    assert!((200..300).contains(&status), "{status} {answer}");
    answer
}

/// Sends a push with options to all; its id.
#[track_caller]
fn push(node: &Node, n: u32, options: Value) -> String {
    push_to(node, json!({"all": true}), n, options)
}

#[track_caller]
fn push_to(node: &Node, audience: Value, n: u32, options: Value) -> String {
    let body = json!({"audience": audience, "data": {"n": n}, "options": options});
    let accepted = call(node, "POST", "pushes", &body.to_string());
    accepted["push_id"].as_str().expect("an id").to_owned()
}

/// Does something with a push; how it stands then.
#[track_caller]
fn act(node: &Node, push: &str, verb: &str) -> Value {
    call(node, "POST", &format!("pushes/{push}:{verb}"), "")
}

/// The report of a push, whose figures add up.
#[track_caller]
fn report(node: &Node, push: &str) -> Value {
    let report = call(node, "GET", &format!("pushes/{push}"), "");
    let figure = |name: &str| report[name].as_u64();
    let outcomes = [
        "delivered",
        "pending",
        "expired",
        "recalled",
        "collapsed",
        "dropped",
        "failed",
    ];
    if let Some(targeted) = figure("targeted") {
        let sum: Option<u64> = outcomes.into_iter().map(figure).sum();
        assert_eq!(sum, Some(targeted), "{report}");
    }
    report
}

fn await_report(node: &Node, push: &str, name: &str, expected: &Value) -> Value {
    let mut last = Value::Null;
    let what = format!("{name} {expected}");
    eventually(&what, || {
        last = report(node, push);
        (last[name] == *expected).then(|| last.clone())
    })
}

fn why(node: &Node, push: &str, device: &str) -> Value {
    call(node, "GET", &format!("pushes/{push}/devices/{device}"), "")
}

/// A device whose session is kept.
fn device(node: &Node, name: &str) -> Conversation {
    let mut device = Conversation::new(kept(name, Version::V5));
    connect(node, &mut device);
    device
}

fn connect(node: &Node, device: &mut Conversation) {
    let address = node.address(Transport::Tcp);
    device.connect(address, false).expect("the node accepts it");
}

fn number(message: &Message) -> Value {
    let document: Value = serde_json::from_slice(&message.payload).expect("JSON");
    document["data"]["n"].clone()
}

#[track_caller]
fn expect(device: &mut Conversation, n: u32) {
    let message = device.message(PATIENCE).expect("a message");
    assert_eq!(message.topic, "push/in");
    assert_eq!(number(&message), n);
    // Lets the acknowledgement out.
    device.turn(Duration::from_millis(10));
}

/// Takes a device away, and waits until the node knows: what is pushed from now on is not sent into its connection.
fn leave(device: &mut Conversation) {
    const DISCONNECT: &[u8] = b"\xe0\x00";
    let mut stream = device.abandon().expect("a connection");
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(DISCONNECT).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[track_caller]
fn expect_nothing(device: &mut Conversation) {
    let message = device.message(MOMENT);
    assert_eq!(message.map(|message| number(&message)), None);
}

#[test]
fn a_paced_push_is_spread_over_its_devices() {
    for options in [
        json!({"pace": {"over": 4}, "ttl": 60}),
        json!({"pace": {"per_second": 5}, "ttl": 60}),
    ] {
        let node = Node::start();
        let devices: Vec<_> = (0..20)
            .map(|number| device(&node, &format!("d{number}")))
            .collect();
        let began = Instant::now();
        let id = push(&node, 1, options);
        let waits: Vec<_> = devices
            .into_iter()
            .map(|mut device| {
                thread::spawn(move || {
                    expect(&mut device, 1);
                    began.elapsed()
                })
            })
            .collect();
        let mut times: Vec<Duration> = waits.into_iter().map(|wait| wait.join().unwrap()).collect();
        times.sort();
        // Twenty draws that all fall into a quarter of the time are not to be expected before the sun burns out.
        assert!(times[19] - times[0] > Duration::from_secs(1), "{times:?}");
        let done = await_report(&node, &id, "delivered", &json!(20));
        assert_eq!(
            (&done["targeted"], &done["status"]),
            (&json!(20), &json!("done"))
        );
    }
}

#[test]
fn cancelling_stops_the_rest() {
    let node = Node::start();
    let mut devices: Vec<_> = (0..20)
        .map(|number| device(&node, &format!("d{number}")))
        .collect();
    let options = json!({"portion": {"percent": 50, "hold": 600}, "ttl": 3600});
    let id = push(&node, 1, options);
    let got = eventually("the first half", || {
        let got = report(&node, &id)["delivered"].as_u64().unwrap();
        for device in &mut devices {
            device.turn(Duration::from_millis(5));
        }
        (got > 0).then_some(got)
    });
    assert!(got < 20);
    for _ in 0..2 {
        let standing = act(&node, &id, "cancel");
        assert_eq!(standing["status"], "cancelled");
    }
    for device in &mut devices {
        device.turn(Duration::from_millis(5));
    }
    let standing = eventually("the last receipts", || {
        let standing = report(&node, &id);
        let later = report(&node, &id);
        (standing == later).then_some(standing)
    });
    assert_eq!(standing["pending"], 0);
    assert!(standing["recalled"].as_u64().unwrap() > 0, "{standing}");
    // One that was not sent it, which could have come again.
    let without = devices
        .iter_mut()
        .find_map(|device| device.message(MOMENT).is_none().then_some(device));
    let without = without.expect("not all had a turn");
    without.close();
    connect(&node, without);
    expect_nothing(without);
    for verb in ["pause", "resume"] {
        let (status, problem) = ask(&node, "POST", &format!("pushes/{id}:{verb}"), "");
        assert_eq!((status, &problem["code"]), (409, &json!("push_over")));
    }
    let audit = call(&node, "GET", "audit", "");
    let actions: BTreeSet<String> = (audit["entries"].as_array().into_iter().flatten())
        .map(|record| record["action"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(actions.contains("push.cancelled"), "{audit}");
}

/// A time of day so many minutes from now, in UTC.
fn in_minutes(minutes: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_secs() / 60).unwrap();
    let minute = (now + minutes).rem_euclid(24 * 60);
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

#[test]
fn quiet_hours_delay_and_drop_where_it_is_night() {
    let node = Node::start();
    call(&node, "PUT", "devices/night", r#"{"time_zone": "UTC"}"#);
    call(
        &node,
        "PUT",
        "devices/day",
        r#"{"time_zone": "Asia/Tokyo"}"#,
    );
    let mut night = device(&node, "night");
    let mut day = device(&node, "day");
    let quiet = |policy: &str| json!({"quiet_hours": {"from": in_minutes(-60), "to": in_minutes(60), "policy": policy}});
    let delayed = push(&node, 1, quiet("delay"));
    let dropped = push(&node, 2, quiet("drop"));
    expect(&mut day, 1);
    expect(&mut day, 2);
    expect_nothing(&mut night);
    await_report(&node, &delayed, "pending", &json!(1));
    let report = await_report(&node, &dropped, "dropped", &json!(1));
    assert_eq!(report["dropped_by"], json!({"quiet_hours": 1}));
    let why_not = why(&node, &delayed, "night");
    assert_eq!(why_not["code"], "waiting_for_quiet_hours", "{why_not}");
    assert_eq!(why(&node, &dropped, "night")["code"], "in_quiet_hours");
    await_report(&node, &delayed, "delivered", &json!(1));
    assert_eq!(why(&node, &delayed, "day")["code"], "delivered");
    // It moves to where the sun is up.
    call(
        &node,
        "PATCH",
        "devices/night",
        r#"{"time_zone": "Asia/Tokyo"}"#,
    );
    expect(&mut night, 1);
    expect_nothing(&mut night);
}

#[test]
fn a_returning_device_gets_a_campaign_once_and_a_new_one_never() {
    let mut node = Node::start();
    call(&node, "PUT", "devices/known", "{}");
    let mut durable = device(&node, "durable");
    let mut known = Conversation::new(passing("known"));
    connect(&node, &mut known);
    leave(&mut durable);
    leave(&mut known);
    let id = push(&node, 1, json!({"priority": "low"}));
    let matching = push_to(
        &node,
        json!({"expr": "!muted"}),
        7,
        json!({"priority": "low"}),
    );
    let mut fresh = device(&node, "fresh");
    connect(&node, &mut durable);
    connect(&node, &mut known);
    expect(&mut durable, 1);
    expect(&mut durable, 7);
    // To all is to those with a session; an audience is of those that are registered.
    expect(&mut known, 7);
    await_report(&node, &id, "status", &json!("done"));
    let done = await_report(&node, &matching, "status", &json!("done"));
    assert_eq!(done["delivered"], 2);
    for restart in [false, true] {
        for device in [&mut durable, &mut known, &mut fresh] {
            device.close();
        }
        if restart {
            node.kill9();
            node.start_again();
        }
        for device in [&mut durable, &mut known, &mut fresh] {
            connect(&node, device);
            expect_nothing(device);
        }
    }
    // Accepted by one run of the node, delivered by the next.
    leave(&mut durable);
    push(&node, 2, json!({"priority": "high"}));
    node.kill9();
    node.start_again();
    connect(&node, &mut durable);
    expect(&mut durable, 2);
    expect_nothing(&mut durable);
}

#[test]
fn a_password_overtakes_a_campaign() {
    let node = Node::start();
    let mut slow = Conversation::new(campanile_mqtt::client::Options {
        receive_maximum: 1,
        ..kept("slow", Version::V5)
    });
    connect(&node, &mut slow);
    slow.is_mute = true;
    for n in 1..4 {
        push(&node, n, json!({"priority": "low"}));
    }
    let first = slow.message(PATIENCE).expect("the first fills the window");
    assert_eq!(number(&first), 1);
    push(&node, 9, json!({"priority": "high"}));
    let paced = push(&node, 5, json!({"pace": {"over": 1}, "ttl": 60}));
    eventually("its turn in the pace", || {
        (why(&node, &paced, "slow")["code"] != "waiting_for_pace").then_some(())
    });
    slow.is_mute = false;
    slow.turn(Duration::from_millis(10));
    for n in [9, 5, 2, 3] {
        expect(&mut slow, n);
    }
    expect_nothing(&mut slow);
}

#[test]
fn a_paused_campaign_goes_on_when_it_is_resumed() {
    let node = Node::start();
    call(&node, "PUT", "devices/phone", "{}");
    let mut phone = device(&node, "phone");
    leave(&mut phone);
    let id = push(&node, 1, json!({"priority": "low"}));
    for _ in 0..2 {
        assert_eq!(act(&node, &id, "pause")["status"], "paused");
    }
    connect(&node, &mut phone);
    expect_nothing(&mut phone);
    assert_eq!(why(&node, &id, "phone")["code"], "paused");
    for _ in 0..2 {
        assert_eq!(act(&node, &id, "resume")["status"], "active");
    }
    expect(&mut phone, 1);
    await_report(&node, &id, "status", &json!("done"));

    let plain = push(&node, 2, json!({}));
    expect(&mut phone, 2);
    let (status, problem) = ask(&node, "POST", &format!("pushes/{plain}:pause"), "");
    assert_eq!((status, &problem["code"]), (409, &json!("not_a_campaign")));
    let unknown = "01JDY0000000000000000000ZZ";
    let (status, problem) = ask(&node, "POST", &format!("pushes/{unknown}:cancel"), "");
    assert_eq!((status, &problem["code"]), (404, &json!("push_not_found")));
}

#[test]
fn only_the_newest_of_a_collapse_key_is_delivered() {
    let node = Node::start();
    let mut phone = device(&node, "phone");
    leave(&mut phone);
    let key = |key: &str| json!({"collapse_key": key});
    let first = push(&node, 1, key("score"));
    push(&node, 2, key("weather"));
    let second = push(&node, 3, key("score"));
    let standing = report(&node, &first);
    assert_eq!(
        (&standing["status"], &standing["collapsed"]),
        (&json!("collapsed"), &json!(1))
    );
    assert_eq!(standing["collapsed_by"], second);
    let collapsed = why(&node, &first, "phone");
    assert_eq!(
        (&collapsed["code"], &collapsed["by"]),
        (&json!("collapsed"), &json!(second))
    );
    connect(&node, &mut phone);
    expect(&mut phone, 2);
    expect(&mut phone, 3);
    expect_nothing(&mut phone);
    // What was delivered before stays so.
    await_report(&node, &second, "delivered", &json!(1));
    let third = push(&node, 4, key("score"));
    expect(&mut phone, 4);
    assert_eq!(report(&node, &second)["delivered"], 1);
    act(&node, &third, "cancel");
    push(&node, 5, key("score"));
    assert_eq!(report(&node, &third)["status"], "cancelled");
}

#[test]
fn a_device_gets_no_more_of_a_kind_than_its_cap_allows() {
    let node = Node::start();
    let mut phone = device(&node, "phone");
    let offers = || json!({"frequency_cap": {"key": "offers", "count": 2, "per": 3600}});
    let pushes: Vec<String> = (1..4).map(|n| push(&node, n, offers())).collect();
    expect(&mut phone, 1);
    expect(&mut phone, 2);
    let capped = await_report(&node, &pushes[2], "dropped", &json!(1));
    assert_eq!(capped["dropped_by"], json!({"frequency_cap": 1}));
    assert_eq!(why(&node, &pushes[2], "phone")["code"], "capped");
    expect_nothing(&mut phone);
    // Another kind is counted apart.
    push(
        &node,
        4,
        json!({"frequency_cap": {"key": "news", "count": 1, "per": 3600}}),
    );
    expect(&mut phone, 4);
    phone.close();
    connect(&node, &mut phone);
    push(&node, 5, offers());
    expect_nothing(&mut phone);
}

#[test]
fn any_push_can_be_cancelled_and_recalled() {
    let node = Node::start();
    let mut phone = device(&node, "phone");
    let to_all = push(&node, 1, json!({}));
    expect(&mut phone, 1);
    await_report(&node, &to_all, "delivered", &json!(1));
    for _ in 0..2 {
        assert_eq!(act(&node, &to_all, "recall")["status"], "recalled");
    }
    let order = phone.message(PATIENCE).expect("the order to withdraw it");
    assert_eq!(order.topic, "push/ctl");
    let order: Value = serde_json::from_slice(&order.payload).expect("JSON");
    assert_eq!(
        (&order["type"], &order["push_id"]),
        (&json!("recall"), &json!(to_all))
    );
    phone.turn(Duration::from_millis(10));
    expect_nothing(&mut phone);
    leave(&mut phone);
    let to_all = push(&node, 2, json!({}));
    let to_one = push_to(&node, json!({"devices": ["phone"]}), 3, json!({}));
    let to_few = push_to(&node, json!({"devices": ["phone", "unseen"]}), 4, json!({}));
    let later = push_to(&node, json!({"devices": ["phone"]}), 5, json!({}));
    for id in [&to_all, &to_one, &to_few] {
        let standing = act(&node, id, "cancel");
        assert_eq!(
            (&standing["status"], &standing["pending"]),
            (&json!("cancelled"), &json!(0))
        );
        assert_eq!(why(&node, id, "phone")["code"], "recalled");
    }
    connect(&node, &mut phone);
    expect(&mut phone, 5);
    expect_nothing(&mut phone);
    await_report(&node, &later, "delivered", &json!(1));
    assert_eq!(report(&node, &to_few)["recalled"], 2);
}

#[test]
fn named_devices_have_their_turns_too() {
    let node = Node::start();
    let mut phone = device(&node, "phone");
    let mut other = device(&node, "other");
    let audience = json!({"devices": ["phone", "unseen"]});
    let id = push_to(&node, audience, 1, json!({"pace": {"over": 1}, "ttl": 60}));
    expect(&mut phone, 1);
    expect_nothing(&mut other);
    let mut unseen = device(&node, "unseen");
    expect(&mut unseen, 1);
    let done = await_report(&node, &id, "delivered", &json!(2));
    assert_eq!(done["targeted"], 2);
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let node = Node::start();
    let refused = |audience: Value, options: Value| {
        let body = json!({"audience": audience, "data": {"n": 1}, "options": options});
        let (status, problem) = ask(&node, "POST", "pushes", &body.to_string());
        assert_eq!(status, 400, "{problem}");
        problem["field"].clone()
    };
    let all = || json!({"all": true});
    for (options, field) in [
        (
            json!({"ttl": 0, "collapse_key": "a"}),
            "/options/collapse_key",
        ),
        (
            json!({"ttl": 0, "frequency_cap": {"key": "a", "count": 1, "per": 60}}),
            "/options/frequency_cap",
        ),
        (json!({"pace": {"over": 100}, "ttl": 60}), "/options/pace"),
    ] {
        assert_eq!(refused(all(), options), field);
    }
}
