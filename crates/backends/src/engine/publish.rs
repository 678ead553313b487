//! Keeping messages: in logs, in inboxes, as retained.

use std::sync::Arc;

use campanile_broker::{
    ids::{AppId, ClientKey, Millis, Offset},
    message::Message,
    store::{Change, LogEntry, LogKind, MAX_POSTED_FILTERS, Notice, Outcome, Publish, StoreError},
};

use super::{
    keys::{ExpiryKind, Subject, Table},
    kv::{Value, View},
    records::{LogRecord, MessageRecord, ReceivedRecord, decode, encode},
    state::LogState,
    txn::Txn,
};

/// Stands for all filters in a posting; no filter is empty.
pub const ALL_FILTERS: &str = "";

/// The postings of a filter in a log.
pub fn posting(app: &AppId, log: LogKind, filter: &str) -> Subject {
    Subject::log(app, log).text(filter)
}

impl Txn<'_> {
    /// Keeps a message.
    pub fn publish(&mut self, publish: &Publish) -> Result<Outcome, StoreError> {
        let Publish { app, message, .. } = publish;
        if let Some((client_id, id)) = &publish.spends_will {
            let subject = Subject::app(app.as_str()).text(client_id);
            if !self.spend_will(&subject, *id)? {
                return Ok(Outcome::Nothing);
            }
        }
        if let Some(received) = &publish.received {
            let subject = Subject::client(&received.client);
            self.fence(&received.client, &subject, received.epoch)?;
            let row = subject.bytes(&received.packet_id.get().to_be_bytes());
            // Until PUBREL the identifier means the same exchange, so that whatever is there this is a repetition.
            if self.has(Table::Received, &row)? {
                return Ok(Outcome::Done);
            }
            let id = message.id.0;
            let record = ReceivedRecord {
                id_high: (id >> 64) as u64,
                id_low: id as u64,
            };
            self.put_record(Table::Received, &row, &record)?;
        }
        if let Some(log) = publish.log {
            let offset = self.next_offset();
            self.append_to_log(app, log, offset, message, &publish.filters)?;
        }
        for (client_id, item) in &publish.inboxes {
            let client = ClientKey {
                app: app.clone(),
                client_id: client_id.clone(),
            };
            if self.has_session(&client)? {
                let ordinal = self.device_for_inbox(&client)?;
                let offset = self.next_offset();
                self.append_to_inbox(&client, ordinal, offset, item, false, None)?;
            }
        }
        if publish.retain {
            self.retain(app, message)?;
        }
        Ok(Outcome::Done)
    }

    /// The end of an incoming QoS 2 exchange.
    pub fn forget_received(
        &mut self,
        client: &ClientKey,
        epoch: campanile_broker::ids::Epoch,
        packet_id: campanile_broker::store::PacketId,
    ) -> Result<Outcome, StoreError> {
        let subject = Subject::client(client);
        self.fence(client, &subject, epoch)?;
        let row = subject.bytes(&packet_id.get().to_be_bytes());
        self.remove_if_there(row.key(Table::Received))?;
        Ok(Outcome::Done)
    }

    fn has_session(&self, client: &ClientKey) -> Result<bool, StoreError> {
        if self.state.ephemeral(client).is_some() {
            return Ok(true);
        }
        Ok(self
            .device(&Subject::client(client))?
            .is_some_and(|device| device.session.is_some()))
    }

    /// Appends to a log and announces the entry.
    pub fn append_to_log(
        &mut self,
        app: &AppId,
        log: LogKind,
        offset: Offset,
        message: &Arc<Message>,
        filters: &[Arc<str>],
    ) -> Result<(), StoreError> {
        let appended_at = self.state.clock;
        let filters: Vec<String> = match filters.len() {
            0..=MAX_POSTED_FILTERS => filters.iter().map(|filter| filter.to_string()).collect(),
            _ => vec![ALL_FILTERS.to_owned()],
        };
        for filter in &filters {
            self.put(
                posting(app, log, filter).offset(offset).key(Table::Posting),
                Value::from(&[][..]),
            )?;
        }
        let value = encode(&LogRecord {
            appended_at: appended_at.0,
            message: MessageRecord::of(message),
            filters,
        });
        let before = self.state.log(app, log);
        let is_first = before.bytes == 0;
        let now = LogState {
            end: offset,
            bytes: before.bytes + value.len() as u64,
            oldest: if is_first {
                Some(appended_at)
            } else {
                before.oldest
            },
            ..before
        };
        self.put(Subject::log(app, log).offset(offset).key(Table::Log), value)?;
        self.set_log(app, log, now);
        let changes = match message.audience {
            Some(_) => self.last_change(app)?,
            None => Offset::default(),
        };
        self.announce(Notice::Log {
            app: app.clone(),
            log,
            changes,
            previous: before.end,
            entry: LogEntry {
                offset,
                message: message.clone(),
            },
        });
        Ok(())
    }

    fn retain(&mut self, app: &AppId, message: &Arc<Message>) -> Result<(), StoreError> {
        let subject = Subject::app(app.as_str()).text(message.topic());
        let is_removal = message.payload().is_empty();
        if is_removal {
            if !self.remove_if_there(subject.key(Table::Retained))? {
                return Ok(());
            }
        } else {
            self.put_record(Table::Retained, &subject, &MessageRecord::of(message))?;
            if let Some(at) = message.expires_at {
                self.put(
                    subject.expiry_key(at.0, ExpiryKind::Retained),
                    subject.key(Table::Retained).into(),
                )?;
            }
        }
        self.announce_change(
            app,
            Change::Retained {
                topic: message.topic().into(),
                message: (!is_removal).then(|| message.clone()),
            },
        )
    }

    /// Removes the oldest entries of a topic log that are too old or too many. Returns how many it removed, at most `limit`.
    pub fn trim_topic_log(
        &mut self,
        app: &AppId,
        log: LogKind,
        now: Millis,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let max_age_ms = self.config.topic_log_max_age_ms;
        let max_bytes = self.config.topic_log_max_bytes;
        let mut state = self.state.log(app, log);
        let is_due = |state: &LogState| {
            let too_old = state
                .oldest
                .is_none_or(|oldest| now.since(oldest) >= max_age_ms);
            state.bytes > 0 && (too_old || state.bytes > max_bytes)
        };
        if !is_due(&state) {
            return Ok(0);
        }
        let subject = Subject::log(app, log);
        let from = subject
            .clone()
            .offset(Offset(state.trimmed_to.0 + 1))
            .key(Table::Log);
        let to = subject.clone().offset(Offset(u64::MAX)).key(Table::Log);
        let mut removable = Vec::new();
        let mut postings = Vec::new();
        let mut outcome = Ok(());
        let mut left = state;
        let mut is_empty = true;
        self.scan(&from, &to, &mut |key, value| {
            let record = decode::<LogRecord>(value, "log entry");
            let entry = record.and_then(|record| Ok((super::inbox::offset_of_key(key)?, record)));
            match entry {
                Ok((offset, record)) => {
                    left.oldest = Some(Millis(record.appended_at));
                    if !is_due(&left) || removable.len() >= limit as usize {
                        is_empty = false;
                        return std::ops::ControlFlow::Break(());
                    }
                    left.bytes = left.bytes.saturating_sub(value.len() as u64);
                    left.trimmed_to = offset;
                    postings.extend(record.filters.iter().map(|filter| {
                        posting(app, log, filter).offset(offset).key(Table::Posting)
                    }));
                    removable.push(key.to_vec());
                    std::ops::ControlFlow::Continue(())
                }
                Err(error) => {
                    outcome = Err(error);
                    std::ops::ControlFlow::Break(())
                }
            }
        })?;
        outcome?;
        let removed = removable.len() as u32;
        for key in removable.into_iter().chain(postings) {
            self.remove(key)?;
        }
        state = left;
        if is_empty {
            (state.bytes, state.oldest) = (0, None);
        }
        self.set_log(app, log, state);
        Ok(removed)
    }
}
