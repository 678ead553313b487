//! Urgent pushes, and those that take the place of others, at real clients.

use std::time::Duration;

use rumqttc::{
    Outgoing,
    v5::{
        Client as Rumqtt, Connection, Event, MqttOptions,
        mqttbytes::v5::{Packet, Publish},
    },
};
use serde_json::{Value, json};

use crate::harness::{
    Client, Node, PATIENCE, Push, Report, Response, Session, Tool, Transport, eventually,
};

const MOMENT: Duration = Duration::from_millis(50);

/// A device that is sent one message at a time and acknowledges when it is told to.
struct Slow {
    client: Rumqtt,
    connection: Connection,
}

impl Slow {
    fn connect(node: &Node) -> Slow {
        let address = node.address(Transport::Tcp);
        let mut options = MqttOptions::new("phone", address.ip().to_string(), address.port());
        options
            .set_clean_start(false)
            .set_manual_acks(true)
            .set_session_expiry_interval(Some(3600))
            .set_receive_maximum(Some(1));
        let (client, connection) = Rumqtt::new(options, 10);
        let mut slow = Slow { client, connection };
        slow.until(|packet| matches!(packet, Packet::ConnAck(_)).then_some(()));
        slow
    }

    fn event(&mut self) -> Event {
        let event = self.connection.recv_timeout(PATIENCE);
        event.expect("something happens").expect("it holds")
    }

    fn until<T>(&mut self, look: impl Fn(Packet) -> Option<T>) -> T {
        loop {
            if let Event::Incoming(packet) = self.event()
                && let Some(found) = look(packet)
            {
                return found;
            }
        }
    }

    fn next(&mut self) -> Publish {
        self.until(|packet| match packet {
            Packet::Publish(publish) => Some(publish),
            _ => None,
        })
    }

    fn acknowledge(&mut self, publish: &Publish) {
        self.client.ack(publish).expect("there is room");
        // It leaves with the events that follow.
        while !matches!(self.event(), Event::Outgoing(Outgoing::PubAck(_))) {}
    }

    /// The numbers of the next pushes, each acknowledged when it is there.
    fn take(&mut self, count: usize) -> Vec<u64> {
        let take = |_| {
            let publish = self.next();
            self.acknowledge(&publish);
            number(&serde_json::from_slice(&publish.payload).expect("JSON"))
        };
        (0..count).map(take).collect()
    }
}

fn number(document: &Value) -> u64 {
    document["data"]["n"].as_u64().expect("a number")
}

fn document(node: &Node, path: &str) -> Value {
    let Response { body, .. } = node.get_with_key(path);
    serde_json::from_str(&body).expect("JSON")
}

#[test]
fn a_high_push_is_next_for_a_slow_device_with_hundreds_that_wait() {
    let node = Node::start();
    let mut phone = Slow::connect(&node);
    for n in 0..300 {
        Push::to_device("phone", n).send(&node);
    }
    let first = phone.next();
    for n in [1000, 1001] {
        Push::to_device("phone", n).priority("high").send(&node);
    }
    Push::to_device("phone", 2000).priority("low").send(&node);
    Push::to_device("phone", 300).send(&node);
    phone.acknowledge(&first);
    assert_eq!(phone.take(3), [1000, 1001, 1]);
    let rest = phone.take(300);
    let low = rest.iter().position(|n| *n == 2000).expect("it moves");
    // One was normal already.
    assert_eq!(low, 14);
    let normal = rest.into_iter().filter(|n| *n != 2000);
    assert!(normal.eq(2..=300));
}

#[test]
fn a_device_that_returns_gets_the_high_push_first() {
    let mut node = Node::start();
    Client::v5(&node, Session::kept("phone")).disconnect();
    for n in 0..200 {
        Push::to_devices(&["phone", "tablet"], n).send(&node);
    }
    let high = Push::to_devices(&["phone", "tablet"], 1000)
        .priority("high")
        .send(&node);
    node.kill9();
    node.start_again();
    for device in ["phone", "tablet"] {
        let client = Client::v5(&node, Session::kept(device));
        assert_eq!(number(&client.next_message().json()), 1000);
        for n in 0..200 {
            assert_eq!(number(&client.next_message().json()), n);
        }
        assert_eq!(client.message_within(MOMENT), None);
    }
    node.await_report(
        &high,
        Report {
            targeted: 2,
            delivered: 2,
            pending: 0,
            expired: 0,
        },
    );
}

#[test]
fn only_the_last_of_a_key_comes_and_the_reports_of_the_others_say_why() {
    let node = Node::start();
    let mut phone = Slow::connect(&node);
    let score = |n| Push::to_devices(&["phone", "away"], n).collapse_key("score");
    let sent = score(0).send(&node);
    let first = phone.next();
    let replaced: Vec<_> = (1..5).map(|n| score(n).send(&node)).collect();
    Push::to_device("phone", 100).send(&node);
    let last = score(5).send(&node);
    // Under way when it was replaced, and acknowledged now.
    phone.acknowledge(&first);
    assert_eq!(phone.take(1), [100]);
    let newest = phone.next();
    let shown: Value = serde_json::from_slice(&newest.payload).expect("JSON");
    assert_eq!(
        (number(&shown), &shown["collapse_key"]),
        (5, &json!("score"))
    );
    phone.acknowledge(&newest);
    node.await_report(
        &last,
        Report {
            targeted: 2,
            delivered: 1,
            pending: 1,
            expired: 0,
        },
    );
    let path = |push: &str| format!("/v1/apps/default/pushes/{push}");
    for push in &replaced {
        let report = document(&node, &path(push));
        let figures = [&report["collapsed"], &report["pending"], &report["status"]];
        assert_eq!(figures, [&json!(2), &json!(0), &json!("done")], "{report}");
    }
    let explained = document(&node, &format!("{}/devices/phone", path(&replaced[3])));
    assert_eq!(explained["code"], "collapsed");
    assert_eq!(explained["by"], last.as_str());
    eventually("the receipt of the first", || {
        let report = document(&node, &path(&sent));
        let figures = [&report["delivered"], &report["collapsed"]];
        (figures == [&json!(1), &json!(1)]).then_some(())
    });
}

#[test]
fn the_command_line_can_ask_for_both() {
    let node = Node::start();
    let phone = Client::v5(&node, Session::kept("phone"));
    let url = format!("http://{}", node.http());
    let lines = Tool::campanile([
        "push",
        "--url",
        &url,
        "--key",
        node.api_key(),
        "--device",
        "phone",
        "--body",
        "x",
        "--priority",
        "high",
        "--collapse-key",
        "k",
        "--wait",
    ])
    .succeed();
    let last = lines.last().expect("it says something");
    assert_eq!(
        last,
        "delivered 1 of 1, pending 0, expired 0, collapsed 0, dropped 0"
    );
    let document = phone.next_message().json();
    assert_eq!(document["collapse_key"], "k");
}
