//! What a node says when it has started: where it listens, what it keeps, and what to try next.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use crate::config::{Durability, StoreKind, Transport};

/// What a started node tells about itself.
#[derive(Clone, Debug)]
pub struct Banner<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Where devices connect.
    pub listeners: Vec<Listening<'a>>,
    /// Where the API listens.
    pub http: SocketAddr,
    /// Where state is kept.
    pub data_dir: &'a Path,
    /// Kind of the store.
    pub store: StoreKind,
    /// What "accepted" means.
    pub durability: Durability,
    /// Of `--dev`: the app and its key, which is told to nobody else.
    pub development: Option<(&'a str, &'a str)>,
}

/// A listener that is open.
#[derive(Clone, Debug)]
pub struct Listening<'a> {
    /// Its name.
    pub name: &'a str,
    /// What carries the packets.
    pub transport: Transport,
    /// The address that it is bound to.
    pub address: SocketAddr,
    /// The app of its clients.
    pub app: &'a str,
    /// Path of its WebSockets.
    pub path: &'a str,
}

impl Listening<'_> {
    fn url(&self) -> String {
        let path = if self.transport.is_websocket() {
            self.path
        } else {
            ""
        };
        format!("{}://{}{path}", self.transport.name(), self.address)
    }
}

impl Banner<'_> {
    /// The same as one event of the log, without the key.
    pub fn log(&self) {
        let listeners: Vec<String> = self
            .listeners
            .iter()
            .map(|listener| format!("{}={}", listener.name, listener.url()))
            .collect();
        tracing::info!(
            node = self.node,
            version = env!("CARGO_PKG_VERSION"),
            listeners = listeners.join(" "),
            http = %self.http,
            data_dir = %self.data_dir.display(),
            durability = self.durability_name(),
            "ready"
        );
    }

    fn durability_name(&self) -> &'static str {
        match (self.store, self.durability) {
            (StoreKind::Memory, _) => "memory",
            (StoreKind::Redis, _) => "redis",
            (StoreKind::Embedded, Durability::Fsync) => "fsync",
            (StoreKind::Embedded, Durability::Os) => "os",
        }
    }

    fn durability(&self) -> &'static str {
        match self.durability_name() {
            "fsync" => "what is accepted survives a power cut",
            "redis" => "what is accepted is in Redis and survives the end of every node",
            "os" => "what is accepted survives the end of the process, not a power cut",
            _ => "memory only: nothing survives the end of the process",
        }
    }
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "campanile {}, node {}\n",
            env!("CARGO_PKG_VERSION"),
            self.node
        )?;
        for listener in &self.listeners {
            writeln!(
                f,
                "  {:<9} {}  (app {}, listener {})",
                "MQTT",
                listener.url(),
                listener.app,
                listener.name
            )?;
        }
        writeln!(f, "  {:<9} http://{}", "HTTP API", self.http)?;
        writeln!(
            f,
            "  {:<9} {}  ({})",
            "data",
            self.data_dir.display(),
            self.durability()
        )?;
        let http = reachable(self.http);
        let Some((app, key)) = self.development else {
            let app = self
                .listeners
                .first()
                .map_or("default", |listener| listener.app);
            let data = self.data_dir.display();
            writeln!(
                f,
                "\nMake an app and its API key:  campanile app create {app} --data {data}"
            )?;
            return writeln!(
                f,
                "Push:                         campanile push --url http://{http} --app {app} --key KEY --all --title Hello"
            );
        };
        writeln!(f, "  {:<9} {app}, API key {key}", "app")?;
        writeln!(
            f,
            "\nAny device may connect: this is a node for development."
        )?;
        if let Some(tcp) = self
            .listeners
            .iter()
            .find(|listener| listener.transport == Transport::Tcp)
        {
            let address = reachable(tcp.address);
            writeln!(f, "\nBe a device (either):")?;
            writeln!(
                f,
                "  mosquitto_sub -h {} -p {} -c -i phone-1 -q 1 -t push/in",
                address.ip(),
                address.port()
            )?;
            writeln!(
                f,
                "  campanile sub --url mqtt://{address} -i phone-1 --no-clean -q 1"
            )?;
        }
        writeln!(f, "\nPush to it (either):")?;
        writeln!(
            f,
            "  curl http://{http}/v1/apps/{app}/pushes -H 'Authorization: Bearer {key}' \\"
        )?;
        writeln!(
            f,
            "    -H 'Content-Type: application/json' -d '{{\"audience\":{{\"devices\":[\"phone-1\"]}},\"notification\":{{\"title\":\"Hello\"}}}}'"
        )?;
        writeln!(
            f,
            "  campanile push --url http://{http} --app {app} --key {key} --device phone-1 --title Hello --wait"
        )
    }
}

/// An address that a client on this machine can use: that of all interfaces becomes loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner(development: Option<(&'static str, &'static str)>) -> Banner<'static> {
        let listening = |name, transport, address: &str| Listening {
            name,
            transport,
            address: address.parse().unwrap(),
            app: "default",
            path: "/mqtt",
        };
        Banner {
            node: "n1",
            listeners: vec![
                listening("mqtt", Transport::Tcp, "0.0.0.0:1883"),
                listening("ws", Transport::Ws, "[::1]:8083"),
            ],
            http: "127.0.0.1:8080".parse().unwrap(),
            data_dir: Path::new("data"),
            store: StoreKind::Embedded,
            durability: Durability::Fsync,
            development,
        }
    }

    #[test]
    fn a_development_node_tells_its_key_and_commands_that_can_be_pasted() {
        let text = banner(Some(("default", "cmp_key"))).to_string();
        for part in [
            "tcp://0.0.0.0:1883",
            "ws://[::1]:8083/mqtt",
            "http://127.0.0.1:8080",
            "  data      data  (what is accepted survives a power cut)",
            "API key cmp_key",
            "mosquitto_sub -h 127.0.0.1 -p 1883 -c -i phone-1 -q 1 -t push/in",
            "curl http://127.0.0.1:8080/v1/apps/default/pushes -H 'Authorization: Bearer cmp_key'",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn other_nodes_tell_how_to_get_a_key() {
        let text = banner(None).to_string();
        assert!(
            text.contains("campanile app create default --data data"),
            "{text}"
        );
        assert!(!text.contains("curl"));
    }
}
