//! `[cluster]`: the nodes that serve together. A node is a member if `cluster.zookeeper` names an ensemble.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{Secret, TlsFiles, reader::Reader, redis::host_and_port};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What a node needs to be one of several. Plain data: nothing here connects.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// What the nodes call the cluster; nodes of another name are not talked to.
    pub name: String,
    /// `host:port` of the servers of the ZooKeeper ensemble; none: the node is alone.
    pub zookeeper: Vec<String>,
    /// The ZooKeeper path under which everything is.
    pub chroot: String,
    /// How long ZooKeeper waits for a node before the others take it for dead.
    pub session_timeout: Duration,
    /// `user:password` of ZooKeeper's digest scheme; "": none.
    pub zookeeper_auth: Secret,
    /// TLS to ZooKeeper, if `ca` is set.
    pub zookeeper_tls: TlsFiles,
    /// Where this node listens for its peers.
    pub peer_address: SocketAddr,
    /// Where its peers reach it; `None`: at `peer_address`.
    pub peer_advertise: Option<SocketAddr>,
    /// Mutual TLS between nodes, if set.
    pub peer_tls: TlsFiles,
    /// What devices are told to connect to, such as `mqtt://host:1883`; none: the listeners' addresses.
    pub advertise: Vec<String>,
    /// URL of the HTTP API for operators; "": `http.address`, if other machines can reach that.
    pub http_advertise: String,
    /// Devices a second that a drain moves away, where its order names no rate.
    pub drain_rate: u32,
    /// When devices move to a node that has room.
    pub rebalance: Rebalance,
    /// Percent above its fair share that a node keeps without moving any device away.
    pub rebalance_tolerance_percent: u8,
    /// How often that is looked at.
    pub rebalance_interval: Duration,
}

/// When devices move to a node that has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// When a node has joined, and on command.
    Automatic,
    /// On command only.
    Manual,
}

impl Default for ClusterSettings {
    fn default() -> ClusterSettings {
        ClusterSettings {
            name: "campanile".to_owned(),
            zookeeper: Vec::new(),
            chroot: "/campanile".to_owned(),
            session_timeout: 4 * SECOND,
            zookeeper_auth: Secret::default(),
            zookeeper_tls: TlsFiles::default(),
            peer_address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7883)),
            peer_advertise: None,
            peer_tls: TlsFiles::default(),
            advertise: Vec::new(),
            http_advertise: String::new(),
            drain_rate: 200,
            rebalance: Rebalance::Automatic,
            rebalance_tolerance_percent: 10,
            rebalance_interval: 10 * SECOND,
        }
    }
}

impl ClusterSettings {
    /// Whether this node is a member of a cluster.
    pub fn is_member(&self) -> bool {
        !self.zookeeper.is_empty()
    }

    /// Where peers reach a node that listens at `bound`.
    pub fn peer_advertised(&self, bound: SocketAddr) -> SocketAddr {
        self.peer_advertise.unwrap_or(bound)
    }

    /// What devices are told to connect to; `bound` has the URLs of the listeners as they were bound.
    pub fn advertised(&self, bound: impl IntoIterator<Item = String>) -> Vec<String> {
        if self.advertise.is_empty() {
            bound.into_iter().collect()
        } else {
            self.advertise.clone()
        }
    }

    /// The HTTP API for operators, where it listens at `bound`; "" if only this machine can know how to reach it.
    pub fn http_advertised(&self, bound: SocketAddr) -> String {
        if !self.http_advertise.is_empty() {
            self.http_advertise.clone()
        } else if bound.ip().is_unspecified() {
            String::new()
        } else {
            format!("http://{bound}")
        }
    }

    pub(super) fn read(&mut self, keys: &mut Reader<'_>) {
        keys.text("name", &mut self.name, name);
        keys.texts("zookeeper", &mut self.zookeeper, host_and_port);
        keys.text("chroot", &mut self.chroot, chroot);
        keys.duration(
            "session_timeout",
            &mut self.session_timeout,
            SECOND..=MINUTE,
        );
        keys.secret("zookeeper_auth", &mut self.zookeeper_auth, digest);
        self.zookeeper_tls.read("zookeeper_tls_", keys);
        keys.address("peer_address", &mut self.peer_address);
        keys.address_or_none("peer_advertise", &mut self.peer_advertise);
        self.peer_tls.read("peer_tls_", keys);
        keys.texts("advertise", &mut self.advertise, device_url);
        keys.text("http_advertise", &mut self.http_advertise, http_url);
        keys.integer("drain_rate", &mut self.drain_rate, 1..=1_000_000);
        let choices = [
            ("automatic", Rebalance::Automatic),
            ("manual", Rebalance::Manual),
        ];
        keys.choice("rebalance", &mut self.rebalance, &choices);
        keys.integer(
            "rebalance_tolerance_percent",
            &mut self.rebalance_tolerance_percent,
            1..=100,
        );
        keys.duration(
            "rebalance_interval",
            &mut self.rebalance_interval,
            SECOND..=60 * MINUTE,
        );
    }
}

fn name(text: &str) -> Result<(), String> {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_letter) {
        Ok(())
    } else {
        Err(format!(
            "{text:?}: 1 to 64 letters, digits, \".\", \"_\" and \"-\""
        ))
    }
}

fn chroot(text: &str) -> Result<(), String> {
    let level = |level: &str| {
        !matches!(level, "" | "." | ".." | "zookeeper")
            && level.bytes().all(|b| b.is_ascii_graphic())
    };
    match text.strip_prefix('/') {
        Some(rest) if text.len() <= 255 && rest.split('/').all(level) => Ok(()),
        _ => Err(format!(
            "{text:?} is not a path of its own, such as \"/campanile\": begins with \"/\" and does not end with it, no empty level, at most 255"
        )),
    }
}

fn digest(text: &str) -> Result<(), String> {
    match text.split_once(':') {
        _ if text.is_empty() => Ok(()),
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(()),
        _ => Err("\"user:password\" is expected".to_owned()), // Not shown: it may be the password.
    }
}

fn device_url(text: &str) -> Result<(), String> {
    let wrong = |why: &str| {
        Err(format!(
            "{text:?} {why}: write \"mqtt://host:1883\", \"mqtts://host:8883\", \"ws://host:8083/mqtt\" or \"wss://host:443/mqtt\""
        ))
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        return wrong("lacks a scheme");
    };
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (rest, None),
    };
    if text.len() > 255 || host_and_port(authority).is_err() {
        return wrong("lacks a host with a port");
    }
    match (scheme, path) {
        ("mqtt" | "mqtts", None) => Ok(()),
        ("mqtt" | "mqtts", Some(_)) => wrong("has a path, which only WebSockets have"),
        ("ws" | "wss", None) => Ok(()),
        ("ws" | "wss", Some(path))
            if path
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"?#".contains(&b)) =>
        {
            Ok(())
        }
        ("ws" | "wss", Some(_)) => {
            wrong("has a path with \"?\", \"#\" or what is not visible ASCII")
        }
        _ => wrong("has another scheme than those of listeners"),
    }
}

fn http_url(text: &str) -> Result<(), String> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let is_host = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic());
    if text.is_empty() || (text.len() <= 255 && rest.is_some_and(is_host)) {
        Ok(())
    } else {
        Err(format!(
            "{text:?} is not a URL such as \"https://push-1.example:443\""
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_for_devices_have_a_known_scheme_a_host_and_a_port() {
        for good in [
            "mqtt://a:1883",
            "mqtts://[::1]:8883",
            "ws://a:80",
            "wss://push.example:443/mqtt",
        ] {
            assert_eq!(device_url(good), Ok(()), "{good}");
        }
        for bad in [
            "a:1883",
            "mqtt://a",
            "mqtt://a:1883/x",
            "tcp://a:1",
            "wss://a:443/?x",
            "ws://:80",
        ] {
            assert!(device_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_word_devices_are_told_where_the_listeners_are() {
        let alone = ClusterSettings::default();
        let bound = || ["mqtt://10.0.0.1:1883".to_owned()];
        let address = "10.0.0.1:8080".parse().unwrap();
        assert_eq!(alone.advertised(bound()), bound());
        assert_eq!(alone.http_advertised(address), "http://10.0.0.1:8080");
        assert_eq!(alone.http_advertised("[::]:80".parse().unwrap()), "");
        let told = ClusterSettings {
            advertise: vec!["mqtt://push.example:1883".to_owned()],
            ..alone
        };
        assert_eq!(told.advertised(bound()), ["mqtt://push.example:1883"]);
    }

    #[test]
    fn a_wrong_digest_is_not_shown() {
        assert_eq!(digest("user:password"), Ok(()));
        assert!(!digest("hunter2").unwrap_err().contains("hunter2"));
    }
}
