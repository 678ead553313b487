//! The nodes of a cluster, with a wire between each of them and what it talks to.

use std::{
    collections::BTreeMap, fmt::Write as _, net::SocketAddr, path::PathBuf, sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;

use crate::{
    node::{Addresses, Node},
    process::wait_for,
    proxy::{Flow, Proxy, Wire},
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
    /// How many nodes, at most 9.
    pub nodes: usize,
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
    /// By dialer and listener: nodes dial each other, the later one the earlier.
    links: BTreeMap<(usize, usize), Wire>,
    stores: Vec<Wire>,
    ensembles: Vec<Wire>,
    _proxies: Vec<Proxy>,
    directory: TempDir,
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
        let mut nodes = Nodes {
            nodes: Vec::new(),
            links: BTreeMap::new(),
            stores: Vec::new(),
            ensembles: Vec::new(),
            _proxies: Vec::new(),
            directory: TempDir::new()?,
        };
        for from in 0..options.nodes {
            for to in 0..options.nodes {
                nodes.links.insert((from, to), Wire::default());
            }
        }
        for index in 0..options.nodes {
            nodes.add(index, options)?;
        }
        Ok(nodes)
    }

    fn add(&mut self, index: usize, options: &ClusterOptions) -> anyhow::Result<()> {
        let addresses = Addresses::free()?;
        let (store, ensemble) = (Wire::default(), Wire::default());
        let mut zookeeper = Vec::new();
        for server in &options.zookeeper {
            zookeeper.push(self.proxy(Proxy::start(server.parse()?, ensemble.clone())?));
        }
        // Sentinels and servers of a Redis Cluster name others, which are not behind a proxy.
        let mut redis = options.store.addresses.clone();
        if options.store.mode == "standalone" {
            for server in &mut redis {
                *server = self.proxy(Proxy::start(server.parse()?, store.clone())?);
            }
        }
        let peers = self.link_proxy(index, addresses.peers, options.nodes)?;
        let name = name(index);
        let settings = settings(options, &name, addresses, &peers, &zookeeper, &redis)?;
        let directory = self.directory.path().join(&name);
        let node = Node::new(&options.binary, &name, directory, addresses, &settings)?;
        self.nodes.push(node);
        self.stores.push(store);
        self.ensembles.push(ensemble);
        Ok(())
    }

    fn proxy(&mut self, proxy: Proxy) -> String {
        let address = proxy.address().to_string();
        self._proxies.push(proxy);
        address
    }

    /// A peer says its name first.
    fn link_proxy(
        &mut self,
        index: usize,
        target: SocketAddr,
        count: usize,
    ) -> anyhow::Result<String> {
        let wires: Vec<(Vec<u8>, Wire)> = (0..count)
            .map(|from| (name(from).into_bytes(), self.links[&(from, index)].clone()))
            .collect();
        let wires = Arc::new(wires);
        let choose = move |said: &[u8]| {
            let says = |name: &[u8]| said.windows(name.len()).any(|part| part == name);
            let (_, wire) = wires.iter().find(|(name, _)| says(name))?;
            Some(wire.clone())
        };
        Ok(self.proxy(Proxy::start_choosing(target, choose)?))
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

    /// What is between a node and Redis. It is not on the way to Sentinels and Redis Clusters.
    pub fn store_wire(&self, index: usize) -> &Wire {
        &self.stores[index]
    }

    /// What is between a node and ZooKeeper.
    pub fn ensemble_wire(&self, index: usize) -> &Wire {
        &self.ensembles[index]
    }

    /// Sets what one node hears of another, and the other of it.
    pub fn set_link(&self, one: usize, other: usize, to_other: Flow, to_one: Flow) {
        self.links[&(one, other)].set(to_other, to_one);
        self.links[&(other, one)].set(to_one, to_other);
    }

    /// Lets everything pass again.
    pub fn mend(&self) {
        let wires = self
            .links
            .values()
            .chain(&self.stores)
            .chain(&self.ensembles);
        wires.for_each(Wire::mend);
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

fn name(index: usize) -> String {
    format!("node-{}", index + 1)
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

fn settings(
    options: &ClusterOptions,
    name: &str,
    addresses: Addresses,
    peers: &str,
    zookeeper: &[String],
    redis: &[String],
) -> anyhow::Result<String> {
    let store = &options.store;
    let mut text = String::new();
    writeln!(text, "[node]\nname = {name:?}\nshards = 2\n")?;
    writeln!(text, "[store]\nkind = \"redis\"\n")?;
    writeln!(
        text,
        "[redis]\nmode = {:?}\naddresses = {redis:?}",
        store.mode
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
        "[cluster]\nzookeeper = {zookeeper:?}\nchroot = {:?}",
        options.chroot
    )?;
    writeln!(
        text,
        "session_timeout = \"{}ms\"",
        options.session_timeout.as_millis()
    )?;
    writeln!(
        text,
        "peer_address = \"{}\"\npeer_advertise = {peers:?}",
        addresses.peers
    )?;
    writeln!(text, "{}\n\n{}", options.cluster_settings, options.settings)?;
    Ok(text)
}
