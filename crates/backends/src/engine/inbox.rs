//! Inboxes: a queue in lanes for each device, bounded by a quota that drops the least urgent, and of those the oldest.

use std::ops::ControlFlow;

use campanile_broker::{
    ids::{ClientKey, MessageId, Offset},
    lane::Lane,
    message::Kind,
    store::{InboxEntry, InboxItem, Notice, StoreError},
};
use campanile_push::receipt::{DropReason, Mark};

use super::{
    keys::{ExpiryKind, Subject, Table, inbox_table},
    kv::{KvError, View},
    records::{InboxMetaRecord, InboxRecord, KeyedRecord, damaged, decode},
    txn::Txn,
};

/// The lanes in the order in which a full inbox gives way.
const GIVING_WAY: [Lane; 3] = [Lane::Low, Lane::Normal, Lane::High];

impl Txn<'_> {
    /// Appends to an inbox and announces the entry. `shared`: the message is stored under [`Table::PushMessage`]. `collapse_key`: it takes the place of the
    /// entry that has the same.
    ///
    /// The device has a record; `ordinal` is its number.
    pub fn append_to_inbox(
        &mut self,
        client: &ClientKey,
        ordinal: u32,
        offset: Offset,
        item: &InboxItem,
        shared: bool,
        collapse_key: Option<&str>,
    ) -> Result<(), StoreError> {
        let subject = Subject::client(client);
        let record = InboxRecord {
            collapse_key: collapse_key.map(str::to_owned),
            ..InboxRecord::of(item, shared)
        };
        let mut meta = self.inbox(&subject)?.unwrap_or_default();
        let mut replaced = None;
        if let Some(key) = collapse_key {
            replaced = self.replace(client, ordinal, &mut meta, key, item.message.id)?;
            let keyed = KeyedRecord {
                offset: offset.0,
                lane: item.lane.code().into(),
            };
            self.put_record(Table::Keyed, &subject.clone().text(key), &keyed)?;
        }
        let previous = meta.add(item.lane, offset, record.size_bytes, self.config.shared);
        let key = subject.clone().offset(offset).key(inbox_table(item.lane));
        self.put_record(
            inbox_table(item.lane),
            &subject.clone().offset(offset),
            &record,
        )?;
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
            let owner = self.note_owner(client, &subject, offset, item.lane)?;
            self.announce(Notice::Inbox {
                client: client.clone(),
                owner,
                previous,
                entry: InboxEntry {
                    offset,
                    item: item.clone(),
                },
                replaced,
            });
        }
        Ok(())
    }

    /// Removes the entry that has a collapse key, since a newer push takes its place. Returns where it was.
    fn replace(
        &mut self,
        client: &ClientKey,
        ordinal: u32,
        meta: &mut InboxMetaRecord,
        key: &str,
        by: MessageId,
    ) -> Result<Option<Offset>, StoreError> {
        let subject = Subject::client(client);
        let keyed: Option<KeyedRecord> =
            self.record(Table::Keyed, &subject.clone().text(key), "collapse key")?;
        let Some(keyed) = keyed else {
            return Ok(None);
        };
        let offset = Offset(keyed.offset);
        let lane = Lane::from_code(keyed.lane.into()).ok_or_else(|| damaged("collapse key"))?;
        let entry = subject.clone().offset(offset);
        let record: Option<InboxRecord> = self.record(inbox_table(lane), &entry, "inbox entry")?;
        let record = record.ok_or_else(|| damaged("collapse key"))?;
        self.take_out(&subject, meta, lane, offset, &record)?;
        if let Some(push) = record.push_id()? {
            let push = Subject::push(client.app.as_str(), push);
            self.mark(&push, Mark::Collapsed, ordinal)?;
            let tail = ordinal.to_be_bytes();
            let by = by.0.to_be_bytes();
            self.put(
                push.key_with(Table::CollapsedBy, &tail),
                by.as_slice().into(),
            )?;
        }
        Ok(Some(offset))
    }

    /// Removes an entry that is there.
    fn take_out(
        &mut self,
        subject: &Subject,
        meta: &mut InboxMetaRecord,
        lane: Lane,
        offset: Offset,
        record: &InboxRecord,
    ) -> Result<(), StoreError> {
        self.remove(subject.clone().offset(offset).key(inbox_table(lane)))?;
        if let Some(key) = &record.collapse_key {
            // No other entry has it.
            self.remove(subject.clone().text(key).key(Table::Keyed))?;
        }
        meta.remove(lane, offset, record.size_bytes);
        Ok(())
    }

    /// Drops entries until the inbox fits its quota. Returns whether the entry at `newest` is still there.
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
        let mut survives = true;
        for lane in GIVING_WAY {
            if fits(meta) {
                break;
            }
            if meta.lane(lane).entries == 0 {
                continue;
            }
            let mut oldest: Vec<(Offset, InboxRecord)> = Vec::new();
            let mut left = meta.clone();
            self.scan_inbox(subject, lane, meta, &mut |offset, record| {
                left.remove(lane, offset, record.size_bytes);
                oldest.push((offset, record));
                if fits(&left) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            for (offset, record) in oldest {
                self.take_out(subject, meta, lane, offset, &record)?;
                survives &= offset != newest;
                self.count_dropped();
                if let Some(push) = record.push_id()? {
                    self.mark(
                        &Subject::push(client.app.as_str(), push),
                        Mark::Dropped(DropReason::InboxFull),
                        ordinal,
                    )?;
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
            let lanes = Lane::ALL.into_iter();
            for lane in lanes.filter(|lane| meta.lanes().contains(*lane)) {
                let entry = subject.clone().offset(offset);
                let record = self.record(inbox_table(lane), &entry, "inbox entry")?;
                if let Some(record) = record {
                    self.take_out(subject, &mut meta, lane, offset, &record)?;
                    removed += 1;
                    break;
                }
            }
        }
        if removed > 0 {
            self.put_inbox(subject, &meta)?;
        }
        Ok(removed)
    }

    /// Removes all entries that are no pushes: what ends with the session. They are all in the normal lane.
    pub fn purge_publishes(&mut self, subject: &Subject) -> Result<(), StoreError> {
        let Some(meta) = self.inbox(subject)? else {
            return Ok(());
        };
        let mut publishes = Vec::new();
        let mut outcome = Ok(());
        self.scan_inbox(subject, Lane::Normal, &meta, &mut |offset, record| {
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
        lane: Lane,
        meta: &InboxMetaRecord,
        visit: &mut dyn FnMut(Offset, InboxRecord) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        let table = inbox_table(lane);
        let from = subject.clone().offset(Offset(meta.lane(lane).first));
        let to = subject.clone().offset(Offset(u64::MAX));
        let mut outcome = Ok(());
        self.scan(
            &from.key(table),
            &to.key(table),
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

/// Offset and record of an entry of a lane.
pub fn inbox_entry(key: &[u8], value: &[u8]) -> Result<(Offset, InboxRecord), KvError> {
    Ok((offset_of_key(key)?, decode(value, "inbox entry")?))
}

/// The offset that a key of an inbox or of [`Table::Log`] ends with.
pub fn offset_of_key(key: &[u8]) -> Result<Offset, KvError> {
    let tail = key
        .last_chunk::<8>()
        .ok_or_else(|| super::records::damaged("entry"))?;
    Ok(Offset(u64::from_be_bytes(*tail)))
}
