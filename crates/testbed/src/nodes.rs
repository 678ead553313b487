//! The nodes of a cluster.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use anyhow::Context;
use tempfile::TempDir;

use crate::{
    network::Place,
    node::{Addresses, Node},
    process::wait_for,
};

/// How long all nodes may take to see each other.
const TOGETHER: Duration = Duration::from_secs(30);

/// The Redis of a cluster.
#[derive(Clone, Debug)]
pub struct Store {
    /// `standalone`, `sentinel` or `cluster`.
    pub mode: &'static str,
    /// `host:port` of the server, of Sentinels, or of servers of a Redis Cluster.
    pub addresses: Vec<String>,
    /// What Sentinels call the primary.
    pub master_name: String,
    /// What keys begin with.
    pub prefix: String,
    /// Replicas that must have a write; 0: the primary is enough.
    pub replicas: u8,
}

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The program.
    pub binary: PathBuf,
    /// Where each node runs.
    pub nodes: Vec<Place>,
    /// `host:port` of ZooKeeper's servers.
    pub zookeeper: Vec<String>,
    /// The path under which the cluster is.
    pub chroot: String,
    /// Its Redis.
    pub store: Store,
    /// How long ZooKeeper waits for a silent node.
    pub session_timeout: Duration,
    /// Further lines of the section `[cluster]`.
    pub cluster_settings: String,
    /// Further sections.
    pub settings: String,
}

/// Several nodes. Killed when dropped; what they printed is shown if a test fails.
#[derive(Debug)]
pub struct Nodes {
    nodes: Vec<Node>,
    /// Theirs.
    _directory: TempDir,
}

impl Nodes {
    /// Starts them and waits until all see each other.
    pub fn start(options: &ClusterOptions) -> anyhow::Result<Nodes> {
        let mut nodes = Nodes::prepare(options)?;
        for index in 0..nodes.len() {
            nodes.node(index).launch()?;
        }
        for index in 0..nodes.len() {
            nodes.node(index).wait_ready()?;
        }
        nodes.wait_together()?;
        Ok(nodes)
    }

    fn prepare(options: &ClusterOptions) -> anyhow::Result<Nodes> {
        let directory = TempDir::new()?;
        let mut nodes = Vec::new();
        for (index, place) in options.nodes.iter().enumerate() {
            let name = format!("node-{}", index + 1);
            let addresses = Addresses::at(place)?;
            let settings = settings(options, &name, addresses)?;
            let path = directory.path().join(&name);
            let node = Node::new(&options.binary, &name, path, addresses, &settings)?;
            nodes.push(node.at(place.clone()));
        }
        Ok(Nodes {
            nodes,
            _directory: directory,
        })
    }

    /// How many there are, running or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One of them.
    pub fn node(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }

    /// Where they listen.
    pub fn addresses(&self) -> Vec<Addresses> {
        self.nodes.iter().map(Node::addresses).collect()
    }

    /// Where they run.
    pub fn places(&self) -> Vec<Place> {
        self.nodes.iter().map(|node| node.place().clone()).collect()
    }

    /// Waits until every node is registered and linked to every other.
    pub fn wait_together(&mut self) -> anyhow::Result<()> {
        let expected = self.len();
        let seen = wait_for("nodes that see each other", TOGETHER, || {
            let all = self.nodes.iter().all(|node| sees(node) == Some(expected));
            Ok(all.then_some(()))
        });
        seen.with_context(|| {
            let states: Vec<_> = self
                .nodes
                .iter()
                .map(|node| node.operate(&["status"]))
                .collect();
            format!("of {expected}: {states:?}\n{}", self.logs())
        })
    }

    /// What all have printed.
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for node in &self.nodes {
            logs += &format!("--- {}\n{}", node.name(), node.log());
        }
        logs
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // Killed first, so that nobody reacts to the loss of the others in what is shown.
        self.nodes.iter_mut().for_each(Node::kill);
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// How many nodes a node sees in order, itself among them.
pub fn sees(node: &Node) -> Option<usize> {
    let status: serde_json::Value =
        serde_json::from_str(&node.operate(&["status", "--json"]).ok()?).ok()?;
    let nodes = status["nodes"].as_array()?;
    let is_well = |node: &&serde_json::Value| {
        node["this"] == true || (node["linked"] == true && !node["generation"].is_null())
    };
    let listed = nodes.iter().filter(is_well).count();
    (status["membership_reachable"] == true && nodes.len() == listed).then_some(listed)
}

fn settings(options: &ClusterOptions, name: &str, addresses: Addresses) -> anyhow::Result<String> {
    let store = &options.store;
    let mut text = String::new();
    writeln!(text, "[node]\nname = {name:?}\nshards = 2\n")?;
    writeln!(text, "[store]\nkind = \"redis\"\n")?;
    writeln!(
        text,
        "[redis]\nmode = {:?}\naddresses = {:?}",
        store.mode, store.addresses
    )?;
    if store.mode == "sentinel" {
        writeln!(text, "master_name = {:?}", store.master_name)?;
    }
    writeln!(
        text,
        "prefix = {:?}\nallow_no_persistence = true",
        store.prefix
    )?;
    match store.replicas {
        0 => writeln!(text, "durability = \"primary\"\n")?,
        count => writeln!(
            text,
            "durability = \"replicated\"\nmin_replicas = {count}\n"
        )?,
    }
    writeln!(
        text,
        "[cluster]\nzookeeper = {:?}\nchroot = {:?}",
        options.zookeeper, options.chroot
    )?;
    writeln!(
        text,
        "session_timeout = \"{}ms\"",
        options.session_timeout.as_millis()
    )?;
    writeln!(
        text,
        "peer_address = \"{0}\"\npeer_advertise = \"{0}\"",
        addresses.peers
    )?;
    writeln!(text, "{}\n\n{}", options.cluster_settings, options.settings)?;
    Ok(text)
}
