//! A node in one thread with a virtual clock, for conversations and seeded simulation.
//!
//! [`node`] is the node, [`pair`] a client in conversation with it.

pub mod node;
pub mod pair;
