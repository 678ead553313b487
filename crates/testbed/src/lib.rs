//! Real servers for tests and demonstrations: started on free loopback ports, stopped by their process ids when dropped.
//!
//! Start at [`nodes::Nodes`], a cluster over a [`zookeeper`] ensemble and a [`redis`]; a [`network`] of hosts cuts it apart, and a [`fleet`] of devices and app servers
//! keeps the account of what it promised.
//!
//! Deliberately absent: stand-ins. What is tested here is tested against the programs that run in production.

pub mod conversation;
pub mod faults;
pub mod fleet;
pub mod http;
pub mod network;
pub mod node;
pub mod nodes;
pub mod process;
pub mod redis;
pub mod rng;
pub mod zookeeper;
