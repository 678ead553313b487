//! App servers: each makes one push after the other, and asks for reports.

use std::sync::Arc;

use bytes::Bytes;
use campanile_backends::Reader;
use campanile_broker::{ids::Millis, store::StoreError};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
    registry::campaigns,
    store::{Accept, Audience as PushAudience, Command, Idempotency, Outcome},
};

use super::{Ends, desk, wishes::Wish};
use crate::model::{Audience, Held, PushFate, Violation};

/// An app server: at most one push of it is under way.
#[derive(Debug, Default)]
pub struct AppServer {
    current: Option<Current>,
}

/// What an app server does.
#[derive(Clone, Copy, Debug)]
pub enum ServerAct {
    /// It asks for the report of a push.
    Report(usize),
    /// It sends its push: the server's number.
    Submit(usize),
}

/// A push under way.
#[derive(Debug)]
struct Current {
    push: usize,
    ttl_ms: u64,
    key: Option<String>,
    /// The node's number of the request; `None` while a retry is due.
    number: Option<u64>,
}

impl Ends {
    /// An app server does something: what, and which.
    pub fn act_as_server(&mut self) -> Option<ServerAct> {
        let at = self.rng.index(self.servers.len());
        match &self.servers[at].current {
            None if self.rng.chance(400) => match self.model.pushes.len() {
                0 => None,
                count => Some(ServerAct::Report(self.rng.index(count))),
            },
            None => {
                self.begin_push(at);
                Some(ServerAct::Submit(at))
            }
            Some(current) if current.number.is_none() => Some(ServerAct::Submit(at)),
            Some(_) => None,
        }
    }

    fn begin_push(&mut self, at: usize) {
        let audience = if self.rng.chance(400) {
            Audience::All
        } else {
            let count = self.rng.range(1, 3);
            let mut devices: Vec<usize> = (0..count)
                .map(|_| self.rng.index(self.clients.len()))
                .collect();
            devices.sort_unstable();
            devices.dedup();
            Audience::Devices(devices)
        };
        let mut ttl_ms = *self.rng.pick(&[0, 5000, 3_600_000, 86_400_000, 86_400_000]);
        let (audience, wish) = self.wish(audience);
        if let Some(wish) = &wish {
            ttl_ms = wish.ttl_ms();
        }
        let push = self
            .model
            .pushing(audience, Millis(self.now.0 + ttl_ms), ttl_ms == 0);
        self.model.pushes[push].present = self.lasting_sessions();
        let made = &mut self.model.pushes[push];
        let is_plain = wish.is_none();
        if self.has_lanes && is_plain && made.audience != Audience::All {
            // By its number, so that chance goes on as without.
            (made.priority, made.collapse_key) = kind_of(push);
        }
        if let Some(wish) = wish {
            self.model.make_campaign(push, wish);
        }
        let key = self.rng.chance(500).then(|| format!("key-{push}"));
        self.servers[at].current = Some(Current {
            push,
            ttl_ms,
            key,
            number: None,
        });
    }

    /// Whether a push is a campaign, and which; then it may be for others.
    fn wish(&mut self, audience: Audience) -> (Audience, Option<Wish>) {
        let Some(desk) = &mut self.desk else {
            return (audience, None);
        };
        desk.wishes(self.now, audience)
    }

    /// The push of an app server as it is sent, for the first time or again, under an id: what is to be written, in this order; the last is the acceptance. `None`: it
    /// cannot be planned now.
    pub fn submission(
        &mut self,
        at: usize,
        id: PushId,
        clock: Millis,
        reader: &dyn Reader,
    ) -> Option<(Option<Command>, Command)> {
        let lasting = self.lasting_sessions();
        let current = self.servers[at]
            .current
            .as_mut()
            .expect("the caller looked");
        let (ix, ttl_ms) = (current.push, current.ttl_ms);
        let idempotency = current.key.clone().map(|key| Idempotency {
            key,
            body_hash: [ix as u8; 32],
            expires_ms: self.now.0 + 86_400_000,
        });
        let push = &mut self.model.pushes[ix];
        push.present.retain(|session| lasting.contains(session));
        push.ids.push(id);
        push.expires_at = Millis(self.now.0 + ttl_ms);
        let audience = match &push.audience {
            Audience::All => PushAudience::All,
            Audience::Devices(devices) => PushAudience::Devices(
                devices
                    .iter()
                    .map(|&at| Arc::from(self.clients[at].plan.name.as_str()))
                    .collect(),
            ),
            // Whom that is follows with the rest.
            Audience::Tagged => PushAudience::Matching(Bytes::new()),
        };
        if push.campaign.is_some() {
            let (order, accept) =
                self.campaign_submission(ix, id, audience, idempotency, clock, reader)?;
            return Some((order, Command::Accept(Box::new(accept))));
        }
        let accept = Accept {
            app: app(),
            id,
            accepted_ms: self.now.0,
            expires_ms: push.expires_at.0,
            audience,
            payload: Bytes::from(format!("p{ix}")),
            priority: push.priority,
            collapse_key: push.collapse_key.map(str::to_owned),
            idempotency,
            rows: None,
            channel: Default::default(),
            info: Bytes::new(),
            watched: false,
        };
        self.trace.note(|| {
            format!(
                "{} server {at}: push{ix} {:?} {:?} {:?} ttl {ttl_ms} key {:?}",
                self.steps, push.audience, push.priority, push.collapse_key, accept.idempotency
            )
        });
        Some((None, Command::Accept(Box::new(accept))))
    }

    /// The push of an app server was sent as that number.
    pub fn submitted(&mut self, at: usize, number: u64) {
        let current = self.servers[at].current.as_mut();
        current.expect("it has just been sent").number = Some(number);
    }

    /// Durable sessions that exist for certain.
    fn lasting_sessions(&self) -> Vec<usize> {
        let certain = self.clients.iter().filter(|client| {
            client.is_durable()
                && !client.must_start_clean
                && !client.may_have_ended
                && (client.link.is_some() || !client.may_have_expired(self.now))
        });
        certain
            .filter_map(|client| client.session)
            .filter(|&session| {
                !self.model.sessions[session].over && self.model.sessions[session].durable
            })
            .collect()
    }

    /// Answers that a node has for app servers.
    pub fn on_push_answers(&mut self, answers: Vec<(u64, Result<Outcome, StoreError>)>) -> Held {
        for (number, answer) in answers {
            self.on_desk_answer(number, &answer)?;
            let asked = |server: &AppServer| {
                server
                    .current
                    .as_ref()
                    .is_some_and(|current| current.number == Some(number))
            };
            let Some(at) = self.servers.iter().position(asked) else {
                continue;
            };
            let current = self.servers[at].current.take().expect("just seen");
            self.trace
                .note(|| format!("  server {at}: push{}: {answer:?}", current.push));
            self.on_push_answer(&current, answer)?;
        }
        Ok(())
    }

    fn on_push_answer(&mut self, current: &Current, answer: Result<Outcome, StoreError>) -> Held {
        let push = &mut self.model.pushes[current.push];
        match answer {
            // The push of its collapse key was another one by then: it is planned anew.
            Ok(Outcome::Conflict) if push.campaign.is_some() => {
                let fate = match push.ids.len() {
                    1 => PushFate::Refused,
                    _ => PushFate::Unknown,
                };
                self.model.pushed(current.push, fate);
                return Ok(());
            }
            Ok(Outcome::Accepted { targeted }) => {
                push.id = push.ids.last().copied();
                push.targeted = targeted.unwrap_or_default();
                push.is_counted_later = targeted.is_none();
            }
            Ok(Outcome::Replayed {
                id,
                targeted,
                accepted_ms,
            }) => {
                if !push.ids.contains(&id) {
                    return Err(Violation(format!(
                        "push{} became {id}, which is another: {push:?}",
                        current.push
                    )));
                }
                push.id = Some(id);
                push.targeted = targeted.unwrap_or_default();
                push.is_counted_later = targeted.is_none();
                push.expires_at = Millis(accepted_ms + current.ttl_ms);
            }
            Err(error) => {
                // Of a retry, the first attempt may have been accepted.
                let fate = match error {
                    StoreError::Unknown(_) => PushFate::Unknown,
                    _ if push.ids.len() > 1 => PushFate::Unknown,
                    _ => PushFate::Refused,
                };
                self.model.pushed(current.push, fate);
                return Ok(());
            }
            Ok(other) => {
                return Err(Violation(format!(
                    "push{}: unexpected {other:?}",
                    current.push
                )));
            }
        }
        if let Audience::Devices(devices) = &push.audience
            && push.campaign.is_none()
            && push.targeted != devices.len() as u64
        {
            return Err(Violation(format!(
                "push{} is for {} devices and targets {}",
                current.push,
                devices.len(),
                push.targeted
            )));
        }
        self.model.pushed(current.push, PushFate::Accepted);
        Ok(())
    }

    /// The node is gone: what app servers waited for is unknown. `of_node`: whether the node was asked under a number.
    pub fn forget_push_answers(&mut self, of_node: impl Fn(u64) -> bool) {
        self.forget_desk_answer(&of_node);
        for at in 0..self.servers.len() {
            let Some(current) = &mut self.servers[at].current else {
                continue;
            };
            if !current.number.is_some_and(&of_node) {
                continue;
            }
            current.number = None;
            let push = current.push;
            if current.key.is_none() {
                self.servers[at].current = None;
                self.model.pushed(push, PushFate::Unknown);
            }
        }
    }

    /// App servers that have a push to send again.
    pub fn to_resubmit(&self) -> Vec<usize> {
        let waits = |server: &AppServer| {
            let current = server.current.as_ref();
            current.is_some_and(|current| current.number.is_none())
        };
        (0..self.servers.len())
            .filter(|&at| waits(&self.servers[at]))
            .collect()
    }

    /// Reads the report of one push and compares. Of what is on disk only: anything else could still be lost, and figures go back.
    pub fn check_report(&mut self, ix: usize, reader: &dyn Reader) -> Held {
        let Some(id) = self.model.pushes[ix].id else {
            return Ok(());
        };
        match campaigns::report(&desk::context(reader, self.now), &app(), id) {
            Ok(Some((report, _))) => self.model.on_report(ix, &report),
            Ok(None) => Err(Violation(format!(
                "push{ix} was accepted and has no report"
            ))),
            Err(error) => Err(Violation(format!("the report of push{ix}: {error}"))),
        }
    }
}

/// Lane and collapse key of a push to devices.
fn kind_of(push: usize) -> (Priority, Option<&'static str>) {
    let priority = match push % 5 {
        1 => Priority::High,
        3 => Priority::Low,
        _ => Priority::Normal,
    };
    let key = match push % 7 {
        2 | 3 => Some("score"),
        5 => Some("weather"),
        _ => None,
    };
    (priority, key)
}

pub(super) fn app() -> AppName {
    AppName::new("default").expect("a valid name")
}
