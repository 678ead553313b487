//! Sessions and subscriptions as clients know them.

use std::collections::BTreeMap;

use campanile_broker::ids::Millis;
use campanile_mqtt::{QoS, topic};

use super::{Model, Tick};

/// A session of a client, from the CONNACK that began it.
#[derive(Debug)]
pub struct Session {
    /// Which client.
    pub device: usize,
    /// It outlives its connection.
    pub durable: bool,
    /// When its client heard of it first.
    pub began_at: Millis,
    /// It is over, or may be: nothing is owed to it.
    pub over: bool,
    /// The node of its last connection, and since when it is connected there.
    pub at: Option<(usize, Tick)>,
    /// Everything it subscribed to.
    pub subscriptions: Vec<Subscription>,
    /// What arrived, by message.
    pub got: BTreeMap<usize, Got>,
    /// What arrived as retained, last by topic.
    pub retained: BTreeMap<&'static str, usize>,
    /// The newest first arrival by publisher, topic, quality of service as published and of the delivery, and the publisher's connection if that matters.
    pub newest: BTreeMap<(usize, &'static str, u8, u8, u64), usize>,
}

/// Arrivals of a message at a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Got {
    /// Without DUP, in the last era.
    pub fresh: u32,
    /// With QoS 2.
    pub exactly_once: u32,
    /// The disturbances before the connection of the last arrival.
    pub era: u64,
}

/// A subscription, from SUBSCRIBE to UNSUBACK.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// As the client gave it.
    pub filter: &'static str,
    /// The lowest quality of service that it may have now or had since it began.
    pub at_least: QoS,
    /// The highest.
    pub at_most: QoS,
    /// Not for the client's own messages.
    pub no_local: bool,
    /// SUBSCRIBE was sent.
    pub sent: Tick,
    /// SUBACK arrived.
    pub acknowledged: Option<Tick>,
    /// UNSUBSCRIBE was sent, or the subscription may not exist.
    pub leaving: Option<Tick>,
    /// UNSUBACK arrived, or a SUBACK that refused it.
    pub left: Option<Tick>,
}

/// A shared subscription.
#[derive(Debug)]
pub struct Group {
    /// The whole filter.
    pub filter: &'static str,
    /// Sessions that ever belonged to it.
    pub members: Vec<usize>,
    /// Arrivals by message: sessions, and how often with QoS 2.
    pub got: BTreeMap<usize, (Vec<usize>, u32)>,
}

impl Subscription {
    /// The filter without `$share/...`.
    pub fn behind(&self) -> &'static str {
        behind(self.filter)
    }

    /// Whether it is a shared one.
    pub fn is_shared(&self) -> bool {
        self.filter.starts_with("$share/")
    }

    /// Whether a topic name is meant.
    pub fn matches(&self, name: &str) -> bool {
        topic::matches(self.behind(), name)
    }

    /// It is certain that it exists, and has since before `then`.
    pub fn holds_since(&self, then: Tick) -> bool {
        self.leaving.is_none() && self.acknowledged.is_some_and(|at| at < then)
    }
}

/// A filter without `$share/...`.
pub fn behind(filter: &'static str) -> &'static str {
    match topic::parse_shared(filter) {
        Ok(Some((_, behind))) => behind,
        _ => filter,
    }
}

impl Model {
    /// A CONNACK says that a new session begins.
    pub fn begin_session(&mut self, device: usize, durable: bool) -> usize {
        self.sessions.push(Session {
            device,
            durable,
            began_at: Millis(0),
            over: false,
            at: None,
            subscriptions: Vec::new(),
            got: BTreeMap::new(),
            retained: BTreeMap::new(),
            newest: BTreeMap::new(),
        });
        self.sessions.len() - 1
    }

    /// A session is served by a node from now on.
    pub fn connected(&mut self, session: usize, node: usize) {
        let tick = self.next_tick();
        self.sessions[session].at = Some((node, tick));
    }

    /// A session is over, or may be.
    pub fn end_session(&mut self, session: usize) {
        self.sessions[session].over = true;
    }

    /// A session that goes on may be a new one, made by a CONNECT whose answer was lost: nothing of before is certain.
    pub fn doubt_session(&mut self, session: usize) {
        let tick = self.next_tick();
        for subscription in &mut self.sessions[session].subscriptions {
            subscription.leaving.get_or_insert(tick);
        }
        for push in &mut self.pushes {
            push.present.retain(|known| *known != session);
        }
    }

    /// SUBSCRIBE was sent.
    pub fn subscribing(&mut self, session: usize, filter: &'static str, qos: QoS, no_local: bool) {
        let tick = self.next_tick();
        let subscriptions = &mut self.sessions[session].subscriptions;
        // One whose UNSUBSCRIBE got no answer may still be there, and be changed by this.
        let mut before = None;
        for known in subscriptions.iter_mut() {
            if known.filter == filter && known.left.is_none() {
                known.at_least = known.at_least.min(qos);
                known.at_most = known.at_most.max(qos);
                before = Some((known.at_least, known.at_most));
            }
        }
        let known = subscriptions
            .iter_mut()
            .rev()
            .find(|s| s.filter == filter && s.leaving.is_none());
        match known {
            Some(known) => {
                // What changes with the answer, if it arrives, is not worth following.
                known.no_local |= no_local;
            }
            None => subscriptions.push(Subscription {
                filter,
                at_least: before.map_or(qos, |(at_least, _)| at_least.min(qos)),
                at_most: before.map_or(qos, |(_, at_most)| at_most.max(qos)),
                no_local,
                sent: tick,
                acknowledged: None,
                leaving: None,
                left: None,
            }),
        }
        if filter.starts_with("$share/") {
            let at = self.groups.iter().position(|g| g.filter == filter);
            let at = at.unwrap_or_else(|| {
                self.groups.push(Group {
                    filter,
                    members: Vec::new(),
                    got: BTreeMap::new(),
                });
                self.groups.len() - 1
            });
            if !self.groups[at].members.contains(&session) {
                self.groups[at].members.push(session);
            }
        }
    }

    /// SUBACK arrived.
    pub fn subscribed(&mut self, session: usize, filter: &str, granted: bool) {
        let tick = self.next_tick();
        let subscriptions = &mut self.sessions[session].subscriptions;
        let Some(known) = subscriptions
            .iter_mut()
            .rev()
            .find(|s| s.filter == filter && s.leaving.is_none())
        else {
            return;
        };
        if granted {
            known.acknowledged.get_or_insert(tick);
        } else if known.acknowledged.is_none() {
            // An earlier SUBSCRIBE without an answer may have been granted.
            known.leaving = Some(tick);
        }
    }

    /// UNSUBSCRIBE was sent.
    pub fn unsubscribing(&mut self, session: usize, filter: &str) {
        let tick = self.next_tick();
        let subscriptions = self.sessions[session].subscriptions.iter_mut();
        for known in subscriptions.filter(|s| s.filter == filter) {
            known.leaving.get_or_insert(tick);
        }
    }

    /// UNSUBACK arrived.
    pub fn unsubscribed(&mut self, session: usize, filter: &str, done: bool) {
        let tick = self.next_tick();
        let subscriptions = self.sessions[session].subscriptions.iter_mut();
        let mut known: Vec<_> = subscriptions.filter(|s| s.filter == filter).collect();
        if done {
            for known in known {
                if known.leaving.is_some() {
                    known.left.get_or_insert(tick);
                }
            }
        } else if let (Some(last), false) = (known.last_mut(), self.many_nodes) {
            // The server says that the subscription is still there. One of several may only not know what the store made of it.
            last.leaving = None;
        }
    }
}
