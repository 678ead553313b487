//! Clients in conversation with a node, packet by packet, on a clock that only the test moves.

use campanile_backends::memory::Disk;
use campanile_broker::ids::Millis;
use campanile_mqtt::{Packet, Split, Version, split};

use crate::node::{Node, NodeConfig};

/// A node and the wires of its clients.
pub struct Pair {
    /// The node.
    pub node: Node,
    versions: Vec<Version>,
    received: Vec<Vec<u8>>,
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
        Pair {
            node: Node::start(config, Disk::default(), START),
            versions: Vec::new(),
            received: Vec::new(),
        }
    }

    /// A new connection of a client that speaks a version. The number of its wire.
    pub fn open(&mut self, version: Version) -> usize {
        self.versions.push(version);
        self.received.push(Vec::new());
        self.node
            .connect((self.versions.len() % self.node.shards().len()) as u8)
    }

    /// The client sends a packet, and the node does all it has to.
    pub fn send(&mut self, wire: usize, packet: Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.versions[wire], &mut bytes);
        self.send_bytes(wire, &bytes);
    }

    /// The client sends bytes, and the node does all it has to.
    pub fn send_bytes(&mut self, wire: usize, bytes: &[u8]) {
        self.node.send(wire, bytes);
        self.node.settle();
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

    /// The next packet that the node sent to a client, as bytes; empty if there is none.
    pub fn receive_bytes(&mut self, wire: usize) -> Vec<u8> {
        let output = self.node.take_output(wire);
        let received = &mut self.received[wire];
        received.extend(output);
        match split(received, u32::MAX) {
            Ok(Split::Packet { total_len, .. }) => received.drain(..total_len).collect(),
            _ => Vec::new(),
        }
    }

    /// Gives the next packet that the node sent to a client to `look`. Panics if there is none.
    pub fn expect<T>(&mut self, wire: usize, look: impl FnOnce(Packet<'_>) -> T) -> T {
        let bytes = self.receive_bytes(wire);
        assert!(!bytes.is_empty(), "a packet was expected on wire {wire}");
        look(
            Packet::decode(&bytes, self.versions[wire])
                .expect("the node sends well-formed packets"),
        )
    }

    /// Nothing (more) was sent to a client.
    pub fn expect_silence(&mut self, wire: usize) {
        let bytes = self.receive_bytes(wire);
        assert!(
            bytes.is_empty(),
            "silence was expected on wire {wire}, not {:?}",
            Packet::decode(&bytes, self.versions[wire])
        );
    }

    /// The node dies, losing nothing that it synced, and starts again; all connections are gone.
    pub fn crash_and_restart(mut self, config: NodeConfig) -> Pair {
        let now = self.node.now;
        self.node.store().sync();
        let disk = self.node.crash(0);
        Pair {
            node: Node::start(config, disk, now),
            versions: Vec::new(),
            received: Vec::new(),
        }
    }
}

impl Default for Pair {
    fn default() -> Pair {
        Pair::new()
    }
}
