//! What a store that several nodes share is asked beyond what one node asks: whose a session is, what other nodes changed, what a dead node left.
//!
//! A backend of one node alone answers [`Query::Changes`](super::Query::Changes) and its kin with
//! [`StoreError::Unavailable`](super::StoreError::Unavailable); nobody asks it.

use std::sync::Arc;

use bytes::Bytes;
use campanile_mqtt::QoS;

use super::{Cursor, LogEntry, LogKind, OwedWill, Resumed};
use crate::{
    ids::{AppId, ClientKey, Epoch, Generation, MessageId, Millis, Offset},
    lane::{Lane, LaneSet},
    message::Message,
};

/// Who had a client's connection before a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The run of the node that holds the connection.
    pub generation: Generation,
    /// Of its claim.
    pub epoch: Epoch,
}

/// Answer to [`Command::Void`](super::Command::Void).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Voided {
    /// Wills of clients that were connected there. They are the caller's to publish when they are due; should it die before, a later
    /// [`Swept::wills`](super::Swept::wills) gives them to somebody else.
    pub wills: Vec<OwedWill>,
    /// Sessions that ended with the connection, with their filters.
    pub ended: Vec<(ClientKey, Vec<Arc<str>>)>,
    /// There is more: ask again.
    pub more: bool,
}

/// A change that every node must know of, since it routes by it. A node alone hears of what is retained, of profiles and of campaigns only. The changes of an app form a log with places of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// What is retained under a topic.
    Retained {
        /// The topic.
        topic: Arc<str>,
        /// The message, or `None` if nothing is retained there any more.
        message: Option<Arc<Message>>,
    },
    /// The first durable session with this filter subscribed, or the last one is gone. Shared subscriptions are [`Change::Member`]s.
    Filter {
        /// The filter.
        filter: Arc<str>,
        /// Whether there are such sessions.
        present: bool,
    },
    /// A durable session joined a shared subscription, changed its options, or left it.
    Member {
        /// The whole filter, `$share/group/filter`.
        filter: Arc<str>,
        /// Whose session.
        client_id: Arc<str>,
        /// What was granted, or `None` if it left.
        member: Option<DurableMember>,
    },
    /// What the push domain knows of a device: by this, pushes to audiences find it. No [`Snapshot`] has it: a claim brings it, and
    /// [`Query::Profiles`](super::Query::Profiles).
    Profile {
        /// The device.
        client_id: Arc<str>,
        /// Its profile, opaque here, or `None` if there is none any more.
        profile: Option<Bytes>,
    },
    /// What the push domain says of a push beside its message: that it is a campaign, or that it ended before its time.
    Campaign {
        /// The push.
        push: MessageId,
        /// The row, opaque here, or `None` if there is none any more.
        row: Option<Bytes>,
    },
}

/// A durable session in a shared subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurableMember {
    /// Granted quality of service.
    pub qos: QoS,
    /// Subscription identifier.
    pub subscription_id: Option<u32>,
    /// Retain As Published.
    pub retain_as_published: bool,
}

/// A [`Change`] and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeEntry {
    /// The place.
    pub offset: Offset,
    /// The change.
    pub change: Change,
}

/// What of an app is new since: [`Query::Changes`](super::Query::Changes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangesQuery {
    /// The app.
    pub app: AppId,
    /// The last change that is known.
    pub changes: Offset,
    /// The last entry that is known of each log.
    pub logs: Vec<(LogKind, Offset)>,
    /// Whose mailbox to read, and the last note that is known; earlier notes are removed.
    pub mailbox: Generation,
    /// See there.
    pub notes: Offset,
    /// At most this many of each kind; backends also stop after about 1 MiB.
    pub limit: u32,
}

/// Answer to a [`ChangesQuery`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// The store's clock: what all nodes set theirs by.
    pub now: Millis,
    /// Changes, ascending, each following the one before without a gap.
    pub changes: Vec<ChangeEntry>,
    /// Changes were forgotten before they were read: only a [`Snapshot`] helps.
    pub changes_lost: bool,
    /// Of each log asked for: its entries, ascending and without a gap.
    pub logs: Vec<LogNews>,
    /// Notes for the node, ascending.
    pub notes: Vec<Note>,
    /// Notes were forgotten before they were read: any inbox may have new entries.
    pub notes_lost: bool,
    /// Generations that own connections, or did and were not voided.
    pub owners: Vec<Generation>,
    /// A limit was reached: ask again at once.
    pub more: bool,
}

/// News of one log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogNews {
    /// Which.
    pub log: LogKind,
    /// Entries after the known one.
    pub entries: Vec<LogEntry>,
    /// The log ends before what is known: the store lost the end of it.
    pub went_back: bool,
}

/// Word for a node of a client of its.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The note's place in the mailbox.
    pub offset: Offset,
    /// Who.
    pub client: ClientKey,
    /// Its inbox has an entry at this place; 0: it was claimed through another node, and the connection here has lost its session.
    pub entry: Offset,
    /// The lane of that entry.
    pub lane: Lane,
}

/// What a node must know of an app before it serves it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The last change that it contains.
    pub changes: Offset,
    /// All retained messages.
    pub retained: Vec<Arc<Message>>,
    /// Filters of durable sessions, without shared ones.
    pub filters: Vec<Arc<str>>,
    /// Durable members of shared subscriptions: whole filter, client, what was granted.
    pub members: Vec<(Arc<str>, Arc<str>, DurableMember)>,
    /// Rows of campaigns and of pushes that ended before their time.
    pub campaigns: Vec<(MessageId, Bytes)>,
    /// The last entry of each log.
    pub log_ends: Vec<(LogKind, Offset)>,
    /// The store's clock.
    pub now: Millis,
}

/// A stored session as it is now: [`Query::Session`](super::Query::Session).
#[derive(Clone, Debug, PartialEq)]
pub struct SessionState {
    /// Of its last claim.
    pub epoch: Epoch,
    /// Whose connection it serves; `None`: it is away.
    pub owner: Option<Generation>,
    /// Subscriptions, cursors of topic logs, exchanges.
    pub state: Resumed,
    /// Where the push log stands for the device.
    pub push_cursor: Cursor,
    /// Lanes of the inbox that hold anything.
    pub inbox_waiting: LaneSet,
    /// As of a [`Claimed`](super::Claimed).
    pub memory: Option<Bytes>,
}
