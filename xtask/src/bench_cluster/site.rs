//! What is measured: a node alone, or nodes over ZooKeeper and Redis.

use std::{
    fmt, fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use campanile_testbed::{
    node::{Addresses, KEY, Node},
    nodes::sees,
    process::wait_for,
    redis::{Redis, RedisOptions},
    zookeeper::Ensemble,
};
use tempfile::TempDir;

/// How long all nodes may take to see each other.
const TOGETHER: Duration = Duration::from_secs(30);

/// Which store, and how many nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node alone with its own store.
    Embedded,
    /// So many nodes over ZooKeeper and Redis.
    Cluster(usize),
}

impl Kind {
    /// How many nodes.
    pub fn nodes(self) -> usize {
        match self {
            Kind::Embedded => 1,
            Kind::Cluster(nodes) => nodes,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Embedded => f.write_str("alone"),
            Kind::Cluster(1) => f.write_str("cluster of 1"),
            Kind::Cluster(nodes) => write!(f, "cluster of {nodes}"),
        }
    }
}

/// Servers that run. They end with it.
pub struct Site {
    /// Its kind.
    pub kind: Kind,
    /// Its nodes.
    pub nodes: Vec<Node>,
    redis: Option<Redis>,
    _directory: TempDir,
}

impl Site {
    /// Starts it and waits until it is ready. The Redis is fresh; it writes to its append-only file and syncs that every second.
    pub fn start(kind: Kind, binary: &Path, ensemble: &Ensemble) -> Result<Site> {
        let directory = TempDir::new()?;
        let options = RedisOptions {
            append_fsync: Some("everysec"),
            ..RedisOptions::default()
        };
        let redis = match kind {
            Kind::Embedded => None,
            Kind::Cluster(_) => Some(Redis::start_with(&options)?),
        };
        let chroot = fresh_chroot();
        let mut nodes = Vec::new();
        for number in 1..=kind.nodes() {
            let name = format!("node-{number}");
            let addresses = Addresses::free()?;
            let settings = match &redis {
                None => format!("[node]\nname = {name:?}\n"),
                Some(redis) => cluster_settings(&name, addresses, ensemble, redis, &chroot),
            };
            let path = directory.path().join(&name);
            nodes.push(Node::new(binary, &name, path, addresses, &settings)?);
        }
        for node in &mut nodes {
            node.launch()?;
        }
        for node in &mut nodes {
            node.wait_ready()?;
        }
        if redis.is_some() {
            wait_for("nodes that see each other", TOGETHER, || {
                let all = nodes.iter().all(|node| sees(node) == Some(kind.nodes()));
                Ok(all.then_some(()))
            })?;
        }
        Ok(Site {
            kind,
            nodes,
            redis,
            _directory: directory,
        })
    }

    /// What tells `campanile bench` where it is.
    pub fn arguments(&self) -> Vec<String> {
        let list = |show: &dyn Fn(&Node) -> String| -> String {
            self.nodes.iter().map(show).collect::<Vec<_>>().join(",")
        };
        let pid = |node: &Node| node.process_id().unwrap_or(0).to_string();
        let mut arguments = vec![
            "--mqtt".to_owned(),
            list(&|node| node.addresses().mqtt.to_string()),
            "--http".to_owned(),
            list(&|node| node.addresses().http.to_string()),
            "--pid".to_owned(),
            list(&pid),
            "--key".to_owned(),
            KEY.to_owned(),
        ];
        if let Some(redis) = &self.redis {
            arguments.extend(["--redis".to_owned(), redis.address()]);
        }
        arguments
    }

    /// Starts nodes again that have ended.
    pub fn restart_dead(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if !node.is_running() {
                node.launch()?;
            }
        }
        Ok(())
    }

    /// Resident memory of all nodes, bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let mut sum = 0;
        for node in &self.nodes {
            let pid = node.process_id().context("the node was not started")?;
            sum += resident_bytes(pid)?;
        }
        Ok(sum)
    }

    /// Memory that Redis uses, but for clients and the append-only file, bytes, if there is one.
    pub fn redis_bytes(&self) -> Result<Option<u64>> {
        let Some(redis) = &self.redis else {
            return Ok(None);
        };
        // Not `used_memory_dataset`, which leaves out what the table of keys takes.
        let info = redis.ask(&["INFO", "memory"])?;
        let bytes = |name: &str| -> Option<u64> {
            let mut lines = info.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value?.trim().parse().ok()
        };
        let others = ["mem_clients_normal", "mem_aof_buffer"];
        let others: Option<u64> = others.into_iter().map(bytes).sum();
        let data = bytes("used_memory").zip(others);
        let (used, others) = data.context("Redis does not say what memory it uses")?;
        Ok(Some(used.saturating_sub(others)))
    }
}

fn fresh_chroot() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/bench-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn cluster_settings(
    name: &str,
    addresses: Addresses,
    ensemble: &Ensemble,
    redis: &Redis,
    chroot: &str,
) -> String {
    format!(
        r#"
[node]
name = {name:?}

[store]
kind = "redis"

[redis]
addresses = [{:?}]
durability = "primary"

[cluster]
zookeeper = {:?}
chroot = {chroot:?}
peer_address = "{}"
# Nobody is moved away while it is measured.
rebalance = "manual"
"#,
        redis.address(),
        ensemble.addresses(),
        addresses.peers,
    )
}

fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| {
        let kib = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
        kib.parse::<u64>().ok()
    });
    Ok(kib.context("the node has ended")? * 1024)
}
