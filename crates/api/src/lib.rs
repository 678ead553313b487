//! The HTTP API: resources over the push domain, and what watches a node.
//!
//! Start at [`router`], which needs an [`ApiState`]; [`serve`] runs it on a listener. The server supplies the ports: [`Store`] makes
//! commands durable, [`Node`] tells how the node is, [`Cluster`](cluster::Cluster) how all nodes are, [`Outgoing`] sends requests to receivers of webhooks. Every refusal is a [`problem::Problem`] with a code of [`problem::Code`];
//! `docs/api.md` describes them all to callers.
//!
//! Absent: TLS, HTTP/2, storage, and any knowledge of MQTT.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod admin;
mod auth;
mod batch;
mod body;
pub mod campaigns;
pub mod cluster;
mod compat;
mod config;
mod connect;
mod credentials;
mod devices;
pub mod eraser;
mod events;
mod explanations;
mod groups;
mod guard;
mod keys;
mod listing;
mod openapi;
mod ops;
mod outgoing;
mod path;
pub mod problem;
mod pushes;
mod query;
mod rate;
pub mod registrar;
mod reports;
mod routes;
pub mod scheduler;
mod schedules;
mod segments;
mod serve;
mod state;
pub mod teller;
mod uploads;
mod users;
mod validation;
mod webhooks;

pub use config::{Config, Webhooks};
pub use outgoing::{Answered, Outgoing, Post};
pub use routes::{app_routes, ops_routes, router};
pub use serve::serve;
pub use state::{ApiState, Clock, NewId, Node, Parts, Store, Version};
