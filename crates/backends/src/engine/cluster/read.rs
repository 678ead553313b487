//! What nodes that share a store ask it.

use campanile_broker::{
    ids::{AppId, ClientKey, Epoch, Generation, Offset},
    lane::{Lane, LaneSet},
    store::{
        ChangeEntry, Changes, ChangesQuery, LogKind, LogNews, Note, Page, SessionState, Snapshot,
    },
};

use super::{
    WithReaders,
    connections::owners,
    records::{ChangeRecord, ChangesRecord, FilterRecord, MailboxRecord, MemberRecord, NoteRecord},
};
use crate::engine::{
    inbox::offset_of_key,
    keys::{Subject, Table, log_of_number},
    kv::{KvError, View},
    read::{read_log, read_page},
    records::{DeviceRecord, InboxMetaRecord, LogMetaRecord, MessageRecord, damaged, decode},
    recover::for_each_of,
    rows::read_campaigns,
    stored::{push_cursor, read_cursors, read_memory, read_resumed},
};

/// A stored session as it is now.
pub fn read_session(view: &dyn View, client: &ClientKey) -> Result<Page, KvError> {
    let subject = Subject::client(client);
    let device: Option<DeviceRecord> = record(view, Table::Device, &subject, "device")?;
    let Some(session) = device.and_then(|device| device.session) else {
        return Ok(Page::Session(None));
    };
    let cursors = read_cursors(view, &subject)?;
    let push_log: Option<LogMetaRecord> = record(
        view,
        Table::LogMeta,
        &Subject::log(&client.app, LogKind::Push),
        "log",
    )?;
    let end = Offset(push_log.map_or(0, |log| log.end));
    Ok(Page::Session(Some(Box::new(SessionState {
        epoch: Epoch(session.epoch),
        owner: session.connected.then_some(Generation(session.owner)),
        state: read_resumed(view, &subject, &cursors)?,
        push_cursor: push_cursor(&cursors, end),
        inbox_waiting: record::<InboxMetaRecord>(view, Table::InboxMeta, &subject, "inbox")?
            .map_or(LaneSet::NONE, |inbox| inbox.lanes()),
        memory: read_memory(view, &subject)?,
    }))))
}

/// What of an app is new since.
pub fn read_changes(
    view: &dyn View,
    shared: &WithReaders,
    query: &ChangesQuery,
) -> Result<Page, KvError> {
    let mut changes = Changes {
        now: shared.clock(),
        owners: owners(view)?,
        ..Changes::default()
    };
    add_changes(view, query, &mut changes)?;
    for (log, known) in &query.logs {
        let page = read_log(view, &query.app, *log, *known, query.limit)?;
        let Page::Log {
            entries, read_to, ..
        } = page
        else {
            continue;
        };
        let subject = Subject::log(&query.app, *log);
        let meta: Option<LogMetaRecord> = record(view, Table::LogMeta, &subject, "log")?;
        let end = Offset(meta.map_or(0, |meta| meta.end));
        changes.more |= read_to < end;
        changes.logs.push(LogNews {
            log: *log,
            entries,
            went_back: end < *known,
        });
    }
    add_notes(view, shared, query, &mut changes)?;
    Ok(Page::Changes(Box::new(changes)))
}

fn add_changes(
    view: &dyn View,
    query: &ChangesQuery,
    changes: &mut Changes,
) -> Result<(), KvError> {
    let subject = Subject::app(query.app.as_str());
    let log: Option<ChangesRecord> = record(view, Table::Changes, &subject, "log of changes")?;
    let log = log.unwrap_or_default();
    // Who knows more than there is knows what the store has lost.
    if query.changes.0 < log.trimmed_to || query.changes.0 > log.end {
        changes.changes_lost = true;
        return Ok(());
    }
    let from = subject
        .clone()
        .offset(Offset(query.changes.0 + 1))
        .key(Table::Change);
    let to = subject.offset(Offset(u64::MAX)).key(Table::Change);
    let at_end = read_page(view, &from, &to, query.limit, |key, value| {
        let record: ChangeRecord = decode(value, "change")?;
        changes.changes.push(ChangeEntry {
            offset: offset_of_key(key)?,
            change: record.change()?,
        });
        Ok(value.len())
    })?;
    changes.more |= !at_end;
    Ok(())
}

fn add_notes(
    view: &dyn View,
    shared: &WithReaders,
    query: &ChangesQuery,
    changes: &mut Changes,
) -> Result<(), KvError> {
    let subject = Subject::generation(query.mailbox);
    let Some(mailbox) = record::<MailboxRecord>(view, Table::Mailbox, &subject, "mailbox")? else {
        return Ok(());
    };
    changes.notes_lost = query.notes.0 < mailbox.lost_to;
    let seen = shared.see_notes(query.mailbox, query.notes);
    let from = subject
        .clone()
        .offset(Offset(seen.0.saturating_add(1)))
        .key(Table::Note);
    let to = subject.offset(Offset(u64::MAX)).key(Table::Note);
    let at_end = read_page(view, &from, &to, query.limit, |key, value| {
        let record: NoteRecord = decode(value, "note")?;
        changes.notes.push(Note {
            offset: offset_of_key(key)?,
            client: record.client.client(),
            entry: Offset(record.entry),
            lane: Lane::from_code(record.lane.into()).ok_or_else(|| damaged("note"))?,
        });
        Ok(value.len())
    })?;
    changes.more |= !at_end;
    Ok(())
}

/// What a node must know of an app before it serves it.
pub fn read_snapshot(view: &dyn View, shared: &WithReaders, app: &AppId) -> Result<Page, KvError> {
    let subject = Subject::app(app.as_str());
    let log: Option<ChangesRecord> = record(view, Table::Changes, &subject, "log of changes")?;
    let mut snapshot = Snapshot {
        changes: Offset(log.map_or(0, |log| log.end)),
        now: shared.clock(),
        ..Snapshot::default()
    };
    for_each_of(view, Table::Retained, &subject, |_, value| {
        let message = decode::<MessageRecord>(value, "message")?.message()?;
        if !message.is_expired(snapshot.now) {
            snapshot.retained.push(message);
        }
        Ok(())
    })?;
    for_each_of(view, Table::Filter, &subject, |_, value| {
        let record: FilterRecord = decode(value, "filter")?;
        snapshot.filters.push(record.filter.into());
        Ok(())
    })?;
    for_each_of(view, Table::Member, &subject, |_, value| {
        let record: MemberRecord = decode(value, "member")?;
        let granted = record.granted.ok_or_else(|| damaged("member"))?.member()?;
        snapshot
            .members
            .push((record.filter.into(), record.client_id.into(), granted));
        Ok(())
    })?;
    for_each_of(view, Table::LogMeta, &subject, |key, value| {
        let number = key.last_chunk::<2>().copied().map(u16::from_be_bytes);
        let log = number.and_then(log_of_number);
        let record: LogMetaRecord = decode(value, "log")?;
        snapshot
            .log_ends
            .push((log.ok_or_else(|| damaged("log"))?, Offset(record.end)));
        Ok(())
    })?;
    snapshot.campaigns = read_campaigns(view, app)?;
    Ok(Page::Snapshot(Box::new(snapshot)))
}

fn record<R: prost::Message + Default>(
    view: &dyn View,
    table: Table,
    subject: &Subject,
    what: &str,
) -> Result<Option<R>, KvError> {
    view.get(&subject.key(table))?
        .map(|bytes| decode(&bytes, what))
        .transpose()
}
