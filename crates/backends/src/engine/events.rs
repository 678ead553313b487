//! The event log of an app: what happened, for whoever wants to know.
//!
//! An entry is written in the commit that makes it true, and only while the app has [listeners](LISTENERS).

use std::{ops::ControlFlow, sync::Arc};

use campanile_broker::{
    ids::{ClientKey, Millis},
    store::{StoreError, Swept},
};
use campanile_push::{
    app::AppName,
    event::{Draft, Event, EventId, Kind, What},
    id::PushId,
    rows::{LISTENERS, Scope, Table as RowTable},
    store::{EventPage, MAX_LOOKED_AT, Past},
};

use super::{
    inbox::offset_of_key,
    keys::{Subject, Table},
    kv::{KvError, Value, View},
    records::{EventLogRecord, EventRecord, damaged, decode},
    rows::read_row_count,
    txn::Txn,
};

/// A page ends after about this many bytes.
const PAGE_BYTES: usize = 1024 * 1024;

impl Txn<'_> {
    /// Whether what happens in an app is written down.
    pub fn has_listeners(&self, app: &str) -> Result<bool, KvError> {
        // Clients may be of a name that no app of the push domain can have.
        let Ok(app) = AppName::new(app) else {
            return Ok(false);
        };
        let scope = Scope::App(app);
        for table in LISTENERS {
            if read_row_count(self, &scope, table)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes down what happened to a push, or to a device with it, if somebody wants to know.
    pub fn tell_of_push(
        &mut self,
        app: &str,
        push: u128,
        device: Option<&str>,
        what: &What,
    ) -> Result<(), StoreError> {
        if !self.has_listeners(app)? {
            return Ok(());
        }
        let device = device.map(Arc::from);
        self.append_event(app, &Draft::new(device.as_ref(), Some(PushId(push)), what))
    }

    /// Writes down that a device connected or disconnected, if somebody wants to know. While nothing can be written, clients come and go all the same.
    pub fn tell_of_connection(
        &mut self,
        client: &ClientKey,
        what: &What,
    ) -> Result<(), StoreError> {
        let app = client.app.as_str();
        if !self.is_writable() || !self.has_listeners(app)? {
            return Ok(());
        }
        self.append_event(app, &Draft::new(Some(&client.client_id), None, what))
    }

    /// Appends to the event log of an app.
    pub fn append_event(&mut self, app: &str, event: &Draft) -> Result<(), StoreError> {
        let place = self.next_offset();
        let subject = Subject::app(app);
        let mut log = self.event_log(&subject)?;
        let record = EventRecord {
            at_ms: self.state.clock.0,
            kind: event.kind.code().into(),
            device: event.device.as_deref().map(str::to_owned),
            push: event.push.map(|id| id.0.to_be_bytes().to_vec()),
            data: event.data.as_deref().map(str::to_owned),
        };
        self.put_record(Table::Event, &subject.clone().offset(place), &record)?;
        (log.end, log.entries) = (place.0, log.entries + 1);
        if log.entries > self.config.events_max_entries {
            let most = log.entries - self.config.events_max_entries;
            self.trim_events(&subject, &mut log, most, |_| true)?;
        }
        self.put_record(Table::EventLog, &subject, &log)
    }

    /// Somebody begins to listen where nobody did: what happened before `place` was not written down.
    pub fn begin_events(&mut self, app: &str, place: u64) -> Result<(), StoreError> {
        let subject = Subject::app(app);
        let mut log = self.event_log(&subject)?;
        log.begun_at = place;
        self.put_record(Table::EventLog, &subject, &log)
    }

    fn event_log(&self, app: &Subject) -> Result<EventLogRecord, KvError> {
        let record = self.record(Table::EventLog, app, "event log")?;
        Ok(record.unwrap_or_default())
    }

    /// Removes the oldest events that are `due`, at most `limit`.
    fn trim_events(
        &mut self,
        app: &Subject,
        log: &mut EventLogRecord,
        limit: u64,
        due: impl Fn(&EventRecord) -> bool,
    ) -> Result<u64, StoreError> {
        let from = app.key_with(Table::Event, &log.trimmed_to.to_be_bytes());
        let to = app.key_with(Table::Event, &u64::MAX.to_be_bytes());
        let mut keys = Vec::new();
        let mut outcome = Ok(());
        self.scan(&from, &to, &mut |key, value| {
            if keys.len() as u64 >= limit {
                return ControlFlow::Break(());
            }
            match decode::<EventRecord>(value, "event") {
                Ok(record) if due(&record) => {
                    keys.push(key.to_vec());
                    ControlFlow::Continue(())
                }
                Ok(_) => ControlFlow::Break(()),
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        outcome?;
        let removed = keys.len() as u64;
        for key in keys {
            log.trimmed_to = offset_of_key(&key)?.0;
            self.remove(key)?;
        }
        log.entries = log.entries.saturating_sub(removed);
        Ok(removed)
    }

    /// Removes events that are too old, at most `limit`.
    pub fn trim_event_logs(
        &mut self,
        now: Millis,
        limit: u32,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        let mut left = u64::from(limit);
        let max_age_ms = self.config.events_max_age_ms;
        for (key, value) in self.list(Table::EventLog, &Subject::all(), usize::MAX)? {
            if left == 0 {
                swept.more = true;
                break;
            }
            let app = Subject::of_key(&key);
            let mut log: EventLogRecord = decode(&value, "event log")?;
            let removed = self.trim_events(&app, &mut log, left, |event| {
                now.since(Millis(event.at_ms)) >= max_age_ms
            })?;
            if removed > 0 {
                self.put_record(Table::EventLog, &app, &log)?;
            }
            swept.removed += removed as u32;
            left -= removed;
        }
        Ok(())
    }
}

/// Whether a table's rows are those of listeners.
pub fn is_of_listeners(table: RowTable) -> bool {
    LISTENERS.contains(&table)
}

/// Events after a place.
pub fn read_events(
    view: &dyn View,
    app: &AppName,
    after: u64,
    limit: usize,
) -> Result<EventPage, KvError> {
    let subject = Subject::app(app.as_str());
    let log: EventLogRecord = match view.get(&subject.key(Table::EventLog))? {
        Some(bytes) => decode(&bytes, "event log")?,
        None => return Ok(EventPage::default()),
    };
    let mut page = EventPage {
        end: log.end.max(log.begun_at),
        gap: after < log.trimmed_to.max(log.begun_at),
        ..EventPage::default()
    };
    page.read_to = page.end.max(after);
    let start = after.max(log.trimmed_to).saturating_add(1);
    let from = subject.key_with(Table::Event, &start.to_be_bytes());
    let to = subject.key_with(Table::Event, &u64::MAX.to_be_bytes());
    let mut bytes = 0;
    let mut outcome = Ok(());
    view.scan(&from, &to, &mut |key, value| {
        if page.events.len() >= limit || bytes >= PAGE_BYTES {
            page.read_to = page.events.last().map_or(after, |event| event.id.place());
            return ControlFlow::Break(());
        }
        bytes += value.len();
        match event(key, value) {
            // One that a later version wrote is passed over.
            Ok(event) => page.events.extend(event),
            Err(error) => outcome = Err(error),
        }
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    outcome.map(|()| page)
}

/// Events before a place, newest first.
pub fn read_past(
    view: &dyn View,
    app: &AppName,
    device: Option<&str>,
    before: Option<u64>,
    limit: usize,
) -> Result<Past, KvError> {
    let subject = Subject::app(app.as_str());
    let from = subject.key(Table::Event);
    let to = subject.key_with(Table::Event, &before.unwrap_or(u64::MAX).to_be_bytes());
    let mut past = Past::default();
    let (mut looked_at, mut last) = (0, 0);
    let mut outcome = Ok(());
    view.scan_back(&from, &to, &mut |key, value| {
        if past.events.len() >= limit || looked_at >= MAX_LOOKED_AT {
            past.before = Some(last);
            return ControlFlow::Break(());
        }
        looked_at += 1;
        let read = offset_of_key(key).and_then(|place| Ok((place.0, event(key, value)?)));
        match read {
            Ok((place, event)) => {
                last = place;
                past.events.extend(event.filter(|event| {
                    device.is_none_or(|device| event.draft.device.as_deref() == Some(device))
                }));
                ControlFlow::Continue(())
            }
            Err(error) => {
                outcome = Err(error);
                ControlFlow::Break(())
            }
        }
    })?;
    outcome.map(|()| past)
}

fn event(key: &[u8], value: &Value) -> Result<Option<Event>, KvError> {
    let record: EventRecord = decode(value, "event")?;
    let Some(kind) = u8::try_from(record.kind).ok().and_then(Kind::from_code) else {
        return Ok(None);
    };
    let push = record.push.map(|id| {
        let id = id.try_into().map_err(|_| damaged("event"))?;
        Ok::<_, KvError>(PushId(u128::from_be_bytes(id)))
    });
    Ok(Some(Event {
        id: EventId::new(record.at_ms, offset_of_key(key)?.0),
        at_ms: record.at_ms,
        draft: Draft {
            device: record.device.map(Arc::from),
            push: push.transpose()?,
            kind,
            data: record.data.map(Arc::from),
        },
    }))
}
