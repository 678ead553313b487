//! A node in one thread with a virtual clock, for conversations and seeded simulation.
//!
//! [`node`] is the node, [`pair`] its clients in conversation with it, [`packets`] what they say.

pub mod cluster;
pub mod ends;
pub mod fleet;
pub mod model;
pub mod node;
pub mod operations;
pub mod packets;
pub mod pair;
pub mod rng;
pub mod sabotage;
pub mod shards;
pub mod world;
