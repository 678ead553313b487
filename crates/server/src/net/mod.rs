//! The network: listeners, and one driver per shard that owns the connections outright.
//!
//! Start at [`driver`]: the loop. It feeds a [`ports::Machine`] (the broker's shard) from its sockets and its [`mailbox`], and carries out what that
//! wants done. A [`connection`] is a socket with its layers ([`tls`], [`websocket`]) and what was not taken yet, in either direction.
//! What a packet means is deliberately absent.

pub mod clock;
pub mod connection;
pub mod driver;
pub mod figures;
pub mod layers;
pub mod listener;
pub mod mailbox;
pub mod ports;
pub mod slab;
pub mod tickets;
pub mod tls;
pub mod websocket;
