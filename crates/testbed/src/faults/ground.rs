//! The servers and nodes of a run, and how each fault is done to them and mended.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};

use super::{
    Run,
    kind::{Between, Fault},
};
use crate::{
    network::{Network, Place},
    nodes::{ClusterOptions, Nodes, Store},
    process::wait_for,
    redis::{Cluster, Redis, RedisOptions, Replicated},
    zookeeper::Ensemble,
};

/// Servers of the ensemble.
pub const ZOOKEEPERS: usize = 3;
/// Replicas of each primary of Redis.
const REPLICAS: usize = 2;
/// How long servers may take to be whole again.
const WHOLE: Duration = Duration::from_secs(60);

/// How the servers of Redis belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// One, which writes everything to disk.
    Standalone,
    /// A primary, two replicas and three Sentinels.
    Sentinel,
    /// A Redis Cluster of three primaries with two replicas each.
    Cluster,
}

/// What servers and nodes run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// All on the loopback address: nothing is cut off from anything.
    Loopback,
    /// Each on a host of its own, in a network that loses packets. The process must be [inside](crate::network::inside) a namespace.
    Namespaces,
}

#[derive(Debug)]
enum Servers {
    Standalone(Redis),
    Sentinel(Replicated),
    Cluster(Cluster),
}

/// Where faults happen.
#[derive(Debug)]
pub struct Ground {
    pub nodes: Nodes,
    ensemble: Ensemble,
    redis: Servers,
    /// The server that was stopped or killed.
    fallen: Option<usize>,
    logs: PathBuf,
    /// Ends last.
    network: Option<Network>,
}

impl Ground {
    pub fn start(run: &Run) -> anyhow::Result<Ground> {
        let mut network = match run.network {
            Hosts::Loopback => None,
            Hosts::Namespaces => Some(Network::new()?),
        };
        let mut places = |count: usize| match &mut network {
            None => Ok(vec![Place::default(); count]),
            Some(network) => network.hosts(count),
        };
        let ensemble = Ensemble::start_at(&places(ZOOKEEPERS)?)?;
        let redis = Servers::start(run.redis, &places(run.redis.servers())?)?;
        let nodes = Nodes::start(&ClusterOptions {
            binary: run.binary.clone(),
            nodes: places(run.nodes)?,
            zookeeper: ensemble.addresses(),
            chroot: "/faults".to_owned(),
            store: redis.store(),
            session_timeout: Duration::from_secs(2),
            cluster_settings: String::new(),
            settings: String::new(),
        })?;
        let logs = std::env::temp_dir().join(format!("campanile-faults-{}", run.seed));
        Ok(Ground {
            nodes,
            ensemble,
            redis,
            fallen: None,
            logs,
            network,
        })
    }

    pub fn break_with(&mut self, fault: &Fault) -> anyhow::Result<()> {
        let nodes = &mut self.nodes;
        match fault {
            Fault::Kill(which) => which.iter().for_each(|node| nodes.node(*node).kill()),
            Fault::Stop(node) => nodes.node(*node).terminate()?,
            Fault::Drain(node) => {
                let name = nodes.node(*node).name().to_owned();
                let order = ["drain", &name, "--rate", "1000", "--deadline", "10s"];
                nodes.node(*node).operate(&order)?;
                nodes.node(*node).wait_end()?;
                let other = (*node + 1) % nodes.len();
                nodes.node(other).operate(&["undrain", &name])?;
            }
            Fault::Freeze(node) => nodes.node(*node).freeze()?,
            Fault::Cut(between, cut) => {
                let (those, others) = self.sides(between)?;
                let network = self.network()?;
                for place in those {
                    network.cut(&place, &others, *cut)?;
                }
            }
            Fault::FreezeRedis => {
                let primary = self.redis.primary()?;
                self.redis.server(primary).pause()?;
                self.fallen = Some(primary);
            }
            Fault::KillRedis => {
                let primary = self.redis.primary()?;
                self.redis.server(primary).kill();
                self.fallen = Some(primary);
            }
            Fault::KillZooKeeper(server) => self.ensemble.kill(*server),
            Fault::KillEnsemble => self.ensemble.kill_all(),
        }
        Ok(())
    }

    /// Afterwards all is as it was, and everybody sees everybody.
    pub fn mend(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(which) => {
                for node in which {
                    self.nodes.node(*node).launch()?;
                }
                for node in which {
                    self.nodes.node(*node).wait_ready()?;
                }
            }
            Fault::Stop(node) | Fault::Drain(node) => self.nodes.node(*node).start()?,
            Fault::Freeze(node) => self.nodes.node(*node).thaw()?,
            Fault::Cut(..) => self.network()?.mend()?,
            Fault::FreezeRedis => {
                if let Some(server) = self.fallen.take() {
                    self.redis.server(server).resume()?;
                }
            }
            Fault::KillRedis => {
                if let Some(server) = self.fallen.take() {
                    self.redis.revive(server)?;
                }
            }
            Fault::KillZooKeeper(_) | Fault::KillEnsemble => self.ensemble.restart_all()?,
        }
        self.redis.wait_whole()?;
        for node in 0..self.nodes.len() {
            self.nodes.node(node).wait_ready()?;
        }
        self.nodes.wait_together()
    }

    /// Who is cut off, and from whom.
    fn sides(&mut self, between: &Between) -> anyhow::Result<(Vec<Place>, Vec<Place>)> {
        let nodes = self.nodes.places();
        let node = |index: &usize| vec![nodes[*index].clone()];
        Ok(match between {
            Between::NodesAndRedis(which) => {
                (which.iter().flat_map(node).collect(), self.redis.places())
            }
            Between::NodeAndPrimary(index) => {
                let primary = self.redis.primary()?;
                let place = self.redis.server(primary).place().clone();
                (node(index), vec![place])
            }
            Between::PrimaryAndServers => {
                let primary = self.redis.primary()?;
                let place = self.redis.server(primary).place().clone();
                (vec![place], self.redis.places())
            }
            Between::NodeAndZooKeeper(index) => (node(index), self.ensemble.places()),
            Between::LeaderAndFollowers => {
                let places = self.ensemble.places();
                (vec![places[self.ensemble.leader()?].clone()], places)
            }
            Between::Nodes(one, other) => (node(one), node(other)),
            Between::NodeAndAll(index) => {
                let mut all = self.redis.places();
                all.extend(self.ensemble.places());
                all.extend(nodes.iter().cloned());
                (node(index), all)
            }
        })
    }

    fn network(&self) -> anyhow::Result<&Network> {
        let network = self.network.as_ref();
        network.context("on the loopback address nothing can be cut")
    }

    /// Writes what the nodes printed to where it outlives the run.
    pub fn keep_logs(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(&self.logs, self.nodes.logs())?)
    }

    pub fn logs_kept_at(&self) -> &PathBuf {
        &self.logs
    }
}

impl RedisMode {
    fn servers(self) -> usize {
        match self {
            RedisMode::Standalone => 1,
            RedisMode::Sentinel => 1 + REPLICAS,
            RedisMode::Cluster => Cluster::PRIMARIES * (1 + REPLICAS),
        }
    }
}

impl Servers {
    fn start(mode: RedisMode, places: &[Place]) -> anyhow::Result<Servers> {
        let lasting = RedisOptions {
            append_fsync: Some("always"),
            place: places[0].clone(),
            ..RedisOptions::default()
        };
        Ok(match mode {
            RedisMode::Standalone => Servers::Standalone(Redis::start_with(&lasting)?),
            RedisMode::Sentinel => Servers::Sentinel(Replicated::start_at(places, &lasting)?),
            RedisMode::Cluster => Servers::Cluster(Cluster::start_at(places, &lasting)?),
        })
    }

    /// Where each server runs; a Sentinel is where one of them is.
    fn places(&mut self) -> Vec<Place> {
        let servers = self.servers().iter();
        servers.map(|server| server.place().clone()).collect()
    }

    fn store(&self) -> Store {
        let (mode, addresses, replicas) = match self {
            Servers::Standalone(redis) => ("standalone", vec![redis.address()], 0),
            Servers::Sentinel(redis) => ("sentinel", redis.sentinel_addresses(), 1),
            Servers::Cluster(redis) => ("cluster", redis.addresses(), 1),
        };
        Store {
            mode,
            addresses,
            master_name: match self {
                Servers::Sentinel(_) => Replicated::NAME.to_owned(),
                _ => String::new(),
            },
            prefix: "cmp:".to_owned(),
            replicas,
        }
    }

    fn servers(&mut self) -> &mut [Redis] {
        match self {
            Servers::Standalone(redis) => std::slice::from_mut(redis),
            Servers::Sentinel(redis) => &mut redis.servers,
            Servers::Cluster(redis) => &mut redis.servers,
        }
    }

    fn server(&mut self, index: usize) -> &mut Redis {
        &mut self.servers()[index]
    }

    /// The primary, or one of them.
    fn primary(&mut self) -> anyhow::Result<usize> {
        wait_for("a primary of Redis", WHOLE, || {
            Ok(self.servers().iter().position(is_primary))
        })
    }

    /// Starts a server again. The restarted one must not take itself for the primary, whose data it has only in part.
    fn revive(&mut self, index: usize) -> anyhow::Result<()> {
        if !matches!(self, Servers::Standalone(_)) {
            wait_for("another primary of Redis", WHOLE, || {
                let expected = self.primaries();
                let others = self.servers().iter().enumerate();
                let primaries = others.filter(|(at, server)| *at != index && is_primary(server));
                Ok((primaries.count() == expected).then_some(()))
            })?;
        }
        self.server(index).restart()
    }

    fn primaries(&self) -> usize {
        match self {
            Servers::Cluster(_) => 3,
            _ => 1,
        }
    }

    /// Waits until every server is a primary or follows one, and no more than there should be are primaries.
    fn wait_whole(&mut self) -> anyhow::Result<()> {
        let expected = self.primaries();
        ensure!(!self.servers().is_empty(), "there are servers");
        wait_for("servers of Redis that agree", WHOLE, || {
            let servers = self.servers();
            let primaries = servers.iter().filter(|server| is_primary(server)).count();
            let follows = |server: &Redis| {
                is_primary(server)
                    || server
                        .ask(&["INFO", "replication"])
                        .is_ok_and(|info| info.contains("master_link_status:up"))
            };
            let all = servers.iter().all(follows);
            Ok((all && primaries == expected).then_some(()))
        })
    }
}

fn is_primary(server: &Redis) -> bool {
    server
        .ask(&["INFO", "replication"])
        .is_ok_and(|info| info.contains("role:master"))
}
