//! What one node takes in and another gives out.

use std::{
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    time::Duration,
};

use campanile_mqtt::{
    QoS, Version,
    client::{Message, Publication},
};
use campanile_testbed::conversation::{Conversation, kept, passing, watch_end};

use crate::setup::{Cluster, PATIENCE};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
/// Long enough for what must not come.
const QUIET: Duration = Duration::from_millis(300);

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

/// What a device gets next.
fn next(device: &mut Conversation) -> Message {
    device.message(PATIENCE).expect("a message")
}

/// Publishes and waits until the node has taken it.
fn publish(device: &mut Conversation, topic: &str, qos: QoS, payload: &str) {
    let publication = Publication {
        topic,
        payload: payload.as_bytes(),
        qos,
        ..Publication::default()
    };
    device.publish(&publication).unwrap();
}

fn connected(cluster: &Cluster, node: usize, client_id: &str) -> Conversation {
    let mut device = Conversation::new(kept(client_id, Version::V5));
    device
        .connect(cluster.addresses()[node].mqtt, false)
        .unwrap();
    device
}

#[test]
fn push_reaches_devices_at_every_node_and_its_report_adds_up() {
    let mut cluster = Cluster::start(3);
    let mut devices: Vec<_> = (0..3)
        .map(|node| connected(&cluster, node, &format!("device-{node}")))
        .collect();
    for audience in [
        r#"{"all": true}"#,
        r#"{"devices": ["device-0", "device-1", "device-2"]}"#,
    ] {
        let body = format!(r#"{{"audience": {audience}, "data": {{"n": 1}}}}"#);
        let answer = cluster
            .node(2)
            .ask(&["POST /v1/apps/default/pushes"], &body)
            .unwrap();
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.json()["push_id"].as_str().unwrap().to_owned();
        for device in &mut devices {
            let message = next(device);
            assert_eq!(message.topic, "push/in");
            assert!(text(&message).contains(&id), "{message:?}");
            // Lets the acknowledgement out.
            device.turn(Duration::from_millis(10));
        }
        // Any node answers for all.
        let path = format!("GET /v1/apps/default/pushes/{id}");
        crate::setup::eventually("receipts of all devices", || {
            let report = cluster.node(0).ask(&[&path], "").ok()?.json();
            (report["targeted"] == 3 && report["delivered"] == 3).then_some(())
        });
    }
}

#[test]
fn publish_reaches_subscribers_at_other_nodes_as_soon_as_they_have_their_suback() {
    let cluster = Cluster::start(3);
    let mut publisher = connected(&cluster, 0, "publisher");
    for round in 0..5 {
        for (node, is_kept) in [(1, true), (2, false)] {
            let client_id = format!("device-{round}-{node}");
            let options = match is_kept {
                true => kept(&client_id, Version::V5),
                false => passing(&client_id),
            };
            let mut device = Conversation::new(options);
            let address = cluster.addresses()[node].mqtt;
            device.connect(address, !is_kept).unwrap();
            for qos in ALL_QOS {
                let topic = format!("t/{round}/{node}/{qos:?}");
                device.subscribe(&topic, QoS::ExactlyOnce).unwrap();
                publish(&mut publisher, &topic, qos, "at once");
                let message = next(&mut device);
                assert_eq!((text(&message), message.qos), ("at once", qos), "{topic}");
            }
        }
    }
}

#[test]
fn retained_message_is_there_at_every_node() {
    let cluster = Cluster::start(2);
    let mut publisher = connected(&cluster, 0, "publisher");
    for round in 0..5 {
        let topic = format!("state/{round}");
        let publication = Publication {
            topic: &topic,
            payload: b"on",
            qos: QoS::AtLeastOnce,
            retain: true,
            ..Publication::default()
        };
        publisher.publish(&publication).unwrap();
        let mut device = connected(&cluster, 1, &format!("device-{round}"));
        device.subscribe(&topic, QoS::AtLeastOnce).unwrap();
        let message = next(&mut device);
        assert_eq!((text(&message), message.retain), ("on", true));
    }
}

#[test]
fn a_session_goes_on_at_every_node_where_it_was() {
    let cluster = Cluster::start(3);
    let places = cluster.addresses();
    for version in [Version::V5, Version::V311] {
        let mut device = Conversation::new(kept(&format!("device-{version:?}"), version));
        let mut publisher = connected(&cluster, 0, &format!("publisher-{version:?}"));
        let mut before = None;
        for round in 0..6 {
            let is_present = device.connect(places[round % 3].mqtt, false).unwrap();
            assert_eq!(is_present, round > 0);
            if round == 0 {
                device.subscribe("t/#", QoS::ExactlyOnce).unwrap();
            }
            for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let payload = format!("{version:?} {round} {qos:?}");
                publish(&mut publisher, "t/x", qos, &payload);
                assert_eq!(text(&next(&mut device)), payload);
            }
            // The end of the last exchange.
            assert_eq!(device.message(QUIET), None);
            match round % 2 {
                0 => before = device.abandon(),
                _ => device.close(),
            }
        }
        drop(before);
    }
}

#[test]
fn takeover_by_another_node_repeats_qos_1_and_ends_qos_2_exactly_once() {
    const EACH: usize = 5;
    let cluster = Cluster::start(3);
    let mut publisher = connected(&cluster, 1, "publisher");
    let mut device = connected(&cluster, 0, "device");
    device.subscribe("t/#", QoS::ExactlyOnce).unwrap();
    device.is_mute = true;
    for number in 0..EACH {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            publish(&mut publisher, "t/x", qos, &format!("{qos:?} {number}"));
        }
    }
    let first: Vec<_> = (0..2 * EACH).map(|_| next(&mut device)).collect();
    assert!(first.iter().all(|message| !message.dup));
    let before = device.abandon().unwrap();
    device.is_mute = false;
    let is_present = device.connect(cluster.addresses()[2].mqtt, false).unwrap();
    assert!(is_present);
    assert!(watch_end(before, &AtomicBool::new(false)), "told with 0x8E");
    // What of QoS 2 has come before goes on with its packet identifier, and is no message any more.
    for number in 0..EACH {
        let message = next(&mut device);
        let expected = format!("{:?} {number}", QoS::AtLeastOnce);
        assert_eq!((text(&message), message.dup), (expected.as_str(), true));
    }
    assert_eq!(device.message(QUIET), None);
    publish(&mut publisher, "t/x", QoS::ExactlyOnce, "end");
    assert_eq!(text(&next(&mut device)), "end");
}

#[test]
fn shared_subscription_has_one_receiver_in_the_whole_cluster() {
    const MESSAGES: usize = 60;
    let cluster = Cluster::start(3);
    let mut members: Vec<_> = (0..3)
        .map(|node| {
            let mut member = connected(&cluster, node, &format!("member-{node}"));
            member
                .subscribe("$share/group/work/#", QoS::ExactlyOnce)
                .unwrap();
            member
        })
        .collect();
    let mut publisher = connected(&cluster, 0, "publisher");
    let mut expected = Vec::new();
    for number in 0..MESSAGES {
        let payload = format!("{number:03}");
        publish(&mut publisher, "work/x", ALL_QOS[1 + number % 2], &payload);
        expected.push(payload);
    }
    let mut got = Vec::new();
    crate::setup::eventually("all messages", || {
        for member in &mut members {
            while let Some(message) = member.message(Duration::from_millis(20)) {
                got.push(text(&message).to_owned());
            }
        }
        (got.len() >= MESSAGES).then_some(())
    });
    for member in &mut members {
        assert_eq!(member.message(QUIET), None, "a second receiver");
    }
    got.sort();
    assert_eq!(got, expected);
}

#[test]
fn third_party_clients_meet_across_nodes() {
    let cluster = Cluster::start(2);
    let places = cluster.addresses();
    let mosquitto = |program: &str, node: usize, arguments: &[&str]| {
        let address = places[node].mqtt;
        let mut command = Command::new(program);
        command
            .args(["-h", &address.ip().to_string(), "-p"])
            .arg(address.port().to_string())
            .args(arguments)
            .stdout(Stdio::piped());
        command.spawn().expect("./test installs it")
    };
    // A session that is kept: what is published before the subscriber is there waits for it.
    let session = ["-c", "-i", "sub", "-q", "2", "-t", "m/#"];
    let mut register = mosquitto("mosquitto_sub", 0, &[&session[..], &["-E"]].concat());
    assert!(register.wait().unwrap().success());
    for (version, payload) in [("mqttv311", "one"), ("mqttv5", "two")] {
        let arguments = ["-V", version, "-q", "2", "-t", "m/x", "-m", payload];
        let mut publisher = mosquitto("mosquitto_pub", 0, &arguments);
        assert!(publisher.wait().unwrap().success());
    }
    let subscriber = mosquitto(
        "mosquitto_sub",
        1,
        &[&session[..], &["-C", "2", "-W", "30"]].concat(),
    );
    let output = subscriber.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
}
