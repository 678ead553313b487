//! Inboxes: a queue for each device, bounded by a quota that drops the oldest.

use std::ops::ControlFlow;

use campanile_broker::{
    ids::{ClientKey, Offset},
    message::Kind,
    store::{InboxEntry, InboxItem, Notice, StoreError},
};
use campanile_push::{
    event::What,
    receipt::{DropReason, Mark},
};

use super::{
    keys::{ExpiryKind, Subject, Table},
    kv::{KvError, View},
    records::{InboxMetaRecord, InboxRecord, decode},
    txn::Txn,
};

impl Txn<'_> {
    /// Appends to an inbox and announces the entry. `shared`: the message is stored under [`Table::PushMessage`].
    ///
    /// The device has a record; `ordinal` is its number.
    pub fn append_to_inbox(
        &mut self,
        client: &ClientKey,
        ordinal: u32,
        offset: Offset,
        item: &InboxItem,
        shared: bool,
    ) -> Result<(), StoreError> {
        let subject = Subject::client(client);
        let record = InboxRecord::of(item, shared);
        let mut meta = self.inbox(&subject)?.unwrap_or_default();
        if meta.entries == 0 {
            meta.first = offset.0;
        }
        let previous = Offset(meta.last);
        if self.config.shared {
            meta.last = offset.0;
        }
        meta.entries += 1;
        meta.bytes += record.size_bytes;
        let key = subject.clone().offset(offset).key(Table::Inbox);
        self.put_record(Table::Inbox, &subject.clone().offset(offset), &record)?;
        if let (Kind::Publish, Some(at)) = (item.message.kind, item.message.expires_at) {
            let index = subject
                .clone()
                .offset(offset)
                .expiry_key(at.0, ExpiryKind::InboxEntry);
            self.put(index, key.into())?;
        }
        let survives = self.drop_oldest(client, &subject, ordinal, &mut meta, offset)?;
        self.put_inbox(&subject, &meta)?;
        if survives {
            let owner = self.note_owner(client, &subject, offset)?;
            self.announce(Notice::Inbox {
                client: client.clone(),
                owner,
                previous,
                entry: InboxEntry {
                    offset,
                    item: item.clone(),
                },
            });
        }
        Ok(())
    }

    /// Drops the oldest entries until the inbox fits its quota. Returns whether the entry at `newest` is still there.
    fn drop_oldest(
        &mut self,
        client: &ClientKey,
        subject: &Subject,
        ordinal: u32,
        meta: &mut InboxMetaRecord,
        newest: Offset,
    ) -> Result<bool, StoreError> {
        let config = self.config;
        let fits = |meta: &InboxMetaRecord| {
            meta.entries <= config.inbox_max_entries && meta.bytes <= config.inbox_max_bytes
        };
        if fits(meta) {
            return Ok(true);
        }
        let mut oldest: Vec<(Offset, InboxRecord)> = Vec::new();
        let mut left = meta.clone();
        self.scan_inbox(subject, Offset(meta.first), &mut |offset, record| {
            left.entries = left.entries.saturating_sub(1);
            left.bytes = left.bytes.saturating_sub(record.size_bytes);
            oldest.push((offset, record));
            if fits(&left) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let mut survives = true;
        for (offset, record) in oldest {
            self.remove(subject.clone().offset(offset).key(Table::Inbox))?;
            meta.entries = meta.entries.saturating_sub(1);
            meta.bytes = meta.bytes.saturating_sub(record.size_bytes);
            meta.first = offset.0 + 1;
            survives &= offset != newest;
            self.count_dropped();
            if let Some(push) = record.push_id()? {
                let (app, reason) = (client.app.as_str(), DropReason::InboxFull);
                let mark = Mark::Dropped(reason);
                if self.mark(&Subject::push(app, push), mark, ordinal)? {
                    let what = What::PushDropped { reason };
                    self.tell_of_push(app, push, Some(&client.client_id), &what)?;
                }
            }
        }
        Ok(survives)
    }

    /// Removes entries of an inbox; those that are not there any more are passed over. Returns how many were there.
    pub fn remove_from_inbox(
        &mut self,
        subject: &Subject,
        offsets: &[Offset],
    ) -> Result<u32, StoreError> {
        if offsets.is_empty() {
            return Ok(0);
        }
        let Some(mut meta) = self.inbox(subject)? else {
            return Ok(0);
        };
        let mut removed = 0;
        for &offset in offsets {
            let key = subject.clone().offset(offset).key(Table::Inbox);
            let Some(bytes) = self.get(&key)? else {
                continue;
            };
            let record: InboxRecord = decode(&bytes, "inbox entry")?;
            self.remove(key)?;
            meta.entries = meta.entries.saturating_sub(1);
            meta.bytes = meta.bytes.saturating_sub(record.size_bytes);
            if offset.0 == meta.first {
                meta.first += 1;
            }
            removed += 1;
        }
        if removed > 0 {
            self.put_inbox(subject, &meta)?;
        }
        Ok(removed)
    }

    /// Removes all entries that are no pushes: what ends with the session.
    pub fn purge_publishes(&mut self, subject: &Subject) -> Result<(), StoreError> {
        let Some(meta) = self.inbox(subject)? else {
            return Ok(());
        };
        let mut publishes = Vec::new();
        let mut outcome = Ok(());
        self.scan_inbox(subject, Offset(meta.first), &mut |offset, record| {
            match record.push_id() {
                Ok(None) => publishes.push(offset),
                Ok(Some(_)) => {}
                Err(error) => {
                    outcome = Err(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        outcome?;
        self.remove_from_inbox(subject, &publishes)?;
        Ok(())
    }

    /// Figures of an inbox; `None` if it is empty.
    pub fn inbox(&self, subject: &Subject) -> Result<Option<InboxMetaRecord>, KvError> {
        self.record(Table::InboxMeta, subject, "inbox")
    }

    fn put_inbox(&mut self, subject: &Subject, meta: &InboxMetaRecord) -> Result<(), StoreError> {
        if meta.entries == 0 {
            self.remove_if_there(subject.key(Table::InboxMeta))?;
            Ok(())
        } else {
            self.put_record(Table::InboxMeta, subject, meta)
        }
    }

    fn scan_inbox(
        &self,
        subject: &Subject,
        from: Offset,
        visit: &mut dyn FnMut(Offset, InboxRecord) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let to = subject.clone().offset(Offset(u64::MAX)).key(Table::Inbox);
        let mut outcome = Ok(());
        self.scan(
            &subject.clone().offset(from).key(Table::Inbox),
            &to,
            &mut |key, value| match inbox_entry(key, value) {
                Ok((offset, record)) => visit(offset, record),
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        outcome
    }
}

/// Offset and record of an entry of [`Table::Inbox`].
pub fn inbox_entry(key: &[u8], value: &[u8]) -> Result<(Offset, InboxRecord), KvError> {
    Ok((offset_of_key(key)?, decode(value, "inbox entry")?))
}

/// The offset that a key of [`Table::Inbox`] or [`Table::Log`] ends with.
pub fn offset_of_key(key: &[u8]) -> Result<Offset, KvError> {
    let tail = key
        .last_chunk::<8>()
        .ok_or_else(|| super::records::damaged("entry"))?;
    Ok(Offset(u64::from_be_bytes(*tail)))
}
