//! Devices with credentials of their app: their end, and what they are told on `push/ctl`.

use std::sync::Arc;

use campanile_broker::{
    access::{Access, AuthRequest, DeviceIdentity, Identity, Verdict},
    config::Config,
    ids::Millis,
};
use campanile_mqtt::{Packet, Reason, Version};
use campanile_sim::{node::NodeConfig, packets::*, pair::Pair};

/// User names are client identifiers of devices; `short` has credentials that end at a time.
struct Gate {
    ends: Millis,
}

impl Access for Gate {
    fn authenticate(&self, request: &AuthRequest) -> Verdict {
        let device = request.username.as_deref().map(|name| {
            Arc::new(DeviceIdentity {
                app: request.app.clone(),
                user: None,
                binds_user: false,
                expires_at: (name == "short").then_some(self.ends),
            })
        });
        let identity = Identity {
            username: None,
            device,
        };
        Verdict::Allow {
            identity,
            data: None,
        }
    }

    fn authenticate_slowly(&self, request: &AuthRequest) -> Verdict {
        self.authenticate(request)
    }

    fn may_publish(&self, _: &Identity, _: &str, _: &str) -> bool {
        true
    }

    fn may_subscribe(&self, _: &Identity, _: &str, _: &str) -> bool {
        true
    }
}

fn pair(broker: Config) -> Pair {
    let now = Pair::new().node.now;
    Pair::with(NodeConfig {
        broker,
        access: Arc::new(Gate {
            ends: Millis(now.0 + 10_000),
        }),
        ..NodeConfig::default()
    })
}

fn told(pair: &mut Pair, wire: usize) -> String {
    pair.expect(wire, |packet| match packet {
        Packet::Publish(publish) => {
            assert_eq!(publish.topic, "push/ctl");
            String::from_utf8(publish.payload.to_vec()).unwrap()
        }
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_connection_ends_with_its_credentials_and_no_other_does() {
    let mut pair = pair(Config::default());
    let short = pair.connect(connect("short").login("short", "x"));
    let long = pair.connect(connect("long").login("long", "x"));
    pair.wait(9);
    pair.expect_alive(short);
    pair.wait(2);
    pair.expect_disconnect(short, Reason::MaximumConnectTime);
    pair.expect_alive(long);
}

#[test]
fn a_device_that_comes_back_in_time_has_a_new_end() {
    let mut pair = pair(Config::default());
    let first = pair.connect(connect("d").login("short", "x"));
    pair.wait(5);
    let second = pair.connect(connect("d").login("long", "x"));
    pair.expect_disconnect(first, Reason::SessionTakenOver);
    pair.wait(10);
    pair.expect_alive(second);
}

#[test]
fn a_keep_alive_that_is_too_long_is_told_to_older_devices() {
    let broker = Config {
        max_keep_alive_seconds: 60,
        ..Config::default()
    };
    let mut pair = pair(broker);
    let device = pair.connect(connect("d").version(Version::V311).login("d", "x"));
    assert_eq!(
        told(&mut pair, device),
        r#"{"type":"keep_alive","seconds":60}"#
    );
    let short = pair.connect(
        connect("e")
            .version(Version::V311)
            .login("e", "x")
            .keep_alive(60),
    );
    pair.expect_silence(short);
    // The CONNACK of 5.0 says so, and what is no device is told nothing that it has not subscribed to.
    let newer = pair.connect(connect("f").login("f", "x"));
    pair.expect_silence(newer);
    let other = pair.connect(connect("g").version(Version::V311));
    pair.expect_silence(other);
}
