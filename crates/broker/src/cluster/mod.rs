//! Nodes that serve together, without IO.
//!
//! [`membership`] is the port to what the nodes agree on (in production a ZooKeeper ensemble), [`peer`] what they tell each other directly. Links
//! are an accelerator: whatever must not be lost is in the store, and read from there when a link is down. [`balance`] says where devices should
//! connect, and how many should move.

pub mod balance;
pub mod membership;
pub mod peer;
