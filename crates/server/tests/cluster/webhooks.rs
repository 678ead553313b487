//! Webhooks, while the node dies that tells them.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use campanile_testbed::node::Node;
use serde_json::{Value, json};

use crate::{
    schedules::leader,
    setup::{Cluster, eventually},
};

const PUSHES: usize = 60;

#[test]
fn every_event_is_told_when_the_node_that_tells_is_killed() {
    let settings = "[webhooks]\nallow_http = true\nallow_private_targets = true\n";
    let mut cluster = Cluster::with(3, |options| options.settings += settings);
    let leader = eventually("a leader", || leader(&mut cluster));
    let other = (leader + 1) % 3;
    let (address, got) = receiver();
    let hook = json!({"url": format!("http://{address}/"), "events": ["push.accepted"]});
    let made = ask(cluster.node(other), "POST", "webhooks", &hook);
    assert!(made["id"].is_string(), "{made}");
    let mut missing = BTreeSet::new();
    for number in 0..PUSHES {
        if number == PUSHES / 2 {
            eventually("the first event", || {
                (!got.lock().unwrap().is_empty()).then_some(())
            });
            cluster.node(leader).kill();
        }
        let body = json!({"audience": {"devices": [format!("d{number}")]}, "data": {}});
        let accepted = ask(cluster.node(other), "POST", "pushes", &body);
        missing.insert(accepted["push_id"].as_str().unwrap().to_owned());
    }
    eventually("all events", || {
        let got = got.lock().unwrap();
        got.is_superset(&missing).then_some(())
    });
}

fn ask(node: &Node, method: &str, path: &str, body: &Value) -> Value {
    let line = format!("{method} /v1/apps/default/{path}");
    node.ask(&[&line], &body.to_string()).unwrap().json()
}

/// A receiver that takes everything, and the pushes that it was told of.
fn receiver() -> (SocketAddr, Arc<Mutex<BTreeSet<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let got = Arc::new(Mutex::new(BTreeSet::new()));
    let told = got.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let told = told.clone();
            thread::spawn(move || while answer(&stream, &told).is_some() {});
        }
    });
    (address, got)
}

/// Takes one request of a connection.
fn answer(mut stream: &TcpStream, told: &Mutex<BTreeSet<String>>) -> Option<()> {
    let mut request = Vec::new();
    loop {
        let mut part = [0; 4096];
        let length = stream.read(&mut part).ok().filter(|length| *length > 0)?;
        request.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let promised = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        })?;
        if body.len() < promised {
            continue;
        }
        let event: Value = serde_json::from_str(body).ok()?;
        told.lock()
            .unwrap()
            .insert(event["push_id"].as_str()?.to_owned());
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
        return Some(());
    }
}
