//! Where the Redis is, and what is asked of it.

use std::{fmt, time::Duration};

/// Where the Redis is, and what is asked of it.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// How the servers find each other, and how they are found.
    pub topology: Topology,
    /// Encrypt connections, to sentinels too.
    pub tls: Option<Tls>,
    /// ACL user; `None` is the default user.
    pub username: Option<String>,
    /// Password of the user.
    pub password: Option<String>,
    /// Password of the sentinels, if they have one.
    pub sentinel_password: Option<String>,
    /// Number of the database; only 0 in a cluster.
    pub database: u8,
    /// Begins all keys. Clusters of Campanile that share a Redis need different ones; 0..=32 bytes of `[a-z0-9:_-]`.
    pub prefix: String,
    /// Longest time to connect to a server.
    pub connect_timeout: Duration,
    /// Longest time for an answer, to wait for replicas included.
    pub command_timeout: Duration,
    /// How long a commit whose fate is not known is sent again before its requests are answered as unknown.
    pub give_up_after: Duration,
    /// What a commit waits for.
    pub durability: Durability,
    /// Replicas that must have a commit, with [`Durability::Replicated`]; 0..=16.
    pub min_replicas: u8,
    /// Accept a server that may evict keys, and lose messages by it.
    pub allow_eviction: bool,
    /// Accept a server that writes nothing to disk, and loses everything with its process.
    pub allow_no_persistence: bool,
}

/// How the servers are found. Addresses are `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server; the first of these that is a primary.
    Standalone {
        /// Addresses.
        servers: Vec<String>,
    },
    /// A primary that sentinels watch.
    Sentinel {
        /// What the sentinels call it.
        primary: String,
        /// Addresses of sentinels.
        sentinels: Vec<String>,
    },
    /// A Redis Cluster.
    Cluster {
        /// Addresses of some of its servers.
        servers: Vec<String>,
    },
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// For replicas to have it in memory (`WAIT`).
    Replicated,
    /// For the primary alone: what it had not passed on is lost when it is.
    Primary,
}

/// Certificates as PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities that the server's certificate may come from; `None`: those of the system.
    pub authorities: Option<Vec<u8>>,
    /// What we show the server.
    pub client: Option<ClientCertificate>,
}

/// A certificate chain and its key as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain.
    pub certificates: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
}

impl Default for RedisConfig {
    fn default() -> RedisConfig {
        RedisConfig {
            topology: Topology::Standalone {
                servers: vec!["127.0.0.1:6379".to_owned()],
            },
            tls: None,
            username: None,
            password: None,
            sentinel_password: None,
            database: 0,
            prefix: "cmp:".to_owned(),
            connect_timeout: Duration::from_secs(1),
            command_timeout: Duration::from_secs(1),
            give_up_after: Duration::from_secs(2),
            durability: Durability::Replicated,
            min_replicas: 1,
            allow_eviction: false,
            allow_no_persistence: false,
        }
    }
}

impl RedisConfig {
    /// Whether replicas are waited for.
    pub(super) fn waits(&self) -> bool {
        self.durability == Durability::Replicated && self.min_replicas > 0
    }

    /// What is wrong with it, if anything.
    pub fn fault(&self) -> Option<String> {
        let (addresses, what) = match &self.topology {
            Topology::Standalone { servers } | Topology::Cluster { servers } => {
                (servers, "servers")
            }
            Topology::Sentinel { sentinels, .. } => (sentinels, "sentinels"),
        };
        if addresses.is_empty() {
            return Some(format!("no {what}: name at least one as \"host:port\""));
        }
        if let Some(bad) = addresses
            .iter()
            .find(|address| split_address(address).is_none())
        {
            return Some(format!("address \"{bad}\": must be \"host:port\""));
        }
        if matches!(self.topology, Topology::Cluster { .. }) && self.database != 0 {
            return Some(format!(
                "database {}: a Redis Cluster has only database 0",
                self.database
            ));
        }
        let is_good =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":_-".contains(&byte);
        if self.prefix.len() > 32 || !self.prefix.bytes().all(is_good) {
            return Some(format!(
                "prefix \"{}\": must be at most 32 of a-z, 0-9, \":\", \"_\" and \"-\"",
                self.prefix
            ));
        }
        if self.min_replicas > 16 {
            return Some(format!(
                "min_replicas {}: must be at most 16",
                self.min_replicas
            ));
        }
        None
    }
}

/// Host and port of an address.
pub(super) fn split_address(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the passwords.
        f.debug_struct("RedisConfig")
            .field("topology", &self.topology)
            .field("tls", &self.tls)
            .field("username", &self.username)
            .field("database", &self.database)
            .field("prefix", &self.prefix)
            .field("durability", &self.durability)
            .field("min_replicas", &self.min_replicas)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_value_and_the_rule() {
        assert_eq!(RedisConfig::default().fault(), None);
        let check = |change: fn(&mut RedisConfig), expected: &str| {
            let mut config = RedisConfig::default();
            change(&mut config);
            assert_eq!(config.fault().as_deref(), Some(expected));
        };
        check(
            |config| config.topology = Topology::Standalone { servers: vec![] },
            "no servers: name at least one as \"host:port\"",
        );
        check(
            |config| {
                let servers = vec!["redis".to_owned()];
                config.topology = Topology::Cluster { servers };
            },
            "address \"redis\": must be \"host:port\"",
        );
        check(
            |config| config.prefix = "{a}".to_owned(),
            "prefix \"{a}\": must be at most 32 of a-z, 0-9, \":\", \"_\" and \"-\"",
        );
    }
}
