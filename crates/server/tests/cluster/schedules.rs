//! Runs of schedules, while the node dies that makes them.

use std::time::{SystemTime, UNIX_EPOCH};

use campanile_push::time::rfc3339;
use campanile_testbed::{node::Node, nodes::Nodes};
use serde_json::{Value, json};

use crate::setup::{Cluster, eventually};

/// Far enough ahead for requests and a kill on a busy machine.
const AHEAD_MS: u64 = 5000;
const SCHEDULES: usize = 20;

#[test]
fn runs_come_once_when_the_node_that_makes_them_is_killed() {
    let mut cluster = Cluster::start(3);
    let leader = eventually("a leader", || leader(&mut cluster));
    let other = (leader + 1) % 3;
    let at_ms = now_ms() + AHEAD_MS;
    let ids: Vec<String> = (0..SCHEDULES)
        .map(|_| make(cluster.node(other), at_ms))
        .collect();
    // In the middle of it: some runs are chosen, some are made, some are written down as made.
    eventually("the time", || (now_ms() > at_ms).then_some(()));
    eventually("the first run", || {
        let first = show(cluster.node(other), &ids[0]);
        (first["state"] == "ended").then_some(())
    });
    cluster.node(leader).kill();
    let mut pushes: Vec<String> = ids
        .iter()
        .map(|id| {
            let end = eventually("the end of each", || {
                let shown = show(cluster.node(other), id);
                shown.get("last_run").is_some().then_some(shown)
            });
            assert_eq!((&end["runs"], &end["runs_missed"]), (&json!(1), &json!(0)));
            let push = end["last_run"]["push_id"].as_str().unwrap().to_owned();
            let path = format!("/v1/apps/default/pushes/{push}");
            let report = ask(cluster.node(other), "GET", &path, "");
            assert_eq!(report["targeted"], 1, "{report}");
            push
        })
        .collect();
    pushes.sort();
    pushes.dedup();
    assert_eq!(pushes.len(), SCHEDULES);
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

/// The node that leads, once one does.
pub fn leader(cluster: &mut Nodes) -> Option<usize> {
    let status = cluster.node(0).operate(&["status", "--json"]).ok()?;
    let status: Value = serde_json::from_str(&status).unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    let leads = nodes.iter().find(|node| node["leader"] == true)?["name"].clone();
    (0..3).find(|node| leads == cluster.node(*node).name())
}

fn make(node: &Node, at_ms: u64) -> String {
    let push = json!({"audience": {"devices": ["device"]}, "data": {}});
    let body = json!({"when": {"at": rfc3339(at_ms)}, "push": push});
    let made = ask(
        node,
        "POST",
        "/v1/apps/default/schedules",
        &body.to_string(),
    );
    let id = made["id"].as_str();
    id.unwrap_or_else(|| panic!("not made: {made}")).to_owned()
}

fn show(node: &Node, id: &str) -> Value {
    ask(node, "GET", &format!("/v1/apps/default/schedules/{id}"), "")
}

fn ask(node: &Node, method: &str, path: &str, body: &str) -> Value {
    let line = format!("{method} {path}");
    node.ask(&[&line], body).unwrap().json()
}
