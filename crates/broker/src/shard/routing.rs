//! From a message to everybody who is connected, here and on other shards, and to whoever else needs it.

use std::sync::Arc;

use campanile_mqtt::{QoS, publish::Outgoing};
use smallvec::SmallVec;

use super::{Shard, groups::Chosen};
use crate::{
    ids::{MessageId, Millis},
    mail::Mail,
    message::{Kind, Message},
    store::{ALL_FILTERS, InboxItem},
};

/// A message on its way through the routes. Made into a shared [`Message`] only when somebody must keep it.
pub(super) struct Incoming<'a> {
    pub topic: &'a str,
    pub forwarded: &'a [u8],
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    pub expires_at: Option<Millis>,
    pub publisher: Option<Arc<str>>,
    pub shared: Option<Arc<Message>>,
}

/// A live connection that a message is for, with all matching subscriptions taken together.
pub(super) struct Receiver {
    slot: u32,
    qos: QoS,
    retain_as_published: bool,
    durable: bool,
    subscription_ids: SmallVec<[u32; 2]>,
}

/// What routing found beside live receivers.
#[derive(Default)]
pub(super) struct Routed {
    /// Somebody gets it, or will.
    pub matched: bool,
    /// Filters of durable sessions, which may need it from the log.
    pub durable: Vec<Arc<str>>,
    /// Members of shared subscriptions that get it through their inbox.
    pub inboxes: Vec<(Arc<str>, InboxItem)>,
    /// Those that get it from memory once it is kept.
    pub chosen: Vec<Chosen>,
}

impl<'a> Incoming<'a> {
    /// A message that is shared already.
    pub fn of(message: &'a Arc<Message>) -> Incoming<'a> {
        Incoming {
            topic: message.topic(),
            forwarded: message.properties(),
            payload: message.payload(),
            qos: message.qos,
            retain: message.retain,
            expires_at: message.expires_at,
            publisher: message.publisher.clone(),
            shared: Some(message.clone()),
        }
    }

    /// The shared message, made on first use.
    pub fn shared_message(&mut self, id: impl FnOnce() -> MessageId) -> &Arc<Message> {
        self.shared.get_or_insert_with(|| {
            let mut message = Message::new(
                id(),
                Kind::Publish,
                self.topic,
                self.forwarded,
                self.payload,
            );
            message.qos = self.qos;
            message.retain = self.retain;
            message.expires_at = self.expires_at;
            message.publisher = self.publisher.clone();
            Arc::new(message)
        })
    }

    pub fn outgoing(&self, now: Millis) -> Outgoing<'a> {
        Outgoing {
            topic: self.topic,
            payload: self.payload,
            forwarded: self.forwarded,
            message_expiry: self
                .expires_at
                .map(|at| u32::try_from(at.since(now).div_ceil(1000)).unwrap_or(u32::MAX)),
        }
    }
}

impl Shard {
    /// Whether a QoS 1 or 2 message of this topic is kept for somebody.
    pub(super) fn needs_store(&mut self, app: u16, name: &str) -> bool {
        let mut filters = std::mem::take(&mut self.scratch.filters);
        filters.clear();
        let routes = &self.apps[usize::from(app)].routes;
        routes.matching(name, &mut filters);
        let needs = self.is_in_doubt()
            || filters.iter().any(|&ix| {
                let filter = routes.filter(ix);
                filter.durable != 0
                    || filter
                        .groups
                        .iter()
                        .any(|g| g.members.iter().any(|(_, m)| m.durable))
            })
            || {
                let mut elsewhere = false;
                routes.matching_elsewhere(name, |_, _, durable| elsewhere |= durable);
                elsewhere
            };
        filters.clear();
        self.scratch.filters = filters;
        needs
    }

    /// Sends a message to everybody who is connected, here and on other shards, and says who else needs it.
    pub(super) fn route(&mut self, app: u16, incoming: &mut Incoming<'_>) -> Routed {
        self.distribute(app, incoming, true, true)
    }

    /// Says who needs a message and picks the members of shared subscriptions that get it; sends nothing.
    pub(super) fn plan(&mut self, app: u16, incoming: &mut Incoming<'_>) -> Routed {
        self.distribute(app, incoming, false, true)
    }

    /// Sends a message that was planned for before to everybody who is connected.
    pub(super) fn route_live(&mut self, app: u16, incoming: &mut Incoming<'_>, chosen: &[Chosen]) {
        self.distribute(app, incoming, true, false);
        let (ids, now) = (self.ids.clone(), self.now);
        for chosen in chosen {
            let message = incoming.shared_message(|| ids.next(now)).clone();
            self.deliver_to_chosen(app, chosen, &message);
        }
    }

    /// `send`: to live receivers. `pick`: the members of shared subscriptions who get it.
    pub(super) fn distribute(
        &mut self,
        app: u16,
        incoming: &mut Incoming<'_>,
        send: bool,
        pick: bool,
    ) -> Routed {
        let mut routed = Routed::default();
        let mut filters = std::mem::take(&mut self.scratch.filters);
        filters.clear();
        self.apps[usize::from(app)]
            .routes
            .matching(incoming.topic, &mut filters);
        let mut remote = 0;
        let mut grouped = false;
        for &ix in &filters {
            let filter = self.apps[usize::from(app)].routes.filter(ix);
            routed.matched |=
                filter.remote != 0 || filter.durable != 0 || !filter.subscribers.is_empty();
            if filter.durable != 0 {
                routed.durable.push(filter.text.clone());
            }
            remote |= filter.remote;
            grouped |= !filter.groups.is_empty();
        }
        if self.cluster.is_some() {
            let routes = &self.apps[usize::from(app)].routes;
            routes.matching_elsewhere(incoming.topic, |filter, peers, durable| {
                routed.matched = true;
                remote |= peers;
                if durable && !routed.durable.iter().any(|known| **known == *filter) {
                    routed.durable.push(filter.into());
                }
            });
        }
        if self.is_in_doubt() && incoming.qos > QoS::AtMostOnce {
            routed.matched = true;
            routed.durable = vec![ALL_FILTERS.into()];
        }
        if send && remote != 0 {
            self.forward(app, incoming, remote);
        }
        if grouped && pick {
            self.route_to_groups(app, incoming, &filters, send, &mut routed);
        }
        if send {
            self.deliver_local(app, incoming, &filters);
        }
        filters.clear();
        self.scratch.filters = filters;
        routed
    }

    pub(super) fn forward(&mut self, app: u16, incoming: &mut Incoming<'_>, shards: u64) {
        let (ids, now) = (self.ids.clone(), self.now);
        let message = incoming.shared_message(|| ids.next(now)).clone();
        let app = self.apps[usize::from(app)].id.clone();
        for shard in (0..64).filter(|shard| shards >> shard & 1 == 1) {
            let mail = Mail::Deliver {
                app: app.clone(),
                message: message.clone(),
            };
            self.effects.mail.push((crate::ids::ShardId(shard), mail));
        }
    }

    /// From another shard, for the live subscribers here.
    pub(super) fn on_deliver(&mut self, app: u16, message: &Arc<Message>) {
        let mut filters = std::mem::take(&mut self.scratch.filters);
        filters.clear();
        self.apps[usize::from(app)]
            .routes
            .matching(message.topic(), &mut filters);
        self.deliver_local(app, &mut Incoming::of(message), &filters);
        filters.clear();
        self.scratch.filters = filters;
    }

    pub(super) fn deliver_local(
        &mut self,
        app: u16,
        incoming: &mut Incoming<'_>,
        filters: &[crate::routes::FilterIx],
    ) {
        let routes = &mut self.apps[usize::from(app)].routes;
        let mut with_subscribers = filters
            .iter()
            .filter(|&&ix| !routes.filter(ix).subscribers.is_empty());
        let Some(&first) = with_subscribers.next() else {
            return;
        };
        if with_subscribers.next().is_none() {
            let subscribers = std::mem::take(&mut routes.filter_mut(first).subscribers);
            for subscriber in &subscribers {
                let ids = [subscriber.subscription_id];
                let ids = if subscriber.subscription_id == 0 {
                    &[][..]
                } else {
                    &ids[..]
                };
                if subscriber.no_local && self.is_publisher(subscriber.slot, incoming) {
                    continue;
                }
                let qos = subscriber.qos.min(incoming.qos);
                if subscriber.durable && qos > QoS::AtMostOnce {
                    continue;
                }
                let retain = subscriber.retain_as_published && incoming.retain;
                self.deliver(subscriber.slot, incoming, qos, retain, ids);
            }
            self.apps[usize::from(app)]
                .routes
                .filter_mut(first)
                .subscribers = subscribers;
            return;
        }
        let mut receivers = std::mem::take(&mut self.scratch.receivers);
        self.gather(app, incoming, filters, &mut receivers);
        for receiver in receivers.drain(..) {
            let qos = receiver.qos.min(incoming.qos);
            if receiver.durable && qos > QoS::AtMostOnce {
                continue;
            }
            let retain = receiver.retain_as_published && incoming.retain;
            self.deliver(
                receiver.slot,
                incoming,
                qos,
                retain,
                &receiver.subscription_ids,
            );
        }
        self.scratch.receivers = receivers;
    }

    /// One receiver per connection, for several matching subscriptions [MQTT-3.3.4-2] [MQTT-3.3.5-1 in 3.1.1].
    pub(super) fn gather(
        &self,
        app: u16,
        incoming: &Incoming<'_>,
        filters: &[crate::routes::FilterIx],
        receivers: &mut Vec<Receiver>,
    ) {
        let routes = &self.apps[usize::from(app)].routes;
        for &ix in filters {
            for subscriber in &routes.filter(ix).subscribers {
                if subscriber.no_local && self.is_publisher(subscriber.slot, incoming) {
                    continue;
                }
                receivers.push(Receiver {
                    slot: subscriber.slot,
                    qos: subscriber.qos,
                    retain_as_published: subscriber.retain_as_published,
                    durable: subscriber.durable,
                    subscription_ids: Some(subscriber.subscription_id)
                        .filter(|id| *id > 0)
                        .into_iter()
                        .collect(),
                });
            }
        }
        receivers.sort_by_key(|receiver| receiver.slot);
        receivers.dedup_by(|next, kept| {
            if next.slot != kept.slot {
                return false;
            }
            kept.qos = kept.qos.max(next.qos);
            kept.retain_as_published |= next.retain_as_published;
            kept.durable |= next.durable;
            kept.subscription_ids
                .extend(next.subscription_ids.drain(..));
            true
        });
    }

    pub(super) fn is_publisher(&self, slot: u32, incoming: &Incoming<'_>) -> bool {
        match (&incoming.publisher, self.live(slot)) {
            (Some(publisher), Some(live)) => *publisher == live.client_id,
            _ => false,
        }
    }
}
