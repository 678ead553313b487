//! Who gets what: shards of sessions, subscriptions and queues, without IO.
//!
//! Start at [`Shard`](shard::Shard): a driver feeds it bytes, [mail](mail::Mail) of other shards, answers of the store and the time, and takes out
//! [`Effects`](effects::Effects) and the [`Outbox`](outbox::Outbox). [`store`] is the port to durable state, [`access`] the port to authentication, [`audience`]
//! the one that says whom a push is for.
//! `routes`, `tail` and `retained` are the shard's indexes: from a topic to its receivers, the recent part of each log, what is retained.
//!
//! Deliberately absent: sockets, clocks, threads, storage engines, HTTP.

pub mod access;
pub mod audience;
pub mod cluster;
pub mod config;
pub mod effects;
pub mod ids;
pub mod lane;
pub mod mail;
pub mod message;
pub mod outbox;
mod retained;
mod routes;
pub mod shard;
pub mod stats;
pub mod store;
mod tail;
