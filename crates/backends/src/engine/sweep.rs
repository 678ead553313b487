//! Removing what has expired: through the expiry index and from the front of logs, never by a scan of everything.

use std::ops::ControlFlow;

use campanile_broker::{
    ids::{AppId, ClientKey, Millis, Offset},
    store::{Change, LogKind, Outcome, StoreError, Swept},
};

use super::{
    keys::{ExpiryKind, Subject, Table, parse_expiry_key},
    kv::{Entry, View},
    records::{IdempotencyRecord, MessageRecord, damaged, decode},
    txn::Txn,
};

impl Txn<'_> {
    /// Removes what has expired by `now`, at most `limit` things.
    pub fn sweep(&mut self, now: Millis, limit: u32) -> Result<Outcome, StoreError> {
        self.advance_clock(now);
        self.flush_receipts();
        let mut swept = Swept::default();
        let (due, more) = self.due(now, limit)?;
        swept.more = more;
        // Entries of the index that mean nothing any more cost work too, so that they count against the limit.
        let mut left = limit;
        for (key, value) in due {
            if left == 0 {
                swept.more = true;
                break;
            }
            let (removed, done) = self.expire(&key, &value, now, left, &mut swept)?;
            swept.removed += removed;
            left = left.saturating_sub(removed.max(1));
            if done {
                self.remove(key)?;
            } else {
                swept.more = true;
            }
        }
        self.trim_topic_logs(now, left, &mut swept)?;
        self.trim_event_logs(now, left, &mut swept)?;
        Ok(Outcome::Swept(swept))
    }

    /// Entries of the expiry index until `now`, at most `limit`, and whether there are more.
    fn due(&self, now: Millis, limit: u32) -> Result<(Vec<Entry>, bool), StoreError> {
        let from = [Table::Expiry as u8];
        let mut to = from.to_vec();
        to.extend_from_slice(&now.0.saturating_add(1).to_be_bytes());
        let mut due = Vec::new();
        let mut more = false;
        self.scan(&from, &to, &mut |key, value| {
            if due.len() >= limit as usize {
                more = true;
                return ControlFlow::Break(());
            }
            due.push((key.to_vec(), value.clone()));
            ControlFlow::Continue(())
        })?;
        Ok((due, more))
    }

    /// Acts on one entry of the index. Returns how much was removed, and whether the entry is done with.
    fn expire(
        &mut self,
        index: &[u8],
        subject_key: &[u8],
        now: Millis,
        limit: u32,
        swept: &mut Swept,
    ) -> Result<(u32, bool), StoreError> {
        let (at_ms, kind, subject) = parse_expiry_key(index).ok_or_else(|| damaged("expiry"))?;
        let Some(kind) = ExpiryKind::from_byte(kind) else {
            // A newer version wrote it; it is not ours to judge, and dropping the index entry is all that an older one can do.
            return Ok((0, true));
        };
        let removed = match kind {
            ExpiryKind::Push => return self.expire_push(&subject, limit),
            ExpiryKind::Report => self.forget_push(&subject)?,
            ExpiryKind::Session => self.expire_session(&subject, now, swept)?,
            ExpiryKind::Retained => self.expire_retained(&subject, subject_key, now)?,
            ExpiryKind::Idempotency => {
                let used: Option<IdempotencyRecord> =
                    self.record(Table::Idempotency, &subject, "idempotency key")?;
                match used {
                    Some(used) if used.expires_ms <= now.0 => {
                        self.remove(subject_key.to_vec())?;
                        1
                    }
                    _ => 0,
                }
            }
            ExpiryKind::Will => {
                self.hand_out_will(at_ms, subject, now, swept)?;
                0
            }
            ExpiryKind::Row => self.expire_row(&subject, now)?,
            ExpiryKind::InboxEntry => match subject.split_tail::<8>() {
                Some((client, offset)) => {
                    let offset = Offset(u64::from_be_bytes(offset));
                    let removed = self.remove_from_inbox(&client, &[offset])?;
                    self.forget_idle_device(&client)?;
                    removed
                }
                None => 0,
            },
        };
        Ok((removed, true))
    }

    fn expire_session(
        &mut self,
        subject: &Subject,
        now: Millis,
        swept: &mut Swept,
    ) -> Result<u32, StoreError> {
        let Some(device) = self.device(subject)? else {
            return Ok(0);
        };
        if !device
            .session
            .as_ref()
            .is_some_and(|session| session.is_expired(now))
        {
            return Ok(0);
        }
        let app = subject.app_name().ok_or_else(|| damaged("device"))?;
        let client = ClientKey::new(&AppId::new(app), &device.client_id);
        let filters = self.end_stored_session(&client, subject, device)?;
        swept.ended.push((client, filters));
        Ok(1)
    }

    fn expire_retained(
        &mut self,
        subject: &Subject,
        key: &[u8],
        now: Millis,
    ) -> Result<u32, StoreError> {
        let Some(bytes) = self.get(key)? else {
            return Ok(0);
        };
        let record: MessageRecord = decode(&bytes, "message")?;
        if record.expires_at.is_none_or(|at| at > now.0) {
            return Ok(0);
        }
        self.remove(key.to_vec())?;
        let app = AppId::new(
            subject
                .app_name()
                .ok_or_else(|| damaged("retained message"))?,
        );
        let topic = record.message()?.topic().into();
        self.announce_change(
            &app,
            Change::Retained {
                topic,
                message: None,
            },
        )?;
        Ok(1)
    }

    fn trim_topic_logs(
        &mut self,
        now: Millis,
        limit: u32,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        let mut left = limit;
        let logs: Vec<(AppId, LogKind)> = self
            .state
            .apps
            .iter()
            .flat_map(|(app, state)| state.logs.keys().map(move |log| (app.clone(), *log)))
            .filter(|(_, log)| *log != LogKind::Push)
            .collect();
        for (app, log) in logs {
            let removed = self.trim_topic_log(&app, log, now, left)?;
            swept.removed += removed;
            left -= removed;
            if left == 0 {
                swept.more = true;
                break;
            }
        }
        Ok(())
    }
}
