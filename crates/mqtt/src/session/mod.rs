//! State that outlives a packet: what a session remembers of its exchanges, and a connection of its topic aliases.
//!
//! [`Outbound`] numbers and tracks the messages that this end sends, [`Inbound`] those that it receives. Both outlive a connection and
//! serve server and client alike. [`AliasesIn`] and [`AliasesOut`] live as long as one connection. Empty, each is at
//! most 32 bytes and holds no heap memory, so that idle connections cost little.
//!
//! Nothing here knows a clock, a socket, or what a message says.

mod aliases;
mod inbound;
mod outbound;

pub use aliases::{AliasError, AliasesIn, AliasesOut};
pub use inbound::{Inbound, Verdict};
pub use outbound::{Outbound, PubRec, Unfinished, Unknown};
