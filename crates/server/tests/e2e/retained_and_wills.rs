//! Retained messages and wills.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Client, Kind, MessageOptions, Node, Protocol, Session, Transport, Will, eventually,
};

const MOMENT: Duration = Duration::from_millis(50);

fn retained(qos: u8) -> MessageOptions {
    MessageOptions {
        qos,
        retain: true,
        ..MessageOptions::default()
    }
}

#[test]
fn retained_messages_survive_a_crash_and_go_with_an_empty_payload() {
    let mut node = Node::start();
    let mut publisher = Client::v5(&node, Session::clean("publisher"));
    publisher.publish("lamp/1", "on", retained(1));
    publisher.publish("lamp/2", "off", retained(1));
    publisher.publish("lamp/2", "on", retained(2));
    publisher.publish("lamp/3", "on", retained(1));
    publisher.publish("lamp/3", "", retained(1));
    node.kill9();
    node.start_again();

    let mut device = Client::v5(&node, Session::clean("device"));
    device.subscribe("lamp/+", 1);
    let mut found =
        [device.next_message(), device.next_message()].map(|m| (m.topic, m.payload, m.retain));
    found.sort();
    assert_eq!(
        found,
        ["lamp/1", "lamp/2"].map(|topic| (topic.to_owned(), "on".to_owned(), true))
    );
    assert_eq!(device.message_within(MOMENT), None);
}

#[test]
fn a_subscriber_may_do_without_retained_messages() {
    let node = Node::start();
    let mut publisher = Client::v5(&node, Session::clean("publisher"));
    publisher.publish("a", "old", retained(1));
    let mut device = Client::v5(&node, Session::clean("device"));
    device.subscribe_with(json!({"filter": "a", "qos": 1, "retain_handling": 2}));
    publisher.publish("a", "new", retained(1));
    let message = device.next_message();
    assert_eq!((message.payload.as_str(), message.retain), ("new", false));
}

#[test]
fn a_will_is_published_when_its_client_vanishes_but_not_when_it_takes_leave() {
    let node = Node::start();
    let mut watcher = Client::v5(&node, Session::clean("watcher"));
    watcher.subscribe("wills/#", 2);
    let will = |topic| Will {
        topic,
        payload: "gone",
        qos: 2,
        retain: true,
        delay: None,
    };
    Client::v5(&node, Session::clean("a").will(&will("wills/polite"))).disconnect();
    Client::v5(&node, Session::clean("b").will(&will("wills/vanished"))).vanish();
    let message = watcher.next_message();
    assert_eq!((message.topic.as_str(), message.qos), ("wills/vanished", 2));
    // Nobody waits for an answer to a will: who is there gets it before it is in the store, and is retained.
    let retained = eventually("the will is retained", || {
        watcher.subscribe("wills/+", 1);
        watcher.message_within(MOMENT)
    });
    assert_eq!(
        (retained.topic.as_str(), retained.retain),
        ("wills/vanished", true)
    );
    while let Some(again) = watcher.message_within(MOMENT) {
        assert_eq!(again, retained);
    }
}

#[test]
fn a_delayed_will_waits_and_is_withdrawn_by_a_return() {
    let node = Node::start();
    let mut watcher = Client::v5(&node, Session::clean("watcher"));
    watcher.subscribe("wills/#", 1);
    let will = |topic, delay| Will {
        topic,
        payload: "gone",
        qos: 1,
        retain: false,
        delay: Some(delay),
    };
    let stays = Client::v5(&node, Session::kept("stays").will(&will("wills/stays", 4)));
    let returns = Client::v5(
        &node,
        Session::kept("returns").will(&will("wills/returns", 3)),
    );
    let mut again = Client::start(&node, Kind::Paho, Protocol::V5, Transport::Tcp);
    let began = Instant::now();
    stays.vanish();
    returns.vanish();
    again
        .try_connect(Session::kept("returns"))
        .expect("the client comes back");
    assert_eq!(
        watcher.next_message().topic,
        "wills/stays",
        "the other one's delay is shorter, but it came back"
    );
    assert!(began.elapsed() >= Duration::from_secs(4));
}

#[test]
fn a_will_with_session_expiry_0_does_not_wait() {
    let node = Node::start();
    let mut watcher = Client::v5(&node, Session::clean("watcher"));
    watcher.subscribe("wills/#", 1);
    let will = Will {
        topic: "wills/now",
        payload: "gone",
        qos: 1,
        retain: false,
        delay: Some(3600),
    };
    Client::v5(&node, Session::kept("mortal").expiry(0).will(&will)).vanish();
    assert_eq!(watcher.next_message().topic, "wills/now");
}

#[test]
fn wills_of_clients_that_lost_their_node_are_published_once_it_is_back() {
    let mut node = Node::start();
    let mut watcher = Client::v5(&node, Session::kept("watcher").reconnecting());
    watcher.subscribe("wills/#", 2);
    watcher.await_connected();
    let will = |topic, delay| Will {
        topic,
        payload: "gone",
        qos: 2,
        retain: false,
        delay,
    };
    let _lost = Client::v5(
        &node,
        Session::clean("lost").will(&will("wills/lost", None)),
    );
    let _late = Client::v5(
        &node,
        Session::kept("late").will(&will("wills/late", Some(1))),
    );
    let _back = Client::v5(
        &node,
        Session::kept("back")
            .will(&will("wills/back", Some(3600)))
            .reconnecting(),
    );
    node.kill9();
    node.start_again();
    let mut topics = [watcher.next_message().topic, watcher.next_message().topic];
    topics.sort();
    assert_eq!(topics, ["wills/late", "wills/lost"]);
    watcher.await_connected();

    node.kill9();
    node.start_again();
    watcher.await_connected();
    watcher.publish("wills/marker", "", 2);
    assert_eq!(
        watcher.next_message().topic,
        "wills/marker",
        "each will was published once"
    );
}
