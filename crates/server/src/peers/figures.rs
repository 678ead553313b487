//! What links count.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use campanile_broker::ids::Generation;

/// Counters of a peer, or of all together.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Counters {
    pub messages_in: AtomicU64,
    pub messages_out: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub messages_dropped: AtomicU64,
    pub messages_unknown: AtomicU64,
    pub ups: AtomicU64,
    pub downs: AtomicU64,
    pub resets: AtomicU64,
}

/// Counters as they were. They count from the start; those of a peer from when it was first listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages received, heartbeats excluded.
    pub messages_in: u64,
    /// Messages written to sockets, heartbeats excluded.
    pub messages_out: u64,
    /// Bytes received, without TLS.
    pub bytes_in: u64,
    /// Bytes written, without TLS.
    pub bytes_out: u64,
    /// Messages that were not sent since the queue was full (or the frame too large), and that nobody was promised.
    pub messages_dropped: u64,
    /// Messages that were passed over since only a later version knows them.
    pub messages_unknown: u64,
    /// Links made.
    pub ups: u64,
    /// Links that ended.
    pub downs: u64,
    /// Links that were ended since a message could not be queued that must not be missing.
    pub resets: u64,
}

/// One peer, as [`Figures`] has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFigures {
    /// Which run of it.
    pub generation: Generation,
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its link, if it is up.
    pub link: Option<LinkFigures>,
    /// Counters.
    pub counts: Counts,
}

/// A link that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFigures {
    /// The version that both speak.
    pub protocol: u32,
    /// Version of the peer's program.
    pub program: Arc<str>,
    /// Messages that are not written yet.
    pub queued_messages: u64,
    /// Their bytes, about.
    pub queued_bytes: u64,
}

/// All links at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Of all peers, former ones included.
    pub total: Counts,
    /// Connections that were refused, or that broke before they were links.
    pub handshakes_failed: u64,
    /// Peers that are listed now, by generation.
    pub peers: Vec<PeerFigures>,
}

impl Counters {
    /// What they are at.
    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            messages_in: of(&self.messages_in),
            messages_out: of(&self.messages_out),
            bytes_in: of(&self.bytes_in),
            bytes_out: of(&self.bytes_out),
            messages_dropped: of(&self.messages_dropped),
            messages_unknown: of(&self.messages_unknown),
            ups: of(&self.ups),
            downs: of(&self.downs),
            resets: of(&self.resets),
        }
    }
}
