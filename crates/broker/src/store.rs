//! The port to durable state: what the shards ask, as data.
//!
//! A shard does no IO. It emits [`Command`]s (writes) and [`Query`]s (reads) and gets [`Outcome`]s and [`Page`]s back, in any
//! order among different requests. A command is atomic; its outcome arrives only once it is durable. Commands of one shard are applied
//! in the order in which it emitted them. After each commit the backend announces what was added as [`Notice`]s, in commit order, before it
//! delivers the outcomes: notices are how a message reaches the shards that serve it.
//!
//! One port instead of one per kind of state, because a group commit spans them: the receipt, the cursor and the inbox entry of one
//! acknowledgement become durable together or not at all. `campanile-backends` has the in-memory model, the
//! embedded store, and the suite that both pass.
//!
//! Fencing: a command that carries an [`Epoch`] is refused with [`StoreError::Fenced`] when the session was claimed since.

mod cluster;

use std::sync::Arc;

use bytes::Bytes;

pub use self::cluster::{
    Change, ChangeEntry, Changes, ChangesQuery, DurableMember, LogNews, Note, Previous,
    SessionState, Snapshot, Voided,
};
pub use campanile_mqtt::{PacketId, QoS, RetainHandling, SubscriptionOptions};
use smallvec::SmallVec;

use crate::{
    ids::{AppId, ClientKey, ConnId, Epoch, Generation, MessageId, Millis, Offset, ShardId},
    lane::{Lane, LaneSet},
    message::Message,
};

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The session was claimed by a later connection; the caller's copy of it is void. Nothing of the request happened.
    #[error("the session was claimed by a later connection")]
    Fenced,
    /// The store cannot write now (disk full, Redis gone); a retry may succeed. Nothing of the request happened.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The store did not answer in time: the request may have been carried out, or may still be. Whoever asked must be told neither yes nor no.
    #[error("the store did not answer: {0}")]
    Unknown(Arc<str>),
}

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A client connects: take its session, or make one. Answered by [`Outcome::Claimed`].
    Claim(Claim),
    /// A durable session's subscriptions change: SUBACK and UNSUBACK wait for it.
    Subscribe(Subscribe),
    /// What a session has sent and what was acknowledged. QoS 2 sends wait for it, everything else is lazy.
    Progress(Progress),
    /// What the connection did that had the client before the claim of this epoch, from its node. Fenced once the new owner has saved anything: what
    /// comes later than that would set the session back.
    HandOver(Progress),
    /// The connection is gone: progress is saved and the session begins to expire, or ends.
    Release(Release),
    /// Keep a message: in the topic log, in inboxes, as retained. PUBACK and PUBREC wait for it.
    Publish(Publish),
    /// PUBREL arrived: the identifier may be used for a new message. PUBCOMP waits for it.
    ForgetReceived {
        /// The publisher.
        client: ClientKey,
        /// Its epoch.
        epoch: Epoch,
        /// Identifier of the QoS 2 exchange that ended.
        packet_id: PacketId,
    },
    /// A device tells the push domain something: PUBACK and PUBREC wait for it. Answered by [`Outcome::Nothing`] if it cannot be understood.
    Tell(Tell),
    /// A will was published another way or is void: drop it.
    DropWill {
        /// Whose will.
        client: ClientKey,
    },
    /// Remove what has expired by now: sessions, messages, logs past their retention, idempotency keys. Answered by [`Outcome::Swept`].
    /// Work is bounded: at most `limit` removals; `Swept::more` says whether some are left.
    Sweep {
        /// The current time.
        now: Millis,
        /// Upper bound of removals in this commit.
        limit: u32,
    },
    /// Remove what is kept of an app, whoever is connected: sessions, messages, logs, inboxes, reports and rows. Answered by [`Outcome::Swept`], whose sessions ended without
    /// their wills. Repeated until `Swept::more` is false, nothing is left but where its sequences stand.
    Erase {
        /// The app.
        app: AppId,
        /// The current time.
        now: Millis,
        /// About how many removals in this commit.
        limit: u32,
    },
    /// The node has registered anew while it was serving: a session that it still holds is from now on that of its new generation. Fenced if the
    /// session was claimed since.
    Restamp {
        /// Whose session.
        client: ClientKey,
        /// Its epoch.
        epoch: Epoch,
        /// The new generation.
        generation: Generation,
    },
    /// A node is gone: its connections count as lost at `now`, what ends with a connection ends. Repeating it is harmless. Answered by [`Outcome::Voided`].
    Void {
        /// Of the node that is gone.
        generation: Generation,
        /// The current time.
        now: Millis,
        /// Connections that are looked at, at most.
        limit: u32,
    },
}

/// The claim of a session by a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Who connects.
    pub client: ClientKey,
    /// The run of the node that the client connects to.
    pub owner: Generation,
    /// The current time; a session that expired before is treated as absent.
    pub now: Millis,
    /// Discard an existing session first. Its undelivered pushes stay, since they belong to the device (ADR 3).
    pub clean_start: bool,
    /// Session Expiry Interval: how long the session outlives the connection; `u32::MAX` is for ever. Above 0 the session is *durable*: only
    /// then, or with a will, is a record written. A client that was connected when the node ended begins to expire when the store is next opened.
    pub expiry_seconds: u32,
    /// Published if the connection, or the node, ends without a DISCONNECT.
    pub will: Option<Will>,
}

/// A will as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    /// The message to publish. Its `id` is given at CONNECT and names the will; the message is published with one of that moment.
    /// `expires_at` is unset: the interval counts from the publication.
    pub message: Arc<Message>,
    /// Seconds from the loss of the connection to the publication.
    pub delay_seconds: u32,
    /// Message Expiry Interval, counted from the publication.
    pub expiry_seconds: Option<u32>,
}

/// A subscription as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSubscription {
    /// The topic filter as the client gave it, with `$share/...`.
    pub filter: Arc<str>,
    /// Granted options.
    pub options: SubscriptionOptions,
    /// Subscription Identifier, 1..=268435455.
    pub id: Option<u32>,
    /// Messages with a smaller id were published before it.
    pub since: MessageId,
}

/// A change of a durable session's subscriptions. With the first that is added, its cursors in the topic logs start at their ends of that commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// Whose.
    pub client: ClientKey,
    /// Its epoch.
    pub epoch: Epoch,
    /// Added, or replaced where the filter is there already.
    pub add: Vec<StoredSubscription>,
    /// Filters to remove.
    pub remove: Vec<Arc<str>>,
    /// Retained messages that the new subscriptions are owed, put into the inbox in the same commit.
    pub inbox: Vec<InboxItem>,
}

/// Which log of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogKind {
    /// Pushes to audiences.
    Push,
    /// QoS 1 and 2 publishes that a durable session may need, by partition of topics.
    Topic(u8),
}

/// Where an outgoing message was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A log of the client's app.
    Log(LogKind),
    /// The client's own inbox.
    Inbox,
    /// A campaign: the push. It has no place.
    Campaign(MessageId),
}

/// How far a session has got in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which log.
    pub log: LogKind,
    /// Everything up to here is done with.
    pub done: Offset,
    /// Entries above `done` that are done with too, ascending; bounded by the in-flight window.
    pub done_above: Vec<Offset>,
}

/// An outgoing QoS 1 or 2 exchange that is not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Its identifier, kept for the re-delivery.
    pub packet_id: PacketId,
    /// Where the message is.
    pub source: Source,
    /// Its place there.
    pub offset: Offset,
    /// Quality of service of the delivery.
    pub qos: QoS,
    /// QoS 2 only: PUBREC has arrived, what is to be sent again is PUBREL.
    pub released: bool,
}

/// What a session did since its last save. Everything in it becomes durable together.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Whose.
    pub client: ClientKey,
    /// Its epoch.
    pub epoch: Epoch,
    /// The device's number, for the receipts.
    pub ordinal: u32,
    /// All cursors, replacing the stored ones (that of the push log stays if it is left out); `None`: unchanged. Stored only for durable sessions.
    pub cursors: Option<Vec<Cursor>>,
    /// All unfinished exchanges in the order of sending, replacing the stored ones; `None`: unchanged. Only for durable sessions.
    pub unfinished: Option<Vec<Unfinished>>,
    /// Inbox entries to remove: acknowledged or expired.
    pub inbox_done: Vec<Offset>,
    /// Pushes that the device acknowledged. Applied even if the epoch is old: a receipt is a fact.
    pub receipts: Vec<MessageId>,
    /// Pushes that the device will not get, and why, as a code of the push domain. Applied as receipts are.
    pub settled: Vec<(MessageId, u8)>,
    /// What the device remembers of campaigns, replacing the stored one; `None`: unchanged. Stored for a device with a durable session and for one that has a
    /// profile.
    pub memory: Option<Bytes>,
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// Last progress.
    pub progress: Progress,
    /// The session ends now if not later than `now`; `None`: never expires.
    pub expires_at: Option<Millis>,
    /// The current time.
    pub now: Millis,
    /// Whether the will is owed, and from when. `None`: it is dropped.
    pub will_at: Option<Millis>,
}

/// A message to keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// The app whose logs, inboxes and retained messages are meant.
    pub app: AppId,
    /// The message. Appending one whose id the exchange in `received` has stored already changes nothing.
    pub message: Arc<Message>,
    /// Append to this log.
    pub log: Option<LogKind>,
    /// Filters of durable sessions that the topic matches: with each, the entry is found by [`Query::Matching`]. More than
    /// [`MAX_POSTED_FILTERS`] count as all filters there are.
    pub filters: Vec<Arc<str>>,
    /// Append to these clients' inboxes (shared subscriptions); one without a session is passed over.
    pub inboxes: Vec<(Arc<str>, InboxItem)>,
    /// Retain it under its topic; an empty payload removes what is retained there.
    pub retain: bool,
    /// QoS 2 from a durable session: remember the identifier in the same commit.
    pub received: Option<Received>,
    /// It is this client's will, or one that is owed of it, stored with a message of that id: drop it in the same commit; if no such will is
    /// stored, change nothing.
    pub spends_will: Option<(Arc<str>, MessageId)>,
    /// The connection that waits for its acknowledgement. Nothing that it sent later is kept if this is not and the connection is closed for that.
    pub sender: Option<Sender>,
}

/// A connection of a node, by whose order messages are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its shard.
    pub shard: ShardId,
    /// The connection.
    pub conn: ConnId,
    /// It can be told that a message was not kept (MQTT 5.0), and goes on.
    pub hears_refusals: bool,
}

impl Sender {
    /// Whether the shard closes it when a message of it was not kept for this reason. There is no way to say no before 5.0, nor to say "perhaps": without an
    /// acknowledgement the client sends it again after a reconnect.
    pub fn is_closed_by(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Unknown(_) => true,
            StoreError::Unavailable(_) | StoreError::Fenced => !self.hears_refusals,
        }
    }
}

/// A log entry that matches more filters is found with every filter.
pub const MAX_POSTED_FILTERS: usize = 16;

/// Among [`Publish::filters`]: the entry is found with every filter.
pub const ALL_FILTERS: &str = "";

/// What a device tells the push domain, which alone knows what it means. Telling it twice changes nothing, so that no quality of service needs more
/// than to carry it out again. Nor does the epoch matter: what has happened on a screen is a fact.
#[derive(Clone, Debug, PartialEq)]
pub struct Tell {
    /// The device.
    pub client: ClientKey,
    /// Its number, for the receipts.
    pub ordinal: u32,
    /// What is told.
    pub payload: Bytes,
}

/// An incoming QoS 2 exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The publisher.
    pub client: ClientKey,
    /// Its epoch.
    pub epoch: Epoch,
    /// Identifier of the PUBLISH.
    pub packet_id: PacketId,
}

/// A message addressed to one client.
#[derive(Clone, Debug, PartialEq)]
pub struct InboxItem {
    /// The message.
    pub message: Arc<Message>,
    /// Quality of service of the delivery.
    pub qos: QoS,
    /// Retain flag of the delivery.
    pub retain: bool,
    /// Subscription identifiers of the delivery.
    pub subscription_ids: SmallVec<[u32; 1]>,
    /// The lane of the inbox in which it waits.
    pub lane: Lane,
}

/// An entry of an inbox.
#[derive(Clone, Debug, PartialEq)]
pub struct InboxEntry {
    /// Its place; comparable with places in the app's push log: the smaller was accepted earlier.
    pub offset: Offset,
    /// What is to be delivered.
    pub item: InboxItem,
}

/// An entry of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// Its place.
    pub offset: Offset,
    /// The message.
    pub message: Arc<Message>,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done and durable.
    Done,
    /// Of [`Command::Claim`].
    Claimed(Box<Claimed>),
    /// Of [`Command::Sweep`] and [`Command::Erase`].
    Swept(Swept),
    /// Of [`Command::Void`].
    Voided(Voided),
    /// Of a [`Publish`] whose will was spent or void, or of a [`Tell`] that nobody understands: nothing happened.
    Nothing,
    /// Of a [`Statement`](crate::effects::Statement) that is refused: the device is told this on `push/ctl`. Nothing happened.
    Told(Bytes),
    /// Of a [`Statement`](crate::effects::Statement) about a log: the device has pushes up to this place and is replayed what comes after; `None`: it is told how far it has got.
    Sync(Option<Offset>),
}

/// A session as its new owner gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The new epoch.
    pub epoch: Epoch,
    /// The device's number within its app.
    pub ordinal: u32,
    /// The stored session that goes on; `None` after clean start, expiry, or for a new client.
    pub resumed: Option<Resumed>,
    /// Filters of a session that ended by this claim (clean start or expiry).
    pub ended_filters: Vec<Arc<str>>,
    /// The will that was stored and is due, to be published now: because the session ended by this claim or before it, or because its delay had
    /// passed. That of a connection which this claim takes over counts too, unless its session goes on and its delay is not 0. It stays stored
    /// until a [`Publish`] spends it, but no later claim gives it out again.
    pub owed_will: Option<Will>,
    /// Where the push log stands for this device: its kept cursor, or the log's end for a new device.
    pub push_cursor: Cursor,
    /// The end of each topic log partition now. Indexed by partition.
    pub topic_ends: Vec<Offset>,
    /// Lanes of the inbox that hold anything.
    pub inbox_waiting: LaneSet,
    /// The client's connection that this claim takes over, if the store knows of one.
    pub previous: Option<Previous>,
    /// What the push domain knows of the device.
    pub profile: Option<Bytes>,
    /// What the device remembers of campaigns, opaque here.
    pub memory: Option<Bytes>,
    /// The device had no place in the push log before this claim: what was pushed earlier is not for it.
    pub begins: bool,
    /// The app's last change at that time: the profile is older than what a later one says.
    pub changes: Offset,
}

/// State of a session that goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resumed {
    /// Its subscriptions.
    pub subscriptions: Vec<StoredSubscription>,
    /// Cursors of topic logs.
    pub cursors: Vec<Cursor>,
    /// Outgoing exchanges to take up again, in the order of their first sending.
    pub unfinished: Vec<Unfinished>,
    /// Identifiers of incoming QoS 2 messages that are stored and not yet released.
    pub received: Vec<PacketId>,
}

/// What a sweep removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Swept {
    /// Sessions that ended, with their filters.
    pub ended: Vec<(ClientKey, Vec<Arc<str>>)>,
    /// Retained messages that expired are announced as notices; this counts all removals.
    pub removed: u32,
    /// There is more to remove.
    pub more: bool,
    /// Wills that were due a while ago and that nobody has published: whoever sweeps publishes them.
    pub wills: Vec<OwedWill>,
}

/// A read. Answered by a [`Page`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Entries of a log after an offset, ascending.
    Log {
        /// The app.
        app: AppId,
        /// Which log.
        log: LogKind,
        /// Read from the first entry after this.
        after: Offset,
        /// At most this many entries; backends also stop after about 1 MiB, but return at least one.
        limit: u32,
    },
    /// Entries of a topic log after an offset that were kept for one of these filters, ascending; there may be some that match none of them. Costs in
    /// proportion to what matches and to the number of filters, not to the length of the log. Answered by [`Page::Log`].
    Matching {
        /// The app.
        app: AppId,
        /// Which log.
        log: LogKind,
        /// The filters, as in [`Publish::filters`].
        filters: Vec<Arc<str>>,
        /// Read from the first entry after this.
        after: Offset,
        /// At most this many entries, bounded as with [`Query::Log`].
        limit: u32,
    },
    /// Single entries of logs and the inbox, for a re-delivery. What comes from a log has the quality of service and retain flag of the message.
    Entries {
        /// Whose.
        client: ClientKey,
        /// Which ones.
        places: Vec<(Source, Offset)>,
    },
    /// Entries of a lane of a client's inbox after an offset, ascending.
    Inbox {
        /// Whose.
        client: ClientKey,
        /// Which lane.
        lane: Lane,
        /// Read from the first entry after this.
        after: Offset,
        /// At most this many entries; backends also stop after about 1 MiB, but return at least one.
        limit: u32,
    },
    /// A stored session, as it is now. Answered by [`Page::Session`].
    Session {
        /// Whose.
        client: ClientKey,
    },
    /// What other nodes did. Answered by [`Page::Changes`].
    Changes(ChangesQuery),
    /// What a node must know of an app. Answered by [`Page::Snapshot`].
    Snapshot {
        /// The app.
        app: AppId,
    },
    /// Profiles of devices as they are now. Answered by [`Page::Profiles`].
    Profiles {
        /// The app.
        app: AppId,
        /// The devices.
        clients: Vec<Arc<str>>,
    },
}

/// Answer to a [`Query`]. It tells only of what is durable, as outcomes do: what may yet be lost is left out, or the read fails.
#[derive(Clone, Debug, PartialEq)]
pub enum Page {
    /// Of [`Query::Log`].
    Log {
        /// The entries.
        entries: Vec<LogEntry>,
        /// The place up to which the log was read, at least that of the last entry: behind `after` and up to here nothing else was to be found.
        read_to: Offset,
        /// The log was trimmed past `after`: entries may have been lost to this reader.
        gap: bool,
    },
    /// Of [`Query::Entries`]: what is still there, in the order asked for.
    Entries(Vec<((Source, Offset), InboxItem)>),
    /// Of [`Query::Inbox`].
    Inbox {
        /// The entries.
        entries: Vec<InboxEntry>,
        /// Whether there are more.
        more: bool,
        /// Lanes of the inbox that hold anything, read or not.
        lanes: LaneSet,
    },
    /// Of [`Query::Session`]; `None`: there is no stored session.
    Session(Option<Box<SessionState>>),
    /// Of [`Query::Changes`].
    Changes(Box<Changes>),
    /// Of [`Query::Snapshot`].
    Snapshot(Box<Snapshot>),
    /// Of [`Query::Profiles`].
    Profiles {
        /// One for each device, in the order asked for.
        profiles: Vec<Option<Bytes>>,
        /// The app's last change at that time.
        changes: Offset,
    },
}

/// What a commit added, for the shards that serve it.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// To all shards: a log has a new entry.
    Log {
        /// The app.
        app: AppId,
        /// Which log.
        log: LogKind,
        /// The entry before it.
        previous: Offset,
        /// The entry.
        entry: LogEntry,
        /// If it has an audience, the app's last change before it: who does not know that one cannot judge whom the entry is for. Otherwise 0.
        changes: Offset,
    },
    /// To the client's shard: its inbox has a new entry.
    Inbox {
        /// Whose.
        client: ClientKey,
        /// The run of the node that has the client's connection; a node alone is its own.
        owner: Generation,
        /// The entry before it in this lane of the inbox, which tells whether the one who reads it has missed any. 0: there is none, or only one node
        /// writes.
        previous: Offset,
        /// The entry.
        entry: InboxEntry,
        /// An older entry of the inbox that it took the place of, and that is to be sent no more.
        replaced: Option<Offset>,
    },
    /// To all shards: something changed that is routed by.
    Change {
        /// The app.
        app: AppId,
        /// The change before it. The store of a node alone announces only what is retained, profiles and campaigns.
        previous: Offset,
        /// Its place.
        offset: Offset,
        /// What changed.
        change: Change,
    },
    /// To all shards: a push with a TTL of 0 for whoever is connected now. Not stored.
    Instant {
        /// The app.
        app: AppId,
        /// To whom; `None`: to the message's audience.
        clients: Option<Arc<[Arc<str>]>>,
        /// The message.
        message: Arc<Message>,
    },
}

/// What a node must know before it serves, read once at start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovery {
    /// Filters of all durable sessions, with whose they are.
    pub sessions: Vec<(ClientKey, Vec<StoredSubscription>)>,
    /// Wills of clients that were connected when the last node run ended (`at` is `None`), whose delay runs, or that a claim gave out and
    /// nobody has published.
    pub wills: Vec<OwedWill>,
    /// All retained messages.
    pub retained: Vec<(AppId, Arc<Message>)>,
    /// The last offset of each log.
    pub log_ends: Vec<(AppId, LogKind, Offset)>,
    /// Rows of campaigns and of pushes that ended before their time.
    pub campaigns: Vec<(AppId, MessageId, Bytes)>,
}

/// A will that outlived its node.
#[derive(Clone, Debug, PartialEq)]
pub struct OwedWill {
    /// Whose.
    pub client: ClientKey,
    /// The will.
    pub will: Will,
    /// When it is due; `None`: its connection was up when the node ended, its delay starts now.
    pub at: Option<Millis>,
    /// When the session ends, which makes the will due too. `None`: it does not expire.
    pub session_expires_at: Option<Millis>,
    /// A claim gave it out already: that the client comes back changes nothing.
    pub is_final: bool,
}
