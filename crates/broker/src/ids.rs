//! Names of things, as types, so that they cannot be mixed up.

use std::{
    fmt,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

/// Milliseconds since the Unix epoch, read from a clock that never runs backwards within a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// This time plus a number of seconds, saturating.
    pub fn plus_seconds(self, seconds: u32) -> Millis {
        Millis(self.0.saturating_add(u64::from(seconds) * 1000))
    }

    /// Milliseconds from `earlier` until this time; 0 if it is not later.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A tenant. Topics, clients and devices live inside an app. 1..=64 bytes of `[a-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(Arc<str>);

impl AppId {
    /// The id of that name. The caller has checked the alphabet.
    pub fn new(name: &str) -> AppId {
        AppId(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A client's identity in the whole cluster: its app and its MQTT client identifier.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey {
    /// The tenant.
    pub app: AppId,
    /// The MQTT client identifier, 1..=65535 bytes.
    pub client_id: Arc<str>,
}

impl ClientKey {
    /// The key of a client identifier within an app.
    pub fn new(app: &AppId, client_id: &str) -> ClientKey {
        ClientKey {
            app: app.clone(),
            client_id: client_id.into(),
        }
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.client_id)
    }
}

/// Identity of a message or push: a ULID, unique in the cluster and increasing within a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u128);

impl MessageId {
    /// Time and counter: what orders the ids of a node.
    pub fn place(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The smallest id of a place.
    pub fn first_at(place: u64) -> MessageId {
        MessageId(u128::from(place) << 64)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for MessageId {
    /// The 26 characters of the ULID's canonical text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ulid::Ulid::from(self.0).fmt(f)
    }
}

/// Makes message ids that increase strictly within a node, whichever thread asks.
///
/// The upper 64 bits are the time in milliseconds (48 bits) and a counter (16 bits), the lower ones a salt of this node's start.
#[derive(Debug)]
pub struct IdSource {
    last: AtomicU64,
    salt: u64,
}

impl IdSource {
    /// A source whose ids differ from those of every source with another salt.
    pub fn new(salt: u64) -> IdSource {
        IdSource {
            last: AtomicU64::new(0),
            salt,
        }
    }

    /// Makes all further ids larger than one of an earlier run: the clock may have been set back since.
    pub fn go_beyond(&self, id: MessageId) {
        self.last.fetch_max((id.0 >> 64) as u64, Ordering::Relaxed);
    }

    /// The next id, larger than every id that this source gave before.
    pub fn next(&self, now: Millis) -> MessageId {
        let floor = now.0 << 16;
        let before = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                Some(floor.max(last + 1))
            })
            .expect("the update always yields a value");
        MessageId((u128::from(floor.max(before + 1)) << 64) | u128::from(self.salt))
    }
}

/// Raised with every claim of a session; the store refuses a write that carries an older one (fencing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// One run of a node in a cluster: the creation id of its registration there, so that a node that restarts is another one. 0: a node without a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// Of a node without a cluster.
    pub const ALONE: Generation = Generation(0);
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A place in a log or an inbox. Only order and equality mean anything; 0 is before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

/// A shard of this node, 0..64. In a cluster a node has at most [`ShardId::MAX_IN_CLUSTER`]; the numbers above stand for other nodes, as if each
/// were a shard more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u8);

impl ShardId {
    /// The node's [`Hub`](crate::cluster::hub::Hub), where mail for the cluster goes. No receiver of messages.
    pub const HUB: ShardId = ShardId(255);
    /// Stands for all durable sessions of the cluster.
    pub const STORE: ShardId = ShardId(63);
    /// Most shards of a node that is a member of a cluster.
    pub const MAX_IN_CLUSTER: u8 = 32;
    /// Stand for peers, highest first.
    pub const PEERS: std::ops::Range<u8> = 32..63;
}

/// A connection of one shard. The driver chooses it (a slot and a count of the slot's uses) and never gives it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Index of the connection's slot, small and dense.
    pub slot: u32,
    /// How often the slot was used before.
    pub use_count: u32,
}
