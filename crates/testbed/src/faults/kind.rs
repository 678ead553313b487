//! What can be broken.

use std::fmt;

use super::{RedisMode, Run};
use crate::rng::Rng;

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
    /// A node does not reach Redis; its connections are cut, or nothing passes.
    NoRedis(usize, Cut),
    /// A node does not reach ZooKeeper.
    NoZooKeeper(usize, Cut),
    /// Two nodes do not reach each other.
    NoLink(usize, usize, Cut),
    /// A node reaches nothing but its clients.
    Alone(usize, Cut),
    /// The primary of Redis stands still. Sentinels and clusters may promote another.
    FreezeRedis,
    /// The primary of Redis is killed; it comes back, as a replica if another was promoted.
    KillRedis,
    /// A server of ZooKeeper is killed.
    KillZooKeeper(usize),
    /// All servers of ZooKeeper are killed.
    KillEnsemble,
}

/// How a way is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Connections end, new ones are closed.
    Closed,
    /// Connections stay open, and nothing passes.
    Silent,
    /// As silent, but only towards the other end.
    OneWay,
}

impl Fault {
    /// The next one.
    pub fn draw(rng: &mut Rng, run: &Run) -> Fault {
        let node = rng.below(run.nodes);
        let other = (node + 1 + rng.below(run.nodes.max(2) - 1)) % run.nodes;
        let cut = [Cut::Closed, Cut::Silent, Cut::OneWay][rng.below(3)];
        // Not of servers that name others, which no wire is in front of.
        let is_standalone = run.redis == RedisMode::Standalone;
        loop {
            return match rng.below(14) {
                0 | 1 => Fault::Kill(vec![node]),
                2 => Fault::Kill((0..run.nodes).collect()),
                3 => Fault::Stop(node),
                4 => Fault::Drain(node),
                5 | 6 => Fault::Freeze(node),
                7 if is_standalone => Fault::NoRedis(node, cut),
                8 => Fault::NoZooKeeper(node, cut),
                9 if node != other => Fault::NoLink(node, other, cut),
                10 if is_standalone => Fault::Alone(node, cut),
                11 => Fault::FreezeRedis,
                12 => Fault::KillRedis,
                13 if rng.below(2) == 0 => Fault::KillEnsemble,
                13 => Fault::KillZooKeeper(rng.below(super::ground::ZOOKEEPERS)),
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
            Fault::NoRedis(..) => "cut a node from Redis",
            Fault::NoZooKeeper(..) => "cut a node from ZooKeeper",
            Fault::NoLink(..) => "cut a link",
            Fault::Alone(..) => "cut a node from everything",
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
            Fault::NoRedis(node, cut) | Fault::NoZooKeeper(node, cut) | Fault::Alone(node, cut) => {
                write!(f, "{kind}: {node}, {cut:?}")
            }
            Fault::NoLink(one, other, cut) => write!(f, "{kind}: {one} and {other}, {cut:?}"),
            Fault::FreezeRedis | Fault::KillRedis | Fault::KillEnsemble => f.write_str(kind),
        }
    }
}
