//! rumqttc, in this process.

use std::time::Duration;

use rumqttc::v5;

use crate::harness::{Node, PATIENCE, Push, Transport};

/// What both versions of the library do here.
const TOPIC: &str = "a/b";

#[test]
fn rumqttc_speaks_3_1_1() {
    use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
    let node = Node::start();
    let address = node.address(Transport::Tcp);
    let mut options = MqttOptions::new("device", address.ip().to_string(), address.port());
    options
        .set_clean_session(false)
        .set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = Client::new(options, 10);
    client
        .subscribe(TOPIC, QoS::ExactlyOnce)
        .expect("the queue has room");
    let mut got = Vec::new();
    while got.len() < 4 {
        let event = connection
            .recv_timeout(PATIENCE)
            .expect("something happens")
            .expect("the connection holds");
        match event {
            Event::Incoming(Packet::SubAck(_)) => {
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    client
                        .publish(TOPIC, qos, false, format!("{qos:?}"))
                        .expect("the queue has room");
                }
                Push::to_device("device", 1).send(&node);
            }
            Event::Incoming(Packet::Publish(publish)) => {
                got.push((
                    publish.topic,
                    String::from_utf8_lossy(&publish.payload).into_owned(),
                ));
            }
            _ => {}
        }
    }
    check(got);
}

#[test]
fn rumqttc_speaks_5_0() {
    use v5::{Client, Event, MqttOptions, mqttbytes::QoS, mqttbytes::v5::Packet};
    let node = Node::start();
    let address = node.address(Transport::Tcp);
    let mut options = MqttOptions::new("device", address.ip().to_string(), address.port());
    options
        .set_clean_start(true)
        .set_keep_alive(Duration::from_secs(5));
    let (client, mut connection) = Client::new(options, 10);
    client
        .subscribe(TOPIC, QoS::ExactlyOnce)
        .expect("the queue has room");
    let mut got = Vec::new();
    while got.len() < 4 {
        let event = connection
            .recv_timeout(PATIENCE)
            .expect("something happens")
            .expect("the connection holds");
        match event {
            Event::Incoming(Packet::SubAck(_)) => {
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    client
                        .publish(TOPIC, qos, false, format!("{qos:?}"))
                        .expect("the queue has room");
                }
                Push::to_device("device", 1).send(&node);
            }
            Event::Incoming(Packet::Publish(publish)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                got.push((text(&publish.topic), text(&publish.payload)));
            }
            _ => {}
        }
    }
    check(got);
}

/// The push may be anywhere among the messages, which are in order per quality of service.
fn check(mut got: Vec<(String, String)>) {
    let push = got
        .iter()
        .position(|(topic, _)| topic == "push/in")
        .expect("the push is among them");
    assert!(got.remove(push).1.contains(r#""n":1"#));
    got.sort();
    let expected =
        ["AtLeastOnce", "AtMostOnce", "ExactlyOnce"].map(|qos| (TOPIC.to_owned(), qos.to_owned()));
    assert_eq!(got, expected);
}
