//! Claiming, changing and ending sessions.

use std::sync::Arc;

use campanile_broker::store::PacketId;
use campanile_broker::{
    ids::{ClientKey, Epoch},
    store::{
        Claim, Claimed, Cursor, LogKind, Outcome, Resumed, StoreError, StoredSubscription,
        Subscribe, Will,
    },
};

use super::{
    keys::{ExpiryKind, Subject, Table},
    kv::{Entry, KvError},
    records::{
        CursorsRecord, DeviceRecord, SessionRecord, SubscriptionRecord, UnfinishedRecord,
        WillRecord, damaged, decode,
    },
    state::Ephemeral,
    txn::Txn,
};

/// A client that may write: its epoch is the last one given.
pub enum Owner {
    /// It has a stored session.
    Stored(DeviceRecord),
    /// It is connected without one.
    Ephemeral(Ephemeral),
}

impl Txn<'_> {
    /// Takes a client's session, or makes one.
    pub fn claim(&mut self, claim: &Claim) -> Result<Outcome, StoreError> {
        let client = &claim.client;
        let subject = Subject::client(client);
        self.advance_clock(claim.now);
        let mut device = self.device(&subject)?;
        let ephemeral = self.state.ephemeral(client);
        let session = device.as_mut().and_then(|device| device.session.take());
        let epoch = self.next_epoch(session.as_ref());
        let goes_on = session.as_ref().is_some_and(|session| {
            // A session that does not outlive its connection ends when another one takes its place.
            let ends_with_connection = session.connected && session.expiry_seconds == 0;
            !claim.clean_start && !session.is_expired(claim.now) && !ends_with_connection
        });
        let owed_will = self.replace_will(claim, &subject, goes_on)?;

        let mut cursors = match session {
            Some(_) => self.cursors(&subject)?,
            None => Vec::new(),
        };
        let resumed = if goes_on {
            Some(self.resumed(&subject, &cursors)?)
        } else {
            None
        };
        let mut ended_filters = Vec::new();
        if let Some(session) = &session {
            if let Some(at) = session.expires_at {
                self.remove_if_there(subject.expiry_key(at, ExpiryKind::Session))?;
            }
            if !goes_on {
                ended_filters = self.end_session(&subject)?;
                // The place in the push log is the device's, unless the device itself had expired.
                let kept = !session.is_expired(claim.now);
                cursors.retain(|cursor| kept && cursor.log == LogKind::Push);
            }
        }
        let push_cursor = cursors
            .iter()
            .find(|cursor| cursor.log == LogKind::Push)
            .cloned();
        let push_cursor = push_cursor.unwrap_or_else(|| Cursor {
            log: LogKind::Push,
            done: self.state.log(&client.app, LogKind::Push).end,
            done_above: Vec::new(),
        });

        let ordinal = match (&device, ephemeral) {
            (Some(device), _) => device.ordinal,
            (None, Some(ephemeral)) => ephemeral.ordinal,
            (None, None) => self.take_ordinal(&client.app)?,
        };
        if claim.expiry_seconds > 0 || goes_on {
            let record = DeviceRecord {
                client_id: client.client_id.as_ref().to_owned(),
                ordinal,
                session: Some(SessionRecord {
                    epoch: epoch.0,
                    connected: true,
                    expiry_seconds: claim.expiry_seconds,
                    expires_at: None,
                }),
            };
            self.put_record(Table::Device, &subject, &record)?;
            if !goes_on {
                self.put_record(Table::Cursors, &subject, &CursorsRecord::of([&push_cursor]))?;
            }
            if session.is_none() {
                self.set_stored(&client.app, ordinal, true);
            }
            if ephemeral.is_some() {
                self.set_ephemeral(client, None);
            }
        } else {
            if session.is_some() {
                self.set_stored(&client.app, ordinal, false);
                self.remove_if_there(subject.key(Table::Cursors))?;
                let device = device.as_ref().expect("it had the session");
                self.put_or_forget_device(&subject, device)?;
            }
            let entry = match ephemeral {
                Some(before) => Ephemeral { epoch, ..before },
                None => Ephemeral {
                    epoch,
                    ordinal,
                    since_push: self.state.app(&client.app).pushes_to_all,
                    is_known: device.is_some(),
                },
            };
            self.set_ephemeral(client, Some(entry));
        }

        let topic_ends = (0..self.config.topic_partitions)
            .map(|partition| self.state.log(&client.app, LogKind::Topic(partition)).end)
            .collect();
        Ok(Outcome::Claimed(Box::new(Claimed {
            epoch,
            ordinal,
            resumed,
            ended_filters,
            owed_will,
            push_cursor,
            topic_ends,
            // Whoever has something in the inbox has a record.
            inbox_waiting: device.is_some() && self.inbox(&subject)?.is_some(),
            previous: None,
        })))
    }

    /// An epoch above all that were given: to anybody since the store was opened, and to this session ever.
    fn next_epoch(&mut self, session: Option<&SessionRecord>) -> Epoch {
        let stored = session.map_or(0, |session| session.epoch);
        self.state.last_epoch = self.state.last_epoch.max(stored) + 1;
        Epoch(self.state.last_epoch)
    }

    /// Stores the claim's will in the place of the one before. Returns that one if it is due; it stays stored until its publication spends it.
    fn replace_will(
        &mut self,
        claim: &Claim,
        subject: &Subject,
        session_goes_on: bool,
    ) -> Result<Option<Will>, StoreError> {
        let before: Option<WillRecord> = self.record(Table::Will, subject, "will")?;
        match (&claim.will, &before) {
            (Some(will), _) => {
                self.put_record(
                    Table::Will,
                    subject,
                    &WillRecord::of(&claim.client.client_id, will),
                )?;
            }
            (None, Some(_)) => self.remove(subject.key(Table::Will))?,
            (None, None) => {}
        }
        // A client that is back before its will's delay has passed has nothing to be sorry for, if its session goes on.
        let owed = before.filter(|will| {
            !session_goes_on
                || match will.due_at {
                    Some(at) => at <= claim.now.0,
                    None => will.delay_seconds == 0,
                }
        });
        let Some(mut record) = owed else {
            return Ok(None);
        };
        record.due_at = Some(claim.now.0);
        let row = subject.clone().owed_will(record.message.id());
        self.put_record(Table::OwedWill, &row, &record)?;
        Ok(Some(record.will()?))
    }

    fn resumed(&self, subject: &Subject, cursors: &[Cursor]) -> Result<Resumed, KvError> {
        let unfinished: Option<UnfinishedRecord> =
            self.record(Table::Unfinished, subject, "exchange")?;
        let packet_id = |(key, _): Entry| {
            let id = key.last_chunk::<2>().copied().map(u16::from_be_bytes);
            id.and_then(PacketId::new)
                .ok_or_else(|| damaged("packet identifier"))
        };
        Ok(Resumed {
            subscriptions: self.subscriptions(subject)?,
            cursors: cursors
                .iter()
                .filter(|cursor| cursor.log != LogKind::Push)
                .cloned()
                .collect(),
            unfinished: unfinished.unwrap_or_default().unfinished()?,
            received: self
                .list(Table::Received, subject, usize::MAX)?
                .into_iter()
                .map(packet_id)
                .collect::<Result<_, _>>()?,
        })
    }

    fn subscriptions(&self, subject: &Subject) -> Result<Vec<StoredSubscription>, KvError> {
        let rows = self.list(Table::Subscription, subject, usize::MAX)?;
        rows.into_iter()
            .map(|(_, value)| decode::<SubscriptionRecord>(&value, "subscription")?.subscription())
            .collect()
    }

    /// Removes what ends with a session, but neither cursors nor the device's record. Returns its filters.
    fn end_session(&mut self, subject: &Subject) -> Result<Vec<Arc<str>>, StoreError> {
        let mut filters = Vec::new();
        for (key, value) in self.list(Table::Subscription, subject, usize::MAX)? {
            filters.push(
                decode::<SubscriptionRecord>(&value, "subscription")?
                    .filter
                    .into(),
            );
            self.remove(key)?;
        }
        for (key, _) in self.list(Table::Received, subject, usize::MAX)? {
            self.remove(key)?;
        }
        self.remove_if_there(subject.key(Table::Unfinished))?;
        self.purge_publishes(subject)?;
        Ok(filters)
    }

    /// Ends a stored session for good. Its pushes stay in the inbox until they expire. Returns its filters.
    pub fn end_stored_session(
        &mut self,
        client: &ClientKey,
        subject: &Subject,
        mut device: DeviceRecord,
    ) -> Result<Vec<Arc<str>>, StoreError> {
        let filters = self.end_session(subject)?;
        self.remove_if_there(subject.key(Table::Cursors))?;
        device.session = None;
        self.put_or_forget_device(subject, &device)?;
        self.set_stored(&client.app, device.ordinal, false);
        Ok(filters)
    }

    /// The client's record, if there is one.
    pub fn device(&self, subject: &Subject) -> Result<Option<DeviceRecord>, KvError> {
        self.record(Table::Device, subject, "device")
    }

    /// Keeps the record of a device without a session as long as its inbox holds something.
    pub fn put_or_forget_device(
        &mut self,
        subject: &Subject,
        device: &DeviceRecord,
    ) -> Result<(), StoreError> {
        debug_assert!(device.session.is_none());
        if self.inbox(subject)?.is_some() {
            self.put_record(Table::Device, subject, device)
        } else {
            self.remove_if_there(subject.key(Table::Device))?;
            Ok(())
        }
    }

    /// Forgets a device without a session whose inbox may have become empty.
    pub fn forget_idle_device(&mut self, subject: &Subject) -> Result<(), StoreError> {
        match self.device(subject)? {
            Some(device) if device.session.is_none() => self.put_or_forget_device(subject, &device),
            _ => Ok(()),
        }
    }

    /// The number of a device that is about to get an inbox entry, with a record made if it had none.
    pub fn device_for_inbox(&mut self, client: &ClientKey) -> Result<u32, StoreError> {
        let subject = Subject::client(client);
        if let Some(device) = self.device(&subject)? {
            return Ok(device.ordinal);
        }
        let ordinal = match self.state.ephemeral(client) {
            Some(entry) => {
                self.set_ephemeral(
                    client,
                    Some(Ephemeral {
                        is_known: true,
                        ..entry
                    }),
                );
                entry.ordinal
            }
            None => self.take_ordinal(&client.app)?,
        };
        let client_id = client.client_id.as_ref().to_owned();
        self.put_record(
            Table::Device,
            &subject,
            &DeviceRecord {
                client_id,
                ordinal,
                session: None,
            },
        )?;
        Ok(ordinal)
    }

    /// The owner of a client's session, if it is the caller.
    pub fn fence(
        &self,
        client: &ClientKey,
        subject: &Subject,
        epoch: Epoch,
    ) -> Result<Owner, StoreError> {
        if let Some(entry) = self.state.ephemeral(client) {
            return if entry.epoch == epoch {
                Ok(Owner::Ephemeral(entry))
            } else {
                Err(StoreError::Fenced)
            };
        }
        match self.device(subject)? {
            Some(device)
                if device
                    .session
                    .as_ref()
                    .is_some_and(|session| session.epoch == epoch.0) =>
            {
                Ok(Owner::Stored(device))
            }
            _ => Err(StoreError::Fenced),
        }
    }

    /// Changes subscriptions.
    pub fn subscribe(&mut self, subscribe: &Subscribe) -> Result<Outcome, StoreError> {
        let client = &subscribe.client;
        let subject = Subject::client(client);
        if let Owner::Stored(_) = self.fence(client, &subject, subscribe.epoch)? {
            for filter in &subscribe.remove {
                self.remove_if_there(subject.clone().text(filter).key(Table::Subscription))?;
            }
            for subscription in &subscribe.add {
                let row = subject.clone().text(&subscription.filter);
                self.put_record(
                    Table::Subscription,
                    &row,
                    &SubscriptionRecord::of(subscription),
                )?;
            }
            if !subscribe.add.is_empty() {
                self.start_topic_cursors(client, &subject)?;
            }
        }
        if !subscribe.inbox.is_empty() {
            let ordinal = self.device_for_inbox(client)?;
            for item in &subscribe.inbox {
                let offset = self.next_offset();
                self.append_to_inbox(client, ordinal, offset, item, false)?;
            }
        }
        Ok(Outcome::Done)
    }

    /// Where a session has no cursor in a topic log yet, it starts at the end.
    fn start_topic_cursors(
        &mut self,
        client: &ClientKey,
        subject: &Subject,
    ) -> Result<(), StoreError> {
        let mut cursors = self.cursors(subject)?;
        let known = cursors.len();
        for partition in 0..self.config.topic_partitions {
            let log = LogKind::Topic(partition);
            if cursors.iter().all(|cursor| cursor.log != log) {
                cursors.push(Cursor {
                    log,
                    done: self.state.log(&client.app, log).end,
                    done_above: Vec::new(),
                });
            }
        }
        if cursors.len() > known {
            self.put_record(Table::Cursors, subject, &CursorsRecord::of(&cursors))?;
        }
        Ok(())
    }
}
