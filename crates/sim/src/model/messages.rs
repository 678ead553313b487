//! Published messages: what is owed, what may come, how often, in which order.

use std::collections::BTreeSet;

use campanile_broker::ids::Millis;
use campanile_mqtt::QoS;

use super::{Held, Model, Tick, Violation, sessions::Got};

/// A message that a client published, or gave as a will.
#[derive(Debug)]
pub struct Message {
    /// By whom.
    pub publisher: usize,
    /// Its topic.
    pub topic: &'static str,
    /// As published.
    pub qos: QoS,
    /// As published.
    pub retain: bool,
    /// Until then it is owed at least.
    pub expires_at: Option<Millis>,
    /// It was sent; a will: CONNECT was sent.
    pub sent: Tick,
    /// How often it was sent.
    pub sends: u32,
    /// What became of it, and when its publisher knew.
    pub fate: Option<(Tick, Fate)>,
    /// Its payload is empty: nothing is retained there from then on.
    pub clears: bool,
    /// The will that it is.
    pub will: Option<usize>,
    /// Its publisher does not know what became of it, and a node that it has left may still have it: what came after it may be kept before it.
    pub disordered: bool,
    /// It was sent again after the store had failed: its node may not have heard that it was kept.
    pub is_unheard: bool,
    /// It was sent again over another connection, as its publisher had not heard that it was refused, perhaps: others that were not may be before it.
    pub is_behind: bool,
    /// The store may have lost it after somebody got it.
    pub was_undone: bool,
    /// How often its publisher had connected when it was sent.
    pub connection: u64,
    /// The node that it was sent to.
    pub node: Option<usize>,
}

/// What a publisher knows of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server has taken it.
    Accepted,
    /// The server said no.
    Refused,
    /// Nobody can say.
    Unknown,
}

/// A message arrives at a client.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The session of the connection.
    pub session: usize,
    /// The message that its payload names.
    pub message: usize,
    /// Of this delivery.
    pub topic: &'a str,
    /// Of this delivery.
    pub qos: QoS,
    /// Of this delivery.
    pub retain: bool,
    /// Of this delivery.
    pub dup: bool,
    /// The disturbances before its connection.
    pub era: u64,
    /// The clock.
    pub now: Millis,
}

impl Model {
    /// A message is about to be sent for the first time. Its number.
    pub fn publishing(
        &mut self,
        publisher: usize,
        topic: &'static str,
        qos: QoS,
        retain: bool,
        expires_at: Option<Millis>,
    ) -> usize {
        let sent = self.next_tick();
        self.messages.push(Message {
            publisher,
            topic,
            qos,
            retain,
            expires_at,
            sent,
            sends: 1,
            fate: None,
            clears: false,
            will: None,
            disordered: false,
            is_unheard: false,
            is_behind: false,
            was_undone: false,
            connection: self.connections.get(&publisher).copied().unwrap_or(0),
            node: None,
        });
        self.messages.len() - 1
    }

    /// Its publisher knows what became of it.
    pub fn published(&mut self, message: usize, fate: Fate) {
        let tick = self.next_tick();
        self.messages[message].fate = Some((tick, fate));
        // A node that its publisher has left may still have it.
        self.messages[message].disordered |= self.many_nodes && fate == Fate::Unknown;
    }

    /// A message arrives.
    pub fn on_arrival(&mut self, arrival: Arrival<'_>) -> Held {
        self.next_tick();
        let Arrival {
            session,
            message: ix,
            ..
        } = arrival;
        let message = &self.messages[ix];
        let device = self.sessions[session].device;
        let wrong = |what: &str| {
            Err(Violation(format!(
                "client {device}: m{ix} ({message:?}) {what}; {arrival:?}"
            )))
        };
        if arrival.topic != message.topic {
            return wrong("came under another topic");
        }
        let of_before = arrival.retain;
        if of_before && !message.retain {
            return wrong("came as retained, which it is not");
        }
        // What is not kept may still be on its way between shards when it is acknowledged.
        let is_kept = self.sessions[session].durable && arrival.qos > QoS::AtMostOnce;
        // The clocks of nodes differ.
        let may_be_older = of_before || !is_kept || self.many_nodes;
        let fitting = self.sessions[session].subscriptions.iter().filter(|s| {
            s.matches(message.topic)
                && !(s.no_local && !s.is_shared() && message.publisher == device)
                && s.left.is_none_or(|at| message.sent < at)
                && (may_be_older || message.fate.is_none_or(|(at, _)| s.sent < at))
        });
        let mut changed = false;
        let mut asked = Tick(u64::MAX);
        let (at_most, shared) = fitting.fold((None, None), |(qos, shared), s| {
            if s.at_most >= arrival.qos {
                asked = asked.min(s.acknowledged.unwrap_or(Tick(u64::MAX)));
            }
            // One that changes between QoS 0 and others while the message is under way may match as both.
            changed |= s.at_least == QoS::AtMostOnce && s.at_most > QoS::AtMostOnce;
            // Of two that match, one may be known already and the other not yet.
            changed |= !s.holds_since(message.sent);
            (
                qos.max(Some(s.at_most)),
                if s.is_shared() {
                    Some(s.filter)
                } else {
                    shared
                },
            )
        });
        // What was put into an inbox for a member that then began a new session may still come.
        let before = self.sessions.iter().filter(|s| s.device == device);
        let of_groups = before
            .flat_map(|s| &s.subscriptions)
            .filter(|s| s.is_shared() && s.left.is_none() && s.matches(message.topic))
            .map(|s| s.at_most)
            .max();
        let at_most = at_most.max(of_groups);
        let Some(at_most) = at_most else {
            return wrong("came to a client that did not ask for it");
        };
        if arrival.qos > at_most.min(message.qos) {
            return wrong("came with a higher quality of service than granted");
        }
        if let Some(will) = message.will {
            self.check_will_arrival(will, arrival.now)?;
        }
        if of_before {
            let topic = self.messages[ix].topic;
            self.sessions[session].retained.insert(topic, ix);
            return Ok(());
        }
        let message = &self.messages[ix];
        let known = self.sessions[session].got.get(&ix).copied();
        let mut got = known.unwrap_or_default();
        if got.era < arrival.era {
            (got.era, got.fresh) = (arrival.era, 0);
        }
        if arrival.qos == QoS::ExactlyOnce && got.exactly_once > 0 && !message.was_undone {
            return wrong("came twice with QoS 2");
        }
        // Whoever keeps a message for a member at a node that it has lost does not know whether the member has it.
        let is_sent_anew = shared.is_some() && self.faults.links;
        let may_repeat = changed || is_sent_anew || got.fresh < message.sends || message.was_undone;
        let excused = arrival.dup || may_repeat;
        if known.is_some() && arrival.qos < QoS::ExactlyOnce && !excused {
            return wrong("came again without a reason");
        }
        // A repetition may be the first that the subscription sees, or that has not expired, or that finds the client connected.
        let may_be_first = message.sent < asked || message.expires_at.is_some();
        let is_late = message.sends > 1 && (may_be_first || arrival.qos == QoS::AtMostOnce);
        // A message that a member of a group leaves behind comes to another one when it comes.
        let is_ordered = !changed
            && message.will.is_none()
            && !message.disordered
            && !message.is_behind
            && !is_late
            && shared.is_none();
        if known.is_none() && is_ordered {
            let key = (
                message.publisher,
                message.topic,
                message.qos as u8,
                arrival.qos as u8,
                // What is not kept may be overtaken by what was sent through another node.
                if is_kept { 0 } else { message.connection },
            );
            let newest = self.sessions[session].newest.get(&key).copied();
            if let Some(newest) = newest.filter(|&newest| newest > ix) {
                return wrong(&format!("came after m{newest}, which was published later"));
            }
            self.sessions[session].newest.insert(key, ix);
        }
        self.sessions[session].got.insert(
            ix,
            Got {
                fresh: got.fresh + u32::from(!arrival.dup),
                exactly_once: got.exactly_once + u32::from(arrival.qos == QoS::ExactlyOnce),
                era: got.era,
            },
        );
        match shared {
            Some(filter) => self.on_shared_arrival(filter, arrival),
            None => Ok(()),
        }
    }

    fn on_shared_arrival(&mut self, filter: &str, arrival: Arrival<'_>) -> Held {
        let Some(group) = self.groups.iter_mut().find(|g| g.filter == filter) else {
            return Ok(());
        };
        let (sessions, exactly_once) = group.got.entry(arrival.message).or_default();
        if !sessions.contains(&arrival.session) {
            sessions.push(arrival.session);
        }
        *exactly_once += u32::from(arrival.qos == QoS::ExactlyOnce);
        if *exactly_once > 1 {
            return Err(Violation(format!(
                "m{} came twice with QoS 2 to members of {filter}",
                arrival.message
            )));
        }
        Ok(())
    }

    /// A client that has just asked for everything got what is retained: on each topic the last message, or one that may be it.
    pub fn check_retained(&self, session: usize) -> Held {
        let topics: BTreeSet<&str> = self.messages.iter().map(|m| m.topic).collect();
        for topic in topics {
            let of_topic = |(_, m): &(usize, &Message)| m.topic == topic && m.retain;
            let retained = || self.messages.iter().enumerate().filter(of_topic);
            let accepted = |m: &Message| matches!(m.fate, Some((_, Fate::Accepted)));
            match self.sessions[session].retained.get(topic) {
                Some(&got) => {
                    let Some((known, _)) = self.messages[got].fate else {
                        continue;
                    };
                    // A repetition may have come after what was published later.
                    let newer = retained().find(|(_, m)| m.sent > known && accepted(m));
                    if let (Some((newer, _)), true) = (newer, self.messages[got].sends == 1) {
                        return Err(Violation(format!(
                            "m{got} is retained on {topic}, although m{newer} was accepted after it"
                        )));
                    }
                }
                None => {
                    let lasting = retained().all(|(_, m)| m.expires_at.is_none() && !m.clears);
                    if let (Some((lost, _)), true) =
                        (retained().find(|(_, m)| accepted(m)), lasting)
                    {
                        return Err(Violation(format!(
                            "nothing is retained on {topic}, although m{lost} was accepted"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// Messages that were accepted and whose time has not run out.
    fn owed(&self, now: Millis) -> impl Iterator<Item = (usize, &Message)> {
        self.messages
            .iter()
            .enumerate()
            .filter(move |(_, message)| {
                message.qos > QoS::AtMostOnce
                    && !message.clears
                    && message.expires_at.is_none_or(|at| at > now)
                    && matches!(message.fate, Some((_, Fate::Accepted)))
            })
    }

    /// `still_up`: by session, whether its connection was never lost.
    pub(super) fn check_messages(&self, now: Millis, still_up: &[bool]) -> Held {
        for (ix, message) in self.owed(now) {
            // If the node does not hear that a QoS 2 message was kept, live subscribers do not get it; and its repetition is known, and comes to nobody.
            let is_unheard = message.qos == QoS::ExactlyOnce && message.is_unheard;
            let reaches_live = !(self.faults.links || is_unheard);
            for (at, session) in self.sessions.iter().enumerate() {
                let is_lasting = reaches_live && still_up.get(at).is_some_and(|up| *up);
                if session.over || !session.durable && !is_lasting || session.got.contains_key(&ix)
                {
                    continue;
                }
                let owes = session.subscriptions.iter().find(|s| {
                    !s.is_shared()
                        && s.at_least > QoS::AtMostOnce
                        && s.holds_since(message.sent)
                        && s.matches(message.topic)
                        && !(s.no_local && message.publisher == session.device)
                });
                if let Some(subscription) = owes {
                    return Err(Violation(format!(
                        "client {} (session {at}, durable: {}) never got m{ix} ({message:?}) for {subscription:?}",
                        session.device, session.durable
                    )));
                }
            }
        }
        Ok(())
    }

    /// Whether a session was connected to the node that a message came to, before it came, and still is: what no other member of its group takes, it gets.
    fn is_at_hand(&self, session: usize, message: &Message, still_up: &[bool]) -> bool {
        let since = self.sessions[session].at;
        still_up.get(session).is_some_and(|up| *up)
            && since.is_some_and(|(node, since)| message.node == Some(node) && since < message.sent)
    }

    /// `still_up`: by session, whether its connection was never lost.
    pub(super) fn check_groups(&self, now: Millis, still_up: &[bool]) -> Held {
        for group in &self.groups {
            // A message that a member may have swallowed cannot be told from one that is lost.
            let swallows_nothing = group.members.iter().all(|&member| {
                let session = &self.sessions[member];
                let mut of_group = session
                    .subscriptions
                    .iter()
                    .filter(|s| s.filter == group.filter);
                !(session.durable && session.over)
                    && of_group.all(|s| s.leaving.is_none() && s.at_least > QoS::AtMostOnce)
            });
            if !swallows_nothing || self.inboxes_drop {
                continue;
            }
            let all_last = group
                .members
                .iter()
                .all(|&member| self.sessions[member].durable);
            for (ix, message) in self.owed(now) {
                let is_kept = all_last || message.qos == QoS::AtLeastOnce && message.sends == 1;
                let somebody = is_kept
                    && group.members.iter().any(|&member| {
                        let mut subscriptions = self.sessions[member].subscriptions.iter();
                        subscriptions.any(|s| {
                            s.filter == group.filter
                                && s.holds_since(message.sent)
                                && s.matches(message.topic)
                        }) && (all_last || self.is_at_hand(member, message, still_up))
                    });
                let got = group.got.get(&ix).map_or(0, |(sessions, _)| sessions.len());
                if somebody && got == 0 {
                    return Err(Violation(format!(
                        "no member of {} got m{ix} ({message:?})",
                        group.filter
                    )));
                }
                if all_last && got as u32 > message.sends {
                    return Err(Violation(format!(
                        "{got} members of {} got m{ix} ({message:?})",
                        group.filter
                    )));
                }
            }
        }
        Ok(())
    }
}
