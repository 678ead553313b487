//! Reads, over connections of their own.

use std::{collections::BTreeMap, sync::Arc};

use campanile_broker::{
    ids::{ClientKey, Epoch, Generation, Millis},
    lane::Lane,
    store::{
        ChangeEntry, Changes, InboxEntry, InboxItem, LogKind, LogNews, Note, Page, Query,
        SessionState, Snapshot, Source, StoreError,
    },
};
use campanile_push::{
    app::AppName,
    event::{Draft, Event, EventId, Kind},
    explanation::{AtDevice, Presence, Time},
    funnel::Life,
    id::PushId,
    receipt::Mark,
    rows::{Key, Range, Row, Scope, Table, Version},
    series::Series,
    store::{
        Away, EventPage, Idempotency, Listed, MAX_LOOKED_AT, Outcome, Past, Report, Stored,
        Unavailable,
    },
};
use redis::{Pipeline, Value};
use roaring::RoaringBitmap;

use super::{
    APPS_TAG, Driver,
    commit::key,
    config::RedisConfig,
    figures::Figures,
    pack::{Malformed, Pack, Packed},
    replicated::Replicated,
    reply,
    request::{hex, mark_of, owner, pack_log, set_of},
    servers::{Down, Server, Servers, send},
};

/// Parts of a cohort that are read by one script, of 512 device numbers each: a few milliseconds of the server's time where it is large.
const COHORT_PARTS_AT_ONCE: u64 = 64;

/// Reads of both ports.
#[derive(Clone)]
pub struct RedisReader {
    pub(super) servers: Arc<Servers>,
    /// Connections on which replicas are waited for, so that no read waits behind that.
    pub(super) marking: Arc<Servers>,
    pub(super) config: Arc<RedisConfig>,
    pub(super) figures: Arc<Figures>,
    pub(super) replicated: Arc<Replicated>,
    pub(super) runtime: Arc<Driver>,
    /// Topic logs of an app.
    pub(super) partitions: u8,
}

impl campanile_push::store::Reader for RedisReader {
    fn rows_at(
        &self,
        scope: &Scope,
        keys: &[Key],
        now_ms: u64,
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        let mut pack = Pack::default();
        pack.array(3)
            .text("rows_at")
            .number(now_ms)
            .list(keys.iter(), |pack, key| {
                pack.array(2).number(key.table as u64).text(&key.name);
            });
        let answer = self.ask(tag_of(scope), pack)?;
        let rows = answer.array().map_err(|Malformed| malformed())?;
        if rows.len() != keys.len() {
            return Err(malformed().into());
        }
        let rows = keys.iter().zip(rows).map(|(key, found)| {
            let row = found.option().map(|found| row(key.name.clone(), found));
            row.transpose()
        });
        Ok(rows
            .collect::<Result<_, Malformed>>()
            .map_err(|Malformed| malformed())?)
    }

    fn rows(&self, range: &Range, now_ms: u64) -> Result<(Vec<Row>, bool), Unavailable> {
        let mut pack = Pack::default();
        pack.array(6)
            .text("rows")
            .number(now_ms)
            .number(range.table as u64)
            .text(&range.prefix)
            .option(range.after.as_ref(), |pack, after| {
                pack.text(after);
            })
            .number(range.limit as u64);
        let answer = self.ask(tag_of(&range.scope), pack)?;
        let page = |answer: Packed| {
            let [rows, more] = answer.tuple()?;
            Ok((rows.list(named_row)?, more.truth()?))
        };
        Ok(page(answer).map_err(|Malformed| malformed())?)
    }

    fn count_rows(&self, scope: &Scope, table: Table) -> Result<u64, Unavailable> {
        let mut pack = Pack::default();
        pack.array(2).text("count_rows").number(table as u64);
        let answer = self.ask(tag_of(scope), pack)?;
        Ok(answer.number().map_err(|Malformed| malformed())?)
    }

    fn device_numbers(
        &self,
        app: &AppName,
        devices: &[Arc<str>],
    ) -> Result<Vec<Option<u32>>, Unavailable> {
        let mut pack = Pack::default();
        pack.array(2)
            .text("numbers")
            .list(devices.iter(), |pack, device| {
                pack.text(device);
            });
        let answer = self.ask(app.as_str(), pack)?;
        let number = |found: Packed| {
            let number = found.option().map(|found| found.number());
            Ok(number.transpose()?.map(|number| number as u32))
        };
        Ok(answer.list(number).map_err(|Malformed| malformed())?)
    }

    fn cohort(
        &self,
        app: &AppName,
        cohort: &str,
        most: u64,
    ) -> Result<Option<RoaringBitmap>, Unavailable> {
        let mut numbers = RoaringBitmap::new();
        for first in (0..).step_by(COHORT_PARTS_AT_ONCE as usize) {
            let mut pack = Pack::default();
            pack.array(5)
                .text("cohort")
                .text(cohort)
                .number(most)
                .number(first)
                .number(COHORT_PARTS_AT_ONCE);
            let answer = self.ask(app.as_str(), pack)?;
            let page = |answer: Packed| {
                let [parts, all] = answer.tuple()?;
                let parts = parts.option().map(cohort_parts).transpose()?;
                Ok((parts, all.truth()?))
            };
            let (parts, all) = page(answer).map_err(|Malformed| malformed())?;
            let Some(parts) = parts else {
                return Ok(None);
            };
            numbers |= parts;
            if all {
                break;
            }
        }
        Ok(Some(numbers))
    }

    fn devices_numbered(
        &self,
        app: &AppName,
        numbers: &[u32],
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        let mut pack = Pack::default();
        pack.array(2)
            .text("numbered")
            .list(numbers.iter(), |pack, number| {
                pack.number(u64::from(*number));
            });
        let answer = self.ask(app.as_str(), pack)?;
        let found = |found: Packed| found.option().map(named_row).transpose();
        Ok(answer.list(found).map_err(|Malformed| malformed())?)
    }

    fn numbers_end(&self, app: &AppName) -> Result<u32, Unavailable> {
        let mut pack = Pack::default();
        pack.array(1).text("numbers_end");
        let end = self.ask(app.as_str(), pack)?.number();
        Ok(end.map_err(|Malformed| malformed())? as u32)
    }

    fn sessions(&self, app: &AppName) -> Result<u64, Unavailable> {
        let mut pack = Pack::default();
        pack.array(1).text("sessions");
        let sessions = self.ask(app.as_str(), pack)?.number();
        Ok(sessions.map_err(|Malformed| malformed())?)
    }

    fn answered(
        &self,
        app: &AppName,
        idempotency: &Idempotency,
        now_ms: u64,
    ) -> Result<Option<Outcome>, Unavailable> {
        let mut pack = Pack::default();
        pack.array(4)
            .text("answered")
            .text(&idempotency.key)
            .bytes(&idempotency.body_hash)
            .number(now_ms);
        let answer = self.ask(app.as_str(), pack)?.option();
        let outcome = answer.map(reply::answered).transpose();
        Ok(outcome.map_err(|Malformed| malformed())?)
    }

    fn stored(&self, app: &AppName) -> Result<Stored, Unavailable> {
        let mut pack = Pack::default();
        pack.array(1).text("stored");
        let stored = |answer: Packed| {
            Ok(Stored {
                bytes: answer.number()?,
            })
        };
        Ok(stored(self.ask(app.as_str(), pack)?).map_err(|Malformed| malformed())?)
    }

    fn marked(&self, app: &AppName, id: PushId, mark: Mark) -> Result<RoaringBitmap, Unavailable> {
        let Some(set) = set_of(mark) else {
            return Ok(RoaringBitmap::new());
        };
        let mut pack = Pack::default();
        let id = hex(campanile_broker::ids::MessageId(id.0));
        pack.array(3).text("marked").text(&id).text(set);
        let answer = self.ask(app.as_str(), pack)?;
        Ok(marked(answer).map_err(|Malformed| malformed())?)
    }

    fn at_device(&self, app: &AppName, id: PushId, device: &str) -> Result<AtDevice, Unavailable> {
        let mut pack = Pack::default();
        let id = hex(campanile_broker::ids::MessageId(id.0));
        pack.array(4)
            .text("at_device")
            .text(&id)
            .text(device)
            .number(self.partitions.into());
        let answer = self.ask(app.as_str(), pack)?.option().map(at_device);
        let found = answer.transpose().map_err(|Malformed| malformed())?;
        Ok(found.unwrap_or_default())
    }

    fn away(&self, app: &AppName, device: &str, now_ms: u64) -> Result<Option<Away>, Unavailable> {
        let mut pack = Pack::default();
        pack.array(5)
            .text("away")
            .text(device)
            .number(self.partitions.into())
            .number(now_ms)
            .number(Away::MOST_BEHIND.into());
        let found = self.ask(app.as_str(), pack)?.option().map(away);
        Ok(found.transpose().map_err(|Malformed| malformed())?)
    }

    fn report(
        &self,
        app: &AppName,
        id: PushId,
        now_ms: u64,
    ) -> Result<Option<Report>, Unavailable> {
        let mut pack = Pack::default();
        let id = hex(campanile_broker::ids::MessageId(id.0));
        pack.array(2).text("report").text(&id);
        let answer = self.ask(app.as_str(), pack)?;
        let report = answer.option().map(|answer| report(answer, now_ms));
        Ok(report.transpose().map_err(|Malformed| malformed())?)
    }

    fn events(&self, app: &AppName, after: u64, limit: usize) -> Result<EventPage, Unavailable> {
        let mut pack = Pack::default();
        pack.array(3)
            .text("events")
            .number(after)
            .number(limit as u64);
        Ok(self
            .runtime
            .block_on(self.lasting_events(app.as_str(), &pack.into_bytes()))?)
    }

    fn past(
        &self,
        app: &AppName,
        device: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Past, Unavailable> {
        let mut pack = Pack::default();
        pack.array(5)
            .text("past")
            .option(device, |pack, device| {
                pack.text(device);
            })
            .option(before, |pack, before| {
                pack.number(before);
            })
            .number(limit as u64)
            .number(MAX_LOOKED_AT as u64);
        let past = |answer: Packed| {
            let [events, before] = answer.tuple()?;
            let before = before.option().map(|before| before.number()).transpose()?;
            Ok(Past {
                events: listed_events(events)?,
                before,
            })
        };
        Ok(past(self.ask(app.as_str(), pack)?).map_err(|Malformed| malformed())?)
    }

    fn series(&self, app: &AppName, id: PushId) -> Result<Series, Unavailable> {
        let mut pack = Pack::default();
        let id = hex(campanile_broker::ids::MessageId(id.0));
        pack.array(2).text("series").text(&id);
        let answer = self.ask(app.as_str(), pack)?;
        Ok(series(answer).map_err(|Malformed| malformed())?)
    }

    fn pushes(
        &self,
        app: &AppName,
        before: Option<PushId>,
        limit: usize,
    ) -> Result<(Vec<Listed>, bool), Unavailable> {
        let mut pack = Pack::default();
        pack.array(3)
            .text("pushes")
            .option(before, |pack, id| {
                pack.text(&hex(campanile_broker::ids::MessageId(id.0)));
            })
            .number(limit as u64);
        let listed = |answer: Packed| {
            let [pushes, more] = answer.tuple()?;
            let pushes = pushes.list(|push| {
                let [id, accepted_ms, expires_ms, info] = push.tuple()?;
                Ok(Listed {
                    id: push_id(id)?,
                    accepted_ms: accepted_ms.number()?,
                    expires_ms: expires_ms.number()?,
                    info: info.bytes()?.into(),
                })
            })?;
            Ok((pushes, more.truth()?))
        };
        Ok(listed(self.ask(app.as_str(), pack)?).map_err(|Malformed| malformed())?)
    }
}

fn named_row(found: Packed) -> Result<Row, Malformed> {
    let [name, version, value] = found.tuple()?;
    Ok(Row {
        name: name.text()?,
        version: Version(version.number()?),
        value: value.bytes()?.into(),
    })
}

/// Parts of a cohort: the first number of each, and those within it.
fn cohort_parts(parts: Packed) -> Result<RoaringBitmap, Malformed> {
    let mut numbers = RoaringBitmap::new();
    for part in parts.array()? {
        let [first, members] = part.tuple()?;
        let first = first.number()? as u32;
        for member in members.array()? {
            numbers.insert(first + reply::text(member)?.parse::<u32>().map_err(|_| Malformed)?);
        }
    }
    Ok(numbers)
}

/// `STRETCH:SET` and its count, one after the other.
fn series(answer: Packed) -> Result<Series, Malformed> {
    let mut series = Series::default();
    for pair in answer.array()?.chunks(2) {
        let [field, count] = pair else {
            return Err(Malformed);
        };
        let field = field.clone().text()?;
        let (stretch, set) = field.split_once(':').ok_or(Malformed)?;
        let mark = mark_of(set).ok_or(Malformed)?;
        series.load(
            stretch.parse().map_err(|_| Malformed)?,
            mark,
            count.number()?,
        );
    }
    Ok(series)
}

fn push_id(id: Packed) -> Result<PushId, Malformed> {
    let id = u128::from_str_radix(&id.text()?, 16).map_err(|_| Malformed)?;
    Ok(PushId(id))
}

pub(super) fn event_page(answer: Packed) -> Result<EventPage, Malformed> {
    let [events, read_to, end, gap] = answer.tuple()?;
    Ok(EventPage {
        events: listed_events(events)?,
        read_to: read_to.number()?,
        end: end.number()?,
        gap: gap.truth()?,
    })
}

/// Those of kinds that this version knows.
fn listed_events(events: Packed) -> Result<Vec<Event>, Malformed> {
    Ok(events.list(event)?.into_iter().flatten().collect())
}

fn event(event: Packed) -> Result<Option<Event>, Malformed> {
    let [place, kind, device, push, data] = event.tuple()?;
    let code = u8::try_from(kind.number()?).ok();
    let Some(kind) = code.and_then(Kind::from_code) else {
        return Ok(None);
    };
    let place = place.number()?;
    let at_ms = time_of_place(place);
    let text = |text: Option<Packed>| text.map(reply::text).transpose();
    Ok(Some(Event {
        id: EventId::new(at_ms, place),
        at_ms,
        draft: Draft {
            device: text(device.option())?,
            push: push.option().map(push_id).transpose()?,
            kind,
            data: text(data.option())?,
        },
    }))
}

/// When a place was taken, as `first_place_of_now` of the script has it.
fn time_of_place(place: u64) -> u64 {
    const FIRST_MS: u64 = 1_735_689_600_000;
    const PLACES_OF_A_MS: u64 = 4096;
    FIRST_MS + place / PLACES_OF_A_MS
}

/// A read failed, for this reason.
#[derive(Clone, Debug)]
pub struct Failure(pub Arc<str>);

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> StoreError {
        StoreError::Unavailable(failure.0)
    }
}

impl From<Failure> for Unavailable {
    fn from(failure: Failure) -> Unavailable {
        Unavailable(failure.0)
    }
}

impl From<Down> for Failure {
    fn from(down: Down) -> Failure {
        Failure(down.0)
    }
}

pub(super) fn malformed() -> Failure {
    Failure("redis: an answer of the script, or a stored record in it, is damaged".into())
}

fn tag_of(scope: &Scope) -> &str {
    match scope {
        Scope::System => APPS_TAG,
        Scope::App(app) => app.as_str(),
    }
}

fn row(name: String, found: Packed) -> Result<Row, Malformed> {
    let [version, value] = found.tuple()?;
    Ok(Row {
        name,
        version: Version(version.number()?),
        value: value.bytes()?.into(),
    })
}

impl RedisReader {
    /// Runs a query over the keys of a tag.
    pub(super) fn ask(&self, tag: &str, query: Pack) -> Result<Packed, Failure> {
        let query = query.into_bytes();
        let answer = self.runtime.block_on(self.ask_primary(tag, &query));
        answer.map(|(_, answer)| answer)
    }

    pub(super) fn add_script(
        &self,
        pipeline: &mut Pipeline,
        server: &Server,
        tag: &str,
        query: &[u8],
    ) {
        pipeline
            .cmd("EVALSHA")
            .arg(&*server.script)
            .arg(1)
            .arg(key(&self.config.prefix, tag))
            .arg(query);
    }

    pub(super) async fn ask_primary(
        &self,
        tag: &str,
        query: &[u8],
    ) -> Result<(Server, Packed), Failure> {
        match self.try_to_ask(tag, query).await {
            Err(_) if !self.servers.is_down(tag) => {}
            answer => return answer,
        }
        // Once more over a new connection: the old one may have been closed while nobody asked.
        let again = match self.servers.find().await {
            Ok(()) => self.try_to_ask(tag, query).await,
            Err(down) => Err(down.into()),
        };
        if let Err(Failure(reason)) = &again {
            let address = self.servers.address(tag);
            self.servers
                .give_up(address.as_ref(), &Down(reason.clone()));
        }
        again
    }

    async fn try_to_ask(&self, tag: &str, query: &[u8]) -> Result<(Server, Packed), Failure> {
        let server = self.servers.of(tag).await?;
        let mut pipeline = redis::pipe();
        self.add_script(&mut pipeline, &server, tag, query);
        let mut connection = server.connection.clone();
        self.figures.count_round_trip(1);
        let answer = send(&mut connection, &pipeline, self.config.command_timeout).await;
        let failure = match answer.map(|mut answers| answers.pop()) {
            Ok(Some(Value::BulkString(bytes))) => {
                let answer = Packed::parse(&bytes).map_err(|Malformed| malformed())?;
                return Ok((server, answer));
            }
            Ok(Some(Value::ServerError(error))) => {
                format!("{} {}", error.code(), error.details().unwrap_or_default())
            }
            Ok(other) => format!("a script answered {other:?}"),
            Err(reason) => reason.to_string(),
        };
        self.servers.disconnect(&server);
        Err(Failure(
            format!("redis {}: {failure}", server.address).into(),
        ))
    }
}

/// Packs a query. Returns whose keys it reads.
pub(super) fn pack_query<'a>(pack: &mut Pack, query: &'a Query, partitions: u8) -> &'a str {
    match query {
        Query::Log {
            app,
            log,
            after,
            limit,
        } => {
            pack.array(4).text("log");
            pack_log(pack, *log);
            pack.number(after.0).number((*limit).into());
            app.as_str()
        }
        Query::Matching {
            app,
            log,
            filters,
            after,
            limit,
        } => {
            pack.array(5).text("matching");
            pack_log(pack, *log);
            pack.list(filters.iter(), |pack, filter| {
                pack.text(filter);
            })
            .number(after.0)
            .number((*limit).into());
            app.as_str()
        }
        Query::Entries { client, places } => {
            pack.array(3).text("entries").text(&client.client_id).list(
                places.iter(),
                |pack, (source, offset)| {
                    let log = match source {
                        Source::Inbox => None,
                        Source::Log(log) => Some(*log),
                        // Nodes know it: there is nothing in a log that no node has.
                        Source::Campaign(_) => Some(LogKind::Topic(u8::MAX)),
                    };
                    pack.array(2).option(log, pack_log).number(offset.0);
                },
            );
            client.app.as_str()
        }
        Query::Inbox {
            client,
            lane,
            after,
            limit,
        } => {
            pack.array(5)
                .text("inbox")
                .text(&client.client_id)
                .number(lane.code().into())
                .number(after.0)
                .number((*limit).into());
            client.app.as_str()
        }
        Query::Session { client } => {
            pack.array(3)
                .text("session")
                .text(&client.client_id)
                .number(partitions.into());
            client.app.as_str()
        }
        Query::Changes(query) => {
            pack.array(6)
                .text("changes")
                .number(query.changes.0)
                .list(query.logs.iter(), |pack, (log, after)| {
                    pack.array(2);
                    pack_log(pack, *log);
                    pack.number(after.0);
                })
                .text(&owner(query.mailbox))
                .number(query.notes.0)
                .number(query.limit.into());
            query.app.as_str()
        }
        Query::Profiles { app, clients } => {
            pack.array(2)
                .text("profiles")
                .list(clients.iter(), |pack, client_id| {
                    pack.text(client_id);
                });
            app.as_str()
        }
        Query::Snapshot { app } => {
            pack.array(1).text("snapshot");
            app.as_str()
        }
    }
}

pub(super) fn page(query: &Query, answer: Packed) -> Result<Page, Malformed> {
    Ok(match query {
        Query::Log { .. } | Query::Matching { .. } => {
            let [entries, read_to, gap] = answer.tuple()?;
            Page::Log {
                entries: entries.list(reply::log_entry)?,
                read_to: reply::offset(read_to)?,
                gap: gap.truth()?,
            }
        }
        Query::Entries { places, .. } => {
            let mut found = Vec::new();
            for entry in answer.array()? {
                let [number, stored, shared, lane] = entry.tuple()?;
                let place = *places.get(number.number()? as usize).ok_or(Malformed)?;
                let item = match place.0 {
                    Source::Inbox => reply::inbox_item(stored, shared, reply::lane(&lane)?)?,
                    Source::Log(_) => Some(log_item(stored)?),
                    Source::Campaign(_) => None,
                };
                found.extend(item.map(|item| (place, item)));
            }
            Page::Entries(found)
        }
        Query::Inbox { lane, .. } => {
            let [stored, more, lanes] = answer.tuple()?;
            let mut entries = Vec::new();
            for entry in stored.array()? {
                let [place, stored, shared] = entry.tuple()?;
                if let Some(item) = reply::inbox_item(stored, shared, *lane)? {
                    let offset = reply::offset(place)?;
                    entries.push(InboxEntry { offset, item });
                }
            }
            Page::Inbox {
                entries,
                more: more.truth()?,
                lanes: reply::lanes(lanes)?,
            }
        }
        Query::Session { .. } => {
            Page::Session(answer.option().map(session).transpose()?.map(Box::new))
        }
        Query::Profiles { clients, .. } => {
            let [profiles, changes] = answer.tuple()?;
            let profiles = profiles.list(reply::profile_of)?;
            if profiles.len() != clients.len() {
                return Err(Malformed);
            }
            Page::Profiles {
                profiles,
                changes: reply::offset(changes)?,
            }
        }
        Query::Changes(query) => Page::Changes(Box::new(changes(query, answer)?)),
        Query::Snapshot { .. } => Page::Snapshot(Box::new(snapshot(answer)?)),
    })
}

fn log_item(stored: Packed) -> Result<InboxItem, Malformed> {
    let message = reply::message(stored)?;
    Ok(InboxItem {
        qos: message.qos,
        retain: message.retain,
        subscription_ids: Default::default(),
        lane: Lane::Normal,
        message,
    })
}

fn session(answer: Packed) -> Result<SessionState, Malformed> {
    let [epoch, owner, state, cursor, waiting, memory] = answer.tuple()?;
    let owner = owner.option().map(|owner| owner.number().map(Generation));
    Ok(SessionState {
        epoch: Epoch(epoch.number()?),
        owner: owner.transpose()?,
        state: reply::resumed(state)?,
        push_cursor: reply::cursor(cursor)?,
        inbox_waiting: reply::lanes(waiting)?,
        memory: reply::profile_of(memory)?,
    })
}

fn changes(
    query: &campanile_broker::store::ChangesQuery,
    answer: Packed,
) -> Result<Changes, Malformed> {
    let [
        now,
        changes,
        changes_lost,
        logs,
        notes,
        notes_lost,
        owners,
        more,
    ] = answer.tuple()?;
    let logs = logs.array()?;
    if logs.len() != query.logs.len() {
        return Err(Malformed);
    }
    Ok(Changes {
        now: Millis(now.number()?),
        changes: changes.list(|change| {
            let [place, kind, subject, client_id, value] = change.tuple()?;
            Ok(ChangeEntry {
                offset: reply::offset(place)?,
                change: reply::change(&kind.bytes()?, subject, client_id, value)?,
            })
        })?,
        changes_lost: changes_lost.truth()?,
        logs: query
            .logs
            .iter()
            .zip(logs)
            .map(|((log, _), news)| {
                let [entries, went_back] = news.tuple()?;
                Ok(LogNews {
                    log: *log,
                    entries: entries.list(reply::log_entry)?,
                    went_back: went_back.truth()?,
                })
            })
            .collect::<Result<_, _>>()?,
        notes: notes.list(|note| {
            let [place, client_id, entry, lane] = note.tuple()?;
            Ok(Note {
                offset: reply::offset(place)?,
                client: ClientKey::new(&query.app, &client_id.text()?),
                entry: reply::offset(entry)?,
                lane: reply::lane(&lane)?,
            })
        })?,
        notes_lost: notes_lost.truth()?,
        owners: owners.list(|owner| Ok(Generation(owner.number()?)))?,
        more: more.truth()?,
    })
}

fn snapshot(answer: Packed) -> Result<Snapshot, Malformed> {
    let [
        changes,
        retained,
        filters,
        members,
        log_ends,
        now,
        campaigns,
    ] = answer.tuple()?;
    Ok(Snapshot {
        changes: reply::offset(changes)?,
        retained: retained.list(reply::message)?,
        filters: filters.list(reply::text)?,
        members: members.list(|member| {
            let [field, granted] = member.tuple()?;
            let field = field.text()?;
            let (filter, client_id) = field.split_once('\0').ok_or(Malformed)?;
            Ok((filter.into(), client_id.into(), reply::member(granted)?))
        })?,
        log_ends: log_ends.list(|end| {
            let [log, place] = end.tuple()?;
            Ok((reply::log_of(&log)?, reply::offset(place)?))
        })?,
        now: Millis(now.number()?),
        campaigns: campaigns.list(reply::campaign)?,
    })
}

/// Numbers, or bitmaps by chunk.
fn marked(answer: Packed) -> Result<RoaringBitmap, Malformed> {
    let [numbers, chunks] = answer.tuple()?;
    let mut devices = RoaringBitmap::new();
    for number in numbers.array()? {
        devices.insert(number.number()? as u32);
    }
    for (chunk, bits) in chunks.array()?.into_iter().enumerate() {
        // Redis counts the bits of a byte from the highest.
        let bits: Vec<u8> = bits
            .bytes()?
            .iter()
            .map(|byte| byte.reverse_bits())
            .collect();
        let first = (chunk as u32) << 16;
        devices |= RoaringBitmap::from_lsb0_bytes(first, &bits);
    }
    Ok(devices)
}

fn at_device(answer: Packed) -> Result<AtDevice, Malformed> {
    let [
        accepted_ms,
        expires_ms,
        counting,
        number,
        sets,
        connected,
        passed,
        entry,
        profile,
        collapsed_by,
        left_at,
    ] = answer.tuple()?;
    let number = number.option().map(|number| number.number());
    let entry = entry.option().map(reply::message).transpose()?;
    let marks = sets.list(|set| mark_of(&set.text()?).ok_or(Malformed))?;
    Ok(AtDevice {
        life: Some(Life {
            accepted_ms: accepted_ms.number()?,
            expires_ms: expires_ms.number()?,
            ended_ms: None,
        }),
        counting: counting.truth()?,
        number: number.transpose()?.map(|number| number as u32),
        marks: marks.into_iter().collect(),
        presence: match left_at.option() {
            _ if connected.truth()? => Presence::Connected,
            Some(at) => Presence::Away(Time(at.number()?)),
            None => Presence::Unknown,
        },
        is_passed: passed.truth()?,
        targeting: entry.and_then(|message| message.audience.clone()),
        profile: reply::profile_of(profile)?,
        collapsed_by: collapsed_by
            .option()
            .map(|by| reply::push_id(&by.bytes()?))
            .transpose()?,
    })
}

fn away(answer: Packed) -> Result<Away, Malformed> {
    let [since_ms, expires_ms, behind, inbox] = answer.tuple()?;
    let number = |number: Packed| number.option().map(|number| number.number()).transpose();
    Ok(Away {
        since_ms: number(since_ms)?,
        expires_ms: number(expires_ms)?,
        behind: number(behind)?.map(|behind| behind as u32),
        inbox: inbox.number()? as u32,
    })
}

fn report(answer: Packed, now_ms: u64) -> Result<Report, Malformed> {
    let [
        accepted_ms,
        expires_ms,
        targeted,
        delivered,
        dropped,
        counting,
        displayed,
        clicked,
        dismissed,
        settled,
        info,
    ] = answer.tuple()?;
    let mut counts = BTreeMap::new();
    for entry in settled.array()? {
        let [set, count] = entry.tuple()?;
        let mark = mark_of(&set.text()?).ok_or(Malformed)?;
        counts.insert(mark, count.number()?);
    }
    let report = Report {
        accepted_ms: accepted_ms.number()?,
        expires_ms: expires_ms.number()?,
        targeted: targeted.number()?,
        delivered: delivered.number()?,
        collapsed: counts.remove(&Mark::Collapsed).unwrap_or(0),
        dropped: dropped.number()?,
        counting: counting.truth()?,
        displayed: displayed.number()?,
        clicked: clicked.number()?,
        dismissed: dismissed.number()?,
        settled: counts,
        info: info.bytes()?.into(),
        ..Report::default()
    };
    Ok(report.with_rest(now_ms))
}
