//! What the broker reads: queries, and the pages that answer them.

use campanile_broker::{
    ids::{ClientKey, Epoch, Generation, Millis},
    lane::Lane,
    store::{
        ChangeEntry, Changes, InboxEntry, InboxItem, LogKind, LogNews, Note, Page, Query,
        SessionState, Snapshot, Source,
    },
};

use crate::redis::{
    pack::{Malformed, Pack, Packed},
    reply,
    request::{owner, pack_log},
};

/// Packs a query. Returns whose keys it reads.
pub(in crate::redis) fn pack_query<'a>(
    pack: &mut Pack,
    query: &'a Query,
    partitions: u8,
) -> &'a str {
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

pub(in crate::redis) fn page(query: &Query, answer: Packed) -> Result<Page, Malformed> {
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
