//! What nodes tell each other. Order between two nodes is kept while their link is up; what was under way when it breaks is lost.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use crate::{
    ids::{AppId, ClientKey, Epoch, MessageId, Millis, Offset},
    mail::Interest,
    message::Message,
    store::{Change, InboxEntry, LogEntry, LogKind},
};

/// A message to one peer.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// All interest of the sender follows anew, ended by [`PeerMessage::InterestComplete`]; what was known before is void. First on every link.
    InterestBegins,
    /// A filter got its first live subscriber at the sender, or lost its last one; or a member of a shared subscription came, changed or went there.
    /// Never [`Interest::Durable`]: the store announces that.
    Interest {
        /// The app.
        app: AppId,
        /// What changed.
        change: Interest,
        /// Comes back in [`PeerMessage::InterestKnown`]; 0: nobody waits.
        ticket: u64,
    },
    /// See [`PeerMessage::InterestBegins`].
    InterestComplete,
    /// The sender routes by the interest of that ticket.
    InterestKnown {
        /// Of the interest.
        ticket: u64,
    },
    /// A live message that the receiver has subscribers for.
    Deliver {
        /// The app.
        app: AppId,
        /// The message.
        message: Arc<Message>,
    },
    /// A live message for one member of a shared subscription, whose connection the receiver has.
    DeliverShared {
        /// The app.
        app: AppId,
        /// The message.
        message: Arc<Message>,
        /// The whole filter, `$share/...`.
        filter: Arc<str>,
        /// The member.
        client_id: Arc<str>,
        /// Comes back in [`PeerMessage::SharedDone`]; until then the sender keeps the message for another member. 0: nobody waits.
        ticket: u64,
    },
    /// A member has taken the message of that ticket, or it was passed on.
    SharedDone {
        /// Of the delivery.
        ticket: u64,
    },
    /// A log got an entry through the sender.
    Log {
        /// The app.
        app: AppId,
        /// Which log.
        log: LogKind,
        /// The entry before it.
        previous: Offset,
        /// The entry.
        entry: LogEntry,
        /// As in [`Notice::Log`](crate::store::Notice::Log).
        changes: Offset,
    },
    /// Something changed through the sender.
    Change {
        /// The app.
        app: AppId,
        /// The change before it.
        previous: Offset,
        /// Its place.
        offset: Offset,
        /// What changed.
        change: Change,
    },
    /// The sender routes by all changes of an app up to here.
    ChangesKnown {
        /// The app.
        app: AppId,
        /// The last one.
        offset: Offset,
    },
    /// A client that is connected to the receiver got something into its inbox.
    Inbox {
        /// Whose.
        client: ClientKey,
        /// The entry before it in this lane of the inbox.
        previous: Offset,
        /// The entry.
        entry: InboxEntry,
        /// An older entry that it took the place of.
        replaced: Option<Offset>,
    },
    /// A push for whoever is connected now.
    Instant {
        /// The app.
        app: AppId,
        /// To whom; `None`: to the message's audience.
        clients: Option<Arc<[Arc<str>]>>,
        /// The message.
        message: Arc<Message>,
    },
    /// The sender has claimed a client that is connected to the receiver: close that connection, save what it did under the new epoch, answer.
    Release {
        /// Who.
        client: ClientKey,
        /// Of the sender's claim.
        epoch: Epoch,
        /// The session goes on; otherwise a new one has begun.
        resumes: bool,
        /// Comes back in [`PeerMessage::Released`].
        ticket: u64,
    },
    /// The connection is closed, and what it did is stored.
    Released {
        /// Of the release.
        ticket: u64,
    },
    /// A question about the receiver's connections. Answered by [`PeerMessage::Answer`].
    Ask {
        /// Comes back with the answer.
        ticket: u64,
        /// The question.
        question: Question,
    },
    /// The answer to a question.
    Answer {
        /// Of the question.
        ticket: u64,
        /// The answer.
        answer: Answer,
    },
}

/// A question about a node's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether a client is connected there.
    WhereIs(ClientKey),
    /// The same, and its connection is closed.
    Kick(ClientKey),
    /// How many are.
    Load,
    /// How many of its connected devices a push would be for.
    HowMany(Imagined),
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The client's connection, if it is there.
    Here(Option<Connected>),
    /// Figures of the node.
    Load(Load),
    /// The devices that it would be for.
    ThisMany(LiveCount),
}

/// A push that nobody makes: for how many would it be?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imagined {
    /// Its app.
    pub app: AppId,
    /// An id that no push has.
    pub push: MessageId,
    /// Its audience; `None`: all.
    pub audience: Option<Bytes>,
}

/// Connected devices that a push would be for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveCount {
    /// Those with a profile; of a push to all, every one.
    pub known: u64,
    /// Those of which nothing is known.
    pub others: u64,
}

impl std::ops::AddAssign for LiveCount {
    fn add_assign(&mut self, more: LiveCount) {
        self.known += more.known;
        self.others += more.others;
    }
}

/// A connection, for operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// Of its claim.
    pub epoch: Epoch,
    /// MQTT protocol level: 3, 4 or 5.
    pub protocol_level: u8,
    /// Subscriptions.
    pub subscriptions: u32,
    /// Messages under way to it.
    pub in_flight: u32,
    /// When it connected.
    pub since: Millis,
    /// The client's address, as far as it is known.
    pub peer: Option<SocketAddr>,
    /// The first [`Connected::MAX_FILTERS`] of its topic filters.
    pub filters: Vec<Arc<str>>,
    /// Entries of the push log that it was not sent yet, whether they are for it or not; `None`: more than the node has in memory.
    pub behind: Option<u32>,
    /// Its inbox may hold something that it was not sent yet.
    pub inbox_waits: bool,
}

impl Connected {
    /// Topic filters that are told of a connection.
    pub const MAX_FILTERS: usize = 100;
}

/// Figures of a node that other nodes balance by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Connected clients.
    pub connections: u64,
    /// Connections that it can hold.
    pub capacity: u64,
}
