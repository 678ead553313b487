//! From settings to what the parts of a node take.

use std::{io, sync::Arc, time::Duration};

use campanile_backends::{
    self as backends, embedded,
    embedded::EmbeddedConfig,
    redis::{self, RedisConfig, Topology},
    zookeeper::{self, DigestAuth, TlsIdentityFiles, ZooKeeperConfig},
};

use super::{
    ClientAuth, Durability, Listener, Rebalance, RedisDurability, RedisMode, Settings, StoreKind,
    TlsFiles,
};
use crate::{
    auth::ClientAccess,
    net::{listener::ListenerSpec, tls},
    node::{ClusterSpec, HttpSpec, NodeConfig, StoreSpec},
    peers::{PeerConfig, PeerTls},
};

/// What a link says of a message beside the message itself, in bytes, at most about.
const FRAME_EXTRA: usize = 256 * 1024;

impl Settings {
    /// What the node is made with. Fails if a file cannot be read that connections to the Redis need.
    pub fn node_config(&self, access: Arc<ClientAccess>) -> io::Result<NodeConfig> {
        let credentials = access.devices();
        let mut config = NodeConfig::new(access);
        config.credentials = credentials;
        config.name = self.node_name();
        config.shards = self.node.shards;
        config.listeners = self.listeners.iter().map(Listener::spec).collect();
        config.http = Some(HttpSpec {
            address: self.http.address,
            api: self.http.api.clone(),
        });
        config.store = match self.store.kind {
            StoreKind::Memory => StoreSpec::Memory(self.stored()),
            StoreKind::Embedded => StoreSpec::Embedded(self.embedded()),
            StoreKind::Redis => StoreSpec::Redis(Box::new(self.redis_config()?), self.stored()),
        };
        config.cluster = self.cluster.is_member().then(|| self.cluster_spec());
        config.broker = self.limits.clone();
        config.auth_threads = self.clients.password_threads;
        config.auth_queue = self.clients.password_queue;
        config.accepts_per_second = self.node.accepts_per_second;
        config.accept_burst = self.node.accept_burst;
        config.sys_every = self.node.sys_interval;
        config.count_every = self.node.count_interval;
        Ok(config)
    }

    /// The name that stands in logs.
    pub fn node_name(&self) -> String {
        if !self.node.name.is_empty() {
            return self.node.name.clone();
        }
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        if host.is_empty() {
            "campanile".to_owned()
        } else {
            host
        }
    }

    /// The store in the data directory.
    pub fn embedded(&self) -> EmbeddedConfig {
        EmbeddedConfig {
            durability: match self.store.durability {
                Durability::Fsync => embedded::Durability::Fsync,
                Durability::Os => embedded::Durability::Os,
            },
            min_free_bytes: self.store.min_free_bytes,
            cache_bytes: self.store.cache_bytes,
            store: self.stored(),
            ..EmbeddedConfig::new(&self.node.data_dir)
        }
    }

    fn redis_config(&self) -> io::Result<RedisConfig> {
        let redis = &self.redis;
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let addresses = redis.addresses.clone();
        Ok(RedisConfig {
            topology: match redis.mode {
                RedisMode::Standalone => Topology::Standalone { servers: addresses },
                RedisMode::Sentinel => Topology::Sentinel {
                    primary: redis.master_name.clone(),
                    sentinels: addresses,
                },
                RedisMode::Cluster => Topology::Cluster { servers: addresses },
            },
            tls: self.redis_tls()?,
            username: some(&redis.username),
            password: some(redis.password.reveal()),
            sentinel_password: some(redis.sentinel_password.reveal()),
            database: redis.database,
            prefix: redis.prefix.clone(),
            connect_timeout: redis.connect_timeout,
            command_timeout: redis.command_timeout,
            give_up_after: redis.give_up_after,
            durability: match redis.durability {
                RedisDurability::Replicated => redis::Durability::Replicated,
                RedisDurability::Primary => redis::Durability::Primary,
            },
            min_replicas: redis.min_replicas,
            allow_eviction: redis.allow_eviction,
            allow_no_persistence: redis.allow_no_persistence,
        })
    }

    /// The PEM files of connections to the Redis.
    fn redis_tls(&self) -> io::Result<Option<redis::Tls>> {
        let files = &self.redis.tls_files;
        if !self.redis.tls {
            return Ok(None);
        }
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })
        };
        let client = match (&files.certificate, &files.key) {
            (Some(certificate), Some(key)) => Some(redis::ClientCertificate {
                certificates: read(certificate)?,
                key: read(key)?,
            }),
            _ => None,
        };
        Ok(Some(redis::Tls {
            authorities: files.ca.as_deref().map(read).transpose()?,
            client,
        }))
    }

    /// What the node needs to be a member of its cluster.
    fn cluster_spec(&self) -> ClusterSpec {
        let cluster = &self.cluster;
        // Room for the largest message and what is said of it.
        let largest = self
            .limits
            .max_packet_bytes
            .max(self.limits.max_payload_bytes) as usize;
        let peers = PeerConfig::default();
        ClusterSpec {
            name: cluster.name.clone(),
            zookeeper: ZooKeeperConfig {
                servers: cluster.zookeeper.clone(),
                chroot: cluster.chroot.clone(),
                session_timeout: cluster.session_timeout,
                confirmation: cluster.session_timeout * 5 / 2,
                auth: cluster
                    .zookeeper_auth
                    .reveal()
                    .split_once(':')
                    .map(|(user, password)| DigestAuth {
                        user: user.to_owned(),
                        password: password.to_owned(),
                    }),
                tls: zookeeper_tls(&cluster.zookeeper_tls),
            },
            peers: PeerConfig {
                listen: cluster.peer_address,
                tls: peer_tls(&cluster.peer_tls),
                frame_bytes_max: peers.frame_bytes_max.max(largest + FRAME_EXTRA),
                ..peers
            },
            peer_advertise: cluster.peer_advertise,
            advertise: cluster.advertise.clone(),
            http_advertise: cluster.http_advertise.clone(),
            drain_rate: cluster.drain_rate,
            rebalance_automatically: cluster.rebalance == Rebalance::Automatic,
            rebalance_tolerance_percent: cluster.rebalance_tolerance_percent,
            rebalance_every: cluster.rebalance_interval,
        }
    }

    fn stored(&self) -> backends::Config {
        let store = &self.store;
        backends::Config {
            inbox_max_entries: store.inbox_max_entries,
            inbox_max_bytes: store.inbox_max_bytes,
            push_retention_ms: milliseconds(store.push_retention),
            topic_log_max_age_ms: milliseconds(store.retention),
            topic_log_max_bytes: store.retention_bytes,
            topic_partitions: self.limits.topic_partitions,
            events_max_entries: store.events_max_entries,
            events_max_age_ms: milliseconds(store.events_retention),
            shared: self.cluster.is_member(),
        }
    }
}

fn zookeeper_tls(files: &TlsFiles) -> Option<zookeeper::TlsFiles> {
    Some(zookeeper::TlsFiles {
        authority: files.ca.clone()?,
        identity: match (&files.certificate, &files.key) {
            (Some(certificate), Some(key)) => Some(TlsIdentityFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            }),
            _ => None,
        },
    })
}

fn peer_tls(files: &TlsFiles) -> Option<PeerTls> {
    Some(PeerTls {
        ca: files.ca.clone()?,
        certificate: files.certificate.clone()?,
        key: files.key.clone()?,
    })
}

impl Listener {
    fn spec(&self) -> ListenerSpec {
        ListenerSpec {
            name: self.name.clone(),
            address: self.address,
            app: self.app.clone(),
            tls: self.tls(),
            websocket_path: self.transport.is_websocket().then(|| self.path.clone()),
            max_connections: self.max_connections as usize,
        }
    }

    /// Whether the files of a secure transport can be used.
    pub fn load_tls(&self) -> Result<(), tls::TlsError> {
        self.tls().map_or(Ok(()), |tls| {
            tls.load(self.transport.is_websocket(), None).map(drop)
        })
    }

    /// The files of a secure transport; the checks have seen that they are named.
    fn tls(&self) -> Option<tls::TlsSpec> {
        if !self.transport.is_secure() {
            return None;
        }
        Some(tls::TlsSpec {
            certificate_file: self.tls_certificate.clone()?,
            key_file: self.tls_key.clone()?,
            client_ca_file: self.tls_client_ca.clone(),
            client_auth: match self.tls_client_auth {
                ClientAuth::None => tls::ClientAuth::Off,
                ClientAuth::Optional => tls::ClientAuth::Optional,
                ClientAuth::Required => tls::ClientAuth::Required,
            },
        })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use campanile_broker::access::Open;

    use super::*;
    use crate::config::Transport;

    #[test]
    fn defaults_are_those_of_the_parts() {
        let settings = Settings::default();
        let access = ClientAccess::open(&settings.clients, &settings.listeners).unwrap();
        let ours = settings.node_config(Arc::new(access)).unwrap();
        let theirs = NodeConfig::new(Arc::new(Open));
        assert_eq!(settings.embedded(), EmbeddedConfig::new("campanile-data"));
        assert_eq!(ours.broker, theirs.broker);
        assert_eq!(
            (ours.shards, ours.accepts_per_second, ours.accept_burst),
            (
                theirs.shards,
                theirs.accepts_per_second,
                theirs.accept_burst
            )
        );
        assert_eq!(ours.count_every, theirs.count_every);
        assert_eq!(
            (ours.auth_threads, ours.auth_queue, ours.sys_every),
            (theirs.auth_threads, theirs.auth_queue, theirs.sys_every)
        );
    }

    #[test]
    fn transports_become_layers() {
        let listener = |transport| Listener {
            transport,
            tls_certificate: Some("c".into()),
            tls_key: Some("k".into()),
            ..Listener::default()
        };
        for (transport, secure, websocket) in [
            (Transport::Tcp, false, false),
            (Transport::Tls, true, false),
            (Transport::Ws, false, true),
            (Transport::Wss, true, true),
        ] {
            let spec = listener(transport).spec();
            assert_eq!(
                (spec.tls.is_some(), spec.websocket_path.is_some()),
                (secure, websocket),
                "{transport:?}"
            );
        }
    }
}
