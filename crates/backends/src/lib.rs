//! Durable state: what the broker's and the push domain's ports ask for, kept in memory or on disk.
//!
//! Start at [`Backend`]: it takes a batch of [`Request`]s and makes it durable in one commit; its [`Reader`] answers queries from other
//! threads. The rules (what a claim returns, what a full inbox drops, when an entry expires) are written once, in [`Engine`], over an ordered
//! key-value store [`Kv`]. There are two of those: [`memory`], the model that the simulation runs on, and [`embedded`], which keeps a data
//! directory. Both pass [`suite`]. With [`Config::shared`] the memory backend is the model of a store that several nodes use.
//! [`worker`] runs a backend on threads of its own behind bounded mailboxes; [`order`] is its rule of what must not be kept behind a message that was not.
//! [`audiences`] is no store: it is the push domain behind the broker's port that asks whom a push is for.
//!
//! Deliberately absent: what a message means to a session, who subscribes to what, and anything about sockets.

pub mod audiences;
mod backend;
mod config;
pub mod embedded;
mod engine;
pub mod lasting;
pub mod memory;
pub mod order;
pub mod redis;
pub mod suite;
pub mod worker;
pub mod zookeeper;

pub use backend::{Backend, Committed, Reader, Reply, Request};
pub use config::{Config, MAX_CHANGES, MAX_NOTES, WILL_AGAIN_MS, WILL_GRACE_MS};
pub use engine::{Engine, Kv, KvError, Reads, Value, View, Writes};
