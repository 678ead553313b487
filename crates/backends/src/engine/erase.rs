//! Removing all that is kept of an app, a part at a time.
//!
//! What other parts of a node know, such as sessions, retained messages and campaigns, is removed the way it is at any other time, so that they hear of it. The rest is
//! removed by its keys. Entries of the expiry index stay until their time: they mean nothing without their subjects. Where the sequences stand is kept, since nodes go by it
//! as long as they run: the ends of logs, the last change, the next device number.

use campanile_broker::{
    ids::{AppId, ClientKey, Millis, Offset},
    lane::Lane,
    store::{Change, LogKind, Outcome, StoreError, Swept},
};

use super::{
    keys::{Subject, Table, inbox_table, log_of_number},
    kv::{Entry, KvError},
    records::{DeviceRecord, LogMetaRecord, MessageRecord, damaged, decode},
    state::LogState,
    txn::Txn,
};

/// Tables that are removed by their keys, when what is told of is gone.
const SILENT: [Table; 26] = [
    Table::Subscription,
    Table::Received,
    Table::Will,
    Table::OwedWill,
    Table::InboxMeta,
    Table::Inbox,
    Table::InboxHigh,
    Table::InboxLow,
    Table::Keyed,
    Table::Memory,
    Table::Cursors,
    Table::Unfinished,
    Table::Log,
    Table::Posting,
    Table::Push,
    Table::Receipts,
    Table::PushMessage,
    Table::PushClients,
    Table::CollapsedBy,
    Table::Idempotency,
    Table::RowCount,
    Table::EventLog,
    Table::Event,
    Table::Series,
    Table::Number,
    Table::Cohort,
];

impl Txn<'_> {
    /// Removes at most about `limit` things that are kept of an app.
    pub fn erase(&mut self, app: &AppId, now: Millis, limit: u32) -> Result<Outcome, StoreError> {
        self.advance_clock(now);
        self.flush_receipts();
        let mut swept = Swept::default();
        // Without listeners nothing of the rest is told.
        self.erase_rows(app, limit, &mut swept)?;
        self.erase_connected(app, limit, &mut swept)?;
        self.erase_devices(app, limit, &mut swept)?;
        self.erase_retained(app, limit, &mut swept)?;
        for table in SILENT {
            for (key, _) in self.some_of(table, app, limit, &swept)? {
                self.remove(key)?;
                swept.removed += 1;
            }
        }
        swept.more = swept.removed >= limit;
        if !swept.more {
            self.empty_logs(app)?;
        }
        Ok(Outcome::Swept(swept))
    }

    /// Of a table as much as may still be removed.
    fn some_of(
        &self,
        table: Table,
        app: &AppId,
        limit: u32,
        swept: &Swept,
    ) -> Result<Vec<Entry>, KvError> {
        let left = limit.saturating_sub(swept.removed) as usize;
        self.list(table, &Subject::app(app.as_str()), left)
    }

    fn erase_rows(&mut self, app: &AppId, limit: u32, swept: &mut Swept) -> Result<(), StoreError> {
        for (key, _) in self.some_of(Table::Row, app, limit, swept)? {
            self.remove_row(&Subject::of_key(&key))?;
            swept.removed += 1;
        }
        Ok(())
    }

    /// Those that are connected without a stored session. Their nodes are fenced from now on.
    fn erase_connected(
        &mut self,
        app: &AppId,
        limit: u32,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        let left = limit.saturating_sub(swept.removed) as usize;
        for (client_id, entry) in self.state.connected.of_app(app, left) {
            let client = ClientKey {
                app: app.clone(),
                client_id,
            };
            self.release_ephemeral(&client, &Subject::client(&client), entry)?;
            swept.removed += 1;
        }
        Ok(())
    }

    fn erase_devices(
        &mut self,
        app: &AppId,
        limit: u32,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        for (key, value) in self.some_of(Table::Device, app, limit, swept)? {
            if swept.removed >= limit {
                break;
            }
            let subject = Subject::of_key(&key);
            let device: DeviceRecord = decode(&value, "device")?;
            let client = ClientKey::new(app, &device.client_id);
            for lane in Lane::ALL {
                for (key, _) in self.list(inbox_table(lane), &subject, usize::MAX)? {
                    self.remove(key)?;
                    swept.removed += 1;
                }
            }
            self.remove_if_there(subject.key(Table::InboxMeta))?;
            if device.session.is_some() {
                let filters = self.end_stored_session(&client, &subject, device)?;
                swept.ended.push((client, filters));
            } else {
                self.forget_idle_device(&subject)?;
            }
            self.release_will(&subject, None, None)?;
            self.remove_if_there(key)?;
            swept.removed += 1;
        }
        Ok(())
    }

    fn erase_retained(
        &mut self,
        app: &AppId,
        limit: u32,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        for (key, value) in self.some_of(Table::Retained, app, limit, swept)? {
            let record: MessageRecord = decode(&value, "message")?;
            let topic = record.message()?.topic().into();
            self.remove(key)?;
            let message = None;
            self.announce_change(app, Change::Retained { topic, message })?;
            swept.removed += 1;
        }
        Ok(())
    }

    /// Whoever reads on in a log of which nothing is left misses all of it.
    fn empty_logs(&mut self, app: &AppId) -> Result<(), StoreError> {
        let subject = Subject::app(app.as_str());
        for (key, value) in self.list(Table::LogMeta, &subject, usize::MAX)? {
            let meta: LogMetaRecord = decode(&value, "log")?;
            let number = key.last_chunk::<2>().copied().map(u16::from_be_bytes);
            let log: LogKind = number
                .and_then(log_of_number)
                .ok_or_else(|| damaged("log"))?;
            let end = self.state.log(app, log).end.max(Offset(meta.end));
            let emptied = LogState {
                end,
                trimmed_to: end,
                ..LogState::default()
            };
            if self.state.log(app, log) != emptied {
                self.set_log(app, log, emptied);
            }
        }
        Ok(())
    }
}
