//! What every client library can do, over every transport, in every version.

use serde_json::json;

use crate::harness::{
    Client, Kind, MessageOptions, Node, NodeOptions, Protocol, Push, Report, Session, Transport,
    Will, mosquitto_pub, mosquitto_sub,
};

macro_rules! basics {
    ($($name:ident: $kind:ident $protocol:ident $transport:ident;)*) => {
        $(#[test] fn $name() { basics(Kind::$kind, Protocol::$protocol, Transport::$transport); })*
    };
}

basics! {
    paho_speaks_3_1_over_tcp: Paho V31 Tcp;
    paho_speaks_3_1_1_over_tcp: Paho V311 Tcp;
    paho_speaks_3_1_1_over_tls: Paho V311 Tls;
    paho_speaks_3_1_1_over_websocket: Paho V311 Ws;
    paho_speaks_3_1_1_over_secure_websocket: Paho V311 Wss;
    paho_speaks_5_0_over_tcp: Paho V5 Tcp;
    paho_speaks_5_0_over_tls: Paho V5 Tls;
    paho_speaks_5_0_over_websocket: Paho V5 Ws;
    paho_speaks_5_0_over_secure_websocket: Paho V5 Wss;
    mqttjs_speaks_3_1_over_tcp: MqttJs V31 Tcp;
    mqttjs_speaks_3_1_1_over_tcp: MqttJs V311 Tcp;
    mqttjs_speaks_3_1_1_over_tls: MqttJs V311 Tls;
    mqttjs_speaks_3_1_1_over_websocket: MqttJs V311 Ws;
    mqttjs_speaks_3_1_1_over_secure_websocket: MqttJs V311 Wss;
    mqttjs_speaks_5_0_over_tcp: MqttJs V5 Tcp;
    mqttjs_speaks_5_0_over_tls: MqttJs V5 Tls;
    mqttjs_speaks_5_0_over_websocket: MqttJs V5 Ws;
    mqttjs_speaks_5_0_over_secure_websocket: MqttJs V5 Wss;
}

/// Messages of each quality of service, a retained one, a will, a push, and all that came while the device was away.
fn basics(kind: Kind, protocol: Protocol, transport: Transport) {
    let tls = matches!(transport, Transport::Tls | Transport::Wss);
    let node = Node::with(NodeOptions {
        tls,
        ..NodeOptions::default()
    });
    let connect = |session| Client::connect(&node, kind, protocol, transport, session);

    let mut publisher = connect(Session::clean("publisher"));
    publisher.publish(
        "room/1/door",
        "open",
        MessageOptions {
            qos: 1,
            retain: true,
            ..MessageOptions::default()
        },
    );

    let mut device = connect(Session::kept("device"));
    assert!(!device.session_present());
    assert_eq!(device.subscribe("room/+/door", 2), 2);
    let retained = device.next_message();
    assert_eq!(
        (
            retained.topic.as_str(),
            retained.payload.as_str(),
            retained.retain
        ),
        ("room/1/door", "open", true)
    );

    for qos in [0, 1, 2] {
        publisher.publish("room/2/door", &format!("quality {qos}"), qos);
        let message = device.next_message();
        assert_eq!(
            (message.payload, message.qos, message.retain),
            (format!("quality {qos}"), u64::from(qos), false)
        );
    }

    let id = Push::to_device("device", 1).send(&node);
    let push = device.next_message();
    assert_eq!(
        (push.topic.as_str(), push.qos, &push.json()["data"]),
        ("push/in", 1, &json!({"n": 1}))
    );

    // Else the DISCONNECT may overtake the acknowledgement, and the push comes again.
    node.await_report(
        &id,
        Report {
            targeted: 1,
            delivered: 1,
            pending: 0,
            expired: 0,
        },
    );
    device.disconnect();
    publisher.publish("room/3/door", "while away 1", 1);
    publisher.publish("room/3/door", "while away 2", 2);
    Push::to_device("device", 2).send(&node);
    let device = connect(Session::kept("device"));
    assert!(
        device.session_present() || protocol == Protocol::V31,
        "3.1 cannot tell"
    );
    let mut missed: Vec<String> = (0..3).map(|_| device.next_message().payload).collect();
    let push = missed
        .iter()
        .position(|payload| payload.contains(r#""n":2"#))
        .expect("the push is among them");
    missed.remove(push);
    assert_eq!(missed, ["while away 1", "while away 2"]);

    let will = Will {
        topic: "room/4/door",
        payload: "gone",
        qos: 1,
        retain: false,
        delay: None,
    };
    connect(Session::clean("mortal").will(&will)).vanish();
    assert_eq!(device.next_message().payload, "gone");
    device.disconnect();
}

#[test]
fn mosquitto_tools_exchange_messages_at_every_quality_of_service() {
    let node = Node::start();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            // Retained, so that it does not matter which of the two is first.
            let topic = format!("{version}/{qos}");
            mosquitto_pub(
                &node,
                &["-V", version, "-q", qos, "-t", &topic, "-m", "hello", "-r"],
            );
            let subscriber = mosquitto_sub(
                &node,
                &[
                    "-V", version, "-q", qos, "-t", &topic, "-C", "1", "-F", "%q %r %p",
                ],
            );
            assert_eq!(subscriber.succeed(), [format!("{qos} 1 hello")], "{topic}");
        }
    }
}

#[test]
fn mosquitto_tools_work_over_tls() {
    let node = Node::with(NodeOptions {
        tls: true,
        ..NodeOptions::default()
    });
    let ca = node.authority().ca.to_str().expect("the path is UTF-8");
    mosquitto_pub(
        &node,
        &["--cafile", ca, "-t", "a", "-m", "secret", "-r", "-q", "1"],
    );
    let subscriber = mosquitto_sub(&node, &["--cafile", ca, "-t", "a", "-C", "1"]);
    assert_eq!(subscriber.succeed(), ["secret"]);
}

#[test]
fn mosquitto_sub_gets_pushes_without_subscribing_to_them() {
    let node = Node::start();
    let push = Push::to_device("phone", 7).send(&node);
    // The tool cannot do without a topic.
    let device = mosquitto_sub(
        &node,
        &[
            "-V", "mqttv5", "-i", "phone", "-t", "unused", "-q", "1", "-C", "1",
        ],
    );
    let document: serde_json::Value =
        serde_json::from_str(&device.next_line()).expect("a push is JSON");
    assert_eq!(
        (&document["id"], &document["data"]["n"]),
        (&json!(push), &json!(7))
    );
}

#[test]
fn an_empty_client_id_is_replaced_by_one_of_the_servers() {
    let node = Node::start();
    let client = Client::v5(&node, Session::clean(""));
    assert!(
        client.connack["assigned"]
            .as_str()
            .is_some_and(|id| !id.is_empty()),
        "{}",
        client.connack
    );
    assert_eq!(client.connack["receive_maximum"], 20);
}

#[test]
fn user_properties_arrive_in_order() {
    let node = Node::start();
    let mut device = Client::v5(&node, Session::clean("device"));
    device.subscribe("a", 1);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let user = vec![pair("b", "1"), pair("a", "2"), pair("b", "3"), pair("", "")];
    let options = MessageOptions {
        qos: 1,
        user: user.clone(),
        ..MessageOptions::default()
    };
    Client::v5(&node, Session::clean("publisher")).publish("a", "x", options);
    assert_eq!(device.next_message().user, user);
}

#[test]
fn versions_and_transports_talk_to_each_other() {
    let node = Node::with(NodeOptions {
        tls: true,
        ..NodeOptions::default()
    });
    let mut devices = [
        Client::connect(
            &node,
            Kind::Paho,
            Protocol::V31,
            Transport::Tcp,
            Session::clean("a"),
        ),
        Client::connect(
            &node,
            Kind::MqttJs,
            Protocol::V311,
            Transport::Ws,
            Session::clean("b"),
        ),
        Client::connect(
            &node,
            Kind::Paho,
            Protocol::V5,
            Transport::Tls,
            Session::clean("c"),
        ),
        Client::connect(
            &node,
            Kind::MqttJs,
            Protocol::V5,
            Transport::Wss,
            Session::clean("d"),
        ),
    ];
    devices
        .iter_mut()
        .for_each(|device| assert_eq!(device.subscribe("all", 2), 2));
    for from in 0..devices.len() {
        devices[from].publish("all", &from.to_string(), 2);
        devices
            .iter()
            .for_each(|device| assert_eq!(device.next_message().payload, from.to_string()));
    }
}
