//! Operations of a few clients on a node, read from bytes, so that a fuzzer can search for what breaks a rule.
//!
//! [`run`] is the fuzz target `session` and what the plain test replays. Each byte of an input means something, so that mutations of an input are other
//! conversations. A `Link` watches every connection; the rules that it holds the node to need no model of who is to get what, which is the matter
//! of [`world`](crate::world).

mod input;
mod link;
mod say;

use std::{collections::VecDeque, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use campanile_backends::Config as StoreConfig;
use campanile_broker::{config::Config, ids::Millis};
use campanile_mqtt::{Packet, QoS, Reason, Version};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
    store::{Accept, Audience, Command},
};

use crate::{
    node::{Node, NodeConfig},
    packets::{self, Say},
    pair::START,
};
use input::Input;
use link::{Asked, Link};

/// Operations of one input at most, so that each takes milliseconds.
const MAX_OPERATIONS: usize = 400;
/// Connections of one input at most.
const MAX_CONNECTIONS: usize = 64;
/// Longest Session Expiry Interval, seconds.
const LONGEST_SESSION: u32 = 3600;
/// Rounds until what is owed must have arrived.
const ROUNDS: usize = 2000;
/// Client identifiers; the node replaces the empty one.
const CLIENT_IDS: [&str; 4] = ["a", "b", "c", ""];
/// Clients: each has one connection that it uses.
const CLIENTS: usize = 3;

/// Carries out the operations that the bytes mean. Panics, after printing them, if the node breaks a rule.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut stage = Stage::new(&mut input);
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        stage.operate(&mut input);
    }
    stage.heal();
    stage.part();
}

/// A node and its clients.
struct Stage {
    config: NodeConfig,
    /// `None` only between a crash and the start after it.
    node: Option<Node>,
    /// Open connections, newest last.
    links: Vec<Link>,
    /// By client: its connection, and the version that it speaks on it.
    current: [Option<(usize, Version)>; CLIENTS],
    connections: usize,
    asked: Asked,
    /// What was done, to print when a rule is broken.
    trace: VecDeque<String>,
    /// The last packet of a client.
    last: Vec<u8>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut text = String::new();
            for line in &self.trace {
                let _ = writeln!(text, "  {line}");
            }
            eprintln!("operations:\n{text}");
        }
    }
}

impl Stage {
    fn new(input: &mut Input<'_>) -> Stage {
        let config = node_config(input);
        let node = Node::start(config.clone(), Default::default(), START);
        Stage {
            config,
            node: Some(node),
            links: Vec::new(),
            current: [None; CLIENTS],
            connections: 0,
            asked: Asked::new(),
            trace: VecDeque::new(),
            last: Vec::new(),
        }
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("it runs between operations")
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        self.trace.push_back(what());
    }

    /// One operation. The highest bit of its byte: the node does not come to rest after it.
    fn operate(&mut self, input: &mut Input<'_>) {
        let code = input.byte();
        self.act(code & 0x7F, input);
        if code & 0x80 == 0 {
            self.node().settle();
        }
        self.observe();
    }

    fn act(&mut self, code: u8, input: &mut Input<'_>) {
        match code % 32 {
            0..=2 => self.connect(input),
            3..=5 => self.say(input, say::subscribe),
            6 => self.say(input, say::unsubscribe),
            7..=12 => self.say(input, say::publish),
            13 => self.say(input, say::pubrel),
            14 | 15 => self.say(input, say::ack),
            16..=18 => self.acknowledge(input),
            19 => self.say(input, say::disconnect),
            20 => self.cut(input),
            21 | 22 => {
                let ms = input.pick(&[1, 50, 100, 150, 1000, 2000, 5000, 30_000, 600_000]);
                self.pass(ms);
            }
            23 => self.block(input),
            24 => self.crash(input),
            25 => self.restart(),
            26 => self.push(input),
            27 => self.say(input, |input, _| {
                let count = input.below(24);
                input.bytes(count).to_vec()
            }),
            28 => self.step(input),
            29 => {
                let full = input.below(2) == 1;
                self.note(|| format!("the disk is full: {full}"));
                self.node()
                    .store()
                    .fail_commits(full.then_some("the disk is full"));
            }
            30 => {
                let last = self.last.clone();
                self.say(input, move |_, _| last.clone());
            }
            _ => self.say(input, |input, version| match input.below(4) {
                0 if version.is_v5() => {
                    packets::auth(Reason::ReAuthenticate, "m", "").bytes(version)
                }
                _ => Packet::PingReq.bytes(version),
            }),
        }
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        let client = input.below(CLIENTS);
        let version = input.pick(&[Version::V5, Version::V311, Version::V5, Version::V31]);
        let bytes = say::connect(input, CLIENT_IDS[client], version);
        let lingers = input.below(4) == 0;
        if self.connections == MAX_CONNECTIONS {
            return;
        }
        self.connections += 1;
        if let Some((wire, _)) = self.current[client].take()
            && !lingers
        {
            self.note(|| format!("{client} cuts wire {wire}"));
            self.node().cut(wire);
        }
        let shard = self.connections as u8 % self.config.shards;
        let wire = self.node().connect(shard);
        // A wire that was forgotten may be used again.
        self.links.push(Link::new(wire));
        self.current[client] = Some((wire, version));
        self.send(client, &bytes);
    }

    /// A client says something.
    fn say(&mut self, input: &mut Input<'_>, what: impl Fn(&mut Input<'_>, Version) -> Vec<u8>) {
        let client = input.below(CLIENTS);
        let version = self.current[client].map_or(Version::V5, |(_, version)| version);
        let bytes = what(input, version);
        self.send(client, &bytes);
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        let Some((wire, version)) = self.current[client] else {
            return;
        };
        self.note(|| match Packet::decode(bytes, version) {
            Ok(packet) => format!("{client} on wire {wire} ({version:?}): {packet:?}"),
            Err(_) => format!("{client} on wire {wire} ({version:?}): {bytes:02x?}"),
        });
        self.last = bytes.to_vec();
        let node = self.node.as_mut().expect("it runs between operations");
        let quiet = node.ready().is_empty() && !node.has_input(wire);
        if let Some(link) = self.links.iter_mut().find(|link| link.wire == wire) {
            link.on_said(bytes, quiet, &mut self.asked);
        }
        node.send(wire, bytes);
    }

    /// A client goes on with what it got, as it should.
    fn acknowledge(&mut self, input: &mut Input<'_>) {
        let client = input.below(CLIENTS);
        let count = input.below(8) + 1;
        let Some((wire, version)) = self.current[client] else {
            return;
        };
        let Some(link) = self.links.iter().find(|link| link.wire == wire) else {
            return;
        };
        for (id, qos, released) in link.due().into_iter().take(count) {
            self.send(client, &proper_ack(id, qos, released, version));
        }
    }

    fn cut(&mut self, input: &mut Input<'_>) {
        let client = input.below(CLIENTS);
        if let Some((wire, _)) = self.current[client].take() {
            self.note(|| format!("{client} cuts wire {wire}"));
            self.node().cut(wire);
        }
    }

    fn pass(&mut self, ms: u64) {
        self.note(|| format!("{ms} ms pass"));
        let node = self.node();
        node.advance(ms);
        node.sweep();
    }

    fn block(&mut self, input: &mut Input<'_>) {
        let client = input.below(CLIENTS);
        let blocked = input.below(3) > 0;
        if let Some((wire, _)) = self.current[client] {
            self.note(|| format!("wire {wire} is blocked: {blocked}"));
            self.node().set_blocked(wire, blocked);
        }
    }

    fn crash(&mut self, input: &mut Input<'_>) {
        self.observe();
        let mut node = self.node.take().expect("it runs between operations");
        let keep = input.below(node.store().unsynced().min(255) + 1);
        self.note(|| format!("crash, {keep} commits survive"));
        let now = node.now;
        self.start(node.crash(keep), now);
    }

    fn restart(&mut self) {
        self.note(|| "restart".to_owned());
        self.node().begin_stop();
        self.observe();
        let node = self.node.take().expect("it runs between operations");
        let pending: usize = node.shards().iter().map(|s| s.pending_requests()).sum();
        assert_eq!(pending, 0, "requests are pending after a stop");
        let now = node.now;
        self.start(node.into_disk(), now);
    }

    fn start(&mut self, disk: campanile_backends::memory::Disk, now: Millis) {
        self.links.clear();
        self.current = [None; CLIENTS];
        self.node = Some(Node::start(self.config.clone(), disk, now));
    }

    fn push(&mut self, input: &mut Input<'_>) {
        let devices: Vec<Arc<str>> = match input.below(8) {
            0 => Vec::new(),
            mask => (0..CLIENTS)
                .filter(|at| mask >> at & 1 == 1)
                .map(|at| CLIENT_IDS[at].into())
                .collect(),
        };
        let ttl_ms = input.pick(&[0, 1000, 60_000]);
        self.note(|| format!("push to {devices:?}, ttl {ttl_ms}"));
        let node = self.node();
        let accept = Accept {
            app: app(),
            id: PushId(node.ids().next(node.now).0),
            accepted_ms: node.now.0,
            expires_ms: node.now.0 + ttl_ms,
            audience: match devices.is_empty() {
                true => Audience::All,
                false => Audience::Devices(devices),
            },
            payload: Bytes::from_static(b"{}"),
            priority: Priority::Normal,
            collapse_key: None,
            idempotency: None,
            rows: None,
            channel: Default::default(),
            info: Bytes::new(),
            watched: false,
        };
        node.push(Command::Accept(Box::new(accept)));
    }

    /// The node does some of what it has to do, in an order of the input.
    fn step(&mut self, input: &mut Input<'_>) {
        for _ in 0..=input.below(8) {
            let node = self.node();
            let ready = node.ready();
            if !ready.is_empty() {
                let queue = ready[input.below(ready.len().min(256))];
                node.step(queue);
                self.note(|| format!("{queue:?}"));
                self.observe();
            }
        }
    }

    /// Takes what the node wrote, and sees what it closed.
    fn observe(&mut self) {
        let node = self.node.as_mut().expect("it runs between operations");
        self.links.retain_mut(|link| {
            let wire = link.wire;
            link.on_heard(&node.take_output(wire), &self.asked);
            let closed = node.is_closed(wire);
            if closed {
                link.on_closed();
                node.forget(wire);
                for current in &mut self.current {
                    current.take_if(|(of, _)| *of == wire);
                }
            }
            !closed
        });
    }

    fn settle(&mut self) {
        self.node().settle();
        self.observe();
    }

    /// All faults are taken away; every question gets its answer, and all that is owed arrives.
    fn heal(&mut self) {
        self.note(|| "all is well".to_owned());
        self.node().store().fail_commits(None);
        let wires: Vec<usize> = self.links.iter().map(|link| link.wire).collect();
        for wire in wires {
            self.node().set_blocked(wire, false);
        }
        self.settle();
        for _ in 0..3 {
            self.pass(200);
            self.settle();
        }
        for round in 0.. {
            assert!(round < ROUNDS, "deliveries without end");
            if !self.acknowledge_all() {
                break;
            }
            self.settle();
        }
        for _ in 0..2 {
            self.pass(200);
            self.settle();
        }
        self.check_idle();
        for link in self.links.iter().filter(|link| link.is_up()) {
            assert!(link.is_answered(), "no answer: {link:?}");
        }
    }

    /// Every client that listens goes on with all exchanges. Whether there were any.
    fn acknowledge_all(&mut self) -> bool {
        let mut any = false;
        for client in 0..CLIENTS {
            let Some((wire, version)) = self.current[client] else {
                continue;
            };
            let link = self.links.iter().find(|link| link.wire == wire);
            let Some(link) = link.filter(|link| link.is_up()) else {
                continue;
            };
            for (id, qos, released) in link.due() {
                any = true;
                self.send(client, &proper_ack(id, qos, released, version));
            }
        }
        any
    }

    fn check_idle(&mut self) {
        for (at, shard) in self.node().shards().iter().enumerate() {
            let pending = shard.pending_requests();
            assert_eq!(pending, 0, "shard {at}: requests are pending");
        }
    }

    /// Everybody leaves for good; nothing is left of them, nor after a restart.
    fn part(&mut self) {
        let wires: Vec<usize> = self.links.iter().map(|link| link.wire).collect();
        for wire in wires {
            self.node().cut(wire);
        }
        self.settle();
        for _ in 0..3 {
            self.pass(u64::from(LONGEST_SESSION + 1) * 1000);
            self.settle();
        }
        self.check_idle();
        self.check_nothing_left();
        self.restart();
        self.settle();
        self.check_nothing_left();
    }

    fn check_nothing_left(&mut self) {
        for (at, shard) in self.node().shards().iter().enumerate() {
            let stats = shard.stats();
            let left = [
                stats.connections,
                stats.durable_sessions_live,
                stats.subscriptions,
                stats.subscriptions_filters,
                stats.queued_messages,
                stats.queued_bytes,
            ];
            assert_eq!(left, [0; 6], "shard {at} still has something: {stats:?}");
        }
    }
}

/// The packet that takes an exchange one step further.
fn proper_ack(id: u16, qos: QoS, released: bool, version: Version) -> Vec<u8> {
    match (qos, released) {
        (QoS::ExactlyOnce, true) => packets::pubcomp(id).bytes(version),
        (QoS::ExactlyOnce, false) => packets::pubrec(id).bytes(version),
        _ => packets::puback(id).bytes(version),
    }
}

/// Rules with limits that are reached soon.
fn node_config(input: &mut Input<'_>) -> NodeConfig {
    let tight = input.byte();
    let chosen = |bit: u8, tight_one: u32, normal: u32| match tight >> bit & 1 {
        0 => normal,
        _ => tight_one,
    };
    let broker = Config {
        max_session_expiry_seconds: LONGEST_SESSION,
        v3_session_expiry_seconds: LONGEST_SESSION,
        receive_maximum: chosen(0, 2, 20) as u16,
        max_inflight: chosen(1, 2, 1000) as u16,
        max_queued_messages: chosen(2, 2, 1000),
        max_subscriptions: chosen(3, 2, 10_000),
        max_retained: chosen(4, 1, 1000),
        tail_entries: chosen(5, 2, 4096),
        max_pending_requests: chosen(6, 3, 100_000),
        topic_partitions: chosen(7, 2, 1) as u8,
        ..Config::default()
    };
    let store = StoreConfig {
        inbox_max_entries: chosen(2, 3, 1000),
        topic_log_max_age_ms: u64::from(chosen(5, 1000, 1_000_000_000)),
        topic_partitions: broker.topic_partitions,
        ..StoreConfig::default()
    };
    NodeConfig {
        shards: input.below(3) as u8 + 1,
        broker,
        store,
        ..NodeConfig::default()
    }
}

fn app() -> AppName {
    AppName::new("default").expect("a valid name")
}
