//! Wills: exactly once after a loss, never after a goodbye, not before their time.

use campanile_broker::ids::Millis;
use campanile_mqtt::QoS;

use super::{Held, Model, Tick, Violation};

/// The will of a connection.
#[derive(Debug)]
pub struct Will {
    /// The message.
    pub message: usize,
    /// From the loss of the connection to the publication, at most until the end of the session.
    pub delay_ms: u64,
    /// CONNACK arrived.
    pub connected: bool,
    /// When the node lost the connection.
    pub lost: Option<(Tick, Millis)>,
    /// Latest time at which it is due; a crash begins its delay anew.
    pub due_by: Millis,
    /// The client sent DISCONNECT.
    pub goodbye: bool,
    /// The node has read it, and nothing of it can be lost any more.
    pub void: bool,
    /// The client was back before the will was due (the session went on).
    pub returned: bool,
    /// It cannot be told whether it is owed.
    pub unsure: bool,
    /// The session may have ended early, which makes it due.
    pub due_now: bool,
}

impl Model {
    /// CONNECT with a will is about to be sent.
    pub fn will_given(
        &mut self,
        publisher: usize,
        topic: &'static str,
        qos: QoS,
        delay_ms: u64,
    ) -> usize {
        let message = self.publishing(publisher, topic, qos, false, None);
        self.messages[message].will = Some(self.wills.len());
        self.wills.push(Will {
            message,
            delay_ms,
            connected: false,
            lost: None,
            due_by: Millis(0),
            goodbye: false,
            void: false,
            returned: false,
            unsure: false,
            due_now: false,
        });
        self.wills.len() - 1
    }

    /// The node, or the network, has ended the connection of a will.
    pub fn will_loses(&mut self, will: usize, now: Millis) {
        let tick = self.next_tick();
        let will = &mut self.wills[will];
        if will.lost.is_none() {
            will.lost = Some((tick, now));
            will.due_by = Millis(now.0 + will.delay_ms);
        }
    }

    /// The store is on disk as far as it goes: goodbyes that the node has taken hold.
    pub fn on_all_synced(&mut self) {
        for will in &mut self.wills {
            will.void |= will.goodbye && will.lost.is_some() && !will.unsure;
        }
    }

    /// A node starts after a crash: the delays of wills begin anew.
    pub fn on_restart(&mut self, now: Millis) {
        for will in self.wills.iter_mut().filter(|will| !will.void) {
            will.due_by = will.due_by.max(Millis(now.0 + will.delay_ms));
        }
    }

    /// Nothing that has not been published by now is certain to be.
    pub fn wills_are_unsure(&mut self) {
        for will in &mut self.wills {
            will.unsure = true;
        }
    }

    /// How far the clocks of those who serve may be apart.
    pub fn skew_ms(&self) -> u64 {
        if self.many_nodes { 1000 } else { 0 }
    }

    pub(super) fn check_will_arrival(&self, ix: usize, now: Millis) -> Held {
        let will = &self.wills[ix];
        let wrong = |what: &str| Err(Violation(format!("the will {will:?} {what}, at {}", now.0)));
        let Some((_, lost_at)) = will.lost else {
            // A claim may be carried out that its node has given up, and ends with it.
            if self.many_nodes && !will.connected {
                return Ok(());
            }
            return wrong("was published while its client was connected");
        };
        if will.void {
            return wrong("was published after a normal DISCONNECT");
        }
        if will.returned {
            return wrong("was published although its client had returned in time");
        }
        if !will.due_now && now.0 + self.skew_ms() < lost_at.0 + will.delay_ms {
            return wrong("was published before its delay had passed");
        }
        Ok(())
    }

    pub(super) fn check_wills(&self, now: Millis) -> Held {
        for will in &self.wills {
            let Some((lost, _)) = will.lost else { continue };
            let owed = will.connected
                && !will.goodbye
                && !will.returned
                && !will.unsure
                && will.due_by < now;
            let message = &self.messages[will.message];
            if !owed || message.qos == QoS::AtMostOnce {
                continue;
            }
            for session in self
                .sessions
                .iter()
                .filter(|session| session.durable && !session.over)
            {
                let mut subscriptions = session.subscriptions.iter();
                let asked = subscriptions.any(|s| {
                    !s.is_shared()
                        && s.at_least > QoS::AtMostOnce
                        && s.holds_since(lost)
                        && s.matches(message.topic)
                        && !(s.no_local && message.publisher == session.device)
                });
                if asked && !session.got.contains_key(&will.message) {
                    return Err(Violation(format!(
                        "client {} never got the will m{} ({will:?} {message:?})",
                        session.device, will.message
                    )));
                }
            }
        }
        Ok(())
    }
}
