//! The normative statements of MQTT 3.1.1 that show in conversations with a node.

#[path = "../rules/mod.rs"]
mod rules;

mod connect;
mod errors;
mod publish;
mod qos;
mod retained;
mod session;
mod subscribe;
mod wills;

/// The version of all that is here.
const V: campanile_mqtt::Version = campanile_mqtt::Version::V311;
