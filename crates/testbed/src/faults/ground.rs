//! The servers and nodes of a run, and how each fault is done to them and mended.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;

use super::{
    Run,
    kind::{Cut, Fault},
};
use crate::{
    nodes::{ClusterOptions, Nodes, Store},
    process::wait_for,
    proxy::{Flow, Wire},
    redis::{Cluster, Redis, RedisOptions, Replicated},
    zookeeper::Ensemble,
};

/// Servers of the ensemble.
pub const ZOOKEEPERS: usize = 3;
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
}

impl Ground {
    pub fn start(run: &Run) -> anyhow::Result<Ground> {
        let ensemble = Ensemble::start(ZOOKEEPERS)?;
        let redis = Servers::start(run.redis)?;
        let nodes = Nodes::start(&ClusterOptions {
            binary: run.binary.clone(),
            nodes: run.nodes,
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
            Fault::NoRedis(node, cut) => lose(nodes.store_wire(*node), *cut),
            Fault::NoZooKeeper(node, cut) => lose(nodes.ensemble_wire(*node), *cut),
            Fault::NoLink(one, other, cut) => unlink(nodes, *one, *other, *cut),
            Fault::Alone(node, cut) => {
                lose(nodes.store_wire(*node), *cut);
                lose(nodes.ensemble_wire(*node), *cut);
                let others = (0..nodes.len()).filter(|other| other != node);
                others.for_each(|other| unlink(nodes, *node, other, *cut));
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
            Fault::NoRedis(..) | Fault::NoZooKeeper(..) | Fault::NoLink(..) | Fault::Alone(..) => {
                self.nodes.mend();
            }
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

    /// Writes what the nodes printed to where it outlives the run.
    pub fn keep_logs(&self) -> anyhow::Result<()> {
        Ok(std::fs::write(&self.logs, self.nodes.logs())?)
    }

    pub fn logs_kept_at(&self) -> &PathBuf {
        &self.logs
    }
}

fn lose(wire: &Wire, cut: Cut) {
    match cut {
        Cut::Closed => wire.cut(),
        Cut::Silent => wire.hold(),
        Cut::OneWay => wire.set(Flow::Open, Flow::Held),
    }
}

fn unlink(nodes: &Nodes, one: usize, other: usize, cut: Cut) {
    let (there, back) = match cut {
        Cut::Closed => (Flow::Cut, Flow::Cut),
        Cut::Silent => (Flow::Held, Flow::Held),
        Cut::OneWay => (Flow::Open, Flow::Held),
    };
    nodes.set_link(one, other, there, back);
}

impl Servers {
    fn start(mode: RedisMode) -> anyhow::Result<Servers> {
        const REPLICAS: usize = 2;
        let lasting = RedisOptions {
            append_fsync: Some("always"),
            ..RedisOptions::default()
        };
        Ok(match mode {
            RedisMode::Standalone => Servers::Standalone(Redis::start_with(&lasting)?),
            RedisMode::Sentinel => Servers::Sentinel(Replicated::start(REPLICAS, &lasting)?),
            RedisMode::Cluster => Servers::Cluster(Cluster::start(REPLICAS, &lasting)?),
        })
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
