//! App servers: each makes one push after the other, and asks for reports.

use std::sync::Arc;

use bytes::Bytes;
use campanile_backends::Reader;
use campanile_broker::{ids::Millis, store::StoreError};
use campanile_push::{
    app::AppName,
    id::PushId,
    lanes::Priority,
    store::{Accept, Audience as PushAudience, Command, Idempotency, Outcome},
};

use super::Ends;
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
        let ttl_ms = *self.rng.pick(&[0, 5000, 3_600_000, 86_400_000, 86_400_000]);
        let push = self
            .model
            .pushing(audience, Millis(self.now.0 + ttl_ms), ttl_ms == 0);
        self.model.pushes[push].present = self.lasting_sessions();
        let made = &mut self.model.pushes[push];
        if self.has_lanes && made.audience != Audience::All {
            // By its number, so that chance goes on as without.
            (made.priority, made.collapse_key) = kind_of(push);
        }
        let key = self.rng.chance(500).then(|| format!("key-{push}"));
        self.servers[at].current = Some(Current {
            push,
            ttl_ms,
            key,
            number: None,
        });
    }

    /// The push of an app server as it is sent, for the first time or again, under an id.
    pub fn submission(&mut self, at: usize, id: PushId) -> Command {
        let lasting = self.lasting_sessions();
        let current = self.servers[at]
            .current
            .as_mut()
            .expect("the caller looked");
        let push = &mut self.model.pushes[current.push];
        push.present.retain(|session| lasting.contains(session));
        push.ids.push(id);
        push.expires_at = Millis(self.now.0 + current.ttl_ms);
        let audience = match &push.audience {
            Audience::All => PushAudience::All,
            Audience::Devices(devices) => PushAudience::Devices(
                devices
                    .iter()
                    .map(|&at| Arc::from(self.clients[at].plan.name.as_str()))
                    .collect(),
            ),
        };
        let accept = Accept {
            app: app(),
            id,
            accepted_ms: self.now.0,
            expires_ms: push.expires_at.0,
            audience,
            payload: Bytes::from(format!("p{}", current.push)),
            priority: push.priority,
            collapse_key: push.collapse_key.map(str::to_owned),
            idempotency: current.key.clone().map(|key| Idempotency {
                key,
                body_hash: [current.push as u8; 32],
                expires_ms: self.now.0 + 86_400_000,
            }),
            rows: None,
            channel: Default::default(),
            info: Bytes::new(),
            watched: false,
        };
        self.trace.note(|| {
            format!(
                "{} server {at}: push{} {:?} {:?} {:?} ttl {} key {:?}",
                self.steps,
                current.push,
                push.audience,
                push.priority,
                push.collapse_key,
                current.ttl_ms,
                current.key
            )
        });
        Command::Accept(Box::new(accept))
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
            Ok(Outcome::Accepted { targeted }) => {
                push.id = push.ids.last().copied();
                push.targeted = targeted.unwrap_or_default();
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
        match reader.report(&app(), id, self.now.0) {
            Ok(Some(report)) => self.model.on_report(ix, &report),
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

fn app() -> AppName {
    AppName::new("default").expect("a valid name")
}
