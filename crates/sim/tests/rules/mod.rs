//! What 3.1.1 and 5.0 demand alike: one check for both, called by the tests that bear the ids of each version.

pub mod access;
pub mod connect;
pub mod malformed;
pub mod publish;
pub mod qos;
pub mod retained;
pub mod session;
pub mod store;
pub mod subscribe;
pub mod wills;

use campanile_mqtt::Version;
use campanile_sim::{
    packets::{Connect, connect},
    pair::Pair,
};

/// A client whose session ends with its connection.
pub fn clean(v: Version, client_id: &str) -> Connect {
    connect(client_id).version(v)
}

/// A client that takes up its session, and whose session stays.
pub fn durable(v: Version, client_id: &str) -> Connect {
    clean(v, client_id).durable()
}

/// A node with a durable subscriber of a filter and a publisher.
pub fn subscriber_and_publisher(v: Version, filter: &str, qos: u8) -> (Pair, usize, usize) {
    let mut pair = Pair::new();
    let sub = pair.connect(durable(v, "sub"));
    pair.subscribe(sub, filter, qos);
    let publisher = pair.connect(clean(v, "pub"));
    (pair, sub, publisher)
}

/// As [`subscriber_and_publisher`], with a subscriber whose session ends with its connection.
pub fn clean_subscriber_and_publisher(v: Version, filter: &str, qos: u8) -> (Pair, usize, usize) {
    let mut pair = Pair::new();
    let sub = pair.connect(clean(v, "sub"));
    pair.subscribe(sub, filter, qos);
    let publisher = pair.connect(clean(v, "pub"));
    (pair, sub, publisher)
}
