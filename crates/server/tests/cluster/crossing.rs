//! What one node takes in and another gives out.

use std::time::Duration;

use campanile_mqtt::{QoS, Version, client::Publication};
use campanile_testbed::conversation::{Conversation, kept};

use crate::setup::{Cluster, PATIENCE};

/// What a device is to get next, as text.
fn next(device: &mut Conversation) -> String {
    let message = device.message(PATIENCE).expect("a message");
    String::from_utf8(message.payload).unwrap()
}

/// Publishes text and waits until the node has taken it.
fn publish(device: &mut Conversation, topic: &str, qos: QoS, text: &str) {
    let publication = Publication {
        topic,
        payload: text.as_bytes(),
        qos,
        ..Publication::default()
    };
    device.publish(&publication).unwrap();
}

#[test]
fn a_session_goes_on_at_every_node_where_it_was() {
    let cluster = Cluster::start(3);
    let places = cluster.addresses();
    for version in [Version::V5, Version::V311] {
        let mut device = Conversation::new(kept(&format!("device-{version:?}"), version));
        let mut publisher = Conversation::new(kept(&format!("publisher-{version:?}"), version));
        publisher.connect(places[0].mqtt, false).unwrap();
        let mut before = None;
        for round in 0..6 {
            let is_present = device.connect(places[round % 3].mqtt, false).unwrap();
            assert_eq!(is_present, round > 0);
            if round == 0 {
                device.subscribe("t/#", QoS::ExactlyOnce).unwrap();
            }
            for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let text = format!("{version:?} {round} {qos:?}");
                publish(&mut publisher, "t/x", qos, &text);
                assert_eq!(next(&mut device), text);
            }
            // The end of the last exchange.
            assert_eq!(device.message(Duration::from_millis(200)), None);
            match round % 2 {
                0 => before = device.abandon(),
                _ => device.close(),
            }
        }
        drop(before);
    }
}
