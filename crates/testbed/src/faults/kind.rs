//! What can be broken.

use std::fmt;

use super::{Hosts, RedisMode, Run};
use crate::{network::Cut, rng::Rng};

/// Something that breaks. Nodes, links and servers are named by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nodes are killed at once.
    Kill(Vec<usize>),
    /// A node is stopped in order.
    Stop(usize),
    /// A node is drained, and stops.
    Drain(usize),
    /// A node stands still.
    Freeze(usize),
    /// Packets are lost, or refused.
    Cut(Between, Cut),
    /// The primary of Redis stands still. Sentinels and clusters may promote another.
    FreezeRedis,
    /// The primary of Redis is killed; it comes back, as a replica if another was promoted.
    KillRedis,
    /// A server of ZooKeeper is killed.
    KillZooKeeper(usize),
    /// All servers of ZooKeeper are killed.
    KillEnsemble,
}

/// Between whom packets are lost. The first is the one that is deaf or mute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Between {
    /// Nodes and all servers of Redis.
    NodesAndRedis(Vec<usize>),
    /// A node and the primary of Redis, or one of them; the others reach it.
    NodeAndPrimary(usize),
    /// The primary of Redis, or one of them, and the other servers. Nodes reach all.
    PrimaryAndServers,
    /// A node and ZooKeeper.
    NodeAndZooKeeper(usize),
    /// The leader of ZooKeeper and its followers. Nodes reach all.
    LeaderAndFollowers,
    /// Two nodes.
    Nodes(usize, usize),
    /// A node and everything but its clients.
    NodeAndAll(usize),
}

impl Fault {
    /// The next one.
    pub fn draw(rng: &mut Rng, run: &Run) -> Fault {
        let node = rng.below(run.nodes);
        let other = (node + 1 + rng.below(run.nodes.max(2) - 1)) % run.nodes;
        let cut = Cut::ALL[rng.below(Cut::ALL.len())];
        let has_replicas = run.redis != RedisMode::Standalone;
        loop {
            let number = rng.below(match run.network {
                Hosts::Loopback => 11,
                Hosts::Namespaces => 20,
            });
            return match number {
                0 | 1 => Fault::Kill(vec![node]),
                2 => Fault::Kill((0..run.nodes).collect()),
                3 => Fault::Stop(node),
                4 => Fault::Drain(node),
                5 | 6 => Fault::Freeze(node),
                7 => Fault::FreezeRedis,
                8 => Fault::KillRedis,
                9 => Fault::KillEnsemble,
                10 => Fault::KillZooKeeper(rng.below(super::ground::ZOOKEEPERS)),
                11 | 12 => Fault::Cut(Between::NodesAndRedis(vec![node]), cut),
                13 => Fault::Cut(Between::NodesAndRedis((0..run.nodes).collect()), cut),
                14 if has_replicas => Fault::Cut(Between::NodeAndPrimary(node), cut),
                15 if has_replicas => Fault::Cut(Between::PrimaryAndServers, cut),
                16 => Fault::Cut(Between::NodeAndZooKeeper(node), cut),
                17 => Fault::Cut(Between::LeaderAndFollowers, cut),
                18 if node != other => Fault::Cut(Between::Nodes(node, other), cut),
                19 => Fault::Cut(Between::NodeAndAll(node), cut),
                _ => continue,
            };
        }
    }

    /// Its name in totals.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Kill(nodes) if nodes.len() > 1 => "kill all nodes",
            Fault::Kill(_) => "kill a node",
            Fault::Stop(_) => "stop a node",
            Fault::Drain(_) => "drain a node",
            Fault::Freeze(_) => "freeze a node",
            Fault::Cut(between, _) => between.kind(),
            Fault::FreezeRedis => "freeze Redis",
            Fault::KillRedis => "kill Redis",
            Fault::KillZooKeeper(_) => "kill a ZooKeeper server",
            Fault::KillEnsemble => "kill ZooKeeper",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Fault::Kill(nodes) if nodes.len() > 1 => f.write_str(kind),
            Fault::Kill(nodes) => write!(f, "{kind}: {nodes:?}"),
            Fault::Stop(node)
            | Fault::Drain(node)
            | Fault::Freeze(node)
            | Fault::KillZooKeeper(node) => write!(f, "{kind}: {node}"),
            Fault::Cut(between, cut) => write!(f, "{between}, {cut:?}"),
            Fault::FreezeRedis | Fault::KillRedis | Fault::KillEnsemble => f.write_str(kind),
        }
    }
}

impl Between {
    fn kind(&self) -> &'static str {
        match self {
            Between::NodesAndRedis(nodes) if nodes.len() > 1 => "cut all nodes from Redis",
            Between::NodesAndRedis(_) => "cut a node from Redis",
            Between::NodeAndPrimary(_) => "cut a node from the primary of Redis",
            Between::PrimaryAndServers => "cut the primary of Redis from the other servers",
            Between::NodeAndZooKeeper(_) => "cut a node from ZooKeeper",
            Between::LeaderAndFollowers => "cut the leader of ZooKeeper from its followers",
            Between::Nodes(..) => "cut a link",
            Between::NodeAndAll(_) => "cut a node from everything",
        }
    }
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Between::NodesAndRedis(nodes) => write!(f, "{kind}: {nodes:?}"),
            Between::NodeAndPrimary(node)
            | Between::NodeAndZooKeeper(node)
            | Between::NodeAndAll(node) => write!(f, "{kind}: {node}"),
            Between::Nodes(one, other) => write!(f, "{kind}: {one} and {other}"),
            Between::PrimaryAndServers | Between::LeaderAndFollowers => f.write_str(kind),
        }
    }
}
