//! MQTT 3.1, 3.1.1 and 5.0, both ends, without IO.
//!
//! Start at [`Packet`]: [`split`] finds the next whole packet in a byte slice, [`Packet::decode`] reads it without
//! copying, [`Packet::encode`] writes it. [`publish`] holds the hot path: one application message, written for many receivers. [`topic`] has
//! the rules of names and filters. [`session`] holds the state that outlives a packet (packet identifiers, the in-flight
//! window, topic aliases), [`client`] the client's end of a conversation. The server's end is the broker's shard.
//!
//! The version is data: one type per packet serves all versions.
//!
//! Deliberately absent: sockets, clocks, storage, and everything about who gets which message.

pub mod client;
mod decode;
mod encode;
mod filters;
mod packet;
mod properties;
mod property;
pub mod publish;
mod reason;
pub mod session;
pub mod topic;
mod types;
mod wire;

pub use decode::{DecodeError, Split, split};
pub use encode::{AckKind, encode_ack, encode_ping_resp};
pub use packet::*;
pub use properties::{Properties, PropertiesBuf};
pub use property::Property;
pub use reason::Reason;
pub use types::{PacketId, QoS, Version};
