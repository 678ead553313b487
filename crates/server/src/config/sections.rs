//! The sections of the configuration: what each key means, its default and its bounds.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    cluster::ClusterSettings,
    limits::{mqtt_string, read_limits},
    listener::{Listener, Transport},
    reader::Reader,
    redis::RedisSettings,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// All settings of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `[node]`
    pub node: Node,
    /// `[store]`
    pub store: Store,
    /// `[redis]`; used if `store.kind` says so.
    pub redis: RedisSettings,
    /// `[cluster]`
    pub cluster: ClusterSettings,
    /// `[[listeners]]`
    pub listeners: Vec<Listener>,
    /// `[limits]`; `server_reference` comes from `[node]`.
    pub limits: campanile_broker::config::Config,
    /// `[clients]`
    pub clients: Clients,
    /// `[http]`
    pub http: Http,
    /// `[log]`
    pub log: Log,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            node: Node::default(),
            store: Store::default(),
            redis: RedisSettings::default(),
            cluster: ClusterSettings::default(),
            listeners: vec![Listener::default()],
            limits: campanile_broker::config::Config::default(),
            clients: Clients::default(),
            http: Http::default(),
            log: Log::default(),
        }
    }
}

impl Settings {
    /// What `serve --dev` begins with: on loopback only, TCP and WebSocket, every device welcome.
    pub fn for_development() -> Settings {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let tcp = Listener {
            address: loopback(1883),
            ..Listener::default()
        };
        let ws = Listener {
            name: "ws".to_owned(),
            address: loopback(8083),
            transport: Transport::Ws,
            ..Listener::default()
        };
        Settings {
            listeners: vec![tcp, ws],
            clients: Clients {
                allow_anonymous: true,
                ..Clients::default()
            },
            ..Settings::default()
        }
    }

    pub(super) fn read(&mut self, root: &mut Reader<'_>) {
        let Settings {
            node,
            store,
            redis,
            cluster,
            listeners,
            limits,
            clients,
            http,
            log,
        } = self;
        root.section("node", |keys| node.read(&mut limits.server_reference, keys));
        root.section("store", |keys| store.read(keys));
        root.section("redis", |keys| redis.read(keys));
        root.section("cluster", |keys| cluster.read(keys));
        root.sections("listeners", listeners, Listener::read);
        root.section("limits", |keys| read_limits(limits, keys));
        root.section("clients", |keys| clients.read(keys));
        root.section("http", |keys| http.read(keys));
        root.section("webhooks", |keys| http.read_webhooks(keys));
        root.section("log", |keys| log.read(keys));
    }
}

/// What the node is.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name; "" stands for the host's name.
    pub name: String,
    /// Where its state lives. Made if it is not there.
    pub data_dir: PathBuf,
    /// Threads that serve connections; 0: one per core.
    pub shards: u8,
    /// Connections accepted per second, so that a reconnect storm does not starve the connected; 0: no limit.
    pub accepts_per_second: u32,
    /// Connections accepted at once after a quiet time.
    pub accept_burst: u32,
    /// How often figures are published under `$SYS`; zero: never.
    pub sys_interval: Duration,
    /// How often counts of pushes are taken up that a node left behind which died.
    pub count_interval: Duration,
}

impl Default for Node {
    fn default() -> Node {
        Node {
            name: String::new(),
            data_dir: "campanile-data".into(),
            shards: 0,
            accepts_per_second: 10_000,
            accept_burst: 20_000,
            sys_interval: 10 * SECOND,
            count_interval: 30 * SECOND,
        }
    }
}

impl Node {
    fn read(&mut self, server_reference: &mut String, keys: &mut Reader<'_>) {
        keys.text("name", &mut self.name, |name| {
            let fits = name.len() <= 64
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if fits {
                Ok(())
            } else {
                Err(format!(
                    "{name:?}: at most 64 letters, digits, \".\", \"_\" and \"-\""
                ))
            }
        });
        let mut data_dir = Some(self.data_dir.clone());
        keys.path("data_dir", &mut data_dir);
        self.data_dir = data_dir.unwrap_or_default(); // An empty path is refused by the checks.
        keys.integer("shards", &mut self.shards, 0..=64);
        keys.text("server_reference", server_reference, mqtt_string);
        keys.integer(
            "accepts_per_second",
            &mut self.accepts_per_second,
            0..=10_000_000,
        );
        keys.integer("accept_burst", &mut self.accept_burst, 1..=10_000_000);
        keys.duration("sys_interval", &mut self.sys_interval, Duration::ZERO..=DAY);
        let hour = Duration::from_secs(3600);
        keys.duration("count_interval", &mut self.count_interval, SECOND..=hour);
    }
}

/// Where messages are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// Embedded in the node, in a Redis, or memory only.
    pub kind: StoreKind,
    /// Embedded: what "accepted" means.
    pub durability: Durability,
    /// How long QoS 1 and 2 publishes are kept for sessions that are away.
    pub retention: Duration,
    /// Bytes of such publishes per log; the oldest go first.
    pub retention_bytes: u64,
    /// How long the report of a push is kept after its expiry.
    pub push_retention: Duration,
    /// Messages that wait for one device; the least urgent, oldest is dropped at the limit.
    pub inbox_max_entries: u32,
    /// Bytes that wait for one device; the same is dropped at the limit.
    pub inbox_max_bytes: u64,
    /// How long an event of an app is kept for those who read them.
    pub events_retention: Duration,
    /// Events of an app; the oldest are trimmed at the limit.
    pub events_max_entries: u64,
    /// Embedded: free space on the disk below which nothing new is accepted.
    pub min_free_bytes: u64,
    /// Embedded: memory for what is read from the disk.
    pub cache_bytes: u64,
}

/// Kinds of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// On this machine's disk, under the data directory.
    Embedded,
    /// In the Redis of `[redis]`.
    Redis,
    /// Nothing outlives the process.
    Memory,
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When the disk has it.
    Fsync,
    /// When the operating system has it: survives the end of the process, not of the machine.
    Os,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            kind: StoreKind::Embedded,
            durability: Durability::Fsync,
            retention: 7 * DAY,
            retention_bytes: 1 << 30,
            push_retention: 7 * DAY,
            inbox_max_entries: 1000,
            inbox_max_bytes: 4 << 20,
            events_retention: 3 * DAY,
            events_max_entries: 100_000,
            min_free_bytes: 64 << 20,
            cache_bytes: 64 << 20,
        }
    }
}

impl Store {
    fn read(&mut self, keys: &mut Reader<'_>) {
        keys.choice(
            "kind",
            &mut self.kind,
            &[
                ("embedded", StoreKind::Embedded),
                ("redis", StoreKind::Redis),
                ("memory", StoreKind::Memory),
            ],
        );
        keys.choice(
            "durability",
            &mut self.durability,
            &[("fsync", Durability::Fsync), ("os", Durability::Os)],
        );
        keys.duration("retention", &mut self.retention, SECOND..=3650 * DAY);
        keys.bytes(
            "retention_bytes",
            &mut self.retention_bytes,
            1 << 20..=1 << 50,
        );
        keys.duration(
            "push_retention",
            &mut self.push_retention,
            SECOND..=3650 * DAY,
        );
        keys.integer(
            "inbox_max_entries",
            &mut self.inbox_max_entries,
            1..=1_000_000,
        );
        keys.bytes(
            "inbox_max_bytes",
            &mut self.inbox_max_bytes,
            1 << 10..=1 << 32,
        );
        keys.duration(
            "events_retention",
            &mut self.events_retention,
            SECOND..=3650 * DAY,
        );
        keys.integer(
            "events_max_entries",
            &mut self.events_max_entries,
            1000..=100_000_000,
        );
        keys.bytes("min_free_bytes", &mut self.min_free_bytes, 0..=1 << 50);
        keys.bytes("cache_bytes", &mut self.cache_bytes, 1 << 20..=1 << 40);
    }
}

/// Who may connect, and what they may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Clients {
    /// Whether clients without user name and password are welcome.
    pub allow_anonymous: bool,
    /// Users and hashes of their passwords.
    pub password_file: Option<PathBuf>,
    /// Who may publish and subscribe where; without it everybody may everywhere.
    pub acl_file: Option<PathBuf>,
    /// Whether a device's connection ends when the signed token that it came with does.
    pub disconnect_expired: bool,
    /// Whether SCRAM-SHA-256 is offered to users that have a verifier in the password file.
    pub scram: bool,
    /// Verified passwords that are remembered, so that a client which comes back costs no argon2 run.
    pub password_cache_entries: usize,
    /// Threads that verify passwords, since that takes long.
    pub password_threads: usize,
    /// Passwords that wait for them; clients beyond are refused as "server busy".
    pub password_queue: usize,
}

impl Default for Clients {
    fn default() -> Clients {
        Clients {
            allow_anonymous: false,
            password_file: None,
            acl_file: None,
            disconnect_expired: true,
            scram: true,
            password_cache_entries: 100_000,
            password_threads: 2,
            password_queue: 256,
        }
    }
}

impl Clients {
    fn read(&mut self, keys: &mut Reader<'_>) {
        keys.boolean("allow_anonymous", &mut self.allow_anonymous);
        keys.path("password_file", &mut self.password_file);
        keys.path("acl_file", &mut self.acl_file);
        keys.boolean("disconnect_expired", &mut self.disconnect_expired);
        keys.boolean("scram", &mut self.scram);
        keys.integer(
            "password_cache_entries",
            &mut self.password_cache_entries,
            0..=10_000_000,
        );
        keys.integer("password_threads", &mut self.password_threads, 1..=256);
        keys.integer("password_queue", &mut self.password_queue, 1..=1_000_000);
    }
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its limits.
    pub api: campanile_api::Config,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            api: campanile_api::Config::default(),
        }
    }
}

impl Http {
    fn read(&mut self, keys: &mut Reader<'_>) {
        let api = &mut self.api;
        keys.address("address", &mut self.address);
        keys.bytes("max_body_bytes", &mut api.max_body_bytes, 1024..=16 << 20);
        keys.bytes(
            "max_payload_bytes",
            &mut api.max_payload_bytes,
            2..=16 << 20,
        );
        keys.integer("max_connections", &mut api.max_connections, 1..=1_000_000);
        milliseconds("head_timeout", &mut api.head_timeout_ms, keys);
        milliseconds("body_timeout", &mut api.body_timeout_ms, keys);
        milliseconds("store_timeout", &mut api.store_timeout_ms, keys);
        milliseconds("drain_timeout", &mut api.drain_timeout_ms, keys);
        keys.integer("max_event_streams", &mut api.max_event_streams, 0..=100_000);
    }

    /// Section `webhooks`.
    fn read_webhooks(&mut self, keys: &mut Reader<'_>) {
        let webhooks = &mut self.api.webhooks;
        milliseconds("timeout", &mut webhooks.timeout_ms, keys);
        keys.integer("max_in_flight", &mut webhooks.max_in_flight, 1..=10_000);
        keys.boolean("allow_http", &mut webhooks.allow_http);
        keys.boolean("allow_private_targets", &mut webhooks.allow_private_targets);
    }
}

fn milliseconds(key: &str, target: &mut u64, keys: &mut Reader<'_>) {
    let mut duration = Duration::from_millis(*target);
    keys.duration(key, &mut duration, Duration::from_millis(1)..=DAY);
    *target = u64::try_from(duration.as_millis()).expect("a day at most");
}

/// What is written about the node's life.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// A level, or directives such as `info,campanile=debug`.
    pub level: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    Human,
    /// One JSON object per line.
    Json,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: "info".to_owned(),
            format: LogFormat::Human,
        }
    }
}

impl Log {
    fn read(&mut self, keys: &mut Reader<'_>) {
        keys.text("level", &mut self.level, |level| {
            let wrong = |error: &dyn std::fmt::Display| format!("{level:?} is no level (error, warn, info, debug, trace) or list of directives: {error}");
            if level.trim().is_empty() {
                return Err(wrong(&"it is empty"));
            }
            tracing_subscriber::EnvFilter::try_new(level).map(drop).map_err(|error| wrong(&error))
        });
        keys.choice(
            "format",
            &mut self.format,
            &[("human", LogFormat::Human), ("json", LogFormat::Json)],
        );
    }
}
