//! One session of the fleet on a thread of its own: it publishes, receives, moves between nodes and comes back after every loss.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use campanile_mqtt::{
    PacketId, Properties, QoS, SubscriptionOptions, Version,
    client::{Event, Message, Publication},
};

use super::{
    Shared,
    account::{ReceiverId, StreamId},
    superseded,
};
use crate::{
    conversation::{Conversation, kept},
    rng::Rng,
};

/// How long one look at the connection may take.
const LOOK: Duration = Duration::from_millis(20);
/// The pause after a connection that could not be made.
const RETRY: Duration = Duration::from_millis(100);
/// How long a node may take to answer CONNECT.
const CONNACK: Duration = Duration::from_secs(5);

/// Where pushes arrive.
const PUSHES: &str = "push/in";

/// What a session does.
#[derive(Clone, Debug)]
pub struct Role {
    /// Its client identifier.
    pub client_id: String,
    /// Its version of MQTT.
    pub version: Version,
    /// What it subscribes to.
    pub filters: Vec<String>,
    /// In whose name it receives.
    pub receiver: ReceiverId,
    /// In whose name it receives what it does not get alone.
    pub group: Option<ReceiverId>,
    /// What it publishes: topic, QoS and stream.
    pub publishes: Vec<(String, QoS, StreamId)>,
    /// Messages a second of each of them.
    pub rate: u32,
    /// It moves to another node, or goes away for a while, this often on average.
    pub roams: Option<Duration>,
}

/// A session.
pub struct Member {
    role: Role,
    shared: Arc<Shared>,
    rng: Rng,
    conversation: Conversation,
    /// The node of its connection.
    node: usize,
    had_session: bool,
    is_subscribed: bool,
    /// Messages under way.
    sent: HashMap<PacketId, (StreamId, usize)>,
    next_publish: Instant,
    next_roam: Instant,
}

impl Member {
    /// A session that was never connected.
    pub fn new(role: Role, shared: Arc<Shared>, seed: u64) -> Member {
        let mut rng = Rng::new(seed);
        let now = Instant::now();
        Member {
            conversation: Conversation::new(kept(&role.client_id, role.version)),
            next_roam: next_roam(&role, &mut rng, now),
            role,
            shared,
            rng,
            node: 0,
            had_session: false,
            is_subscribed: false,
            sent: HashMap::new(),
            next_publish: now,
        }
    }

    /// Lives until the fleet stops.
    pub fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            if !self.conversation.is_open() {
                let node = self.rng.below(self.shared.places.len());
                if !self.connect(node) {
                    thread::sleep(RETRY);
                    continue;
                }
            }
            self.publish_what_is_due();
            self.conversation.turn(LOOK);
            self.take_events();
            self.roam_if_due();
        }
        self.conversation.disconnect();
    }

    /// Connects, subscribes at the first time.
    fn connect(&mut self, node: usize) -> bool {
        let address = self.shared.places[node].mqtt;
        self.node = node;
        if self.conversation.dial(address, false).is_err() {
            return false;
        }
        let deadline = Instant::now() + CONNACK;
        while !self.conversation.client().is_connected() {
            let is_open = self.conversation.turn(LOOK);
            self.take_events();
            if !is_open || Instant::now() > deadline {
                self.conversation.close();
                return false;
            }
        }
        if !self.is_subscribed {
            self.subscribe();
        }
        self.conversation.is_open()
    }

    fn subscribe(&mut self) {
        if self.role.filters.is_empty() {
            self.is_subscribed = true;
            self.shared.subscribed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            ..SubscriptionOptions::default()
        };
        let filters: Vec<_> = self
            .role
            .filters
            .iter()
            .map(|filter| (filter.as_str(), options))
            .collect();
        let now = self.conversation.now();
        let asked = self
            .conversation
            .client()
            .subscribe(&filters, Properties::EMPTY, now);
        // Asked again on the next connection if this one ends before the answer.
        if asked.is_err() || self.conversation.flush().is_err() {
            self.conversation.close();
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.conversation.client().poll_event() {
            match event {
                Event::Connected {
                    session_present, ..
                } => self.on_connected(session_present),
                Event::Message(message) => self.on_message(&message),
                Event::Published {
                    packet_id, reason, ..
                } => match self.sent.remove(&packet_id) {
                    Some(_) if reason.is_error() => self.shared.account.refuse(),
                    Some((stream, number)) => self.shared.account.accept(stream, number),
                    None => {}
                },
                Event::Dropped { packet_id } => {
                    self.sent.remove(&packet_id);
                }
                Event::Subscribed { granted, .. } => {
                    if granted.iter().all(Result::is_ok) && !self.is_subscribed {
                        self.is_subscribed = true;
                        self.shared.subscribed.fetch_add(1, Ordering::Relaxed);
                    } else if !self.is_subscribed {
                        self.conversation.close();
                    }
                }
                Event::Failed(failure) => self.shared.note(format!(
                    "{} gave up its connection to node {}: {failure}",
                    self.role.client_id,
                    self.node + 1
                )),
                _ => {}
            }
        }
    }

    fn on_connected(&mut self, session_present: bool) {
        self.shared.account.connected(self.role.receiver);
        let client = &self.role.client_id;
        self.shared
            .note(format!("{client} is at node {}", self.node + 1));
        if self.had_session && !session_present {
            let client = &self.role.client_id;
            let text = format!("the session of {client} is gone");
            self.shared.account.violate(text);
            self.is_subscribed = false;
        }
        self.had_session = true;
    }

    fn on_message(&mut self, message: &Message) {
        match stamp(message) {
            Some((stream, number)) => {
                let receiver = match self.role.group {
                    Some(group) if message.topic != PUSHES => group,
                    _ => self.role.receiver,
                };
                let account = &self.shared.account;
                account.receive(receiver, stream, number, message.dup);
            }
            None => self.shared.account.violate(format!(
                "{} got what nobody sent: {} {:?}",
                self.role.client_id,
                message.topic,
                String::from_utf8_lossy(&message.payload)
            )),
        }
    }

    fn publish_what_is_due(&mut self) {
        if self.role.publishes.is_empty()
            || !self.shared.sending.load(Ordering::Relaxed)
            || Instant::now() < self.next_publish
        {
            return;
        }
        self.next_publish = Instant::now() + Duration::from_secs(1) / self.role.rate.max(1);
        for (topic, qos, stream) in self.role.publishes.clone() {
            if qos != QoS::AtMostOnce && self.conversation.client().free_window() == 0 {
                continue;
            }
            if !self.conversation.client().is_connected() {
                return;
            }
            let number = self.shared.account.offer(stream, None);
            let payload = format!("{}:{number}", stream.0);
            let publication = Publication {
                topic: &topic,
                payload: payload.as_bytes(),
                qos,
                ..Publication::default()
            };
            let now = self.conversation.now();
            // Refused here, it was never sent: its number stays unused.
            let sent = self.conversation.client().publish(&publication, now);
            if let Ok(Some(packet_id)) = sent {
                self.sent.insert(packet_id, (stream, number));
            }
        }
        if self.conversation.flush().is_err() {
            self.conversation.close();
        }
    }

    fn roam_if_due(&mut self) {
        let now = Instant::now();
        if now < self.next_roam || !self.is_subscribed {
            return;
        }
        self.next_roam = next_roam(&self.role, &mut self.rng, now);
        match self.rng.below(4) {
            // Elsewhere, while the old connection is open.
            0 | 1 => self.take_over(),
            2 => self.conversation.close(),
            _ => {
                self.conversation.disconnect();
                thread::sleep(Duration::from_millis(self.rng.between(10, 600)));
            }
        }
    }

    fn take_over(&mut self) {
        if !self.conversation.client().is_connected() {
            return;
        }
        self.shared.note(format!("{} moves", self.role.client_id));
        let Some(stream) = self.conversation.abandon() else {
            return;
        };
        let count = self.shared.places.len();
        let node = (self.node + 1 + self.rng.below(count.max(2) - 1)) % count;
        if self.connect(node) {
            let watcher = superseded::watch(
                stream,
                self.shared.account.clone(),
                &self.role.client_id,
                self.shared.stop.clone(),
            );
            self.shared.watchers().push(watcher);
        }
    }
}

fn next_roam(role: &Role, rng: &mut Rng, now: Instant) -> Instant {
    match role.roams {
        None => now + Duration::from_secs(24 * 3600),
        Some(every) => now + every.mul_f64(0.25 + rng.below(1500) as f64 / 1000.0),
    }
}

/// Which message it is: `STREAM:NUMBER`, in a push as `data.stamp`.
fn stamp(message: &Message) -> Option<(StreamId, usize)> {
    let payload = std::str::from_utf8(&message.payload).ok()?;
    let of = |text: &str| {
        let (stream, number) = text.split_once(':')?;
        Some((StreamId(stream.parse().ok()?), number.parse().ok()?))
    };
    if message.topic != PUSHES {
        return of(payload);
    }
    let push: serde_json::Value = serde_json::from_str(payload).ok()?;
    of(push["data"]["stamp"].as_str()?)
}
