//! What clients see.

use campanile_broker::ids::Millis;
use campanile_mqtt::{
    Reason,
    client::{Event, Message},
};

use super::Ends;
use crate::model::{Arrival, Fate, Held, Violation};

impl Ends {
    /// Takes what a client's machine has to say, and what it wants written.
    pub fn take_events(&mut self, at: usize) -> Held {
        let client = &mut self.clients[at];
        let len = client.machine.output().len();
        if let Some(link) = &mut client.link {
            link.to_node.extend_from_slice(client.machine.output());
            client.machine.on_written(len);
        }
        while let Some(event) = self.clients[at].machine.poll_event() {
            self.trace.note(|| format!("  c{at}: {}", brief(&event)));
            self.on_event(at, event)?;
        }
        Ok(())
    }

    fn on_event(&mut self, at: usize, event: Event) -> Held {
        let wrong = |text: String| Err(Violation(format!("client {at}: {text}")));
        match event {
            Event::Connected {
                session_present, ..
            } => {
                self.on_connected(at, session_present)?;
                let client = &self.clients[at];
                let link = client.link.as_ref().expect("it is connected");
                let session = client.session.expect("it is connected");
                self.model.connected(session, link.node);
                Ok(())
            }
            Event::Message(message) => self.on_message(at, &message),
            Event::Published {
                packet_id, reason, ..
            } => {
                if let Some(ix) = self.clients[at].unfinished.remove(&packet_id) {
                    let fate = if reason.is_error() {
                        Fate::Refused
                    } else {
                        Fate::Accepted
                    };
                    self.model.published(ix, fate);
                }
                Ok(())
            }
            Event::Dropped { packet_id } => {
                if let Some(ix) = self.clients[at].unfinished.remove(&packet_id) {
                    self.model.published(ix, Fate::Unknown);
                }
                Ok(())
            }
            Event::Subscribed {
                packet_id, granted, ..
            } => {
                let session = self.clients[at].session.expect("it is connected");
                let filters = self.clients[at]
                    .subscribing
                    .remove(&packet_id)
                    .unwrap_or_default();
                for (filter, granted) in filters.into_iter().zip(granted) {
                    self.model.subscribed(session, filter, granted.is_ok());
                }
                Ok(())
            }
            Event::Unsubscribed {
                packet_id, reasons, ..
            } => {
                let session = self.clients[at].session.expect("it is connected");
                let filters = self.clients[at]
                    .unsubscribing
                    .remove(&packet_id)
                    .unwrap_or_default();
                for (filter, reason) in filters.into_iter().zip(reasons) {
                    self.model.unsubscribed(session, filter, !reason.is_error());
                }
                Ok(())
            }
            Event::Refused { reason, .. } => match reason {
                Reason::ServerUnavailable | Reason::ServerBusy | Reason::ServerShuttingDown => {
                    Ok(())
                }
                Reason::UseAnotherServer | Reason::SessionTakenOver if self.model.many_nodes => {
                    Ok(())
                }
                reason => wrong(format!("refused: {reason:?}")),
            },
            Event::Disconnected { reason, .. } => match reason {
                Reason::SessionTakenOver
                | Reason::ServerShuttingDown
                | Reason::KeepAliveTimeout => Ok(()),
                Reason::UseAnotherServer if self.model.many_nodes => Ok(()),
                Reason::UnspecifiedError | Reason::QuotaExceeded | Reason::ServerBusy
                    if self.was_full || self.was_unreadable =>
                {
                    Ok(())
                }
                reason => wrong(format!("disconnected: {reason:?}")),
            },
            Event::Failed(failure) => match failure.reason {
                Reason::UnspecifiedError => Ok(()),
                _ => wrong(format!("the node broke a rule: {failure}")),
            },
            event => wrong(format!("unexpected {event:?}")),
        }
    }

    fn on_connected(&mut self, at: usize, session_present: bool) -> Held {
        let now = self.now;
        let client = &mut self.clients[at];
        let link = client.link.as_ref().expect("it is connected");
        let must_be = match (link.clean, client.session) {
            (true, _) => Some(false),
            _ if client.doubtful => None,
            (_, None) => Some(false),
            _ => Some(true),
        };
        if must_be.is_some_and(|must_be| must_be != session_present) {
            return Err(Violation(format!(
                "client {at}: session present is {session_present}; clean start {}, session {:?}, last up {:?}, now {now:?}",
                link.clean, client.session, client.last_up
            )));
        }
        if let Some(will) = link.will {
            self.model.wills[will].connected = true;
        }
        let returned = self.model.next_tick();
        let _ = returned;
        let current = link.will;
        (client.must_start_clean, client.may_have_ended) = (false, false);
        let doubtful = std::mem::take(&mut client.doubtful);
        if let (true, Some(session)) = (session_present, client.session) {
            if doubtful {
                self.model.doubt_session(session);
            }
            // Others are not refused a message: their connections end.
            let hears_refusals = client.plan.version.is_v5();
            for &ix in client.unfinished.values() {
                let message = &mut self.model.messages[ix];
                message.is_behind |= hears_refusals;
                message.sends += u32::from(message.qos == campanile_mqtt::QoS::AtLeastOnce);
                message.is_unheard |= self.was_full;
            }
            self.wills_are_void_in_time(at, current);
            return Ok(());
        }
        if let Some(session) = client.session {
            self.model.end_session(session);
        }
        let is_clean_session = !client.plan.version.is_v5() && link.clean;
        let durable = client.is_durable() && !is_clean_session;
        let session = self.model.begin_session(at, durable);
        client.session = Some(session);
        self.model.sessions[session].began_at = now;
        Ok(())
    }

    /// The client's session goes on: its wills that were not due by now are void.
    fn wills_are_void_in_time(&mut self, at: usize, current: Option<usize>) {
        let now = Millis(self.now.0 + self.model.skew_ms());
        for ix in 0..self.model.wills.len() {
            let publisher = self.model.messages[self.model.wills[ix].message].publisher;
            if publisher != at || Some(ix) == current {
                continue;
            }
            let will = &mut self.model.wills[ix];
            let in_time = will
                .lost
                .is_some_and(|(_, lost)| now.0 < lost.0 + will.delay_ms);
            will.returned |= in_time && !will.due_now && will.connected;
        }
    }

    fn on_message(&mut self, at: usize, message: &Message) -> Held {
        self.arrivals += 1;
        let Some(session) = self.clients[at].session else {
            return Err(Violation(format!(
                "client {at}: a message without a session: {message:?}"
            )));
        };
        let era = self.clients[at]
            .link
            .as_ref()
            .expect("a message came through it")
            .era;
        let text = String::from_utf8_lossy(&message.payload);
        if message.topic == "push/ctl" {
            // Registered devices are told where to go by a node that is drained.
            return Ok(());
        }
        if text.is_empty() {
            let mut messages = self.model.messages.iter();
            return match messages.any(|m| m.clears && m.topic == message.topic) {
                true => Ok(()),
                false => Err(Violation(format!(
                    "client {at}: nobody published {message:?}"
                ))),
            };
        }
        let (kind, number) = text.split_at(1);
        let Ok(ix) = number.trim_end().parse::<usize>() else {
            return Err(Violation(format!(
                "client {at}: nobody published {message:?}"
            )));
        };
        match kind {
            "m" if ix < self.model.messages.len() => self.model.on_arrival(Arrival {
                session,
                message: ix,
                topic: &message.topic,
                qos: message.qos,
                retain: message.retain,
                dup: message.dup,
                era,
                now: self.now,
            }),
            "p" if ix < self.model.pushes.len() && message.topic == "push/in" => {
                let known_since = self.clients[at].known_since.expect("it has connected");
                self.model
                    .on_push(ix, at, session, message.dup, era, known_since)
            }
            _ => Err(Violation(format!(
                "client {at}: nobody published {message:?}"
            ))),
        }
    }
}

/// An event in a line.
fn brief(event: &Event) -> String {
    match event {
        Event::Message(m) => format!(
            "gets {} on {} {:?}{}{}",
            String::from_utf8_lossy(&m.payload).trim_end(),
            m.topic,
            m.qos,
            if m.dup { " dup" } else { "" },
            if m.retain { " retained" } else { "" }
        ),
        Event::Published {
            packet_id, reason, ..
        } => format!("published {packet_id} {reason:?}"),
        Event::Connected {
            session_present, ..
        } => format!("connected, session present {session_present}"),
        Event::Subscribed { granted, .. } => format!("subscribed {granted:?}"),
        Event::Unsubscribed { reasons, .. } => format!("unsubscribed {reasons:?}"),
        other => format!("{other:?}"),
    }
}
