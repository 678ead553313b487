//! What a node is made with.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use campanile_backends::{
    self as backends, embedded::EmbeddedConfig, redis::RedisConfig, worker::WorkerConfig,
};
use campanile_broker::access::Access;

use super::cluster::ClusterSpec;
use crate::{auth::DeviceCredentials, net::listener::ListenerSpec};

/// Everything a node is made with. Every queue, wait and table that is the node's own has its bound here.
#[derive(Clone)]
pub struct NodeConfig {
    /// Its name in logs.
    pub name: String,
    /// Threads that serve connections, 1..=64; 0: one per core.
    pub shards: u8,
    /// Where clients connect.
    pub listeners: Vec<ListenerSpec>,
    /// The HTTP API; `None`: there is none.
    pub http: Option<HttpSpec>,
    /// Where state is kept.
    pub store: StoreSpec,
    /// The cluster that it is a member of; `None`: it is alone.
    pub cluster: Option<ClusterSpec>,
    /// Limits and policies of the broker.
    pub broker: campanile_broker::config::Config,
    /// Authentication and authorisation.
    pub access: Arc<dyn Access>,
    /// What of it reads from the store.
    pub credentials: Arc<DeviceCredentials>,
    /// Bounds of the store's thread: requests and bytes that wait, and those of one commit.
    pub worker: WorkerConfig,
    /// Threads that read from the store for clients that return.
    pub read_threads: usize,
    /// Reads that wait for them; more are refused, and retried by the shards.
    pub read_queue: usize,
    /// Threads that judge credentials where that takes long (password hashes).
    pub auth_threads: usize,
    /// Credentials that wait for them; clients beyond are refused as "server busy". What waits longer than the CONNECT timeout is in vain.
    pub auth_queue: usize,
    /// Threads that judge credentials of devices: some 0.1 ms each, and a read of the store.
    pub device_auth_threads: usize,
    /// Those that wait for them; devices beyond are refused as "server busy".
    pub device_auth_queue: usize,
    /// Connections accepted per second, so that a reconnect storm does not starve the connected; 0: no limit.
    pub accepts_per_second: u32,
    /// Connections accepted at once after a quiet time.
    pub accept_burst: u32,
    /// File descriptors that are not for clients: the store's files, HTTP, logs.
    pub reserved_files: usize,
    /// Threads for HTTP and signals.
    pub control_threads: usize,
    /// How often expired state is removed.
    pub sweep_every: Duration,
    /// Removals of one such commit; there are as many commits as are needed.
    pub sweep_limit: u32,
    /// How often the figures under `$SYS` are published; zero: never.
    pub sys_every: Duration,
    /// How often counts of pushes are looked for that a node left behind which died.
    pub count_every: Duration,
}

/// Where the HTTP API listens, and its limits.
#[derive(Clone, Debug)]
pub struct HttpSpec {
    /// The address. Port 0: any free one.
    pub address: SocketAddr,
    /// Its limits.
    pub api: campanile_api::Config,
}

/// Where state is kept.
#[derive(Clone, Debug)]
pub enum StoreSpec {
    /// In memory: nothing outlives the process.
    Memory(backends::Config),
    /// In a data directory.
    Embedded(EmbeddedConfig),
    /// In a Redis.
    Redis(Box<RedisConfig>, backends::Config),
}

impl NodeConfig {
    /// A node without listeners that keeps its state in memory and lets `access` decide.
    pub fn new(access: Arc<dyn Access>) -> NodeConfig {
        NodeConfig {
            name: "campanile".to_owned(),
            shards: 0,
            listeners: Vec::new(),
            http: None,
            store: StoreSpec::Memory(backends::Config::default()),
            cluster: None,
            broker: campanile_broker::config::Config::default(),
            access,
            credentials: Arc::default(),
            worker: WorkerConfig::default(),
            read_threads: 2,
            read_queue: 65_536,
            auth_threads: 2,
            auth_queue: 256,
            device_auth_threads: 4,
            device_auth_queue: 16_384,
            accepts_per_second: 10_000,
            accept_burst: 20_000,
            reserved_files: 256,
            control_threads: 2,
            sweep_every: Duration::from_secs(1),
            sweep_limit: 10_000,
            sys_every: Duration::from_secs(10),
            count_every: Duration::from_secs(30),
        }
    }

    /// The same with its state in a data directory.
    pub fn with_data_directory(mut self, path: impl Into<PathBuf>) -> NodeConfig {
        self.store = StoreSpec::Embedded(EmbeddedConfig::new(path));
        self
    }

    /// How many shards that is.
    pub(super) fn shard_count(&self) -> u8 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self.shards {
            0 => cores.clamp(1, 64) as u8,
            count => count.min(64),
        }
    }
}
