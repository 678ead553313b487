//! What is known of a push at a device.

use std::collections::BTreeSet;

use campanile_broker::{
    ids::{AppId, Offset},
    store::LogKind,
};
use campanile_push::{
    app::AppName,
    explanation::{AtDevice, Presence, Time},
    funnel::Life,
    id::PushId,
    receipt::Mark,
};

use super::{
    keys::{Subject, Table, receipt_tail},
    kv::{KvError, Value, View},
    records::{DeviceRecord, LogRecord, PushRecord, damaged, decode},
    rows::read_profile,
    state::Ephemeral,
    stored::read_cursors,
    txn::decode_chunk,
};

/// Reads it. `without_session`: what is known of the device if it is connected without a stored session.
pub fn read_at_device(
    view: &dyn View,
    app: &AppName,
    id: PushId,
    device: &str,
    without_session: Option<Ephemeral>,
) -> Result<AtDevice, KvError> {
    let push = Subject::push(app.as_str(), id.0);
    let Some(bytes) = view.get(&push.key(Table::Push))? else {
        return Ok(AtDevice::default());
    };
    let record: PushRecord = decode(&bytes, "push")?;
    let client = Subject::app(app.as_str()).text(device);
    let known = view.get(&client.key(Table::Device))?;
    let known = known.map(|bytes| decode::<DeviceRecord>(&bytes, "device"));
    let known = known.transpose()?;
    let number = known.as_ref().map(|device| device.ordinal);
    let number = number.or(without_session.map(|client| client.ordinal));
    let session = known.and_then(|device| device.session);
    let entry = Offset(record.offset);
    let marks = match number {
        Some(number) => marks_of(view, &push, number)?,
        None => BTreeSet::new(),
    };
    Ok(AtDevice {
        life: Some(Life {
            accepted_ms: record.accepted_ms,
            expires_ms: record.expires_ms,
            ended_ms: None,
        }),
        counting: record.to_audience && !record.is_counted,
        number,
        collapsed_by: match number {
            Some(number) if marks.contains(&Mark::Collapsed) => collapsed_by(view, &push, number)?,
            _ => None,
        },
        marks,
        presence: match session {
            _ if without_session.is_some() => Presence::Connected,
            Some(session) if session.connected => Presence::Connected,
            Some(session) => session
                .left_at
                .map_or(Presence::Unknown, |at| Presence::Away(Time(at))),
            None => Presence::Unknown,
        },
        is_passed: record.to_audience && record.offset > 0 && is_passed(view, &client, entry)?,
        targeting: match record.to_audience {
            true => {
                let log = Subject::log(&AppId::new(app.as_str()), LogKind::Push);
                let bytes = view.get(&log.offset(entry).key(Table::Log))?;
                let record = bytes.map(|bytes| decode::<LogRecord>(&bytes, "log entry"));
                let message = record.transpose()?.map(|record| record.message.message());
                message.transpose()?.and_then(|m| m.audience.clone())
            }
            false => None,
        },
        profile: read_profile(view, &client)?,
    })
}

fn marks_of(view: &dyn View, push: &Subject, number: u32) -> Result<BTreeSet<Mark>, KvError> {
    let mut marks = BTreeSet::new();
    for mark in Mark::ALL {
        let tail = receipt_tail(mark, (number >> 16) as u16);
        if let Some(bytes) = view.get(&push.key_with(Table::Receipts, &tail))?
            && decode_chunk(&bytes)?.contains(number & 0xffff)
        {
            marks.insert(mark);
        }
    }
    Ok(marks)
}

fn collapsed_by(view: &dyn View, push: &Subject, number: u32) -> Result<Option<PushId>, KvError> {
    let by = view.get(&push.key_with(Table::CollapsedBy, &number.to_be_bytes()))?;
    let id = |by: Value| by.as_ref().try_into().map(u128::from_be_bytes);
    let by = by.map(id).transpose();
    Ok(by.map_err(|_| damaged("push"))?.map(PushId))
}

fn is_passed(view: &dyn View, client: &Subject, entry: Offset) -> Result<bool, KvError> {
    let cursors = read_cursors(view, client)?;
    let mut cursors = cursors.iter().filter(|cursor| cursor.log == LogKind::Push);
    Ok(cursors.any(|cursor| cursor.done >= entry || cursor.done_above.contains(&entry)))
}
