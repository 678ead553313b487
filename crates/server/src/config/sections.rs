//! The sections of the configuration: what each key means, its default and its bounds.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use campanile_mqtt::QoS;
use campanile_push::app::AppName;

use super::reader::Reader;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// All settings of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `[node]`
    pub node: Node,
    /// `[store]`
    pub store: Store,
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
            listeners,
            limits,
            clients,
            http,
            log,
        } = self;
        root.section("node", |keys| node.read(&mut limits.server_reference, keys));
        root.section("store", |keys| store.read(keys));
        root.sections("listeners", listeners, Listener::read);
        root.section("limits", |keys| read_limits(limits, keys));
        root.section("clients", |keys| clients.read(keys));
        root.section("http", |keys| http.read(keys));
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
}

impl Default for Node {
    fn default() -> Node {
        Node {
            name: String::new(),
            data_dir: "campanile-data".into(),
            shards: 0,
            accepts_per_second: 2000,
            accept_burst: 4000,
            sys_interval: 10 * SECOND,
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
    }
}

/// Where messages are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// Embedded in the node, or memory only.
    pub kind: StoreKind,
    /// What "accepted" means.
    pub durability: Durability,
    /// How long QoS 1 and 2 publishes are kept for sessions that are away.
    pub retention: Duration,
    /// Bytes of such publishes per log; the oldest go first.
    pub retention_bytes: u64,
    /// How long the report of a push is kept after its expiry.
    pub push_retention: Duration,
    /// Messages that wait for one device; the oldest is dropped at the limit.
    pub inbox_max_entries: u32,
    /// Bytes that wait for one device; the oldest message is dropped at the limit.
    pub inbox_max_bytes: u64,
    /// Free space on the disk below which nothing new is accepted.
    pub min_free_bytes: u64,
    /// Memory for what is read from the disk.
    pub cache_bytes: u64,
}

/// Kinds of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// On this machine's disk, under the data directory.
    Embedded,
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
        keys.bytes("min_free_bytes", &mut self.min_free_bytes, 0..=1 << 50);
        keys.bytes("cache_bytes", &mut self.cache_bytes, 1 << 20..=1 << 40);
    }
}

/// Where devices connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique; stands in logs and metrics.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What carries the packets.
    pub transport: Transport,
    /// The app of the clients that come through it.
    pub app: String,
    /// WebSocket: path of the request.
    pub path: String,
    /// Connections at a time; more are closed at once.
    pub max_connections: u32,
    /// TLS: PEM file with the certificate chain.
    pub tls_certificate: Option<PathBuf>,
    /// TLS: PEM file with the private key.
    pub tls_key: Option<PathBuf>,
    /// TLS: PEM file with the authorities that clients' certificates are checked against.
    pub tls_client_ca: Option<PathBuf>,
    /// TLS: whether clients show a certificate.
    pub tls_client_auth: ClientAuth,
}

/// What carries MQTT packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Transport {
    /// Whether it is encrypted.
    pub fn is_secure(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }

    /// Whether it is a WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Transport::Ws | Transport::Wss)
    }

    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        TRANSPORTS
            .iter()
            .find(|(_, transport)| *transport == self)
            .expect("the table has all")
            .0
    }
}

const TRANSPORTS: [(&str, Transport); 4] = [
    ("tcp", Transport::Tcp),
    ("tls", Transport::Tls),
    ("ws", Transport::Ws),
    ("wss", Transport::Wss),
];

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// One that is shown must be valid.
    Optional,
    /// No connection without a valid one.
    Required,
}

impl Default for Listener {
    fn default() -> Listener {
        Listener {
            name: "mqtt".to_owned(),
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 1883)),
            transport: Transport::Tcp,
            app: "default".to_owned(),
            path: "/mqtt".to_owned(),
            max_connections: 1_000_000,
            tls_certificate: None,
            tls_key: None,
            tls_client_ca: None,
            tls_client_auth: ClientAuth::None,
        }
    }
}

impl Listener {
    fn read(&mut self, keys: &mut Reader<'_>) {
        keys.text("name", &mut self.name, |name| {
            let fits = (1..=64).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if fits {
                Ok(())
            } else {
                Err(format!(
                    "{name:?}: 1 to 64 letters, digits, \".\", \"_\" and \"-\""
                ))
            }
        });
        keys.address("address", &mut self.address);
        keys.choice("transport", &mut self.transport, &TRANSPORTS);
        keys.text("app", &mut self.app, |app| {
            AppName::new(app)
                .map(drop)
                .map_err(|error| error.to_string())
        });
        keys.text("path", &mut self.path, |path| {
            let fits = path.starts_with('/') && path.len() <= 255 && path.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b));
            if fits { Ok(()) } else { Err(format!("{path:?}: begins with \"/\", visible ASCII without \"?\" and \"#\", at most 255")) }
        });
        keys.integer("max_connections", &mut self.max_connections, 1..=10_000_000);
        keys.path("tls_certificate", &mut self.tls_certificate);
        keys.path("tls_key", &mut self.tls_key);
        keys.path("tls_client_ca", &mut self.tls_client_ca);
        let choices = [
            ("none", ClientAuth::None),
            ("optional", ClientAuth::Optional),
            ("required", ClientAuth::Required),
        ];
        keys.choice("tls_client_auth", &mut self.tls_client_auth, &choices);
    }
}

fn read_limits(limits: &mut campanile_broker::config::Config, keys: &mut Reader<'_>) {
    keys.bytes(
        "max_packet_bytes",
        &mut limits.max_packet_bytes,
        1024..=268_435_460,
    ); // MQTT's own bound.
    keys.bytes(
        "max_payload_bytes",
        &mut limits.max_payload_bytes,
        0..=268_435_455,
    );
    keys.integer("max_topic_levels", &mut limits.max_topic_levels, 1..=65_535);
    keys.seconds(
        "max_keep_alive",
        &mut limits.max_keep_alive_seconds,
        0..=65_535,
    );
    keys.integer("receive_maximum", &mut limits.receive_maximum, 1..=65_535);
    keys.integer("max_inflight", &mut limits.max_inflight, 1..=65_535);
    keys.integer(
        "max_queued_messages",
        &mut limits.max_queued_messages,
        1..=10_000_000,
    );
    keys.bytes(
        "max_queued_bytes",
        &mut limits.max_queued_bytes,
        1024..=1 << 31,
    );
    keys.integer(
        "topic_alias_maximum",
        &mut limits.topic_alias_maximum,
        0..=65_535,
    );
    keys.integer(
        "max_outgoing_aliases",
        &mut limits.max_outgoing_aliases,
        0..=65_535,
    );
    keys.seconds_or_unlimited("max_session_expiry", &mut limits.max_session_expiry_seconds);
    keys.seconds_or_unlimited("v3_session_expiry", &mut limits.v3_session_expiry_seconds);
    keys.boolean("retain_available", &mut limits.retain_available);
    let qualities = [
        ("0", QoS::AtMostOnce),
        ("1", QoS::AtLeastOnce),
        ("2", QoS::ExactlyOnce),
    ];
    let mut quality = limits.max_qos as u8;
    keys.integer("max_qos", &mut quality, 0..=2);
    limits.max_qos = qualities[usize::from(quality)].1;
    keys.boolean("allow_empty_client_id", &mut limits.allow_empty_client_id);
    keys.seconds(
        "connect_timeout",
        &mut limits.connect_timeout_seconds,
        1..=3600,
    );
    keys.integer(
        "max_subscriptions",
        &mut limits.max_subscriptions,
        1..=10_000_000,
    );
    keys.integer("max_retained", &mut limits.max_retained, 0..=100_000_000);
    keys.integer("topic_partitions", &mut limits.topic_partitions, 1..=255);
    keys.integer("tail_entries", &mut limits.tail_entries, 1..=10_000_000);
    keys.bytes("tail_bytes", &mut limits.tail_bytes, 1024..=1 << 31);
    keys.integer(
        "max_pending_requests",
        &mut limits.max_pending_requests,
        1..=100_000_000,
    );
    keys.text(
        "response_information",
        &mut limits.response_information,
        mqtt_string,
    );
}

fn mqtt_string(text: &str) -> Result<(), String> {
    if text.len() > 65_535 || text.contains(char::is_control) {
        return Err(format!(
            "{text:?}: at most 65535 bytes, without control characters"
        ));
    }
    Ok(())
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
