//! Reading what is stored of a session: for a claim, in the middle of a batch, and for a query, from what is committed.

use bytes::Bytes;
use campanile_broker::{
    ids::Offset,
    store::{Cursor, LogKind, PacketId, Resumed},
};

use super::{
    keys::{Subject, Table},
    kv::{KvError, View},
    records::{CursorsRecord, SubscriptionRecord, UnfinishedRecord, damaged, decode},
    recover::for_each_of,
};

/// Cursors of a stored session.
pub fn read_cursors(view: &dyn View, subject: &Subject) -> Result<Vec<Cursor>, KvError> {
    let record = view.get(&subject.key(Table::Cursors))?;
    let record: Option<CursorsRecord> = record.map(|bytes| decode(&bytes, "cursor")).transpose()?;
    record.unwrap_or_default().cursors()
}

/// Where the push log stands for a device: its kept cursor, or else the log's end.
pub fn push_cursor(cursors: &[Cursor], end: Offset) -> Cursor {
    let kept = cursors.iter().find(|cursor| cursor.log == LogKind::Push);
    kept.cloned().unwrap_or_else(|| Cursor {
        log: LogKind::Push,
        done: end,
        done_above: Vec::new(),
    })
}

/// What a device remembers of campaigns.
pub fn read_memory(view: &dyn View, subject: &Subject) -> Result<Option<Bytes>, KvError> {
    let memory = view.get(&subject.key(Table::Memory))?;
    Ok(memory.map(|bytes| Bytes::copy_from_slice(&bytes)))
}

/// The state of a session that goes on. `cursors` are its cursors.
pub fn read_resumed(
    view: &dyn View,
    subject: &Subject,
    cursors: &[Cursor],
) -> Result<Resumed, KvError> {
    let unfinished = view.get(&subject.key(Table::Unfinished))?;
    let unfinished: Option<UnfinishedRecord> = unfinished
        .map(|bytes| decode(&bytes, "exchange"))
        .transpose()?;
    let mut resumed = Resumed {
        cursors: cursors
            .iter()
            .filter(|cursor| cursor.log != LogKind::Push)
            .cloned()
            .collect(),
        unfinished: unfinished.unwrap_or_default().unfinished()?,
        ..Resumed::default()
    };
    for_each_of(view, Table::Subscription, subject, |_, value| {
        let record: SubscriptionRecord = decode(value, "subscription")?;
        resumed.subscriptions.push(record.subscription()?);
        Ok(())
    })?;
    for_each_of(view, Table::Received, subject, |key, _| {
        let id = key.last_chunk::<2>().copied().map(u16::from_be_bytes);
        let id = id.and_then(PacketId::new);
        resumed
            .received
            .push(id.ok_or_else(|| damaged("packet identifier"))?);
        Ok(())
    })?;
    Ok(resumed)
}
