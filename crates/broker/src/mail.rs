//! What shards of a node tell each other.

use std::sync::Arc;

use campanile_mqtt::QoS;

use crate::{
    cluster::peer::{Connected, Imagined, LiveCount},
    ids::{AppId, ClientKey, ConnId, Epoch, Generation, Millis, Offset, ShardId},
    lane::Lane,
    message::Message,
    store::{Notice, OwedWill, Previous, Snapshot},
};

/// A message to a shard. Order between two shards is kept.
#[derive(Clone, Debug)]
pub enum Mail {
    /// Committed by the store.
    Notice(Notice),
    /// A live message that this shard has receivers for.
    Deliver {
        /// The app.
        app: AppId,
        /// The message.
        message: Arc<Message>,
    },
    /// A message for one member of a shared subscription, whose session lives here.
    DeliverShared {
        /// The app.
        app: AppId,
        /// The message.
        message: Arc<Message>,
        /// The whole filter, `$share/...`.
        filter: Arc<str>,
        /// The member.
        client_id: Arc<str>,
        /// The peer that keeps the message until a member has it, and what it calls it by.
        keeper: Option<Keeper>,
    },
    /// The sender's interest in a filter changed. Answered by [`Mail::InterestKnown`].
    Interest {
        /// Who is interested.
        from: ShardId,
        /// The app.
        app: AppId,
        /// The filter and what changed.
        change: Interest,
        /// Comes back with the answer.
        ticket: u64,
    },
    /// The other shard routes by the interest of that ticket from now on.
    InterestKnown {
        /// Of the interest.
        ticket: u64,
    },
    /// Figures for `$SYS`, made by the node: topic and value.
    Sys(Arc<[(Box<str>, Box<str>)]>),
    /// Sessions of this shard's clients that a sweep found expired, with their filters.
    Ended(Vec<(ClientKey, Vec<Arc<str>>)>),
    /// Wills of this shard's clients that nobody else publishes.
    Wills(Vec<OwedWill>),
    /// An app is being deleted: its connections end.
    Dismiss(AppId),
    /// What only nodes of a cluster say.
    Cluster(ClusterMail),
}

/// Mail between a shard and the node's [`Hub`](crate::cluster::hub::Hub).
#[derive(Clone, Debug)]
pub enum ClusterMail {
    /// To shards: the node is known by this generation from now on. Sessions of an earlier one are restamped.
    Generation(Generation),
    /// To shards: what the cluster routes by is known completely, until this time.
    KnownUntil(Millis),
    /// To the hub: messages wait until an app's news were read from the store once more. Answered by [`ClusterMail::Looked`] within a bounded time.
    Look(AppId),
    /// To shards: an app's news were read, or could not be.
    Looked {
        /// The app.
        app: AppId,
        /// What the store had at that time is known; `None`: it could not be read.
        asked: Option<Millis>,
    },
    /// To shards: a peer's live subscribers and members are void.
    PeerGone(ShardId),
    /// To shards: answer once all mail before this is taken.
    Sync {
        /// Comes back with the answer.
        ticket: u64,
    },
    /// To the hub: the answer.
    Synced {
        /// Of the question.
        ticket: u64,
    },
    /// To shards: a client's inbox has an entry at this place or before it.
    InboxWaits {
        /// Whose.
        client: ClientKey,
        /// The place.
        entry: Offset,
        /// Its lane.
        lane: Lane,
    },
    /// To shards: a client may have been claimed through another node: ask whose it is.
    Recheck(ClientKey),
    /// To shards: entries of inboxes may have come without a word: look into all of them.
    InboxesWait(AppId),
    /// To shards: all that the cluster routes by in an app, instead of what was known.
    Snapshot {
        /// The app.
        app: AppId,
        /// What is known.
        snapshot: Arc<Snapshot>,
    },
    /// To the hub: the client was connected elsewhere when it was claimed. Answered by [`ClusterMail::Released`] within a bounded time, whatever the other
    /// node does.
    ReleaseElsewhere {
        /// Who.
        client: ClientKey,
        /// Where.
        previous: Previous,
        /// Of the claim.
        epoch: Epoch,
        /// The session goes on.
        resumes: bool,
        /// Comes back with the answer.
        ticket: u64,
    },
    /// To shards: another node has claimed a client with this epoch: close its connection, save what it did under that epoch. Answered by
    /// [`ClusterMail::Released`].
    Release {
        /// Who.
        client: ClientKey,
        /// Of the other node's claim.
        epoch: Epoch,
        /// The session goes on there; otherwise a new one has begun.
        resumes: bool,
        /// Comes back with the answer.
        ticket: u64,
    },
    /// The connection is closed and stored, or the wait for that is over.
    Released {
        /// Of the request.
        ticket: u64,
    },
    /// To shards: choose another member of a shared subscription for a message whose first choice is gone.
    Redeliver {
        /// The app.
        app: AppId,
        /// The message.
        message: Arc<Message>,
        /// The whole filter.
        filter: Arc<str>,
    },
    /// To the hub: a member here has a message that a peer keeps, or it went to another member.
    SharedDone(Keeper),
    /// To shards: send up to so many clients to another node.
    Move {
        /// How many.
        count: u32,
        /// Where 5.0 clients are told to go; "": nowhere in particular.
        reference: Arc<str>,
    },
    /// To shards: new clients are sent to another node, or (`None`) are welcome again.
    Draining(Option<Arc<str>>),
    /// To shards: is a client connected here? Answered by [`ClusterMail::Here`].
    WhereIs {
        /// Who.
        client: ClientKey,
        /// Comes back with the answer.
        ticket: u64,
        /// If it is, its connection is closed.
        kick: bool,
    },
    /// To the hub: the answer.
    Here {
        /// Of the question.
        ticket: u64,
        /// The connection here, for the driver, which knows the client's address.
        conn: Option<ConnId>,
        /// What is known of it, if there is one.
        connected: Option<Connected>,
    },
    /// To shards: for how many of the connected devices would a push be? Answered by [`ClusterMail::ThisMany`].
    HowMany {
        /// The push.
        imagined: Imagined,
        /// Comes back with the answer.
        ticket: u64,
    },
    /// To the hub: the answer.
    ThisMany {
        /// Of the question.
        ticket: u64,
        /// The shard's devices.
        live: LiveCount,
    },
}

/// Who keeps a message for another member of a shared subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// The peer.
    pub peer: ShardId,
    /// Its ticket.
    pub ticket: u64,
}

/// What of a shard's interest in a filter changed.
#[derive(Clone, Debug)]
pub enum Interest {
    /// It has live subscribers, or has none any more.
    Live {
        /// The filter.
        filter: Arc<str>,
        /// Whether there are any.
        present: bool,
    },
    /// It has durable sessions with this filter, live or away, or has none any more.
    Durable {
        /// The filter.
        filter: Arc<str>,
        /// Whether there are any.
        present: bool,
    },
    /// A member of a shared subscription came, changed or went.
    Member {
        /// The whole filter, `$share/group/filter`.
        filter: Arc<str>,
        /// The member.
        client_id: Arc<str>,
        /// Its state, or `None` when it left the group.
        member: Option<Member>,
    },
}

/// A member of a shared subscription, as other shards know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it lives.
    pub shard: ShardId,
    /// Granted quality of service.
    pub qos: QoS,
    /// Its session outlives its connection.
    pub durable: bool,
    /// It is connected.
    pub live: bool,
    /// Of a connected one: when it was claimed. Of two nodes that say that it is connected there, the later claim is right. 0: an earlier version does not say.
    pub epoch: Epoch,
    /// Subscription identifier.
    pub subscription_id: Option<u32>,
    /// Retain As Published.
    pub retain_as_published: bool,
}
