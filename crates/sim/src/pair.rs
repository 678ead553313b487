//! Clients in conversation with a node, packet by packet, on a clock that only the test moves.

use std::collections::VecDeque;

use campanile_backends::memory::Disk;
use campanile_broker::ids::Millis;
use campanile_mqtt::{Packet, QoS, Reason, Split, Version, split};

use crate::{
    node::{Node, NodeConfig},
    packets::{self, Connect, Heard, Say},
};

/// A node and the wires of its clients.
pub struct Pair {
    /// The node.
    pub node: Node,
    config: NodeConfig,
    wires: Vec<Wire>,
}

/// The client's end of a connection.
struct Wire {
    version: Version,
    received: Vec<u8>,
    /// Whole packets that a helper has looked past.
    passed: VecDeque<Heard>,
    /// The last packet identifier that a helper chose.
    last_id: u16,
    loses_input: bool,
    loses_output: bool,
}

/// When the clock starts: an arbitrary moment, Unix milliseconds.
pub const START: Millis = Millis(1_800_000_000_000);

impl Pair {
    /// A fresh node with default rules.
    pub fn new() -> Pair {
        Pair::with(NodeConfig::default())
    }

    /// A fresh node with rules of the test.
    pub fn with(config: NodeConfig) -> Pair {
        Pair::on(config, Disk::default(), START)
    }

    fn on(config: NodeConfig, disk: Disk, now: Millis) -> Pair {
        Pair {
            node: Node::start(config.clone(), disk, now),
            config,
            wires: Vec::new(),
        }
    }

    /// A new connection of a client that speaks a version. The number of its wire.
    pub fn open(&mut self, version: Version) -> usize {
        self.wires.push(Wire {
            version,
            received: Vec::new(),
            passed: VecDeque::new(),
            last_id: 0,
            loses_input: false,
            loses_output: false,
        });
        self.node
            .connect((self.wires.len() % self.node.shards().len()) as u8)
    }

    /// The client sends a packet, and the node does all it has to.
    pub fn send(&mut self, wire: usize, packet: impl Say) {
        let bytes = packet.bytes(self.wires[wire].version);
        self.send_bytes(wire, &bytes);
    }

    /// The client sends bytes, and the node does all it has to.
    pub fn send_bytes(&mut self, wire: usize, bytes: &[u8]) {
        self.post_bytes(wire, bytes);
        self.node.settle();
    }

    /// The client sends a packet that the node has not looked at yet.
    pub fn post(&mut self, wire: usize, packet: impl Say) {
        let bytes = packet.bytes(self.wires[wire].version);
        self.post_bytes(wire, &bytes);
    }

    fn post_bytes(&mut self, wire: usize, bytes: &[u8]) {
        if !self.wires[wire].loses_input {
            self.node.send(wire, bytes);
        }
    }

    /// Time passes, in steps of at most a second, and the node does all it has to.
    pub fn advance(&mut self, mut ms: u64) {
        while ms > 0 {
            let step = ms.min(1000);
            self.node.advance(step);
            self.node.sweep();
            self.node.settle();
            ms -= step;
        }
    }

    /// Seconds pass.
    pub fn wait(&mut self, seconds: u64) {
        self.advance(seconds * 1000);
    }

    /// The next packet that the node sent to a client, as bytes; empty if there is none.
    pub fn receive_bytes(&mut self, wire: usize) -> Vec<u8> {
        let output = self.node.take_output(wire);
        let wire = &mut self.wires[wire];
        if !wire.loses_output {
            wire.received.extend(output);
        }
        match split(&wire.received, u32::MAX) {
            Ok(Split::Packet { total_len, .. }) => wire.received.drain(..total_len).collect(),
            _ => Vec::new(),
        }
    }

    /// The next packet that the node sent to a client, if there is one.
    pub fn poll(&mut self, wire: usize) -> Option<Heard> {
        if let Some(heard) = self.wires[wire].passed.pop_front() {
            return Some(heard);
        }
        let bytes = self.receive_bytes(wire);
        (!bytes.is_empty()).then(|| Heard::new(self.wires[wire].version, bytes))
    }

    /// The next packet that the node sent to a client. Panics if there is none.
    #[track_caller]
    pub fn next(&mut self, wire: usize) -> Heard {
        match self.poll(wire) {
            Some(heard) => heard,
            None => panic!("a packet was expected on wire {wire}"),
        }
    }

    /// All packets that the node sent to a client.
    pub fn drain(&mut self, wire: usize) -> Vec<Heard> {
        std::iter::from_fn(|| self.poll(wire)).collect()
    }

    /// Gives the next packet that the node sent to a client to `look`. Panics if there is none.
    #[track_caller]
    pub fn expect<T>(&mut self, wire: usize, look: impl FnOnce(Packet<'_>) -> T) -> T {
        look(self.next(wire).packet())
    }

    /// Nothing (more) was sent to a client.
    #[track_caller]
    pub fn expect_silence(&mut self, wire: usize) {
        if let Some(heard) = self.poll(wire) {
            panic!("silence was expected on wire {wire}, not {heard:?}");
        }
    }

    /// The connection of a client is up, and answers.
    #[track_caller]
    pub fn expect_alive(&mut self, wire: usize) {
        self.send(wire, Packet::PingReq);
        let heard = self.next(wire);
        assert_eq!(heard.packet(), Packet::PingResp);
        assert!(!self.node.is_closed(wire));
    }

    /// The node closed a connection without a word (more).
    #[track_caller]
    pub fn expect_closed(&mut self, wire: usize) {
        self.expect_silence(wire);
        assert!(self.node.is_closed(wire), "wire {wire} is still open");
    }

    /// The node refused a CONNECT with a reason (before 5.0: with its return code) and closed the connection.
    #[track_caller]
    pub fn expect_refused(&mut self, wire: usize, reason: Reason) -> Heard {
        let heard = self.next(wire);
        let connack = heard.connack();
        let told = connack.reason;
        if self.wires[wire].version.is_v5() {
            assert_eq!(told, reason);
        } else {
            assert_eq!(told.connect_return_code(), reason.connect_return_code());
        }
        assert!(!connack.session_present);
        self.expect_closed(wire);
        heard
    }

    /// The node closed a connection; a client of 5.0 was told why.
    #[track_caller]
    pub fn expect_disconnect(&mut self, wire: usize, reason: Reason) {
        if self.wires[wire].version.is_v5() {
            let heard = self.next(wire);
            assert_eq!(heard.disconnect().reason, reason);
        }
        self.expect_closed(wire);
    }

    /// Opens a connection and sends a CONNECT. The number of its wire.
    pub fn try_connect(&mut self, connect: Connect) -> usize {
        let wire = self.open(connect.version);
        self.send(wire, connect);
        wire
    }

    /// Connects a client, which must succeed. The number of its wire, and the CONNACK.
    #[track_caller]
    pub fn connack(&mut self, connect: Connect) -> (usize, Heard) {
        let wire = self.try_connect(connect);
        let heard = self.next(wire);
        assert_eq!(heard.connack().reason, Reason::Success);
        (wire, heard)
    }

    /// Connects a client, which must succeed.
    #[track_caller]
    pub fn connect(&mut self, connect: Connect) -> usize {
        self.connack(connect).0
    }

    /// Connects a client, which must get an existing session (or must not).
    #[track_caller]
    pub fn connect_present(&mut self, connect: Connect, present: bool) -> usize {
        let (wire, heard) = self.connack(connect);
        assert_eq!(heard.connack().session_present, present, "session present");
        wire
    }

    /// A packet identifier that this wire has not used.
    pub fn new_id(&mut self, wire: usize) -> u16 {
        self.wires[wire].last_id += 1;
        self.wires[wire].last_id
    }

    /// Subscribes to a filter, which must be granted as asked.
    #[track_caller]
    pub fn subscribe(&mut self, wire: usize, filter: &str, qos: u8) {
        let number = self.new_id(wire);
        self.subscribe_with(wire, packets::subscribe(number).filter(filter, qos));
    }

    /// Subscribes; nothing may be refused. A PUBLISH may come before the SUBACK; it stays to be received.
    #[track_caller]
    pub fn subscribe_with(&mut self, wire: usize, packet: packets::Subscribe) {
        self.send(wire, packet);
        let heard = self.answer(wire);
        let codes = heard.suback().codes;
        assert!(codes.iter().all(|code| *code < 0x80), "{codes:x?}");
    }

    /// The next packet that is no PUBLISH. What comes before it stays to be received.
    #[track_caller]
    pub fn answer(&mut self, wire: usize) -> Heard {
        let mut passed = VecDeque::new();
        let answer = loop {
            let heard = self.next(wire);
            match heard.packet() {
                Packet::Publish(_) => passed.push_back(heard),
                _ => break heard,
            }
        };
        passed.append(&mut self.wires[wire].passed);
        self.wires[wire].passed = passed;
        answer
    }

    /// Unsubscribes from a filter.
    #[track_caller]
    pub fn unsubscribe(&mut self, wire: usize, filter: &str) {
        let number = self.new_id(wire);
        self.send(wire, packets::unsubscribe(number).filter(filter));
        self.answer(wire).unsuback();
    }

    /// Publishes, and goes through with the exchange.
    #[track_caller]
    pub fn publish(&mut self, wire: usize, topic: &str, payload: &str, qos: u8) {
        self.publish_with(wire, packets::publish(topic, payload), qos);
    }

    /// As [`Pair::publish`], with flags and properties.
    #[track_caller]
    pub fn publish_with(&mut self, wire: usize, packet: packets::Publish, qos: u8) {
        let number = self.new_id(wire);
        self.send(wire, packet.qos(qos, number));
        match qos {
            0 => {}
            1 => assert!(!self.expect_puback(wire, number).is_error()),
            _ => {
                assert!(!self.expect_pubrec(wire, number).is_error());
                self.send(wire, packets::pubrel(number));
                assert!(!self.expect_pubcomp(wire, number).is_error());
            }
        }
    }

    /// PUBACK of an identifier, as the next packet that is no PUBLISH. Its reason.
    #[track_caller]
    pub fn expect_puback(&mut self, wire: usize, number: u16) -> Reason {
        let heard = self.answer(wire);
        let ack = heard.puback();
        assert_eq!(ack.packet_id, packets::id(number));
        ack.reason
    }

    /// PUBREC of an identifier. Its reason.
    #[track_caller]
    pub fn expect_pubrec(&mut self, wire: usize, number: u16) -> Reason {
        let heard = self.answer(wire);
        let ack = heard.pubrec();
        assert_eq!(ack.packet_id, packets::id(number));
        ack.reason
    }

    /// PUBREL of an identifier. Its reason.
    #[track_caller]
    pub fn expect_pubrel(&mut self, wire: usize, number: u16) -> Reason {
        let heard = self.answer(wire);
        let ack = heard.pubrel();
        assert_eq!(ack.packet_id, packets::id(number));
        ack.reason
    }

    /// PUBCOMP of an identifier. Its reason.
    #[track_caller]
    pub fn expect_pubcomp(&mut self, wire: usize, number: u16) -> Reason {
        let heard = self.answer(wire);
        let ack = heard.pubcomp();
        assert_eq!(ack.packet_id, packets::id(number));
        ack.reason
    }

    /// A PUBLISH with a payload, which is not acknowledged.
    #[track_caller]
    pub fn expect_publish(&mut self, wire: usize, payload: &str) -> Heard {
        let heard = self.next(wire);
        assert_eq!(heard.payload(), payload);
        heard
    }

    /// A PUBLISH with a payload, and goes through with its exchange.
    #[track_caller]
    pub fn take(&mut self, wire: usize, payload: &str) -> Heard {
        let heard = self.expect_publish(wire, payload);
        self.acknowledge(wire, &heard);
        heard
    }

    /// Goes through with the exchange of a PUBLISH that a client got.
    #[track_caller]
    pub fn acknowledge(&mut self, wire: usize, publish: &Heard) {
        match publish.publish().qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.send(wire, packets::puback(publish.id())),
            QoS::ExactlyOnce => {
                self.send(wire, packets::pubrec(publish.id()));
                self.expect_pubrel(wire, publish.id());
                self.send(wire, packets::pubcomp(publish.id()));
            }
        }
    }

    /// The client's end, or the network, cuts a connection, and the node does all it has to.
    pub fn cut(&mut self, wire: usize) {
        self.node.cut(wire);
        self.node.settle();
    }

    /// From now on what this client sends is lost, although the connection seems up.
    pub fn lose_input(&mut self, wire: usize) {
        self.wires[wire].loses_input = true;
    }

    /// From now on what is sent to this client is lost, although the connection seems up.
    pub fn lose_output(&mut self, wire: usize) {
        self.node.take_output(wire);
        self.wires[wire].received.clear();
        self.wires[wire].loses_output = true;
    }

    /// The node dies, losing nothing that it synced, and starts again; all connections are gone.
    pub fn crash_and_restart(mut self, config: NodeConfig) -> Pair {
        let now = self.node.now;
        self.node.store().sync();
        let disk = self.node.crash(0);
        Pair::on(config, disk, now)
    }

    /// As [`Pair::crash_and_restart`], in place and with the same rules.
    pub fn crash(&mut self) {
        let config = self.config.clone();
        let whole = std::mem::take(self);
        *self = whole.crash_and_restart(config);
    }

    /// The node stops in an orderly way and starts again.
    pub fn restart(&mut self) {
        let Pair { node, config, .. } = std::mem::take(self);
        let now = node.now;
        *self = Pair::on(config, node.stop(), now);
    }
}

impl Default for Pair {
    fn default() -> Pair {
        Pair::new()
    }
}
