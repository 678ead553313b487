//! The normative statements of MQTT 5.0 that show in conversations with a node.

#[path = "../rules/mod.rs"]
mod rules;

mod aliases;
mod auth;
mod connect;
mod disconnect;
mod errors;
mod expiry;
mod flow;
mod packet_size;
mod publish;
mod qos;
mod retained;
mod session;
mod shared;
mod subscribe;
mod subscription_ids;
mod wills;

/// The version of all that is here.
const V: campanile_mqtt::Version = campanile_mqtt::Version::V5;
