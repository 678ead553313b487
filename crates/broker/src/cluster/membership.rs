//! The port to what nodes agree on: who is a member, who leads, what operators ordered.
//!
//! Declared for the node; `campanile-backends` implements it over a ZooKeeper ensemble, the simulation over a model of one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use super::peer::Load;
use crate::ids::Generation;

/// How a node presents itself to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name, unique in the cluster; survives restarts.
    pub name: Arc<str>,
    /// Where peers reach it.
    pub peer_address: SocketAddr,
    /// What devices are told to connect to, by listener: `mqtt://host:port` and the like. The first one is the server reference.
    pub addresses: Vec<Arc<str>>,
    /// The HTTP API, as other nodes and operators reach it; "": none.
    pub http_address: Arc<str>,
    /// Version of the program.
    pub version: Arc<str>,
    /// When it started, Unix milliseconds.
    pub started_ms: u64,
    /// How full it is.
    pub load: Load,
    /// It moves its devices away and takes no new ones.
    pub draining: bool,
}

/// A node that is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// This run of it.
    pub generation: Generation,
    /// What it says of itself.
    pub info: NodeInfo,
}

/// What the nodes agree on, as last read. Replaced as a whole whenever a part changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Own generation; `None` until the node has registered. Once the ensemble is out of reach the last one stays, as everybody else goes on
    /// believing in it too; it is `None` again only when the ensemble itself says that the registration is gone, until the next one.
    pub own: Option<Generation>,
    /// All nodes that are believed to live, this one included, by name.
    pub nodes: BTreeMap<Arc<str>, Registered>,
    /// Those of `nodes` that the ensemble no longer lists; see [`belief`](super::belief).
    pub doubted: BTreeSet<Arc<str>>,
    /// Name of the node that leads: it runs what must run once.
    pub leader: Option<Arc<str>>,
    /// Orders of operators by the node's name.
    pub drains: BTreeMap<Arc<str>, Drain>,
    /// Cluster-wide settings by key, as operators wrote them.
    pub settings: BTreeMap<Arc<str>, Arc<str>>,
    /// The ensemble answers. Otherwise all of this is what was last known, and goes on being believed.
    pub reachable: bool,
}

/// An order to move all devices of a node away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Devices a second; 0: as many as there are.
    pub rate: u32,
    /// Unix milliseconds at which those that are left are disconnected; 0: never.
    pub deadline_ms: u64,
}
