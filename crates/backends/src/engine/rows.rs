//! Rows of the push domain: written if they are still what was read.

use std::ops::ControlFlow;

use bytes::Bytes;
use campanile_broker::{
    ids::{AppId, ClientKey, MessageId, Millis},
    store::{Change, StoreError},
};
use campanile_push::{
    app::AppName,
    id::PushId,
    rows::{self, Key, Range, Row, Scope, Table as RowTable, Version, Write},
    store::Outcome,
};

use super::{
    events::is_of_listeners,
    keys::{ExpiryKind, Subject, Table},
    kv::{KvError, Value, View, after_prefix},
    records::{RowRecord, damaged, decode, decode_u64},
    txn::Txn,
};

/// A page ends after about this many bytes.
const PAGE_BYTES: usize = 1024 * 1024;

impl Txn<'_> {
    /// Writes rows, or finds that they are not what was expected.
    pub fn change_rows(&mut self, change: &rows::Change) -> Result<Outcome, StoreError> {
        self.advance_clock(Millis(change.now_ms));
        for (key, expected) in &change.expect {
            let found = self.row(&row_subject(&change.scope, key))?;
            let version = found
                .filter(|row| !row.is_expired(change.now_ms))
                .map_or(Version::ABSENT, |row| Version(row.version));
            if version != *expected {
                return Ok(Outcome::Conflict);
            }
        }
        if let Some(table) = self.overfull(change)? {
            return Ok(Outcome::Full { table });
        }
        let version = Version(self.next_offset().0);
        self.set_cohorts(&change.scope, &change.cohorts, false)?;
        for write in &change.writes {
            self.write_row(&change.scope, write, version)?;
        }
        self.set_cohorts(&change.scope, &change.cohorts, true)?;
        if let Scope::App(app) = &change.scope
            && !change.events.is_empty()
            && self.has_listeners(app.as_str())?
        {
            for event in &change.events {
                self.append_event(app.as_str(), event)?;
            }
        }
        Ok(Outcome::Changed { version })
    }

    /// The first table that would have more rows than the change allows.
    fn overfull(&self, change: &rows::Change) -> Result<Option<RowTable>, KvError> {
        for (table, bound) in &change.bounds {
            let (mut added, mut removed) = (0, 0);
            for write in change.writes.iter().filter(|w| w.key.table == *table) {
                let subject = row_subject(&change.scope, &write.key);
                match (&write.value, self.has(Table::Row, &subject)?) {
                    (Some(_), false) => added += 1,
                    (None, true) => removed += 1,
                    _ => {}
                }
            }
            let count = read_row_count(self, &change.scope, *table)?;
            if added > removed && count + added - removed > *bound {
                return Ok(Some(*table));
            }
        }
        Ok(None)
    }

    fn count_row(&mut self, rows: &Subject, by: i64) -> Result<(), StoreError> {
        let key = rows.key(Table::RowCount);
        let count = row_count(self.get(&key)?)?.saturating_add_signed(by);
        match count {
            0 => self.remove(key),
            _ => self.put(key, count.to_be_bytes().as_slice().into()),
        }
    }

    /// Writes a row of an app beside a change of rows.
    pub fn put_row(&mut self, app: &AppName, key: Key, value: Bytes) -> Result<(), StoreError> {
        let version = Version(self.next_offset().0);
        let write = Write {
            key,
            value: Some(value),
            expires_ms: None,
        };
        self.write_row(&Scope::App(app.clone()), &write, version)
    }

    fn write_row(
        &mut self,
        scope: &Scope,
        write: &Write,
        version: Version,
    ) -> Result<(), StoreError> {
        let subject = row_subject(scope, &write.key);
        let before = self.row(&subject)?;
        let expired_before = before.as_ref().and_then(|row| row.expires_ms);
        if let Some(at) = expired_before.filter(|at| Some(*at) != write.expires_ms) {
            self.remove_if_there(subject.expiry_key(at, ExpiryKind::Row))?;
        }
        if let Scope::App(app) = scope
            && before.is_none()
            && write.value.is_some()
            && is_of_listeners(write.key.table)
            && !self.has_listeners(app.as_str())?
        {
            self.begin_events(app.as_str(), version.0)?;
        }
        match &write.value {
            Some(value) => {
                let record = RowRecord {
                    version: version.0,
                    expires_ms: write.expires_ms,
                    value: value.clone(),
                };
                self.put_record(Table::Row, &subject, &record)?;
                if before.is_none() {
                    self.count_row(&rows_of(scope, write.key.table), 1)?;
                }
                if let Some(at) = write.expires_ms {
                    let index = subject.expiry_key(at, ExpiryKind::Row);
                    self.put(index, subject.key(Table::Row).into())?;
                }
            }
            None if before.is_some() => {
                self.remove(subject.key(Table::Row))?;
                self.count_row(&rows_of(scope, write.key.table), -1)?;
            }
            None => return Ok(()),
        }
        match (scope, write.key.table) {
            (Scope::App(app), RowTable::Device) => {
                let client = ClientKey::new(&AppId::new(app.as_str()), &write.key.name);
                self.on_device_row(client, write.value.clone())
            }
            (Scope::App(app), table) if is_told(table) => {
                let app = AppId::new(app.as_str());
                self.on_campaign_row(&app, &write.key.name, write.value.clone())
            }
            _ => Ok(()),
        }
    }

    /// A push is another campaign than before, or none any more, or has ended.
    fn on_campaign_row(
        &mut self,
        app: &AppId,
        push: &str,
        row: Option<Bytes>,
    ) -> Result<(), StoreError> {
        let push = push_of_row(push)?;
        self.announce_change(app, Change::Campaign { push, row })
    }

    /// A device has another row, or none any more.
    fn on_device_row(
        &mut self,
        client: ClientKey,
        profile: Option<Bytes>,
    ) -> Result<(), StoreError> {
        let subject = Subject::client(&client);
        // Before the device is forgotten.
        let is_served = self.is_served(&client, &subject)?;
        if profile.is_some() {
            let number = self.device_for_inbox(&client)?;
            self.list_number(&client, number)?;
        } else {
            if let Some(device) = self.device(&subject)? {
                self.unlist_number(&client.app, device.ordinal)?;
            }
            self.forget_idle_device(&subject)?;
        }
        if !is_served {
            // Whoever claims it from now on reads its row.
            return Ok(());
        }
        let ClientKey { app, client_id } = client;
        self.announce_change(&app, Change::Profile { client_id, profile })
    }

    /// Whether some node may have a connection of a client.
    fn is_served(&self, client: &ClientKey, subject: &Subject) -> Result<bool, StoreError> {
        if self.connection(client, subject)?.is_some() {
            return Ok(true);
        }
        let device = self.device(subject)?;
        Ok(device.is_some_and(|device| device.may_be_served))
    }

    fn row(&self, subject: &Subject) -> Result<Option<RowRecord>, KvError> {
        self.record(Table::Row, subject, "row")
    }

    /// Whether a client is a registered device, which keeps its number.
    pub fn is_registered(&self, client: &Subject) -> Result<bool, KvError> {
        self.has(Table::Row, &device_row(client)?)
    }

    /// The time of a row may have run out. Returns how many rows were removed.
    pub fn expire_row(&mut self, subject: &Subject, now: Millis) -> Result<u32, StoreError> {
        match self.row(subject)? {
            Some(row) if row.is_expired(now.0) => {
                self.remove_row(subject)?;
                Ok(1)
            }
            _ => Ok(0),
        }
    }

    /// Removes a row that is there.
    pub fn remove_row(&mut self, subject: &Subject) -> Result<(), StoreError> {
        self.remove(subject.key(Table::Row))?;
        let rows = subject.table_of_row().ok_or_else(|| damaged("row"))?;
        self.count_row(&rows, -1)?;
        if let Some(client) = device_of_row(subject, &rows)? {
            self.on_device_row(client, None)?;
        }
        if let Some((app, push)) = campaign_of_row(subject, &rows)? {
            self.on_campaign_row(&app, push, None)?;
        }
        Ok(())
    }
}

impl RowRecord {
    fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }
}

/// Rows by their keys.
pub fn read_rows_at(
    view: &dyn View,
    scope: &Scope,
    keys: &[Key],
    now_ms: u64,
) -> Result<Vec<Option<Row>>, KvError> {
    let read = |key: &Key| {
        let Some(bytes) = view.get(&row_subject(scope, key).key(Table::Row))? else {
            return Ok(None);
        };
        let record: RowRecord = decode(&bytes, "row")?;
        Ok((!record.is_expired(now_ms)).then(|| row(key.name.clone(), record)))
    };
    keys.iter().map(read).collect()
}

/// The row of a registered device.
pub fn row_of_device(
    view: &dyn View,
    app: &AppName,
    client_id: &str,
) -> Result<Option<Row>, KvError> {
    let subject = Subject::app(app.as_str())
        .bytes(&[RowTable::Device as u8])
        .bytes(client_id.as_bytes());
    let Some(bytes) = view.get(&subject.key(Table::Row))? else {
        return Ok(None);
    };
    Ok(Some(row(client_id.to_owned(), decode(&bytes, "row")?)))
}

/// Rows of a range, and whether there are more.
pub fn read_rows(view: &dyn View, range: &Range, now_ms: u64) -> Result<(Vec<Row>, bool), KvError> {
    let table = rows_of(&range.scope, range.table);
    let prefix = table.clone().bytes(range.prefix.as_bytes());
    let names_at = table.key(Table::Row).len();
    let mut from = prefix.key(Table::Row);
    let to = after_prefix(&from);
    if let Some(after) = &range.after {
        let mut next = table.bytes(after.as_bytes()).key(Table::Row);
        next.push(0);
        from = from.max(next);
    }
    let (mut found, mut bytes, mut more, mut failed) = (Vec::new(), 0, false, None);
    if from >= to {
        return Ok((found, false));
    }
    view.scan(&from, &to, &mut |key, value| {
        let entry = std::str::from_utf8(&key[names_at..])
            .map_err(|_| damaged("row"))
            .and_then(|name| Ok((name, decode::<RowRecord>(value, "row")?)));
        match entry {
            Ok((_, record)) if record.is_expired(now_ms) => {}
            Ok(_) if found.len() >= range.limit || bytes >= PAGE_BYTES => {
                more = true;
                return ControlFlow::Break(());
            }
            Ok((name, record)) => {
                bytes += name.len() + record.value.len();
                found.push(row(name.to_owned(), record));
            }
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok((found, more)), Err)
}

/// How many rows a table has.
pub fn read_row_count(view: &dyn View, scope: &Scope, table: RowTable) -> Result<u64, KvError> {
    row_count(view.get(&rows_of(scope, table).key(Table::RowCount))?)
}

fn row_count(stored: Option<Value>) -> Result<u64, KvError> {
    stored.map_or(Ok(0), |bytes| decode_u64(&bytes, "number of rows"))
}

fn row(name: String, record: RowRecord) -> Row {
    Row {
        name,
        version: Version(record.version),
        value: record.value,
    }
}

/// The names of a table stand behind it as they are, so that rows are ordered by name.
fn rows_of(scope: &Scope, table: RowTable) -> Subject {
    let app = match scope {
        Scope::System => "",
        Scope::App(app) => app.as_str(),
    };
    Subject::app(app).bytes(&[table as u8])
}

fn row_subject(scope: &Scope, key: &Key) -> Subject {
    rows_of(scope, key.table).bytes(key.name.as_bytes())
}

/// Whose a row of the devices is.
fn device_of_row(row: &Subject, table: &Subject) -> Result<Option<ClientKey>, KvError> {
    let app = row.app_name().filter(|app| !app.is_empty());
    let Some(app) = app else { return Ok(None) };
    if *table != Subject::app(app).bytes(&[RowTable::Device as u8]) {
        return Ok(None);
    }
    let name = &row.key(Table::Row)[table.key(Table::Row).len()..];
    let name = std::str::from_utf8(name).map_err(|_| damaged("row"))?;
    Ok(Some(ClientKey::new(&AppId::new(app), name)))
}

/// Tables of whose rows all nodes are told, beside that of devices.
const TOLD: [RowTable; 2] = [RowTable::Campaign, RowTable::Cancelled];

fn is_told(table: RowTable) -> bool {
    TOLD.contains(&table)
}

fn push_of_row(name: &str) -> Result<MessageId, KvError> {
    let push: PushId = name.parse().map_err(|_| damaged("row"))?;
    Ok(MessageId(push.0))
}

/// Whose and which a row is that all nodes are told of.
fn campaign_of_row<'r>(
    row: &'r Subject,
    table: &Subject,
) -> Result<Option<(AppId, &'r str)>, KvError> {
    let app = row.app_name().filter(|app| !app.is_empty());
    let Some(app) = app else { return Ok(None) };
    let of = |told: RowTable| *table == Subject::app(app).bytes(&[told as u8]);
    if !TOLD.into_iter().any(of) {
        return Ok(None);
    }
    let name = row.bytes_after(table);
    let name = std::str::from_utf8(name).map_err(|_| damaged("row"))?;
    Ok(Some((AppId::new(app), name)))
}

/// The rows of an app's campaigns, and of its pushes that ended before their time; also what has expired and is not swept yet: whoever reads it knows its time.
pub fn read_campaigns(view: &dyn View, app: &AppId) -> Result<Vec<(MessageId, Bytes)>, KvError> {
    let mut found = Vec::new();
    for table in TOLD {
        let rows = Subject::app(app.as_str()).bytes(&[table as u8]);
        let names_at = rows.key(Table::Row).len();
        let from = rows.key(Table::Row);
        let to = after_prefix(&from);
        let mut failed = None;
        view.scan(&from, &to, &mut |key, value| {
            let entry = std::str::from_utf8(&key[names_at..])
                .map_err(|_| damaged("row"))
                .and_then(push_of_row)
                .and_then(|push| Ok((push, decode::<RowRecord>(value, "row")?)));
            match entry {
                Ok((push, record)) => {
                    found.push((push, record.value));
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(found)
}

/// What the push domain knows of a device: its row.
pub fn read_profile(view: &dyn View, client: &Subject) -> Result<Option<Bytes>, KvError> {
    let Some(bytes) = view.get(&device_row(client)?.key(Table::Row))? else {
        return Ok(None);
    };
    Ok(Some(decode::<RowRecord>(&bytes, "row")?.value))
}

/// The row of a device, by the subject of its client. The identifier of a registered device is short, so that it stands in the subject as it is.
fn device_row(client: &Subject) -> Result<Subject, KvError> {
    let app = client.app_name().ok_or_else(|| damaged("device"))?;
    let name = client.text_after_app();
    Ok(Subject::app(app)
        .bytes(&[RowTable::Device as u8])
        .bytes(name))
}
