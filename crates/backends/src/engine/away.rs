//! What waits for a device that is away.

use campanile_broker::{
    ids::{AppId, Millis, Offset},
    store::LogKind,
};
use campanile_push::{app::AppName, store::Away};

use super::{
    inbox::offset_of_key,
    keys::{Subject, Table},
    kv::{KvError, View},
    read::read_page,
    records::{DeviceRecord, InboxMetaRecord, LogMetaRecord, decode},
    stored::{push_cursor, read_cursors},
};

/// Reads it; `None`: the device is connected, or keeps no session.
pub fn read_away(
    view: &dyn View,
    app: &AppName,
    device: &str,
    now: Millis,
) -> Result<Option<Away>, KvError> {
    let client = Subject::app(app.as_str()).text(device);
    let known = view.get(&client.key(Table::Device))?;
    let known = known.map(|bytes| decode::<DeviceRecord>(&bytes, "device"));
    let session = known.transpose()?.and_then(|device| device.session);
    let Some(session) = session.filter(|kept| !kept.connected && !kept.is_expired(now)) else {
        return Ok(None);
    };
    let inbox = view.get(&client.key(Table::InboxMeta))?;
    let inbox = inbox.map(|bytes| decode::<InboxMetaRecord>(&bytes, "inbox"));
    Ok(Some(Away {
        since_ms: session.left_at,
        expires_ms: session.expires_at,
        behind: read_behind(view, app, &client)?,
        inbox: inbox.transpose()?.map_or(0, |inbox| inbox.entries),
    }))
}

/// Entries of the push log that a device is not done with; `None`: too many to look at.
fn read_behind(view: &dyn View, app: &AppName, client: &Subject) -> Result<Option<u32>, KvError> {
    let log = Subject::log(&AppId::new(app.as_str()), LogKind::Push);
    let meta = view.get(&log.key(Table::LogMeta))?;
    let meta = meta.map(|bytes| decode::<LogMetaRecord>(&bytes, "log"));
    let meta = meta.transpose()?.unwrap_or_default();
    let cursor = push_cursor(&read_cursors(view, client)?, Offset(meta.end));
    let start = Offset(cursor.done.0.max(meta.trimmed_to).saturating_add(1));
    let from = log.clone().offset(start).key(Table::Log);
    let to = log.offset(Offset(u64::MAX)).key(Table::Log);
    let mut behind = 0;
    let all = read_page(view, &from, &to, Away::MOST_BEHIND, |key, value| {
        behind += u32::from(!cursor.done_above.contains(&offset_of_key(key)?));
        Ok(value.len())
    })?;
    Ok(all.then_some(behind))
}
