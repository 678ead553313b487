//! What shards of a node tell each other.

use std::sync::Arc;

use campanile_mqtt::QoS;

use crate::{
    ids::{AppId, ClientKey, ShardId},
    message::Message,
    store::Notice,
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
    /// Subscription identifier.
    pub subscription_id: Option<u32>,
    /// Retain As Published.
    pub retain_as_published: bool,
}
