//! What waits for being sent to a peer: bounded by messages and bytes.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use campanile_broker::{
    cluster::peer::{PeerMessage, Question},
    mail::Interest,
    message::Message,
    store::Change,
    store::QoS,
};
use tokio::sync::Notify;

/// Kept for the next messages when all have been taken; more is given back.
const CAPACITY_KEPT: usize = 4096;

/// Messages on their way to one peer, in order. One reader.
#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    /// Messages and bytes that are not written yet, those that the reader has taken included.
    messages: AtomicUsize,
    bytes: AtomicUsize,
    messages_max: usize,
    bytes_max: usize,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<PeerMessage>,
    closed: bool,
}

/// What became of an offered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It will be sent.
    Queued,
    /// A bound is reached.
    Full,
    /// There is no reader any more.
    Closed,
}

impl Queue {
    /// An empty queue.
    pub fn new(messages_max: usize, bytes_max: usize) -> Queue {
        Queue {
            waiting: Mutex::default(),
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            messages_max,
            bytes_max,
            filled: Notify::new(),
        }
    }

    /// Appends a message.
    pub fn offer(&self, message: PeerMessage) -> Offered {
        let weight = weight(&message);
        let mut waiting = self.lock();
        if waiting.closed {
            return Offered::Closed;
        }
        let messages = self.messages.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        // A single message may be larger than the bound: whether it may be sent is for the bound of frames to say.
        if messages >= self.messages_max || (messages > 0 && bytes + weight > self.bytes_max) {
            return Offered::Full;
        }
        let was_empty = waiting.messages.is_empty();
        waiting.messages.push_back(message);
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(weight, Ordering::Relaxed);
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
        Offered::Queued
    }

    /// Waits until there is something to take. Only the reader waits.
    pub async fn filled(&self) {
        while self.lock().messages.is_empty() {
            self.filled.notified().await;
        }
    }

    /// Exchanges what waits with `taken`, which is empty. The reader says with [`Queue::written`] when it is done with each.
    pub fn take(&self, taken: &mut VecDeque<PeerMessage>) {
        debug_assert!(taken.is_empty());
        taken.shrink_to(CAPACITY_KEPT);
        std::mem::swap(&mut self.lock().messages, taken);
    }

    /// Makes room: so many messages of that weight have left.
    pub fn written(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes nothing more, and forgets what waits.
    pub fn close(&self) {
        let messages = {
            let mut waiting = self.lock();
            waiting.closed = true;
            std::mem::take(&mut waiting.messages)
        };
        drop(messages);
    }

    /// Messages and bytes that are not written yet.
    pub fn length(&self) -> (usize, usize) {
        let messages = self.messages.load(Ordering::Relaxed);
        (messages, self.bytes.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here panics half-way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nobody was promised that this message arrives.
pub fn may_be_dropped(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Deliver { message, .. } => message.qos == QoS::AtMostOnce,
        PeerMessage::Instant { .. } => true,
        _ => false,
    }
}

/// About how many bytes a message takes, in memory and on the wire.
pub fn weight(message: &PeerMessage) -> usize {
    /// Of a message's other fields and its place in the queue.
    const BASE: usize = 128;
    let carried =
        |message: &Message| message.size_bytes() + message.publisher.as_deref().map_or(0, str::len);
    BASE + match message {
        PeerMessage::Deliver { message, .. } => carried(message),
        PeerMessage::DeliverShared {
            message,
            filter,
            client_id,
            ..
        } => carried(message) + filter.len() + client_id.len(),
        PeerMessage::Log { entry, .. } => carried(&entry.message),
        PeerMessage::Inbox { client, entry, .. } => {
            let item = &entry.item;
            carried(&item.message) + client.client_id.len() + 8 * item.subscription_ids.len()
        }
        PeerMessage::Instant {
            clients, message, ..
        } => {
            let clients = clients.iter().flat_map(|clients| clients.iter());
            carried(message) + clients.map(|id| id.len() + 32).sum::<usize>()
        }
        PeerMessage::Change { change, .. } => match change {
            Change::Retained { topic, message } => {
                topic.len() + message.as_deref().map_or(0, carried)
            }
            Change::Filter { filter, .. } => filter.len(),
            Change::Member {
                filter, client_id, ..
            } => filter.len() + client_id.len(),
            Change::Profile { client_id, profile } => {
                client_id.len() + profile.as_ref().map_or(0, |profile| profile.len())
            }
            Change::Campaign { row, .. } => row.as_ref().map_or(0, |row| row.len()),
        },
        PeerMessage::Interest { change, .. } => match change {
            Interest::Live { filter, .. } | Interest::Durable { filter, .. } => filter.len(),
            Interest::Member {
                filter, client_id, ..
            } => filter.len() + client_id.len(),
        },
        PeerMessage::Release { client, .. } => client.client_id.len(),
        PeerMessage::Ask {
            question: Question::HowMany(imagined),
            ..
        } => imagined
            .audience
            .as_ref()
            .map_or(0, |audience| audience.len()),
        PeerMessage::InterestBegins
        | PeerMessage::InterestComplete
        | PeerMessage::InterestKnown { .. }
        | PeerMessage::SharedDone { .. }
        | PeerMessage::ChangesKnown { .. }
        | PeerMessage::Released { .. }
        | PeerMessage::Ask { .. }
        | PeerMessage::Answer { .. } => 0,
    }
}
