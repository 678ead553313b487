//! The product's language: apps, API keys, pushes, audiences, reports. No IO: bytes, time and randomness come in as arguments.
//!
//! Start at [`request::Request::parse`], which turns the JSON of an app server into a checked push, and at [`store`], the ports
//! through which it becomes durable. [`payload`] is what a device reads.
//!
//! Absent: MQTT packets, HTTP, storage.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod app;
pub mod id;
pub mod idempotency;
mod json;
pub mod key;
pub mod payload;
pub mod request;
pub mod rows;
pub mod store;
pub mod time;
