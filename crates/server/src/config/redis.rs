//! `[redis]`: the Redis that keeps the state where `store.kind` is "redis".

use std::time::Duration;

use super::{Secret, TlsFiles, reader::Reader};

const SECOND: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The Redis that keeps the state. Plain data: nothing here connects.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisSettings {
    /// How its servers belong together.
    pub mode: RedisMode,
    /// `host:port` of servers: of the one (standalone), of Sentinels, or of some servers of the Cluster, which name the others.
    pub addresses: Vec<String>,
    /// Sentinel: the name of the primary that they watch.
    pub master_name: String,
    /// ACL user; "": the default user.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Password at the Sentinels.
    pub sentinel_password: Secret,
    /// Number of the database; 0 in Cluster mode.
    pub database: u8,
    /// What every key begins with, so that several clusters can share a Redis.
    pub prefix: String,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Files of such connections; without `ca` the machine's authorities are trusted.
    pub tls_files: TlsFiles,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long a command may take.
    pub command_timeout: Duration,
    /// How long a request is tried again before its caller is told that the store is unavailable.
    pub give_up_after: Duration,
    /// What "accepted" means.
    pub durability: RedisDurability,
    /// Replicas that must have a write, where durability is "replicated".
    pub min_replicas: u8,
    /// Start with a Redis that may evict keys.
    pub allow_eviction: bool,
    /// Start with a Redis that keeps nothing on disk.
    pub allow_no_persistence: bool,
}

/// How servers of Redis belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// One server, or a name that always leads to the primary.
    Standalone,
    /// Sentinels tell which server is the primary.
    Sentinel,
    /// Redis Cluster.
    Cluster,
}

/// When a write to Redis counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisDurability {
    /// When `min_replicas` replicas have it too.
    Replicated,
    /// When the primary has it: its death may lose the last moments.
    Primary,
}

impl Default for RedisSettings {
    fn default() -> RedisSettings {
        RedisSettings {
            mode: RedisMode::Standalone,
            addresses: Vec::new(),
            master_name: String::new(),
            username: String::new(),
            password: Secret::default(),
            sentinel_password: Secret::default(),
            database: 0,
            prefix: "cmp:".to_owned(),
            tls: false,
            tls_files: TlsFiles::default(),
            connect_timeout: SECOND,
            command_timeout: SECOND,
            give_up_after: 2 * SECOND,
            durability: RedisDurability::Replicated,
            min_replicas: 1,
            allow_eviction: false,
            allow_no_persistence: false,
        }
    }
}

impl RedisSettings {
    pub(super) fn read(&mut self, keys: &mut Reader<'_>) {
        let modes = [
            ("standalone", RedisMode::Standalone),
            ("sentinel", RedisMode::Sentinel),
            ("cluster", RedisMode::Cluster),
        ];
        let durabilities = [
            ("replicated", RedisDurability::Replicated),
            ("primary", RedisDurability::Primary),
        ];
        let any = |_: &str| Ok(());
        keys.choice("mode", &mut self.mode, &modes);
        keys.texts("addresses", &mut self.addresses, host_and_port);
        keys.text("master_name", &mut self.master_name, any);
        keys.text("username", &mut self.username, any);
        keys.secret("password", &mut self.password, any);
        keys.secret("sentinel_password", &mut self.sentinel_password, any);
        keys.integer("database", &mut self.database, 0..=u8::MAX);
        keys.text("prefix", &mut self.prefix, prefix);
        keys.boolean("tls", &mut self.tls);
        self.tls_files.read("tls_", keys);
        let waits = Duration::from_millis(10)..=LONGEST_WAIT;
        keys.duration("connect_timeout", &mut self.connect_timeout, waits.clone());
        keys.duration("command_timeout", &mut self.command_timeout, waits.clone());
        keys.duration("give_up_after", &mut self.give_up_after, waits);
        keys.choice("durability", &mut self.durability, &durabilities);
        keys.integer("min_replicas", &mut self.min_replicas, 1..=16);
        keys.boolean("allow_eviction", &mut self.allow_eviction);
        keys.boolean("allow_no_persistence", &mut self.allow_no_persistence);
    }
}

/// A prefix must not bring braces into keys: Redis Cluster would place all of them by it.
fn prefix(text: &str) -> Result<(), String> {
    let fits = text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"{}*?[]\\".contains(&b));
    if fits {
        Ok(())
    } else {
        Err(format!(
            "{text:?}: at most 64 visible ASCII characters without braces, brackets, \"*\", \"?\" and \"\\\""
        ))
    }
}

/// Checks `host:port`: a name, an IPv4 address or a bracketed IPv6 address, and a port above 0.
pub(super) fn host_and_port(text: &str) -> Result<(), String> {
    let wrong = || {
        Err(format!(
            "{text:?} is not a host and a port, such as \"10.0.0.1:6379\", \"redis-1:6379\" or \"[::1]:6379\""
        ))
    };
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong();
    };
    let is_port =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_host = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        }
    };
    if is_port && is_host { Ok(()) } else { wrong() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_from_what_looks_like_them() {
        for good in ["a:1", "10.0.0.1:6379", "redis-1.local:65535", "[::1]:6379"] {
            assert_eq!(host_and_port(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "::1:6379",
            "[::1]",
            "[a]:1",
            "a b:1",
            "redis://a:1",
        ] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
