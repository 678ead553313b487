//! The product's language: apps, API keys, devices, audiences, pushes, schedules, reports. No IO: bytes, time and randomness come in as arguments.
//!
//! Start at [`request::Request::parse`], which turns the JSON of an app server into a checked push, and at [`store`], the ports
//! through which it becomes durable. [`payload`] is what a device reads. What an app keeps beside its pushes is [`rows`], by the rules of [`registry`].
//!
//! A push whose devices have their turns at different times is a [`campaign`], by the rules of [`pacing`], [`quiet`] and [`frequency`].
//!
//! Whom a push is for: an [`audience`] as it is asked for becomes a [`targeting`], which looks at what is known of a [`device`] by an
//! [`expression`]; [`live`] finds those that it admits among the connected ones.
//!
//! Absent: MQTT packets, HTTP, storage.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod ack;
pub mod app;
pub mod audience;
pub mod campaign;
pub mod clock;
pub mod compat;
pub mod device;
pub mod device_key;
pub mod event;
pub mod explanation;
pub mod expression;
mod fields;
pub mod frequency;
pub mod funnel;
mod hash;
pub mod id;
pub mod idempotency;
pub mod info;
mod json;
pub mod key;
pub mod lanes;
pub mod live;
pub mod options;
pub mod pacing;
pub mod payload;
pub mod quiet;
pub mod receipt;
pub mod registry;
pub mod request;
pub mod rows;
#[cfg(test)]
mod samples;
pub mod schedule;
pub mod series;
pub mod store;
pub mod sync;
pub mod targeting;
pub mod time;
pub mod webhook;
