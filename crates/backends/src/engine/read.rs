//! Answers to queries, from committed state.

use std::{ops::ControlFlow, sync::Arc};

use campanile_broker::{
    ids::{AppId, ClientKey, Millis, Offset},
    lane::Lane,
    message::Message,
    store::{InboxEntry, InboxItem, LogEntry, LogKind, Page, Query, Source, StoreError},
};
use campanile_push::{
    app::AppName,
    explanation::AtDevice,
    funnel::PRECEDENCE,
    id::PushId,
    receipt::{DropReason, Mark},
    rows::{Key, Range, Row, Scope, Table as RowTable},
    series::Series,
    store::{Away, EventPage, Idempotency, Listed, Outcome, Past, Report, Stored, Unavailable},
};
use roaring::RoaringBitmap;

use super::{
    at_device::read_at_device,
    away::read_away,
    cluster::{
        WithReaders, last_change, no_cluster,
        read::{read_changes, read_session, read_snapshot},
    },
    cohorts::{read_cohort, read_devices_numbered, read_numbers_end},
    events::{read_events, read_past},
    inbox::{inbox_entry, offset_of_key},
    keys::{Subject, Table, inbox_table},
    kv::{KvError, Reads, View, after_prefix},
    publish::{ALL_FILTERS, posting},
    pushes::first_answer,
    records::{
        DeviceRecord, IdempotencyRecord, InboxMetaRecord, InboxRecord, LogMetaRecord, LogRecord,
        MessageRecord, PushRecord, damaged, decode,
    },
    rows::{read_profile, read_row_count, read_rows, read_rows_at},
    series::read_series,
    state::{EphemeralClients, StoredSessions},
    txn::decode_chunk,
};

/// A page ends after about this many bytes.
const PAGE_BYTES: usize = 1024 * 1024;

/// Reads of both ports over committed state.
#[derive(Debug)]
pub struct EngineReader<R> {
    pub reads: R,
    /// Of clients without a stored session nothing is committed.
    pub connected: Arc<EphemeralClients>,
    /// Of the others, how many there are.
    pub stored_sessions: Arc<StoredSessions>,
    /// What a store that nodes share is asked beside the rest needs it.
    pub shared: Option<Arc<WithReaders>>,
}

impl<R: Reads> crate::Reader for EngineReader<R> {
    fn read(&self, query: &Query) -> Result<Page, StoreError> {
        let page = self.reads.with_view(|view| match query {
            Query::Log {
                app,
                log,
                after,
                limit,
            } => read_log(view, app, *log, *after, *limit),
            Query::Matching {
                app,
                log,
                filters,
                after,
                limit,
            } => read_matching(view, app, *log, filters, *after, *limit),
            Query::Entries { client, places } => read_entries(view, client, places),
            Query::Inbox {
                client,
                lane,
                after,
                limit,
            } => read_inbox(view, client, *lane, *after, *limit),
            Query::Session { client } => {
                self.shared.as_ref().ok_or_else(no_cluster)?;
                read_session(view, client)
            }
            Query::Changes(query) => {
                let shared = self.shared.as_ref().ok_or_else(no_cluster)?;
                read_changes(view, shared, query)
            }
            Query::Profiles { app, clients } => read_profiles(view, app, clients),
            Query::Snapshot { app } => {
                let shared = self.shared.as_ref().ok_or_else(no_cluster)?;
                read_snapshot(view, shared, app)
            }
        });
        Ok(page?)
    }
}

impl<R: Reads> campanile_push::store::Reader for EngineReader<R> {
    fn rows_at(
        &self,
        scope: &Scope,
        keys: &[Key],
        now_ms: u64,
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        Ok(self
            .reads
            .with_view(|view| read_rows_at(view, scope, keys, now_ms))?)
    }

    fn rows(&self, range: &Range, now_ms: u64) -> Result<(Vec<Row>, bool), Unavailable> {
        Ok(self
            .reads
            .with_view(|view| read_rows(view, range, now_ms))?)
    }

    fn count_rows(&self, scope: &Scope, table: RowTable) -> Result<u64, Unavailable> {
        Ok(self
            .reads
            .with_view(|view| read_row_count(view, scope, table))?)
    }

    fn device_numbers(
        &self,
        app: &AppName,
        devices: &[Arc<str>],
    ) -> Result<Vec<Option<u32>>, Unavailable> {
        let number = |view: &dyn View, device: &str| {
            let key = Subject::app(app.as_str()).text(device).key(Table::Device);
            let Some(bytes) = view.get(&key)? else {
                return Ok(None);
            };
            Ok(Some(decode::<DeviceRecord>(&bytes, "device")?.ordinal))
        };
        Ok(self
            .reads
            .with_view(|view| devices.iter().map(|device| number(view, device)).collect())?)
    }

    fn cohort(
        &self,
        app: &AppName,
        cohort: &str,
        most: u64,
    ) -> Result<Option<RoaringBitmap>, Unavailable> {
        Ok(self
            .reads
            .with_view(|view| read_cohort(view, app, cohort, most))?)
    }

    fn devices_numbered(
        &self,
        app: &AppName,
        numbers: &[u32],
    ) -> Result<Vec<Option<Row>>, Unavailable> {
        Ok(self
            .reads
            .with_view(|view| read_devices_numbered(view, app, numbers))?)
    }

    fn numbers_end(&self, app: &AppName) -> Result<u32, Unavailable> {
        Ok(self.reads.with_view(|view| read_numbers_end(view, app))?)
    }

    fn sessions(&self, app: &AppName) -> Result<u64, Unavailable> {
        let app = AppId::new(app.as_str());
        Ok(self.connected.len(&app) + self.stored_sessions.of(&app))
    }

    fn answered(
        &self,
        app: &AppName,
        idempotency: &Idempotency,
        now_ms: u64,
    ) -> Result<Option<Outcome>, Unavailable> {
        let subject = Subject::app(app.as_str()).text(&idempotency.key);
        Ok(self.reads.with_view(|view| {
            let used = view.get(&subject.key(Table::Idempotency))?;
            let used = used.map(|bytes| decode::<IdempotencyRecord>(&bytes, "idempotency key"));
            first_answer(used.transpose()?, idempotency, now_ms)
        })?)
    }

    fn stored(&self, app: &AppName) -> Result<Stored, Unavailable> {
        Ok(self.reads.with_view(|view| read_stored(view, app))?)
    }

    fn marked(&self, app: &AppName, id: PushId, mark: Mark) -> Result<RoaringBitmap, Unavailable> {
        let push = Subject::push(app.as_str(), id.0);
        Ok(self
            .reads
            .with_view(|view| read_marked(view, &push, mark))?)
    }

    fn at_device(&self, app: &AppName, id: PushId, device: &str) -> Result<AtDevice, Unavailable> {
        let without_session = self.connected.get(&AppId::new(app.as_str()), device);
        Ok(self
            .reads
            .with_view(|view| read_at_device(view, app, id, device, without_session))?)
    }

    fn away(&self, app: &AppName, device: &str, now_ms: u64) -> Result<Option<Away>, Unavailable> {
        let now = Millis(now_ms);
        Ok(self
            .reads
            .with_view(|view| read_away(view, app, device, now))?)
    }

    fn report(
        &self,
        app: &AppName,
        id: PushId,
        now_ms: u64,
    ) -> Result<Option<Report>, Unavailable> {
        let push = Subject::push(app.as_str(), id.0);
        Ok(self
            .reads
            .with_view(|view| read_report(view, &push, now_ms))?)
    }

    fn events(&self, app: &AppName, after: u64, limit: usize) -> Result<EventPage, Unavailable> {
        Ok(self
            .reads
            .with_view(|view| read_events(view, app, after, limit))?)
    }

    fn past(
        &self,
        app: &AppName,
        device: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Past, Unavailable> {
        Ok(self
            .reads
            .with_view(|view| read_past(view, app, device, before, limit))?)
    }

    fn series(&self, app: &AppName, id: PushId) -> Result<Series, Unavailable> {
        Ok(self.reads.with_view(|view| read_series(view, app, id))?)
    }

    fn pushes(
        &self,
        app: &AppName,
        before: Option<PushId>,
        limit: usize,
    ) -> Result<(Vec<Listed>, bool), Unavailable> {
        Ok(self
            .reads
            .with_view(|view| read_pushes(view, app, before, limit))?)
    }
}

/// Pushes, the greatest ids first.
fn read_pushes(
    view: &dyn View,
    app: &AppName,
    before: Option<PushId>,
    limit: usize,
) -> Result<(Vec<Listed>, bool), KvError> {
    let app = Subject::app(app.as_str());
    let from = app.key(Table::Push);
    let to = match before {
        Some(id) => app.key_with(Table::Push, &id.0.to_be_bytes()),
        None => after_prefix(&from),
    };
    let (mut found, mut more) = (Vec::new(), false);
    let mut outcome = Ok(());
    view.scan_back(&from, &to, &mut |key, value| {
        if found.len() >= limit {
            more = true;
            return ControlFlow::Break(());
        }
        let id = Subject::of_key(key).push_id();
        match decode::<PushRecord>(value, "push") {
            Ok(record) if record.is_control => {}
            Ok(record) => found.extend(id.map(|id| Listed {
                id: PushId(id),
                accepted_ms: record.accepted_ms,
                expires_ms: record.expires_ms,
                info: record.info,
            })),
            Err(error) => {
                outcome = Err(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    outcome.map(|()| (found, more))
}

fn read_stored(view: &dyn View, app: &AppName) -> Result<Stored, KvError> {
    let mut stored = Stored::default();
    let subject = Subject::app(app.as_str());
    let mut fault = None;
    let mut add = |table: Table, bytes: &dyn Fn(&[u8]) -> Result<u64, KvError>| {
        let (from, to) = subject.range(table);
        view.scan(&from, &to, &mut |_, value| match bytes(value) {
            Ok(bytes) => {
                stored.bytes += bytes;
                ControlFlow::Continue(())
            }
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        })
    };
    add(Table::LogMeta, &|value| {
        Ok(decode::<LogMetaRecord>(value, "log")?.bytes)
    })?;
    add(Table::InboxMeta, &|value| {
        Ok(decode::<InboxMetaRecord>(value, "inbox")?.bytes)
    })?;
    add(Table::Retained, &|value| Ok(value.len() as u64))?;
    fault.map_or(Ok(stored), Err)
}

/// A page of a log.
pub fn read_log(
    view: &dyn View,
    app: &AppId,
    log: LogKind,
    after: Offset,
    limit: u32,
) -> Result<Page, KvError> {
    let subject = Subject::log(app, log);
    let meta = view.get(&subject.key(Table::LogMeta))?;
    let meta: LogMetaRecord = meta
        .map(|bytes| decode(&bytes, "log"))
        .transpose()?
        .unwrap_or_default();
    let start = after.0.max(meta.trimmed_to).saturating_add(1);
    let from = subject.clone().offset(Offset(start)).key(Table::Log);
    let to = subject.offset(Offset(u64::MAX)).key(Table::Log);
    let mut entries: Vec<LogEntry> = Vec::new();
    let at_end = read_page(view, &from, &to, limit, |key, value| {
        let record: LogRecord = decode(value, "log entry")?;
        entries.push(LogEntry {
            offset: offset_of_key(key)?,
            message: record.message.message()?,
        });
        Ok(record.message.bytes.len())
    })?;
    let read_to = match entries.last() {
        Some(last) if !at_end => last.offset,
        None if !at_end => after,
        _ => after.max(Offset(meta.end)),
    };
    Ok(Page::Log {
        entries,
        read_to,
        gap: after.0 < meta.trimmed_to,
    })
}

fn read_matching(
    view: &dyn View,
    app: &AppId,
    log: LogKind,
    filters: &[Arc<str>],
    after: Offset,
    limit: u32,
) -> Result<Page, KvError> {
    let subject = Subject::log(app, log);
    let meta = view.get(&subject.key(Table::LogMeta))?;
    let meta: LogMetaRecord = meta
        .map(|bytes| decode(&bytes, "log"))
        .transpose()?
        .unwrap_or_default();
    let start = Offset(after.0.max(meta.trimmed_to).saturating_add(1));
    let mut offsets = Vec::new();
    let mut at_end = true;
    for filter in filters.iter().map(|filter| &**filter).chain([ALL_FILTERS]) {
        // The first of the union are among the first of each.
        let postings = posting(app, log, filter);
        let from = postings.clone().offset(start).key(Table::Posting);
        let to = postings.offset(Offset(u64::MAX)).key(Table::Posting);
        at_end &= read_page(view, &from, &to, limit, |key, _| {
            offsets.push(offset_of_key(key)?);
            Ok(0)
        })?;
    }
    offsets.sort_unstable();
    offsets.dedup();
    let mut entries: Vec<LogEntry> = Vec::new();
    let mut bytes = 0;
    for offset in offsets {
        if entries.len() >= limit as usize || bytes >= PAGE_BYTES {
            at_end = false;
            break;
        }
        let key = subject.clone().offset(offset).key(Table::Log);
        let Some(value) = view.get(&key)? else {
            continue;
        };
        let message = decode::<LogRecord>(&value, "log entry")?
            .message
            .message()?;
        bytes += message.size_bytes();
        entries.push(LogEntry { offset, message });
    }
    let read_to = match entries.last() {
        Some(last) if !at_end => last.offset,
        None if !at_end => after,
        _ => after.max(Offset(meta.end)),
    };
    Ok(Page::Log {
        entries,
        read_to,
        gap: after.0 < meta.trimmed_to,
    })
}

fn read_inbox(
    view: &dyn View,
    client: &ClientKey,
    lane: Lane,
    after: Offset,
    limit: u32,
) -> Result<Page, KvError> {
    let subject = Subject::client(client);
    let meta = view.get(&subject.key(Table::InboxMeta))?;
    let meta: InboxMetaRecord = meta
        .map(|bytes| decode(&bytes, "inbox"))
        .transpose()?
        .unwrap_or_default();
    let mut entries = Vec::new();
    let mut at_end = true;
    if meta.lanes().contains(lane) {
        let start = after.0.saturating_add(1).max(meta.lane(lane).first);
        let from = subject.clone().offset(Offset(start));
        let to = subject.offset(Offset(u64::MAX));
        let (from, to) = (from.key(inbox_table(lane)), to.key(inbox_table(lane)));
        at_end = read_page(view, &from, &to, limit, |key, value| {
            let (offset, record) = inbox_entry(key, value)?;
            if let Some(item) = item(view, client, &record, lane)? {
                entries.push(InboxEntry { offset, item });
            }
            Ok(record.size_bytes as usize)
        })?;
    }
    Ok(Page::Inbox {
        entries,
        more: !at_end,
        lanes: meta.lanes(),
    })
}

/// Takes entries in `from..to` until the limits of a page are reached. Returns whether that was all.
pub fn read_page(
    view: &dyn View,
    from: &[u8],
    to: &[u8],
    limit: u32,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<usize, KvError>,
) -> Result<bool, KvError> {
    let (mut count, mut bytes, mut at_end) = (0, 0, true);
    let mut outcome = Ok(());
    if from >= to {
        return Ok(true);
    }
    view.scan(from, to, &mut |key, value| {
        if count >= limit || bytes >= PAGE_BYTES {
            at_end = false;
            return ControlFlow::Break(());
        }
        match take(key, value) {
            Ok(size) => {
                count += 1;
                bytes += size;
                ControlFlow::Continue(())
            }
            Err(error) => {
                outcome = Err(error);
                ControlFlow::Break(())
            }
        }
    })?;
    outcome.map(|()| at_end)
}

fn read_entries(
    view: &dyn View,
    client: &ClientKey,
    places: &[(Source, Offset)],
) -> Result<Page, KvError> {
    let inbox = Subject::client(client);
    let mut found = Vec::new();
    for &(source, offset) in places {
        let item = match source {
            // Nodes know it.
            Source::Campaign(_) => None,
            Source::Inbox => {
                let mut found = None;
                for lane in Lane::ALL {
                    let key = inbox.clone().offset(offset).key(inbox_table(lane));
                    if let Some(bytes) = view.get(&key)? {
                        found = item(view, client, &decode(&bytes, "inbox entry")?, lane)?;
                        break;
                    }
                }
                found
            }
            Source::Log(log) => {
                let key = Subject::log(&client.app, log)
                    .offset(offset)
                    .key(Table::Log);
                view.get(&key)?.map(|bytes| log_item(&bytes)).transpose()?
            }
        };
        found.extend(item.map(|item| ((source, offset), item)));
    }
    Ok(Page::Entries(found))
}

fn read_profiles(view: &dyn View, app: &AppId, clients: &[Arc<str>]) -> Result<Page, KvError> {
    let profile = |client_id: &Arc<str>| {
        let device = Subject::app(app.as_str()).text(client_id);
        read_profile(view, &device)
    };
    Ok(Page::Profiles {
        profiles: clients.iter().map(profile).collect::<Result<_, _>>()?,
        changes: last_change(view, app)?,
    })
}

fn log_item(bytes: &[u8]) -> Result<InboxItem, KvError> {
    let message = decode::<LogRecord>(bytes, "log entry")?.message.message()?;
    Ok(InboxItem {
        qos: message.qos,
        retain: message.retain,
        subscription_ids: Default::default(),
        lane: Lane::Normal,
        message,
    })
}

fn item(
    view: &dyn View,
    client: &ClientKey,
    record: &InboxRecord,
    lane: Lane,
) -> Result<Option<InboxItem>, KvError> {
    let message: Option<Arc<Message>> = match (&record.message, record.push_id()?) {
        (Some(message), _) => Some(message.message()?),
        (None, Some(push)) => {
            let key = Subject::push(client.app.as_str(), push).key(Table::PushMessage);
            let bytes = view.get(&key)?;
            bytes
                .map(|bytes| decode::<MessageRecord>(&bytes, "message")?.message())
                .transpose()?
        }
        (None, None) => None,
    };
    message
        .map(|message| record.item(message, lane))
        .transpose()
}

fn read_report(view: &dyn View, push: &Subject, now_ms: u64) -> Result<Option<Report>, KvError> {
    let Some(bytes) = view.get(&push.key(Table::Push))? else {
        return Ok(None);
    };
    let record: PushRecord = decode(&bytes, "push")?;
    let mut report = Report {
        accepted_ms: record.accepted_ms,
        expires_ms: record.expires_ms,
        targeted: record.targeted,
        counting: record.to_audience && !record.is_counted,
        info: record.info,
        ..Report::default()
    };
    let mut chunks = Vec::new();
    let from = push.key_with(Table::Receipts, &[Mark::Targeted.code()]);
    let to = push.key_with(Table::Receipts, &[Mark::Targeted.code() + 1]);
    view.scan(&from, &to, &mut |key, value| {
        chunks.push((key[key.len() - 2..].to_vec(), value.clone()));
        ControlFlow::Continue(())
    })?;
    for (chunk, targeted) in chunks {
        let targeted = decode_chunk(&targeted)?;
        if record.to_audience {
            report.targeted += targeted.len();
        }
        let set = |mark: Mark| -> Result<_, KvError> {
            let tail = [&[mark.code()], chunk.as_slice()].concat();
            let bytes = view.get(&push.key_with(Table::Receipts, &tail))?;
            Ok(bytes
                .map(|bytes| decode_chunk(&bytes))
                .transpose()?
                .unwrap_or_default()
                & &targeted)
        };
        let delivered = set(Mark::Delivered)?;
        report.delivered += delivered.len();
        let mut rest = &targeted - delivered;
        for mark in PRECEDENCE {
            let with = &rest & set(mark)?;
            match mark {
                _ if with.is_empty() => {}
                Mark::Dropped(DropReason::InboxFull) => report.dropped += with.len(),
                Mark::Collapsed => report.collapsed += with.len(),
                _ => *report.settled.entry(mark).or_default() += with.len(),
            }
            rest -= with;
        }
        report.displayed += set(Mark::Displayed)?.len();
        report.clicked += set(Mark::Clicked)?.len();
        report.dismissed += set(Mark::Dismissed)?.len();
    }
    Ok(Some(report.with_rest(now_ms)))
}

fn read_marked(view: &dyn View, push: &Subject, mark: Mark) -> Result<RoaringBitmap, KvError> {
    let from = push.key_with(Table::Receipts, &[mark.code()]);
    let to = after_prefix(&from);
    let (mut devices, mut failed) = (RoaringBitmap::new(), None);
    view.scan(&from, &to, &mut |key, value| {
        let chunk = key.last_chunk::<2>().copied().map(u16::from_be_bytes);
        match (chunk, decode_chunk(value)) {
            (Some(chunk), Ok(bits)) => {
                let first = u32::from(chunk) << 16;
                devices.extend(bits.iter().map(|bit| first | bit));
                ControlFlow::Continue(())
            }
            (_, bits) => {
                failed = Some(bits.err().unwrap_or_else(|| damaged("set of devices")));
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(devices), Err)
}
