//! Real servers for tests and demonstrations: started on free loopback ports, stopped by their process ids when dropped.
//!
//! Deliberately absent: stand-ins. What is tested here is tested against the programs that run in production.

pub mod process;
pub mod redis;
pub mod zookeeper;
