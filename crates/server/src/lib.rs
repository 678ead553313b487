//! The composition root: configuration, authentication, listeners, shard drivers and the command line of the one binary, `campanile`.
//!
//! Start at [`cli`]: `campanile serve` reads the settings ([`config`]), builds what judges clients ([`auth`]) and starts a node ([`node`]), which owns
//! the listeners and shard drivers ([`net`]); [`peers`] links it to other nodes. [`admin`] is how the command line talks to a
//! running node. Rules are deliberately absent: who gets which message is the broker's business, what a push is the push domain's.

pub mod admin;
pub mod auth;
pub mod banner;
pub mod cli;
pub mod config;
pub mod logging;
pub mod net;
pub mod node;
pub mod peers;
