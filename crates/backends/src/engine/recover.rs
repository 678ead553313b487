//! Opening a store: what is kept in memory, and what a node must know before it serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use campanile_broker::{
    ids::{AppId, ClientKey, Millis, Offset},
    store::{OwedWill, Recovery, StoreError},
};

use super::{
    Engine,
    cluster::load_ephemeral,
    keys::{META_CLOCK, META_EPOCH, META_SEQUENCE, Subject, Table, log_of_number},
    kv::{Entry, Kv, KvError, View, after_prefix},
    records::{
        DeviceRecord, LogMetaRecord, MessageRecord, SubscriptionRecord, WillRecord, damaged,
        decode, decode_u64,
    },
    rows::read_campaigns,
    state::{LogState, State},
};

/// Devices that are put right in one commit at recovery.
const DEVICES_AT_ONCE: usize = 1000;

/// The apps that have any rows.
fn apps_with_rows(view: &dyn View) -> Result<BTreeSet<AppId>, KvError> {
    let mut apps = BTreeSet::new();
    for_each(view, Table::RowCount, |key, _| {
        let rows = Subject::of_key(key);
        if let Some(app) = rows.app_name().filter(|app| !app.is_empty()) {
            apps.insert(AppId::new(app));
        }
        Ok(())
    })?;
    Ok(apps)
}

/// State of a store as it was when it was closed, but for the sets of devices.
pub fn load(view: &dyn View) -> Result<State, KvError> {
    let mut state = State::default();
    if let Some(bytes) = view.get(META_SEQUENCE)? {
        state.sequence = decode_u64(&bytes, "sequence number")?;
    }
    for_each(view, Table::Ordinals, |key, value| {
        let reserved = value
            .try_into()
            .map(u32::from_be_bytes)
            .map_err(|_| damaged("device number"))?;
        let app = state.app(&app_of(&Subject::of_key(key))?);
        (app.next_ordinal, app.reserved_ordinals) = (reserved, reserved);
        Ok(())
    })?;
    for_each(view, Table::LogMeta, |key, value| {
        let (subject, number) = Subject::of_key(key)
            .split_tail::<2>()
            .ok_or_else(|| damaged("log"))?;
        let log = log_of_number(u16::from_be_bytes(number)).ok_or_else(|| damaged("log"))?;
        let record: LogMetaRecord = decode(value, "log")?;
        if record.end > state.sequence {
            tracing::error!(
                sequence = state.sequence,
                log_end = record.end,
                "a log goes beyond the last sequence number: the store lost a part of its records"
            );
            state.sequence = record.end;
        }
        let entry = LogState {
            end: Offset(record.end),
            trimmed_to: Offset(record.trimmed_to),
            bytes: record.bytes,
            oldest: None,
        };
        state.app(&app_of(&subject)?).logs.insert(log, entry);
        Ok(())
    })?;
    if let Some(bytes) = view.get(META_EPOCH)? {
        state.last_epoch = decode_u64(&bytes, "epoch")?;
    }
    if let Some(bytes) = view.get(META_CLOCK)? {
        state.clock = Millis(decode_u64(&bytes, "time")?);
        state.shared.advance_clock(state.clock);
    }
    load_ephemeral(view, &mut state)?;
    Ok(state)
}

/// Adds the devices with a stored session to the state.
pub fn load_devices(view: &dyn View, state: &mut State) -> Result<(), KvError> {
    for_each(view, Table::Device, |key, value| {
        let device: DeviceRecord = decode(value, "device")?;
        if device.session.is_some() {
            let app = app_of(&Subject::of_key(key))?;
            state.set_stored(&app, device.ordinal, true);
        }
        Ok(())
    })
}

impl<K: Kv> Engine<K> {
    /// See [`crate::Backend::recover`].
    pub fn recover(&mut self, now: Millis) -> Result<Recovery, StoreError> {
        if self.config.shared {
            // A node that starts says nothing about the others: each void is asked for by name.
            return Ok(Recovery::default());
        }
        self.load_devices()?;
        self.state.clock = self.state.clock.max(now);
        // Epochs of clients without a record are not stored. A run cannot give as many as fit between two starts, so that none comes again.
        self.state.last_epoch = self.state.last_epoch.max(now.0 << 16);
        self.recover_devices(now)?;
        let wills = self.recover_wills(now)?;
        let view: &dyn View = &self.kv;
        let mut recovery = Recovery::default();
        let mut sessions: BTreeMap<ClientKey, Vec<_>> = BTreeMap::new();
        // Rows of a client follow each other, so that its record is read once.
        let mut last: Option<(Subject, Option<ClientKey>)> = None;
        for_each(view, Table::Subscription, |key, value| {
            let record: SubscriptionRecord = decode(value, "subscription")?;
            let filter_bytes = Subject::all()
                .text(&record.filter)
                .key(Table::Subscription)
                .len()
                - 1;
            let row = &key[..key.len() - filter_bytes];
            let subject = Subject::of_key(row);
            if last.as_ref().is_none_or(|(last, _)| *last != subject) {
                let device = view.get(&subject.key(Table::Device))?;
                let device = device
                    .map(|bytes| decode::<DeviceRecord>(&bytes, "device"))
                    .transpose()?;
                let client = device
                    .map(|device| client_of(&subject, &device.client_id))
                    .transpose()?;
                last = Some((subject, client));
            }
            if let Some((_, Some(client))) = &last {
                sessions
                    .entry(client.clone())
                    .or_default()
                    .push(record.subscription()?);
            }
            Ok(())
        })?;
        recovery.sessions = sessions.into_iter().collect();
        for_each(view, Table::Retained, |key, value| {
            let message = decode::<MessageRecord>(value, "message")?.message()?;
            if !message.is_expired(now) {
                recovery
                    .retained
                    .push((app_of(&Subject::of_key(key))?, message));
            }
            Ok(())
        })?;
        for (app, state) in &self.state.apps {
            recovery.log_ends.extend(
                state
                    .logs
                    .iter()
                    .map(|(log, state)| (app.clone(), *log, state.end)),
            );
        }
        for app in apps_with_rows(view)? {
            for (push, row) in read_campaigns(view, &app)? {
                recovery.campaigns.push((app.clone(), push, row));
            }
        }
        recovery.wills = wills;
        Ok(recovery)
    }

    /// Lets sessions begin to expire whose connections were up when the last run ended.
    fn recover_devices(&mut self, now: Millis) -> Result<(), StoreError> {
        let mut from = Subject::all().key(Table::Device);
        let to = after_prefix(&from);
        loop {
            let mut rows: Vec<Entry> = Vec::new();
            self.kv.scan(&from, &to, &mut |key, value| {
                rows.push((key.to_vec(), value.clone()));
                if rows.len() < DEVICES_AT_ONCE {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            from = last.clone();
            from.push(0);
            self.transact(|txn| {
                for (key, value) in &rows {
                    let subject = Subject::of_key(key);
                    let device: DeviceRecord = decode(value, "device")?;
                    let client = client_of(&subject, &device.client_id)?;
                    txn.recover_device(&client, &subject, device, now)?;
                }
                Ok(())
            })?;
        }
    }

    /// Lets the delay of wills begin whose connections were up when the last run ended.
    fn recover_wills(&mut self, now: Millis) -> Result<Vec<OwedWill>, StoreError> {
        let mut wills: Vec<(Subject, WillRecord)> = Vec::new();
        for_each(&self.kv, Table::Will, |key, value| {
            wills.push((Subject::of_key(key), decode(value, "will")?));
            Ok(())
        })?;
        let mut owed = Vec::new();
        for_each(&self.kv, Table::OwedWill, |key, value| {
            let record: WillRecord = decode(value, "will")?;
            owed.push(OwedWill {
                client: client_of(&Subject::of_key(key), &record.client_id)?,
                will: record.will()?,
                at: Some(record.due_at.map_or(now, Millis)),
                session_expires_at: None,
                is_final: true,
            });
            Ok(())
        })?;
        self.transact(|txn| {
            for (subject, mut will) in wills {
                let device = txn.device(&subject)?;
                owed.push(OwedWill {
                    client: client_of(&subject, &will.client_id)?,
                    will: will.will()?,
                    at: will.due_at.map(Millis),
                    session_expires_at: match device.and_then(|device| device.session) {
                        Some(session) => session.expires_at.map(Millis),
                        // Without a session there is nothing to wait for.
                        None => Some(now),
                    },
                    is_final: false,
                });
                if will.due_at.is_none() {
                    will.due_at = Some(now.plus_seconds(will.delay_seconds).0);
                    txn.put_record(Table::Will, &subject, &will)?;
                }
            }
            Ok(())
        })?;
        Ok(owed)
    }
}

/// Visits the entries of a table until the visitor fails.
pub fn for_each(
    view: &dyn View,
    table: Table,
    visit: impl FnMut(&[u8], &[u8]) -> Result<(), KvError>,
) -> Result<(), KvError> {
    for_each_of(view, table, &Subject::all(), visit)
}

/// Visits the entries of a table whose subject begins with `prefix` until the visitor fails.
pub fn for_each_of(
    view: &dyn View,
    table: Table,
    prefix: &Subject,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), KvError>,
) -> Result<(), KvError> {
    let from = prefix.key(table);
    let mut outcome = Ok(());
    view.scan(&from, &after_prefix(&from), &mut |key, value| {
        outcome = visit(key, value);
        if outcome.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    outcome
}

fn app_of(subject: &Subject) -> Result<AppId, KvError> {
    subject
        .app_name()
        .map(AppId::new)
        .ok_or_else(|| damaged("app"))
}

fn client_of(subject: &Subject, client_id: &str) -> Result<ClientKey, KvError> {
    Ok(ClientKey::new(&app_of(subject)?, client_id))
}
