//! What a shard wants done, as data for its driver.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    access::{AuthRequest, DeviceIdentity},
    ids::{ClientKey, ConnId, ShardId},
    mail::Mail,
    store::{Command, Query},
};

/// Names a request of this shard, so that its answer finds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What a shard wants done. The driver takes all of it at the end of a turn, in the order of the fields, bytes of the outbox last.
#[derive(Debug, Default)]
pub struct Effects {
    /// Writes, in order. The answer goes to `Shard::on_outcome`.
    pub commands: Vec<(Ticket, Command)>,
    /// Reads. The answer goes to `Shard::on_page`.
    pub queries: Vec<(Ticket, Query)>,
    /// Messages to other shards of the node, in order. Delivered to their `Shard::on_mail`.
    pub mail: Vec<(ShardId, Mail)>,
    /// Credentials to be judged where blocking is allowed. The answer goes to `Shard::on_verdict`.
    pub authenticate: Vec<(ConnId, Box<AuthRequest>)>,
    /// What devices say of themselves, for whoever keeps the registry. The answer goes to `Shard::on_outcome`: `Done`, `Nothing`, `Told` or `Sync`.
    pub statements: Vec<(Ticket, Box<Statement>)>,
    /// Connections that belong to another shard: move the socket there with every byte from the CONNECT on; this shard has forgotten it.
    pub handovers: Vec<(ConnId, ShardId)>,
    /// Connections that wanted a pause and may be read again, beginning with what was not consumed.
    pub resume: Vec<ConnId>,
    /// Connections to close once their output is written; this shard has forgotten them. The peer must be able to read what was written last: shut down
    /// the writing side, read and discard until the peer closes (bounded in time and bytes), then close.
    pub closes: Vec<ConnId>,
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The device.
    pub client: ClientKey,
    /// What it has proven to be.
    pub identity: Option<Arc<DeviceIdentity>>,
    /// What it says.
    pub content: Content,
}

/// See [`Statement`].
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// It is there.
    Connected {
        /// What was known of it; `None`: it is not registered.
        profile: Option<Bytes>,
    },
    /// What it is, on `push/reg`.
    Registration(Bytes),
    /// How far it has got, on `push/sync`.
    Sync(Bytes),
}

/// What `Shard::on_bytes` did with its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken. The rest is offered again, with what follows it.
    pub consumed: usize,
    /// The connection cannot go on before [`Effects::resume`] names it: do not offer more, and do not read more than one buffer ahead.
    pub paused: bool,
    /// The connection was closed or moved (see the effects): do not offer more.
    pub gone: bool,
    /// The outbox has reached the bound of a turn: take the effects, flush, then offer the rest again at once.
    pub flush: bool,
}

/// How a connection came in.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The app that its clients belong to.
    pub app: crate::ids::AppId,
    /// The client's address.
    pub peer: std::net::SocketAddr,
    /// Whether the listener carries TLS.
    pub secure: bool,
}
