//! From settings to what the parts of a node take.

use std::{sync::Arc, time::Duration};

use campanile_backends::{self as backends, embedded, embedded::EmbeddedConfig};
use campanile_broker::access::Access;

use super::{ClientAuth, Durability, Listener, Settings, StoreKind};
use crate::{
    net::{listener::ListenerSpec, tls},
    node::{HttpSpec, NodeConfig, StoreSpec},
};

impl Settings {
    /// What the node is made with.
    pub fn node_config(&self, access: Arc<dyn Access>) -> NodeConfig {
        let mut config = NodeConfig::new(access);
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
            // Whoever starts the node connects first, and puts the connection here.
            StoreKind::Redis => StoreSpec::Memory(self.stored()),
        };
        config.broker = self.limits.clone();
        config.auth_threads = self.clients.password_threads;
        config.auth_queue = self.clients.password_queue;
        config.accepts_per_second = self.node.accepts_per_second;
        config.accept_burst = self.node.accept_burst;
        config.sys_every = self.node.sys_interval;
        config
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

    fn stored(&self) -> backends::Config {
        let store = &self.store;
        backends::Config {
            inbox_max_entries: store.inbox_max_entries,
            inbox_max_bytes: store.inbox_max_bytes,
            push_retention_ms: milliseconds(store.push_retention),
            topic_log_max_age_ms: milliseconds(store.retention),
            topic_log_max_bytes: store.retention_bytes,
            topic_partitions: self.limits.topic_partitions,
            shared: false,
        }
    }
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
            tls.load(self.transport.is_websocket()).map(drop)
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
        let ours = settings.node_config(Arc::new(Open));
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
