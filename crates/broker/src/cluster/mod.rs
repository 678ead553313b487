//! Nodes that serve together, without IO.
//!
//! Start at [`hub`]: between the shards, the store and the peers of a node. [`membership`] is the port to what the nodes agree on (in production a ZooKeeper
//! ensemble), [`peer`] what they tell each other directly. Links are an accelerator: whatever must not be lost is in the store, and read from there when
//! a link is down. [`belief`] decides how much of a sudden loss of most nodes is to be believed, [`balance`] how devices are spread over the nodes.

pub mod balance;
pub mod belief;
pub mod hub;
pub mod membership;
pub mod peer;
