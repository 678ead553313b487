//! Nodes in one thread with a virtual clock, for conversations by hand and for seeded simulation.
//!
//! [`node`] is a node alone, [`pair`] its clients in conversation with it, [`packets`] what they say; [`world`] plays it by seed. [`fleet`] is several nodes over
//! one store, an ensemble and links; [`cluster`] plays those. Both worlds share the [`model`] of what was promised and the clients. [`sabotage`]
//! builds bugs in, to see that they are found.

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
pub mod seeds;
pub mod shards;
pub mod world;
