//! Between what nodes say and what goes over the wire.

use std::sync::Arc;

use campanile_broker::{
    cluster::peer::{Answer, Connected, Imagined, LiveCount, Load, PeerMessage, Question},
    ids::{AppId, ClientKey, Epoch, MessageId, Millis, Offset, ShardId},
    lane::Lane,
    mail::{Interest, Member},
    message::{Kind, Message},
    store::{Change, DurableMember, InboxEntry, InboxItem, LogEntry, LogKind, QoS},
};
use prost::bytes::Bytes;

use super::wire::{self, Body, Carried, Empty, Ticket};

/// Why a frame is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It says something that a later version knows. To be passed over.
    Later,
    /// It breaks the schema: the named part is not what it must be. The link is not to be trusted.
    Faulty(&'static str),
}

/// Makes frames. Messages of one app tend to follow each other: its name is made once for all of them.
#[derive(Debug, Default)]
pub struct Encoder {
    app: Option<(AppId, Bytes)>,
}

impl Encoder {
    /// The frame of a message.
    pub fn frame(&mut self, message: PeerMessage) -> wire::Frame {
        let body = self.body(message);
        wire::Frame { body: Some(body) }
    }

    fn body(&mut self, message: PeerMessage) -> Body {
        match message {
            PeerMessage::InterestBegins => Body::InterestBegins(Empty {}),
            PeerMessage::Interest {
                app,
                change,
                ticket,
            } => Body::Interest(wire::Interest {
                app: self.app(&app),
                ticket,
                change: Some(interest(change)),
            }),
            PeerMessage::InterestComplete => Body::InterestComplete(Empty {}),
            PeerMessage::InterestKnown { ticket } => Body::InterestKnown(Ticket { ticket }),
            PeerMessage::Deliver { app, message } => Body::Deliver(wire::Deliver {
                app: self.app(&app),
                message: Carried::Out(message),
            }),
            PeerMessage::DeliverShared {
                app,
                message,
                filter,
                client_id,
                ticket,
            } => Body::DeliverShared(wire::DeliverShared {
                app: self.app(&app),
                message: Carried::Out(message),
                filter: bytes(&filter),
                client_id: bytes(&client_id),
                ticket,
            }),
            PeerMessage::SharedDone { ticket } => Body::SharedDone(Ticket { ticket }),
            PeerMessage::Log {
                app,
                log,
                previous,
                entry,
                changes,
            } => Body::Log(wire::Log {
                changes: changes.0,
                app: self.app(&app),
                log: log_number(log),
                previous: previous.0,
                offset: entry.offset.0,
                message: Carried::Out(entry.message),
            }),
            PeerMessage::Change {
                app,
                previous,
                offset,
                change: what,
            } => Body::Change(wire::Change {
                app: self.app(&app),
                previous: previous.0,
                offset: offset.0,
                change: Some(change(what)),
            }),
            PeerMessage::ChangesKnown { app, offset } => Body::ChangesKnown(wire::ChangesKnown {
                app: self.app(&app),
                offset: offset.0,
            }),
            PeerMessage::Inbox {
                client,
                previous,
                entry,
                replaced,
            } => Body::Inbox(wire::Inbox {
                client: self.client(&client),
                previous: previous.0,
                offset: entry.offset.0,
                message: Carried::Out(entry.item.message),
                qos: entry.item.qos as u32,
                retain: entry.item.retain,
                subscription_ids: entry.item.subscription_ids.to_vec(),
                lane: entry.item.lane.code().into(),
                replaced: replaced.map(|replaced| replaced.0),
            }),
            PeerMessage::Instant {
                app,
                clients,
                message,
            } => Body::Instant(wire::Instant {
                app: self.app(&app),
                clients: clients.map(|clients| wire::ClientIds {
                    client_ids: clients.iter().map(|id| bytes(id)).collect(),
                }),
                message: Carried::Out(message),
            }),
            PeerMessage::Release {
                client,
                epoch,
                resumes,
                ticket,
            } => Body::Release(wire::Release {
                resumes,
                client: self.client(&client),
                epoch: epoch.0,
                ticket,
            }),
            PeerMessage::Released { ticket } => Body::Released(Ticket { ticket }),
            PeerMessage::Ask { ticket, question } => Body::Ask(wire::Ask {
                ticket,
                question: Some(match question {
                    Question::WhereIs(client) => wire::Question::WhereIs(self.client(&client)),
                    Question::Kick(client) => wire::Question::Kick(self.client(&client)),
                    Question::Load => wire::Question::Load(Empty {}),
                    Question::HowMany(imagined) => wire::Question::HowMany(wire::Imagined {
                        app: self.app(&imagined.app),
                        push: imagined.push.0.to_be_bytes().to_vec().into(),
                        audience: imagined.audience,
                    }),
                }),
            }),
            PeerMessage::Answer { ticket, answer } => Body::Answer(wire::Answer {
                ticket,
                answer: Some(match answer {
                    Answer::Here(connected) => wire::AnswerKind::Here(wire::Here {
                        connected: connected.map(|connected| wire::Connected {
                            epoch: connected.epoch.0,
                            protocol_level: connected.protocol_level.into(),
                            subscriptions: connected.subscriptions,
                            in_flight: connected.in_flight,
                            since_ms: connected.since.0,
                            peer: connected
                                .peer
                                .map(|peer| peer.to_string())
                                .unwrap_or_default(),
                            filters: connected.filters.iter().map(ToString::to_string).collect(),
                            behind: connected.behind,
                            inbox_waits: connected.inbox_waits,
                        }),
                    }),
                    Answer::Load(load) => wire::AnswerKind::Load(wire::Load {
                        connections: load.connections,
                        capacity: load.capacity,
                    }),
                    Answer::ThisMany(live) => wire::AnswerKind::ThisMany(wire::LiveCount {
                        known: live.known,
                        others: live.others,
                    }),
                }),
            }),
        }
    }

    fn client(&mut self, client: &ClientKey) -> wire::Client {
        wire::Client {
            app: self.app(&client.app),
            client_id: bytes(&client.client_id),
        }
    }

    fn app(&mut self, app: &AppId) -> Bytes {
        match &self.app {
            Some((last, name)) if last == app => name.clone(),
            _ => {
                let name = bytes(app.as_str());
                self.app = Some((app.clone(), name.clone()));
                name
            }
        }
    }
}

/// Reads frames.
#[derive(Debug, Default)]
pub struct Decoder {
    app: Option<AppId>,
}

impl Decoder {
    /// The message of a frame's body; `None`: a heartbeat.
    pub fn message(&mut self, frame: wire::Frame) -> Result<Option<PeerMessage>, Unread> {
        let message = match frame.body.ok_or(Unread::Later)? {
            Body::Heartbeat(_) => return Ok(None),
            Body::InterestBegins(_) => PeerMessage::InterestBegins,
            Body::Interest(interest) => PeerMessage::Interest {
                app: self.app(&interest.app)?,
                change: read_interest(interest.change.ok_or(Unread::Later)?)?,
                ticket: interest.ticket,
            },
            Body::InterestComplete(_) => PeerMessage::InterestComplete,
            Body::InterestKnown(Ticket { ticket }) => PeerMessage::InterestKnown { ticket },
            Body::Deliver(deliver) => PeerMessage::Deliver {
                app: self.app(&deliver.app)?,
                message: message(deliver.message)?,
            },
            Body::DeliverShared(deliver) => PeerMessage::DeliverShared {
                app: self.app(&deliver.app)?,
                message: message(deliver.message)?,
                filter: text(&deliver.filter, "filter")?.into(),
                client_id: text(&deliver.client_id, "client id")?.into(),
                ticket: deliver.ticket,
            },
            Body::SharedDone(Ticket { ticket }) => PeerMessage::SharedDone { ticket },
            Body::Log(log) => PeerMessage::Log {
                app: self.app(&log.app)?,
                log: log_kind(log.log)?,
                previous: Offset(log.previous),
                changes: Offset(log.changes),
                entry: LogEntry {
                    offset: Offset(log.offset),
                    message: message(log.message)?,
                },
            },
            Body::Change(change) => PeerMessage::Change {
                app: self.app(&change.app)?,
                previous: Offset(change.previous),
                offset: Offset(change.offset),
                change: read_change(change.change.ok_or(Unread::Later)?)?,
            },
            Body::ChangesKnown(known) => PeerMessage::ChangesKnown {
                app: self.app(&known.app)?,
                offset: Offset(known.offset),
            },
            Body::Inbox(inbox) => PeerMessage::Inbox {
                previous: Offset(inbox.previous),
                client: self.client(&inbox.client)?,
                entry: InboxEntry {
                    offset: Offset(inbox.offset),
                    item: InboxItem {
                        message: message(inbox.message)?,
                        qos: qos(inbox.qos)?,
                        retain: inbox.retain,
                        subscription_ids: inbox.subscription_ids.into(),
                        lane: Lane::from_code(inbox.lane.into()).ok_or(Unread::Later)?,
                    },
                },
                replaced: inbox.replaced.map(Offset),
            },
            Body::Instant(instant) => PeerMessage::Instant {
                app: self.app(&instant.app)?,
                clients: instant.clients.map(read_client_ids).transpose()?,
                message: message(instant.message)?,
            },
            Body::Release(release) => PeerMessage::Release {
                client: self.client(&release.client)?,
                epoch: Epoch(release.epoch),
                resumes: release.resumes,
                ticket: release.ticket,
            },
            Body::Released(Ticket { ticket }) => PeerMessage::Released { ticket },
            Body::Ask(ask) => PeerMessage::Ask {
                ticket: ask.ticket,
                question: match ask.question.ok_or(Unread::Later)? {
                    wire::Question::WhereIs(client) => Question::WhereIs(self.client(&client)?),
                    wire::Question::Kick(client) => Question::Kick(self.client(&client)?),
                    wire::Question::Load(_) => Question::Load,
                    wire::Question::HowMany(imagined) => Question::HowMany(Imagined {
                        app: self.app(&imagined.app)?,
                        push: MessageId(u128::from_be_bytes(
                            (imagined.push.as_ref().try_into())
                                .map_err(|_| Unread::Faulty("push"))?,
                        )),
                        audience: imagined.audience.as_deref().map(copied),
                    }),
                },
            },
            Body::Answer(answer) => PeerMessage::Answer {
                ticket: answer.ticket,
                answer: read_answer(answer.answer.ok_or(Unread::Later)?)?,
            },
        };
        Ok(Some(message))
    }

    fn client(&mut self, client: &wire::Client) -> Result<ClientKey, Unread> {
        Ok(ClientKey {
            app: self.app(&client.app)?,
            client_id: text(&client.client_id, "client id")?.into(),
        })
    }

    fn app(&mut self, name: &[u8]) -> Result<AppId, Unread> {
        match &self.app {
            Some(last) if last.as_str().as_bytes() == name => Ok(last.clone()),
            _ => {
                let app = AppId::new(text(name, "app")?);
                Ok(self.app.insert(app).clone())
            }
        }
    }
}

fn interest(change: Interest) -> wire::InterestChange {
    let presence = |filter: Arc<str>, present| wire::Presence {
        filter: bytes(&filter),
        present,
    };
    match change {
        Interest::Live { filter, present } => wire::InterestChange::Live(presence(filter, present)),
        Interest::Durable { filter, present } => {
            wire::InterestChange::Durable(presence(filter, present))
        }
        Interest::Member {
            filter,
            client_id,
            member,
        } => wire::InterestChange::Member(wire::InterestMember {
            filter: bytes(&filter),
            client_id: bytes(&client_id),
            member: member.map(|member| wire::Member {
                qos: member.qos as u32,
                durable: member.durable,
                live: member.live,
                subscription_id: member.subscription_id,
                retain_as_published: member.retain_as_published,
                epoch: member.epoch.0,
            }),
        }),
    }
}

fn read_interest(change: wire::InterestChange) -> Result<Interest, Unread> {
    Ok(match change {
        wire::InterestChange::Live(presence) => Interest::Live {
            filter: text(&presence.filter, "filter")?.into(),
            present: presence.present,
        },
        wire::InterestChange::Durable(presence) => Interest::Durable {
            filter: text(&presence.filter, "filter")?.into(),
            present: presence.present,
        },
        wire::InterestChange::Member(change) => Interest::Member {
            filter: text(&change.filter, "filter")?.into(),
            client_id: text(&change.client_id, "client id")?.into(),
            member: change.member.map(read_member).transpose()?,
        },
    })
}

/// A shard means something within its node only, so it does not travel: the member lives at the sender.
fn read_member(member: wire::Member) -> Result<Member, Unread> {
    Ok(Member {
        shard: ShardId(0),
        qos: qos(member.qos)?,
        durable: member.durable,
        live: member.live,
        epoch: Epoch(member.epoch),
        subscription_id: member.subscription_id,
        retain_as_published: member.retain_as_published,
    })
}

fn change(change: Change) -> wire::ChangeKind {
    match change {
        Change::Retained { topic, message } => wire::ChangeKind::Retained(wire::Retained {
            topic: bytes(&topic),
            message: message.map(Carried::Out),
        }),
        Change::Filter { filter, present } => wire::ChangeKind::Filter(wire::Presence {
            filter: bytes(&filter),
            present,
        }),
        Change::Member {
            filter,
            client_id,
            member,
        } => wire::ChangeKind::Member(wire::InterestMember {
            filter: bytes(&filter),
            client_id: bytes(&client_id),
            member: member.map(|member| wire::Member {
                qos: member.qos as u32,
                durable: false,
                live: false,
                subscription_id: member.subscription_id,
                retain_as_published: member.retain_as_published,
                epoch: 0,
            }),
        }),
        Change::Profile { client_id, profile } => wire::ChangeKind::Profile(wire::Profile {
            client_id: bytes(&client_id),
            profile,
        }),
        Change::Campaign { push, row } => wire::ChangeKind::Campaign(wire::Campaign {
            push: Bytes::copy_from_slice(&push.0.to_be_bytes()),
            row,
        }),
    }
}

fn read_change(change: wire::ChangeKind) -> Result<Change, Unread> {
    Ok(match change {
        wire::ChangeKind::Retained(retained) => Change::Retained {
            topic: text(&retained.topic, "topic")?.into(),
            message: retained.message.map(message).transpose()?,
        },
        wire::ChangeKind::Filter(presence) => Change::Filter {
            filter: text(&presence.filter, "filter")?.into(),
            present: presence.present,
        },
        wire::ChangeKind::Member(change) => Change::Member {
            filter: text(&change.filter, "filter")?.into(),
            client_id: text(&change.client_id, "client id")?.into(),
            member: match change.member {
                None => None,
                Some(member) => Some(DurableMember {
                    qos: qos(member.qos)?,
                    subscription_id: member.subscription_id,
                    retain_as_published: member.retain_as_published,
                }),
            },
        },
        wire::ChangeKind::Profile(profile) => Change::Profile {
            client_id: text(&profile.client_id, "client id")?.into(),
            profile: profile.profile.as_deref().map(copied),
        },
        wire::ChangeKind::Campaign(campaign) => Change::Campaign {
            push: MessageId(u128::from_be_bytes(
                campaign
                    .push
                    .as_ref()
                    .try_into()
                    .map_err(|_| Unread::Faulty("push"))?,
            )),
            row: campaign.row.as_deref().map(copied),
        },
    })
}

fn read_answer(answer: wire::AnswerKind) -> Result<Answer, Unread> {
    Ok(match answer {
        wire::AnswerKind::Here(here) => Answer::Here(match here.connected {
            None => None,
            Some(connected) => Some(Connected {
                epoch: Epoch(connected.epoch),
                protocol_level: u8::try_from(connected.protocol_level)
                    .map_err(|_| Unread::Later)?,
                subscriptions: connected.subscriptions,
                in_flight: connected.in_flight,
                since: Millis(connected.since_ms),
                // For people: one that cannot be read is none.
                peer: connected.peer.parse().ok(),
                filters: connected
                    .filters
                    .iter()
                    .map(|filter| filter.as_str().into())
                    .collect(),
                behind: connected.behind,
                inbox_waits: connected.inbox_waits,
            }),
        }),
        wire::AnswerKind::Load(load) => Answer::Load(Load {
            connections: load.connections,
            capacity: load.capacity,
        }),
        wire::AnswerKind::ThisMany(live) => Answer::ThisMany(LiveCount {
            known: live.known,
            others: live.others,
        }),
    })
}

fn read_client_ids(clients: wire::ClientIds) -> Result<Arc<[Arc<str>]>, Unread> {
    let ids = clients.client_ids.iter();
    ids.map(|id| text(id, "client id").map(Arc::from)).collect()
}

fn message(carried: Carried) -> Result<Arc<Message>, Unread> {
    let published = match carried {
        Carried::In(published) => published,
        Carried::Out(message) => return Ok(message),
    };
    let topic = text(&published.topic, "topic")?;
    if topic.is_empty() {
        return Err(Unread::Faulty("topic"));
    }
    let id = u128::from(published.id_high) << 64 | u128::from(published.id_low);
    let kind = match published.kind {
        0 => Kind::Publish,
        1 => Kind::Push,
        _ => return Err(Unread::Later),
    };
    let mut message = Message::new(
        MessageId(id),
        kind,
        topic,
        &published.properties,
        &published.payload,
    );
    message.qos = qos(published.qos)?;
    message.retain = published.retain;
    message.expires_at = published.expires_at.map(Millis);
    if let Some(publisher) = &published.publisher {
        message.publisher = Some(text(publisher, "publisher")?.into());
    }
    message.audience = published.audience.as_deref().map(copied);
    Ok(Arc::new(message))
}

fn qos(number: u32) -> Result<QoS, Unread> {
    let number = u8::try_from(number).map_err(|_| Unread::Later)?;
    QoS::from_bits(number).ok_or(Unread::Later)
}

fn log_number(log: LogKind) -> u32 {
    match log {
        LogKind::Push => 0,
        LogKind::Topic(partition) => 1 + u32::from(partition),
    }
}

fn log_kind(number: u32) -> Result<LogKind, Unread> {
    match number.checked_sub(1) {
        None => Ok(LogKind::Push),
        Some(partition) => u8::try_from(partition)
            .map(LogKind::Topic)
            .map_err(|_| Unread::Later),
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Bytes on their own: a slice would keep its whole frame.
fn copied(slice: &[u8]) -> Bytes {
    Bytes::copy_from_slice(slice)
}

fn text<'a>(bytes: &'a [u8], part: &'static str) -> Result<&'a str, Unread> {
    std::str::from_utf8(bytes).map_err(|_| Unread::Faulty(part))
}
