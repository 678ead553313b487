//! Whole nodes, spoken to in bytes.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
};

use campanile_broker::access::{Access, AuthRequest, Identity, Open, Verdict};
use campanile_mqtt::Reason;

use super::*;
use crate::net::listener::ListenerSpec;

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> NodeConfig {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    NodeConfig {
        shards: 2,
        listeners: vec![ListenerSpec {
            name: "mqtt".into(),
            address: loopback,
            app: "default".into(),
            tls: None,
            websocket_path: None,
            max_connections: 1000,
        }],
        http: Some(HttpSpec {
            address: loopback,
            api: campanile_api::Config::default(),
        }),
        ..NodeConfig::new(Arc::new(Open))
    }
}

struct Client(TcpStream);

impl Client {
    /// Connects with MQTT 5.0 and a session that outlives the connection by `expiry` seconds.
    fn connect(node: &Node, client_id: &str, clean: bool, expiry: u8) -> (Client, Vec<u8>) {
        let stream = TcpStream::connect(node.addresses()[0].1).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client(stream);
        let mut body = b"\x00\x04MQTT\x05".to_vec();
        body.extend([u8::from(clean) << 1, 0, 60, 5, 0x11, 0, 0, 0, expiry]);
        body.extend(string(client_id));
        client.send(0x10, &body);
        let (first, connack) = client.receive();
        assert_eq!(first, 0x20);
        (client, connack)
    }

    fn send(&mut self, first: u8, body: &[u8]) {
        let mut packet = vec![first, u8::try_from(body.len()).unwrap()];
        assert!(body.len() < 128);
        packet.extend(body);
        self.0.write_all(&packet).unwrap();
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut first = [0];
        self.0.read_exact(&mut first).unwrap();
        let (mut length, mut shift) = (0, 0);
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            length |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (first[0], body)
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut body = vec![0, 1, 0];
        body.extend(string(filter));
        body.push(qos);
        self.send(0x82, &body);
        let (first, body) = self.receive();
        assert_eq!((first, body), (0x90, vec![0, 1, 0, qos]));
    }

    fn publish(&mut self, topic: &str, qos: u8, payload: &[u8]) {
        let mut body = string(topic);
        if qos > 0 {
            body.extend([0, 7]);
        }
        body.push(0);
        body.extend(payload);
        self.send(0x30 | qos << 1, &body);
        if qos == 1 {
            let (first, body) = self.receive();
            assert_eq!((first, &body[..2]), (0x40, [0, 7].as_slice()));
        }
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn get(node: &Node, path: &str) -> String {
    let mut stream = TcpStream::connect(node.http_address().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn messages_cross_shards() {
    let node = Node::start(config()).unwrap();
    let mut receivers: Vec<Client> = (0..8)
        .map(|number| {
            let (mut client, connack) = Client::connect(&node, &format!("r{number}"), true, 0);
            assert_eq!(connack[..2], [0, 0]);
            client.subscribe("news/+", 0);
            client
        })
        .collect();
    let (mut sender, _) = Client::connect(&node, "sender", true, 0);
    sender.publish("news/today", 0, b"hello");
    for receiver in &mut receivers {
        let (first, body) = receiver.receive();
        assert_eq!(first, 0x30);
        assert!(body.ends_with(b"hello"));
    }
    node.stop().unwrap();
}

#[test]
fn durable_session_outlives_the_node() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Node::start(config().with_data_directory(directory.path())).unwrap();
    let node = start();
    let (mut away, connack) = Client::connect(&node, "away", false, 255);
    assert_eq!(connack[..2], [0, 0]);
    away.subscribe("a/b", 1);
    away.send(0xE0, &[]);
    let mut end = Vec::new();
    away.0.read_to_end(&mut end).unwrap();
    let (mut sender, _) = Client::connect(&node, "sender", true, 0);
    sender.publish("a/b", 1, b"while away");
    node.stop().unwrap();

    let node = start();
    let (mut away, connack) = Client::connect(&node, "away", false, 255);
    assert_eq!(connack[..2], [1, 0], "session present");
    let (first, body) = away.receive();
    assert_eq!(first & 0xF6, 0x32);
    assert!(body.ends_with(b"while away"));
    node.stop().unwrap();
}

#[test] // [MQTT-4.13.2-1] for a node that stops
fn stop_tells_clients_why_and_is_quick() {
    let node = Node::start(config()).unwrap();
    let mut clients: Vec<Client> = (0..5)
        .map(|number| Client::connect(&node, &format!("c{number}"), false, 100).0)
        .collect();
    let began = Instant::now();
    let stopping = std::thread::spawn(move || node.stop());
    for client in &mut clients {
        let (first, body) = client.receive();
        assert_eq!((first, body[0]), (0xE0, 0x8B));
    }
    stopping.join().unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn address_in_use_is_named() {
    let node = Node::start(config()).unwrap();
    let mut second = config();
    second.listeners[0].address = node.addresses()[0].1;
    let error = Node::start(second).err().expect("the address is taken");
    let text = error.to_string();
    assert!(
        text.contains("listener mqtt") && text.contains("127.0.0.1"),
        "{text}"
    );
    node.stop().unwrap();
}

#[test]
fn data_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(config().with_data_directory(directory.path())).unwrap();
    let second = Node::start(config().with_data_directory(directory.path()));
    assert!(matches!(second.err(), Some(StartError::Open(_))));
    node.stop().unwrap();
}

#[test]
fn http_tells_of_the_node() {
    let node = Node::start(config()).unwrap();
    assert!(get(&node, "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(get(&node, "/version").contains(env!("CARGO_PKG_VERSION")));
    let (_client, _) = Client::connect(&node, "counted", true, 0);
    let deadline = Instant::now() + PATIENCE;
    // Shards publish their figures with a short delay.
    while !get(&node, "/metrics").contains("\ncampanile_clients_connected 1\n") {
        assert!(Instant::now() < deadline, "{}", get(&node, "/metrics"));
        std::thread::yield_now();
    }
    node.stop().unwrap();
}

#[test]
fn metrics_are_well_formed() {
    let node = Node::start(config()).unwrap();
    let text = node.metrics();
    let mut typed = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# TYPE ") {
            let (name, kind) = comment.split_once(' ').unwrap();
            assert!(typed.insert(name.to_owned()), "{name} twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|base| typed.contains(*base))
            .unwrap_or(name);
        assert!(typed.contains(base), "{line} without a type");
    }
    assert!(typed.contains("campanile_store_commit_seconds"));
    node.stop().unwrap();
}

#[test]
fn sys_figures_reach_subscribers() {
    let node = Node::start(NodeConfig {
        sys_every: Duration::from_millis(20),
        ..config()
    })
    .unwrap();
    let (mut client, _) = Client::connect(&node, "watcher", true, 0);
    client.subscribe("$SYS/broker/version", 0);
    let (_, body) = client.receive();
    assert!(body.ends_with(concat!("campanile ", env!("CARGO_PKG_VERSION")).as_bytes()));
    node.stop().unwrap();
}

/// Judges slowly; panics for a user named "panic".
struct Slow;

impl Access for Slow {
    fn authenticate(&self, _: &AuthRequest) -> Verdict {
        Verdict::Later
    }

    fn authenticate_slowly(&self, request: &AuthRequest) -> Verdict {
        match &*request.client_id {
            "panic" => panic!("asked to"),
            "deny" => Verdict::Deny(Reason::NotAuthorized),
            _ => Verdict::Allow {
                identity: Identity::default(),
                data: None,
            },
        }
    }

    fn may_publish(&self, _: &Identity, _: &str, topic: &str) -> bool {
        assert_ne!(topic, "panic", "asked to");
        true
    }

    fn may_subscribe(&self, _: &Identity, _: &str, _: &str) -> bool {
        true
    }
}

#[test]
fn slow_verdicts_come_back_and_a_panic_there_is_no_end() {
    let node = Node::start(NodeConfig {
        access: Arc::new(Slow),
        ..config()
    })
    .unwrap();
    for (client_id, reason) in [
        ("allow", 0x00),
        ("deny", 0x87),
        ("panic", 0x80),
        ("more", 0x00),
    ] {
        let (_, connack) = Client::connect(&node, client_id, true, 0);
        assert_eq!(connack[1], reason, "{client_id}");
    }
    node.stop().unwrap();
}

#[test]
fn shard_that_panics_ends_the_wait() {
    let mut node = Node::start(NodeConfig {
        access: Arc::new(Slow),
        ..config()
    })
    .unwrap();
    let (mut client, _) = Client::connect(&node, "allow", true, 0);
    client.publish("panic", 0, b"");
    let ended = node.wait();
    assert!(
        matches!(&ended, Ended::Failed(why) if why.contains("panicked")),
        "{ended:?}"
    );
    node.stop().unwrap();
}
