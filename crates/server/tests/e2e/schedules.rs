//! Schedules: from an HTTP request to a device, later.

use std::time::{SystemTime, UNIX_EPOCH};

use campanile_push::time::{from_rfc3339, rfc3339};
use serde_json::{Value, json};

use crate::harness::{Client, Node, Response, Session, eventually, request};

/// Far enough ahead for a request on a busy machine.
const AHEAD_MS: u64 = 3000;

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

fn call(node: &Node, method: &str, path: &str, body: &Value) -> Response {
    let head = format!(
        "{method} /v1/apps/default/{path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: application/json",
        node.api_key()
    );
    request(node.http(), &head, &body.to_string()).expect("the node answers")
}

fn schedule(node: &Node, when: Value) -> Value {
    let push = json!({"audience": {"devices": ["phone"]}, "data": {"n": 1}});
    let made = call(
        node,
        "POST",
        "schedules",
        &json!({"when": when, "push": push}),
    );
    assert_eq!(made.status, 201, "{made:?}");
    made.json()
}

fn shown(node: &Node, schedule: &Value) -> Value {
    let id = schedule["id"].as_str().unwrap();
    call(node, "GET", &format!("schedules/{id}"), &json!({})).json()
}

fn await_time(at_ms: u64) {
    eventually("the time", || (now_ms() > at_ms).then_some(()));
}

#[test]
fn a_push_comes_at_its_time_and_not_before() {
    let node = Node::start();
    let device = Client::v5(&node, Session::clean("phone"));
    let at_ms = now_ms() + AHEAD_MS;
    let made = schedule(&node, json!({"at": rfc3339(at_ms)}));
    assert_eq!(made["next_runs"], json!([rfc3339(at_ms)]));

    let message = device.next_message();
    assert!(now_ms() >= at_ms);
    assert_eq!(message.json()["data"]["n"], 1);
    let last = eventually("the run is written down", || {
        let shown = shown(&node, &made);
        shown.get("last_run").cloned()
    });
    assert_eq!(last["push_id"], message.json()["id"]);
    let metrics = node.get("/metrics").body;
    assert!(
        metrics.contains(r#"campanile_schedule_runs_total{result="made"} 1"#),
        "{metrics}"
    );
}

#[test]
fn a_push_with_not_before_waits_under_its_id() {
    let node = Node::start();
    let device = Client::v5(&node, Session::clean("phone"));
    let at_ms = now_ms() + AHEAD_MS;
    let push = json!({
        "audience": {"devices": ["phone"]}, "data": {"n": 1}, "options": {"not_before": rfc3339(at_ms)},
    });
    let accepted = call(&node, "POST", "pushes", &push);
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let id = accepted.json()["push_id"].clone();
    let path = format!("pushes/{}", id.as_str().unwrap());
    let waiting = call(&node, "GET", &path, &json!({})).json();
    assert_eq!(waiting["status"], "scheduled");
    let message = device.next_message();
    assert!(now_ms() >= at_ms);
    assert_eq!(message.json()["id"], id);
    eventually("the report", || {
        let report = call(&node, "GET", &path, &json!({})).json();
        (report["delivered"] == 1).then_some(())
    });
}

#[test]
fn every_minute_is_shown_and_can_be_run_by_hand() {
    let node = Node::start();
    let device = Client::v5(&node, Session::clean("phone"));
    let made = schedule(
        &node,
        json!({"cron": "* * * * *", "time_zone": "Europe/Vienna"}),
    );
    let runs = made["next_runs"].as_array().unwrap();
    let times: Vec<u64> = runs
        .iter()
        .map(|run| from_rfc3339(run.as_str().unwrap()).unwrap())
        .collect();
    assert_eq!(times.len(), 5);
    assert!(times.iter().all(|time| time % 60_000 == 0));
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 60_000));

    let path = format!("schedules/{}:run", made["id"].as_str().unwrap());
    let ran = call(&node, "POST", &path, &json!({})).json();
    let message = device.next_message();
    assert_eq!(message.json()["id"], ran["waiting"][0]["push_id"]);
}

#[test]
fn a_node_that_is_killed_before_a_run_makes_it_once_when_it_is_back() {
    let mut node = Node::start();
    Client::v5(&node, Session::kept("phone")).disconnect();
    let at_ms = now_ms() + AHEAD_MS;
    let made = schedule(&node, json!({"at": rfc3339(at_ms)}));
    node.kill9();
    await_time(at_ms);
    node.start_again();
    let device = Client::v5(&node, Session::kept("phone"));
    let first = device.next_message().json()["id"].clone();
    let end = eventually("its end", || {
        let shown = shown(&node, &made);
        (shown["state"] == "ended" && shown["waiting"] == json!([])).then_some(shown)
    });
    assert_eq!((&end["runs"], &end["runs_missed"]), (&json!(1), &json!(0)));
    // Killed again right after, it has nothing left to do of it: what comes next is a run of another. The same message may come again, as its acknowledgement may be lost.
    node.kill9();
    node.start_again();
    let device = Client::v5(&node, Session::kept("phone"));
    let second = schedule(&node, json!({"at": rfc3339(now_ms() + AHEAD_MS)}));
    let next = eventually("another message", || {
        let id = device.next_message().json()["id"].clone();
        (id != first).then_some(id)
    });
    let last = eventually("the second run is written down", || {
        shown(&node, &second).get("last_run").cloned()
    });
    assert_eq!(last["push_id"], next);
    assert_eq!(shown(&node, &made)["runs"], 1);
}

#[test]
fn a_time_by_the_devices_clocks_comes_to_each_by_its_own() {
    let node = Node::start();
    let devices = [
        ("kiritimati", "Pacific/Kiritimati"),
        ("baker", "Etc/GMT+12"),
    ];
    let [shown_it, waits] = devices.map(|(name, zone)| {
        let body = json!({"time_zone": zone});
        let put = call(&node, "PUT", &format!("devices/{name}"), &body);
        assert!((200..300).contains(&put.status), "{put:?}");
        Client::v5(&node, Session::clean(name))
    });
    // What clocks in UTC show in an hour: over in the Line Islands, and to come for ships.
    let at_ms = now_ms().next_multiple_of(60_000) + 3_600_000;
    let local_time = rfc3339(at_ms)[..16].to_owned();
    for (n, if_past) in [(1, "skip"), (2, "now")] {
        let when = json!({"at": local_time, "time_zone": "device", "if_past": if_past});
        let push = json!({"audience": {"all": true}, "data": {"n": n}});
        let made = call(
            &node,
            "POST",
            "schedules",
            &json!({"when": when, "push": push}),
        );
        assert_eq!(made.status, 201, "{made:?}");
        let made = made.json();
        let last_ms = at_ms + 12 * 3_600_000;
        assert_eq!(made["next_local_runs"][0]["last_at"], rfc3339(last_ms));

        let run = eventually("the run", || shown(&node, &made).get("last_run").cloned());
        assert_eq!(run["local_time"], local_time);
        let id = run["push_id"].as_str().unwrap();
        let why = |device: &str| {
            let path = format!("pushes/{id}/devices/{device}");
            call(&node, "GET", &path, &json!({})).json()
        };
        if if_past == "now" {
            assert_eq!(shown_it.next_message().json()["data"]["n"], n);
        } else {
            eventually("it is dropped", || {
                let report = call(&node, "GET", &format!("pushes/{id}"), &json!({})).json();
                (report["dropped_by"]["local_time_past"] == 1).then_some(())
            });
        }
        let waiting = why("baker");
        assert!(waiting.to_string().contains(&rfc3339(last_ms)), "{waiting}");
        eventually("one waits", || {
            let report = call(&node, "GET", &format!("pushes/{id}"), &json!({})).json();
            (report["pending"] == 1).then_some(())
        });
    }
    drop(waits);
}
