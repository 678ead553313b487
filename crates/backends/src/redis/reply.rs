//! What the scripts answer, as outcomes, notices and pages.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use campanile_broker::{
    ids::{AppId, ClientKey, Epoch, Generation, MessageId, Millis, Offset},
    lane::{Lane, LaneSet},
    message::Message,
    store::{
        Change, Claimed, Command, Cursor, DurableMember, InboxEntry, InboxItem, LogEntry, Notice,
        Outcome, OwedWill, PacketId, Previous, QoS, Resumed, StoreError, StoredSubscription, Swept,
        Voided, Will,
    },
};
use campanile_push::{
    id::PushId,
    rows::{Table, Version},
    store::{self as push, Audience},
};

use super::pack::{Malformed, Packed};
use crate::{
    Reply, Request,
    engine::{
        keys::log_of_number,
        pushes::{push_item, push_message},
        records::{InboxRecord, MessageRecord, SubscriptionRecord, UnfinishedRecord, WillRecord},
    },
};

/// What a script says of a batch.
#[derive(Debug)]
pub struct Answer {
    /// One for each request.
    pub replies: Vec<Packed>,
    /// `[place of the request, kind, ...]`.
    pub notices: Vec<Packed>,
    /// Inbox entries that the quota dropped.
    pub dropped: u32,
    /// Commands that wrote.
    pub writes: u32,
    /// The last place that was given in the app; 0 if the batch did not look.
    pub place: Offset,
}

/// Reads the answer to a batch.
pub fn answer(bytes: &[u8]) -> Result<Answer, Malformed> {
    let [replies, notices, dropped, writes, place] = Packed::parse(bytes)?.tuple()?;
    Ok(Answer {
        replies: replies.array()?,
        notices: notices.array()?,
        dropped: dropped.number()? as u32,
        writes: writes.number()? as u32,
        place: offset(place)?,
    })
}

/// The reply to a request.
pub fn reply(request: &Request, answer: Packed) -> Result<Result<Reply, StoreError>, Malformed> {
    Ok(match request {
        Request::Broker(command) => broker_outcome(command, answer)?.map(Reply::Broker),
        Request::Push(command) => Ok(Reply::Push(push_outcome(command, answer)?)),
    })
}

fn broker_outcome(
    command: &Command,
    answer: Packed,
) -> Result<Result<Outcome, StoreError>, Malformed> {
    match (command, &answer) {
        (_, Packed::True) => Ok(Ok(Outcome::Done)),
        // With the last change, which all nodes must know.
        (Command::Subscribe(_), Packed::Number(_)) => Ok(Ok(Outcome::Done)),
        (_, Packed::Bytes(refusal)) if refusal == b"F" => Ok(Err(StoreError::Fenced)),
        (_, Packed::Bytes(refusal)) if refusal == b"N" => Ok(Ok(Outcome::Nothing)),
        (Command::Claim(_), _) => Ok(Ok(Outcome::Claimed(Box::new(claimed(answer)?)))),
        _ => Err(Malformed),
    }
}

fn push_outcome(command: &push::Command, answer: Packed) -> Result<push::Outcome, Malformed> {
    Ok(match answer {
        Packed::True => push::Outcome::Done,
        Packed::Bytes(word) => match word.as_slice() {
            b"K" => push::Outcome::KeyReused,
            b"C" => push::Outcome::Conflict,
            _ => return Err(Malformed),
        },
        Packed::Array(parts) if matches!(command, push::Command::Accept(_)) => {
            match parts.as_slice() {
                [_, targeted] => push::Outcome::Accepted {
                    targeted: figure(targeted)?,
                },
                [table] => push::Outcome::Full {
                    table: table_of(table)?,
                },
                _ => answered(Packed::Array(parts))?,
            }
        }
        Packed::Array(parts) if matches!(command, push::Command::Change(_)) => {
            let [table] = parts.as_slice() else {
                return Err(Malformed);
            };
            push::Outcome::Full {
                table: table_of(table)?,
            }
        }
        version @ Packed::Number(_) if matches!(command, push::Command::Change(_)) => {
            push::Outcome::Changed {
                version: Version(version.number()?),
            }
        }
        _ => return Err(Malformed),
    })
}

/// What a request was answered that used an idempotency key first.
pub fn answered(answer: Packed) -> Result<push::Outcome, Malformed> {
    match answer {
        Packed::Bytes(word) if word == b"K" => Ok(push::Outcome::KeyReused),
        Packed::Array(parts) => match parts.as_slice() {
            [_, Packed::Bytes(id), targeted, accepted_ms] => Ok(push::Outcome::Replayed {
                id: push_id(id)?,
                targeted: figure(targeted)?,
                accepted_ms: accepted_ms.number()?,
            }),
            _ => Err(Malformed),
        },
        _ => Err(Malformed),
    }
}

fn table_of(number: &Packed) -> Result<Table, Malformed> {
    let number = number.number()?;
    let table = Table::ALL.into_iter().find(|table| *table as u64 == number);
    table.ok_or(Malformed)
}

/// A figure, or `None` if it is not known yet.
fn figure(answer: &Packed) -> Result<Option<u64>, Malformed> {
    match answer {
        Packed::False => Ok(None),
        answer => answer.number().map(Some),
    }
}

/// A push by its id as the scripts write it.
pub fn push_id(hex: &[u8]) -> Result<PushId, Malformed> {
    let hex = std::str::from_utf8(hex).map_err(|_| Malformed)?;
    let id = u128::from_str_radix(hex, 16).map_err(|_| Malformed)?;
    Ok(PushId(id))
}

fn claimed(answer: Packed) -> Result<Claimed, Malformed> {
    let [
        epoch,
        ordinal,
        state,
        ended,
        owed,
        push_cursor,
        ends,
        waiting,
        previous,
        profile,
        changes,
        memory,
        begins,
    ] = answer.tuple()?;
    Ok(Claimed {
        epoch: Epoch(epoch.number()?),
        ordinal: ordinal.number()? as u32,
        resumed: state.option().map(resumed).transpose()?,
        ended_filters: ended.list(text)?,
        owed_will: owed.option().map(will).transpose()?,
        push_cursor: cursor(push_cursor)?,
        topic_ends: ends.list(offset)?,
        inbox_waiting: lanes(waiting)?,
        previous: previous.option().map(previous_of).transpose()?,
        profile: profile_of(profile)?,
        changes: offset(changes)?,
        memory: profile_of(memory)?,
        begins: begins.truth()?,
    })
}

/// Lanes of an inbox that hold anything: their codes.
pub fn lanes(answer: Packed) -> Result<LaneSet, Malformed> {
    Ok(answer.list(|code| lane(&code))?.into_iter().collect())
}

/// A lane of an inbox by its code.
pub fn lane(code: &Packed) -> Result<Lane, Malformed> {
    Lane::from_code(code.number()?).ok_or(Malformed)
}

/// A device's profile, or its memory.
pub fn profile_of(answer: Packed) -> Result<Option<Bytes>, Malformed> {
    answer
        .option()
        .map(|profile| profile.bytes().map(Bytes::from))
        .transpose()
}

fn previous_of(answer: Packed) -> Result<Previous, Malformed> {
    let [owner, epoch] = answer.tuple()?;
    Ok(Previous {
        generation: Generation(owner.number()?),
        epoch: Epoch(epoch.number()?),
    })
}

/// A stored session's state.
pub fn resumed(answer: Packed) -> Result<Resumed, Malformed> {
    let [filters, cursors, unfinished, received] = answer.tuple()?;
    let mut cursors = cursors.list(cursor)?;
    cursors.retain(|cursor| cursor.log != campanile_broker::store::LogKind::Push);
    let unfinished: UnfinishedRecord = record(unfinished)?;
    Ok(Resumed {
        subscriptions: filters.list(subscription)?,
        cursors,
        unfinished: unfinished.unfinished().map_err(|_| Malformed)?,
        received: received.list(|id| {
            let id = u16::try_from(id.number()?).map_err(|_| Malformed)?;
            PacketId::new(id).ok_or(Malformed)
        })?,
    })
}

/// A subscription: its filter and the rest.
pub fn subscription(answer: Packed) -> Result<StoredSubscription, Malformed> {
    let [filter, rest] = answer.tuple()?;
    let rest: SubscriptionRecord = record(rest)?;
    SubscriptionRecord {
        filter: filter.text()?,
        ..rest
    }
    .subscription()
    .map_err(|_| Malformed)
}

/// A cursor: log, place, places above it.
pub fn cursor(answer: Packed) -> Result<Cursor, Malformed> {
    let [log, done, above] = answer.tuple()?;
    let above = above.text()?;
    let above = above.split(',').filter(|place| !place.is_empty());
    Ok(Cursor {
        log: log_of(&log)?,
        done: offset(done)?,
        done_above: above
            .map(|place| place.parse().map(Offset).map_err(|_| Malformed))
            .collect::<Result<_, _>>()?,
    })
}

/// A log by its number.
pub fn log_of(number: &Packed) -> Result<campanile_broker::store::LogKind, Malformed> {
    let number = u16::try_from(number.number()?).map_err(|_| Malformed)?;
    log_of_number(number).ok_or(Malformed)
}

/// A place.
pub fn offset(answer: Packed) -> Result<Offset, Malformed> {
    Ok(Offset(answer.number()?))
}

/// A shared text.
pub fn text(answer: Packed) -> Result<Arc<str>, Malformed> {
    Ok(answer.text()?.into())
}

fn record<R: prost::Message + Default>(answer: Packed) -> Result<R, Malformed> {
    R::decode(answer.bytes()?.as_slice()).map_err(|_| Malformed)
}

fn will(answer: Packed) -> Result<Will, Malformed> {
    record::<WillRecord>(answer)?.will().map_err(|_| Malformed)
}

/// A stored message.
pub fn message(answer: Packed) -> Result<Arc<Message>, Malformed> {
    record::<MessageRecord>(answer)?
        .message()
        .map_err(|_| Malformed)
}

/// An entry of a log: place, message.
pub fn log_entry(answer: Packed) -> Result<LogEntry, Malformed> {
    let [place, stored] = answer.tuple()?;
    Ok(LogEntry {
        offset: offset(place)?,
        message: message(stored)?,
    })
}

/// An inbox record with the message that is stored elsewhere; `None` if that is gone.
pub fn inbox_item(
    stored: Packed,
    shared: Packed,
    lane: Lane,
) -> Result<Option<InboxItem>, Malformed> {
    let stored: InboxRecord = record(stored)?;
    let message = match (&stored.message, shared.option()) {
        (Some(own), _) => own.message().map_err(|_| Malformed)?,
        (None, Some(shared)) => message(shared)?,
        (None, None) => return Ok(None),
    };
    stored.item(message, lane).map(Some).map_err(|_| Malformed)
}

/// A will that is owed: client, record, when it is due, when the session ends, whether it is final.
pub fn owed_will(app: &AppId, answer: Packed) -> Result<OwedWill, Malformed> {
    let [client_id, stored, at, ends_at, is_final] = answer.tuple()?;
    let time = |at: Packed| at.option().map(|at| at.number().map(Millis)).transpose();
    Ok(OwedWill {
        client: ClientKey::new(app, &client_id.text()?),
        will: will(stored)?,
        at: time(at)?,
        session_expires_at: time(ends_at)?,
        is_final: is_final.truth()?,
    })
}

type Ended = Vec<(ClientKey, Vec<Arc<str>>)>;

fn ended(app: &AppId, answer: Packed) -> Result<Ended, Malformed> {
    answer.list(|session| {
        let [client_id, filters] = session.tuple()?;
        Ok((ClientKey::new(app, &client_id.text()?), filters.list(text)?))
    })
}

/// What a sweep of one app removed.
pub fn swept(app: &AppId, answer: Packed) -> Result<Swept, Malformed> {
    let [sessions, removed, more, wills] = answer.tuple()?;
    Ok(Swept {
        ended: ended(app, sessions)?,
        removed: removed.number()? as u32,
        more: more.truth()?,
        wills: wills.list(|will| owed_will(app, will))?,
    })
}

/// What the end of a node left in one app.
pub fn voided(app: &AppId, answer: Packed) -> Result<Voided, Malformed> {
    let [wills, sessions, more] = answer.tuple()?;
    Ok(Voided {
        wills: wills.list(|will| owed_will(app, will))?,
        ended: ended(app, sessions)?,
        more: more.truth()?,
    })
}

/// A change: kind, subject, client or `false`, value or `false`.
pub fn change(
    kind: &[u8],
    subject: Packed,
    client_id: Packed,
    value: Packed,
) -> Result<Change, Malformed> {
    let subject = text(subject)?;
    Ok(match kind {
        b"R" => Change::Retained {
            topic: subject,
            message: value.option().map(message).transpose()?,
        },
        b"F" => Change::Filter {
            filter: subject,
            present: value.option().is_some(),
        },
        b"M" => Change::Member {
            filter: subject,
            client_id: text(client_id)?,
            member: value.option().map(member).transpose()?,
        },
        b"P" => Change::Profile {
            client_id: subject,
            profile: profile_of(value)?,
        },
        b"C" => Change::Campaign {
            push: push_of_row(&subject)?,
            row: profile_of(value)?,
        },
        _ => return Err(Malformed),
    })
}

/// The push that a row is named after.
fn push_of_row(name: &str) -> Result<MessageId, Malformed> {
    let push: PushId = name.parse().map_err(|_| Malformed)?;
    Ok(MessageId(push.0))
}

/// A row of a campaign: the push, the value.
pub fn campaign(answer: Packed) -> Result<(MessageId, Bytes), Malformed> {
    let [name, value] = answer.tuple()?;
    Ok((push_of_row(&name.text()?)?, value.bytes()?.into()))
}

/// What was granted to a member: quality of service, retain as published, subscription identifier or 0.
pub fn member(answer: Packed) -> Result<DurableMember, Malformed> {
    let granted = answer.text()?;
    let numbers: Vec<u32> = granted
        .split(',')
        .map(|number| number.parse().map_err(|_| Malformed))
        .collect::<Result<_, _>>()?;
    let [qos, retain_as_published, id] = numbers[..] else {
        return Err(Malformed);
    };
    let qos = u8::try_from(qos).ok().and_then(QoS::from_bits);
    Ok(DurableMember {
        qos: qos.ok_or(Malformed)?,
        subscription_id: (id != 0).then_some(id),
        retain_as_published: retain_as_published == 1,
    })
}

/// Makes notices, with one copy of each push's message.
#[derive(Debug, Default)]
pub struct Announcer {
    pushes: HashMap<usize, Arc<Message>>,
}

impl Announcer {
    /// The notice of `[kind, ...]` that a request caused.
    pub fn notice(
        &mut self,
        index: usize,
        request: &Request,
        app: &AppId,
        announced: Vec<Packed>,
    ) -> Result<Notice, Malformed> {
        let mut parts = announced.into_iter();
        let mut next = || parts.next().ok_or(Malformed);
        let kind = next()?.bytes()?;
        let app = app.clone();
        Ok(match kind.as_slice() {
            b"L" => Notice::Log {
                app,
                log: log_of(&next()?)?,
                previous: offset(next()?)?,
                entry: LogEntry {
                    offset: offset(next()?)?,
                    message: self.message_of(index, request)?,
                },
                changes: offset(next()?)?,
            },
            b"I" => {
                let number = next()?.number()? as usize;
                let owner = Generation(next()?.number()?);
                let previous = offset(next()?)?;
                let place = offset(next()?)?;
                let replaced = next()?.option().map(offset).transpose()?;
                let (client_id, item) = self.inbox_entry(index, request, number)?;
                Notice::Inbox {
                    client: ClientKey { app, client_id },
                    owner,
                    previous,
                    entry: InboxEntry {
                        offset: place,
                        item,
                    },
                    replaced,
                }
            }
            b"T" => {
                let Request::Push(push::Command::Accept(accept)) = request else {
                    return Err(Malformed);
                };
                Notice::Instant {
                    app,
                    clients: match &accept.audience {
                        Audience::All | Audience::Matching(_) => None,
                        Audience::Devices(devices) => Some(devices.as_slice().into()),
                    },
                    message: self.message_of(index, request)?,
                }
            }
            kind => {
                let subject = next()?;
                let (previous, place) = (offset(next()?)?, offset(next()?)?);
                Notice::Change {
                    app,
                    previous,
                    offset: place,
                    change: change(kind, subject, next()?, next()?)?,
                }
            }
        })
    }

    fn message_of(&mut self, index: usize, request: &Request) -> Result<Arc<Message>, Malformed> {
        match request {
            Request::Broker(Command::Publish(publish)) => Ok(publish.message.clone()),
            Request::Push(push::Command::Accept(accept)) => Ok(self
                .pushes
                .entry(index)
                .or_insert_with(|| push_message(accept))
                .clone()),
            _ => Err(Malformed),
        }
    }

    fn inbox_entry(
        &mut self,
        index: usize,
        request: &Request,
        number: usize,
    ) -> Result<(Arc<str>, InboxItem), Malformed> {
        match request {
            Request::Broker(Command::Publish(publish)) => {
                publish.inboxes.get(number).cloned().ok_or(Malformed)
            }
            Request::Broker(Command::Subscribe(subscribe)) => {
                let item = subscribe.inbox.get(number).ok_or(Malformed)?;
                Ok((subscribe.client.client_id.clone(), item.clone()))
            }
            Request::Push(push::Command::Accept(accept)) => {
                let Audience::Devices(devices) = &accept.audience else {
                    return Err(Malformed);
                };
                let client_id = devices.get(number).ok_or(Malformed)?.clone();
                let message = self.message_of(index, request)?;
                Ok((client_id, push_item(&message, accept.priority)))
            }
            _ => Err(Malformed),
        }
    }
}
