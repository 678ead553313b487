//! What clients do of their own accord.

use campanile_broker::ids::Millis;
use campanile_mqtt::{
    Properties, PropertiesBuf, Property, QoS, Reason, RetainHandling, SubscriptionOptions,
    client::{Publication, WillMessage},
};

use super::Ends;
use crate::model::Held;

const TOPICS: &[&str] = &["a", "a/b", "a/b/c", "b", "b/c", "s/1", "s/2"];
const FILTERS: &[&str] = &[
    "a", "a/b", "a/+", "a/#", "#", "+/b", "b/#", "+", "+/+", "s/+",
];
const QOS: &[QoS] = &[
    QoS::AtMostOnce,
    QoS::AtLeastOnce,
    QoS::AtLeastOnce,
    QoS::ExactlyOnce,
    QoS::ExactlyOnce,
];

impl Ends {
    /// Whether a client that is not connected comes now, and then whether it starts anew.
    pub fn comes(&mut self, at: usize) -> Option<bool> {
        if self.clients[at].plan.lazy && !self.rng.chance(40) {
            return None;
        }
        Some(self.starts_clean(at))
    }

    /// A client that has a connection does something.
    pub fn act(&mut self, at: usize) -> Held {
        let client = &self.clients[at];
        let Some(link) = &client.link else {
            return Ok(());
        };
        if !client.machine.is_connected() || link.goodbye || link.node_closed {
            return Ok(());
        }
        let fickle = u64::from(client.plan.fickle);
        let has_no_subscription = client
            .session
            .is_none_or(|s| self.model.sessions[s].subscriptions.is_empty());
        let subscribes = if has_no_subscription { 60 } else { 12 };
        match self
            .rng
            .weighted(&[60, subscribes, fickle * 6, 2 + fickle * 2])
        {
            Some(0) => self.publish(at),
            Some(1) => self.subscribe(at),
            Some(2) => self.unsubscribe(at),
            _ => self.say_goodbye(at),
        }
    }

    /// Whether a client starts anew when it connects now.
    pub fn starts_clean(&mut self, at: usize) -> bool {
        let client = &self.clients[at];
        let never_keeps = !client.is_durable() && !client.plan.version.is_v5();
        client.must_start_clean || never_keeps || self.rng.chance(client.plan.clean)
    }

    fn publish(&mut self, at: usize) -> Held {
        let topic = *self.rng.pick(TOPICS);
        let qos = *self.rng.pick(QOS);
        let retain = self.rng.chance(50);
        let machine = &self.clients[at].machine;
        if qos > QoS::AtMostOnce && machine.free_window() == 0 {
            return Ok(());
        }
        let mut properties = PropertiesBuf::new();
        let mut expires_at = None;
        if machine.options().version.is_v5() && self.rng.chance(100) {
            let seconds = *self.rng.pick(&[5, 3600, 86_400]);
            properties.push(Property::MessageExpiry(seconds));
            expires_at = Some(self.now.plus_seconds(seconds));
        }
        let ix = self.model.publishing(at, topic, qos, retain, expires_at);
        // The larger ones are written in another way, and fill sockets.
        let padding = match self.rng.below(30) {
            0 => 5000,
            1..=3 => 300,
            _ => 0,
        };
        let clears = retain && self.rng.chance(250);
        self.model.messages[ix].clears = clears;
        self.model.messages[ix].node = self.clients[at].link.as_ref().map(|link| link.node);
        let payload = match clears {
            true => String::new(),
            false => format!("m{ix}{}", " ".repeat(padding)),
        };
        let publication = Publication {
            topic,
            payload: payload.as_bytes(),
            qos,
            retain,
            properties: properties.as_properties(),
        };
        let client = &mut self.clients[at];
        let packet_id = client
            .machine
            .publish(&publication, self.now.0)
            .expect("there is room for a valid message");
        if let Some(packet_id) = packet_id {
            client.unfinished.insert(packet_id, ix);
        }
        self.trace.note(|| {
            format!(
                "{} c{at}: m{ix} on {topic} {qos:?} {packet_id:?} retain {retain}",
                self.steps
            )
        });
        self.take_events(at)
    }

    fn subscribe(&mut self, at: usize) -> Held {
        let count = if self.rng.chance(200) { 2 } else { 1 };
        let mut filters: Vec<(&'static str, SubscriptionOptions)> = Vec::new();
        for _ in 0..count {
            let client = &self.clients[at];
            let filter = match client.plan.shares {
                Some(shared) => shared,
                None => *self.rng.pick(FILTERS),
            };
            if client.is_asking(filter) || filters.iter().any(|(other, _)| *other == filter) {
                continue;
            }
            let v5 = client.plan.version.is_v5();
            let lowest = match client.plan.no_qos_0 {
                true => QoS::AtLeastOnce,
                false => QoS::AtMostOnce,
            };
            let options = SubscriptionOptions {
                qos: (*self.rng.pick(QOS)).max(lowest),
                no_local: client.plan.no_local && client.plan.shares.is_none(),
                retain_handling: if v5 {
                    *self.rng.pick(&[
                        RetainHandling::Send,
                        RetainHandling::SendIfNew,
                        RetainHandling::DoNotSend,
                    ])
                } else {
                    RetainHandling::Send
                },
                ..SubscriptionOptions::default()
            };
            filters.push((filter, options));
        }
        if filters.is_empty() {
            return Ok(());
        }
        let mut properties = PropertiesBuf::new();
        if self.clients[at].plan.version.is_v5() && self.rng.chance(300) {
            properties.push(Property::SubscriptionId(self.rng.range(1, 9) as u32));
        }
        let client = &mut self.clients[at];
        let Ok(packet_id) =
            client
                .machine
                .subscribe(&filters, properties.as_properties(), self.now.0)
        else {
            return Ok(());
        };
        let session = client.session.expect("it is connected");
        for (filter, options) in &filters {
            self.model
                .subscribing(session, filter, options.qos, options.no_local);
        }
        self.trace.note(|| {
            format!(
                "{} c{at}: subscribes {:?}",
                self.steps,
                filters.iter().map(|(f, o)| (f, o.qos)).collect::<Vec<_>>()
            )
        });
        let client = &mut self.clients[at];
        client.subscribing.insert(
            packet_id,
            filters.into_iter().map(|(filter, _)| filter).collect(),
        );
        self.take_events(at)
    }

    /// Subscribes to a filter with QoS 2.
    pub fn subscribe_to(&mut self, at: usize, filter: &'static str) -> Held {
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            ..SubscriptionOptions::default()
        };
        let client = &mut self.clients[at];
        let packet_id = client
            .machine
            .subscribe(&[(filter, options)], Properties::EMPTY, self.now.0)
            .expect("it is connected, and the filter is valid");
        client.subscribing.insert(packet_id, vec![filter]);
        let session = client.session.expect("it is connected");
        self.model
            .subscribing(session, filter, QoS::ExactlyOnce, false);
        self.take_events(at)
    }

    fn unsubscribe(&mut self, at: usize) -> Held {
        let client = &self.clients[at];
        let session = client.session.expect("it is connected");
        let held = self.model.sessions[session].subscriptions.iter();
        let held: Vec<&'static str> = held
            .filter(|s| s.leaving.is_none() && !client.is_asking(s.filter))
            .map(|s| s.filter)
            .collect();
        if held.is_empty() {
            return Ok(());
        }
        let filter = *self.rng.pick(&held);
        let client = &mut self.clients[at];
        let Ok(packet_id) = client
            .machine
            .unsubscribe(&[filter], Properties::EMPTY, self.now.0)
        else {
            return Ok(());
        };
        client.unsubscribing.insert(packet_id, vec![filter]);
        self.model.unsubscribing(session, filter);
        self.trace
            .note(|| format!("{} c{at}: unsubscribes {filter}", self.steps));
        self.take_events(at)
    }

    fn say_goodbye(&mut self, at: usize) -> Held {
        let client = &mut self.clients[at];
        let v5 = client.plan.version.is_v5();
        let with_will = v5 && self.rng.chance(200);
        let ends = v5 && client.plan.fickle && client.is_durable() && self.rng.chance(200);
        self.disconnect(at, with_will, ends)
    }

    /// DISCONNECT. `with_will`: the will is to be published all the same; `ends`: the session is to end.
    pub fn disconnect(&mut self, at: usize, with_will: bool, ends: bool) -> Held {
        let reason = if with_will {
            Reason::DisconnectWithWill
        } else {
            Reason::NormalDisconnection
        };
        let mut properties = PropertiesBuf::new();
        if ends {
            properties.push(Property::SessionExpiry(0));
        }
        let client = &mut self.clients[at];
        client
            .machine
            .disconnect(reason, properties.as_properties(), self.now.0)
            .expect("it is connected");
        let link = client.link.as_mut().expect("it is connected");
        link.goodbye = true;
        if let (Some(will), false) = (link.will, with_will) {
            self.model.wills[will].goodbye = true;
        }
        if let (Some(will), true) = (link.will, ends) {
            // The end of the session makes it due.
            self.model.wills[will].due_now = true;
        }
        if ends {
            client.may_have_ended = true;
            if let Some(session) = client.session {
                self.model.end_session(session);
            }
        }
        self.trace.note(|| {
            format!(
                "{} c{at}: disconnects, {reason:?}, ends session: {ends}",
                self.steps
            )
        });
        self.take_events(at)
    }

    /// Chooses the will of a connection that is about to be opened.
    pub fn choose_will(&mut self, at: usize) -> Option<usize> {
        let plan = &self.clients[at].plan;
        let v5 = plan.version.is_v5();
        let expiry_ms = u64::from(plan.expiry_seconds) * 1000;
        if !self.rng.chance(plan.wills) {
            self.clients[at].machine.options_mut().will = None;
            return None;
        }
        let topic = *self.rng.pick(TOPICS);
        let qos = *self.rng.pick(QOS);
        let mut properties = PropertiesBuf::new();
        let mut delay_ms = 0;
        if v5 && self.rng.chance(600) {
            let seconds: u32 = *self.rng.pick(&[1, 5, 30]);
            properties.push(Property::WillDelay(seconds));
            delay_ms = (u64::from(seconds) * 1000).min(expiry_ms);
        }
        let will = self.model.will_given(at, topic, qos, delay_ms);
        let payload = format!("m{}", self.model.wills[will].message).into_bytes();
        self.clients[at].machine.options_mut().will = Some(WillMessage {
            topic: topic.to_owned(),
            payload,
            qos,
            retain: false,
            properties,
        });
        Some(will)
    }

    /// When everything that clients wait for has its time: the longest delay of a will.
    pub const LONGEST_DELAY: Millis = Millis(31_000);
}
