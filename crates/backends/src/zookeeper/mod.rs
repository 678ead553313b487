//! Cluster membership over a ZooKeeper ensemble.
//!
//! Under the chroot there are four directories: `nodes` (an ephemeral entry for each node; its creation id is the node's generation), `leader`
//! (ephemeral sequential entries; the lowest leads), `drains` and `settings` (what operators ordered). Start at [`ZooKeeperMembership`]. A task of its
//! own connects, registers, follows the tree by one-shot watches, and publishes a whole new
//! [`Membership`](campanile_broker::cluster::membership::Membership) whenever something changed.
//!
//! An outage never stops a node: what was last known stands, and is marked unreachable. A session that ended is followed by new ones for ever; the
//! node then has a new generation. Deliberately absent: anything per device or per message.

mod agent;
mod config;
mod error;
mod handle;
mod layout;
mod payload;
mod plan;
mod tree;
mod view;

pub use config::{DigestAuth, TlsFiles, TlsIdentityFiles, ZooKeeperConfig};
pub use error::Error;
pub use handle::ZooKeeperMembership;
