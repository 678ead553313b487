//! The port to the nodes that serve together, for those who ask where to connect and for operators.

use std::pin::Pin;

use bytes::Bytes;
use campanile_push::{app::AppName, id::PushId};
use serde::{Deserialize, Serialize};

/// An answer that takes a while. Whoever gives it bounds the wait.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// The nodes that serve together. A node alone is one too: it shows itself, and refuses the rest with [`Refusal::Alone`].
pub trait Cluster: Send + Sync {
    /// All that this node knows now. Must not block.
    fn overview(&self) -> Overview;
    /// Asks all nodes for a client's connection.
    fn locate<'a>(&'a self, app: &'a AppName, client: &'a str) -> Answer<'a, Located>;
    /// The same, and closes it.
    fn kick<'a>(&'a self, app: &'a AppName, client: &'a str) -> Answer<'a, Located>;
    /// Asks all nodes how many connected devices a push would be for now, of an id that no push has. `audience` is an encoded targeting; `None`: all.
    fn count_connected<'a>(
        &'a self,
        app: &'a AppName,
        push: PushId,
        audience: Option<Bytes>,
    ) -> Answer<'a, Connected>;
    /// Orders a node to move its devices away, or changes such an order. Done once all nodes will see it.
    fn drain<'a>(&'a self, node: &'a str, order: DrainOrder) -> Answer<'a, ()>;
    /// Withdraws the order: the node takes devices again. Fine if there is none.
    fn undrain<'a>(&'a self, node: &'a str) -> Answer<'a, ()>;
    /// Has all nodes that are above their fair share move the surplus away now.
    fn rebalance(&self) -> Answer<'_, ()>;
}

/// Why the nodes did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There are no others.
    #[error(
        "this node is not a member of a cluster: set cluster.zookeeper in its configuration and start it again"
    )]
    Alone,
    /// No node of that name is registered.
    #[error("node {name:?}: none of that name is registered; there are: {}", known.join(", "))]
    UnknownNode {
        /// The name.
        name: String,
        /// Those that are.
        known: Vec<String>,
    },
    /// What the nodes agree on cannot be changed now. Nothing happened.
    #[error("ZooKeeper does not answer, so that nothing was changed: {0}")]
    Unreachable(String),
}

/// An order to move a node's devices away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainOrder {
    /// Devices a second; `None`: as the node is configured.
    pub rate: Option<u32>,
    /// Unix milliseconds at which those that are left are disconnected; `None`: never.
    pub deadline_ms: Option<u64>,
}

/// What one node knows of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// The cluster's name; "" of a node alone.
    pub cluster: String,
    /// Whether this node is a member of a cluster.
    pub member: bool,
    /// Whether the ZooKeeper ensemble answers. Otherwise all that it says is what was last known.
    pub membership_reachable: bool,
    /// Why the store refuses writes; `None`: it does not.
    pub store_failing: Option<String>,
    /// All registered nodes by name; this one is always there.
    pub nodes: Vec<NodeStatus>,
}

/// A node as another sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// It is the node that answers.
    pub this: bool,
    /// This run of it, hexadecimal; `None`: it is not registered now.
    pub generation: Option<String>,
    /// Version of the program.
    pub version: String,
    /// When it started, Unix milliseconds.
    pub started_ms: u64,
    /// What devices connect to, such as `mqtt://host:port`.
    pub addresses: Vec<String>,
    /// Its HTTP API; "": not told.
    pub http: String,
    /// Connected clients.
    pub connections: u64,
    /// Connections that it can hold.
    pub capacity: u64,
    /// It takes no new devices.
    pub draining: bool,
    /// The order that it drains by, if an operator gave one.
    pub drain: Option<DrainOrder>,
    /// It runs what must run once.
    pub leader: bool,
    /// Whether the link to it is up; `None` of the node that answers.
    pub linked: Option<bool>,
}

/// Connected devices that a push would be for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// Registered ones; of a push to all, every one.
    pub known: u64,
    /// Others, of which nothing is known.
    pub others: u64,
    /// Nodes that did not answer in time: theirs are not counted.
    pub silent: Vec<String>,
}

/// Where a client is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// Its connection; `None`: no node that answered has one.
    pub connection: Option<ClientConnection>,
    /// Nodes that did not answer in time.
    pub silent: Vec<String>,
}

/// A client's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientConnection {
    /// The node that has it.
    pub node: String,
    /// Of its claim.
    pub epoch: u64,
    /// MQTT protocol level: 3, 4 or 5.
    pub protocol_level: u8,
    /// Subscriptions.
    pub subscriptions: u32,
    /// Messages under way to it.
    pub in_flight: u32,
    /// Unix milliseconds in which it connected; 0: its node does not say.
    #[serde(default)]
    pub since_ms: u64,
    /// The client's address, if its node says.
    #[serde(default)]
    pub address: Option<String>,
    /// The first of its topic filters.
    #[serde(default)]
    pub filters: Vec<String>,
    /// Entries of the push log that it was not sent yet; `None`: more than its node has in memory.
    #[serde(default)]
    pub behind: Option<u32>,
    /// Its inbox may hold something that it was not sent yet.
    #[serde(default)]
    pub inbox_waits: bool,
}
