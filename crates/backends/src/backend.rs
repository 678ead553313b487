//! The interface that servers and simulations use.

use std::sync::Arc;

use campanile_broker::{
    ids::{AppId, Millis, Offset},
    store::{self as broker, Notice, Outcome, Page, Query, Recovery, StoreError},
};
use campanile_push::store as push;

/// A write of either port.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Of the broker.
    Broker(broker::Command),
    /// Of the push domain.
    Push(push::Command),
}

/// What became of a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Request::Broker`].
    Broker(Outcome),
    /// To [`Request::Push`].
    Push(push::Outcome),
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Committed {
    /// One for each request, in the order of the requests.
    pub replies: Vec<Result<Reply, StoreError>>,
    /// What the commit added, in commit order. To be announced before the replies are delivered.
    pub notices: Vec<Notice>,
    /// Inbox entries that the quota dropped.
    pub dropped: u32,
    /// Records written or removed; 0: nothing had to become durable.
    pub writes: u32,
    /// Requests, by their place in the batch, that are answered once all nodes know the changes of an app up to one: what they changed, or, for new
    /// subscriptions, what was changed before them. Only from a store that nodes share.
    pub changed: Vec<(usize, AppId, Offset)>,
}

/// Durable state. One owner, one writer: everything goes through [`commit`](Backend::commit).
pub trait Backend: Send {
    /// Carries out the requests in their order and makes them durable together.
    ///
    /// A request that is refused changes nothing and does not disturb the others. If the commit itself fails, every request that had to write
    /// something is answered with [`StoreError::Unavailable`] and nothing of it happened; requests that need no disk (claims of clients without
    /// a durable session, unless nodes share the store) are carried out all the same.
    fn commit(&mut self, batch: Vec<Request>) -> Committed;

    /// A handle for reads, which see what is committed. It may be used from several threads, and blocks while it reads from disk.
    fn reader(&self) -> Arc<dyn Reader>;

    /// What a node must know before it serves. Called once, before the first commit: connections of the last run are treated as lost at `now`.
    /// Of a store that nodes share nothing is recovered or lost: the others go on. A node asks it for snapshots of the apps that it serves.
    fn recover(&mut self, now: Millis) -> Result<Recovery, StoreError>;

    /// Writes what is left to write and closes. A backend that is only dropped loses nothing durable, but takes longer to open again.
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Reads of both ports.
pub trait Reader: push::Reader + Send + Sync {
    /// Answers a query. What `commit` has announced is visible.
    fn read(&self, query: &Query) -> Result<Page, StoreError>;
}

impl Request {
    /// About how many bytes the request holds; what mailboxes and batches count.
    pub fn size_bytes(&self) -> usize {
        const FIXED: usize = 256;
        FIXED
            + match self {
                Request::Broker(broker::Command::Publish(publish)) => {
                    publish.message.size_bytes() + publish.inboxes.len() * FIXED
                }
                Request::Broker(broker::Command::Subscribe(subscribe)) => {
                    subscribe
                        .inbox
                        .iter()
                        .map(|item| item.message.size_bytes() + FIXED)
                        .sum::<usize>()
                        + subscribe
                            .add
                            .iter()
                            .map(|s| s.filter.len() + FIXED)
                            .sum::<usize>()
                }
                Request::Broker(broker::Command::Claim(claim)) => claim
                    .will
                    .as_ref()
                    .map_or(0, |will| will.message.size_bytes()),
                Request::Broker(broker::Command::Tell(tell)) => tell.payload.len(),
                Request::Push(push::Command::Accept(accept)) => {
                    accept.payload.len()
                        + match &accept.audience {
                            push::Audience::All => 0,
                            push::Audience::Devices(devices) => devices.len() * FIXED,
                            push::Audience::Matching(targeting) => targeting.len(),
                        }
                }
                Request::Push(push::Command::Target(target)) => target.devices.len(),
                Request::Push(push::Command::Change(change)) => change.size_bytes(),
                _ => 0,
            }
    }
}
