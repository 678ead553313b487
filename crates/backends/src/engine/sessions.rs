//! Claiming, changing and ending sessions.

use std::{mem::take, sync::Arc};

use campanile_broker::{
    ids::{ClientKey, Epoch, Generation, Offset},
    lane::{Lane, LaneSet},
    store::{Claim, Claimed, Cursor, LogKind, Outcome, Previous, StoreError, Subscribe},
};

use super::{
    cluster::first_number_at,
    keys::{ExpiryKind, META_EPOCH, Subject, Table},
    kv::KvError,
    records::{CursorsRecord, DeviceRecord, SessionRecord, SubscriptionRecord, decode},
    rows::read_profile,
    state::Ephemeral,
    stored::{push_cursor, read_memory, read_resumed},
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
        let previous = self.connection_before(client, &subject)?;
        if let Some(previous) = previous.filter(|previous| {
            previous.generation != claim.owner && previous.generation != Generation::ALONE
        }) {
            self.append_note(previous.generation, client, Offset(0), Lane::Normal)?;
        }
        let memory = match device {
            Some(_) => read_memory(self, &subject)?,
            None => None,
        };
        let session = device.as_mut().and_then(|device| device.session.take());
        let was_lost = device
            .as_mut()
            .is_some_and(|device| take(&mut device.may_be_served));
        let epoch = self.next_epoch(session.as_ref())?;
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
            Some(read_resumed(self, &subject, &cursors)?)
        } else {
            None
        };
        let mut ended_filters = Vec::new();
        if let Some(session) = &session {
            if let Some(at) = session.expires_at {
                self.remove_if_there(subject.expiry_key(at, ExpiryKind::Session))?;
            }
            if !goes_on {
                ended_filters = self.end_session(client, &subject)?;
                // The place in the push log is the device's, unless the device itself had expired.
                let kept = !session.is_expired(claim.now);
                cursors.retain(|cursor| kept && cursor.log == LogKind::Push);
            }
        }
        let push_log = self.state.log(&client.app, LogKind::Push);
        let begins = cursors.iter().all(|cursor| cursor.log != LogKind::Push);
        let push_cursor = push_cursor(&cursors, push_log.end);

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
                    owner: match self.config.shared {
                        true => claim.owner.0,
                        false => Generation::ALONE.0,
                    },
                    may_be_handed_over: previous
                        .is_some_and(|previous| previous.generation != claim.owner),
                    left_at: None,
                }),
                may_be_served: false,
            };
            self.put_record(Table::Device, &subject, &record)?;
            if !goes_on {
                self.put_record(Table::Cursors, &subject, &CursorsRecord::of([&push_cursor]))?;
            }
            if session.is_none() {
                self.set_stored(&client.app, ordinal, true);
            }
            if ephemeral.is_some() {
                self.set_ephemeral(client, None)?;
            }
        } else {
            if session.is_some() {
                self.set_stored(&client.app, ordinal, false);
                self.remove_if_there(subject.key(Table::Cursors))?;
            }
            if (session.is_some() || was_lost)
                && let Some(device) = &device
            {
                self.put_or_forget_device(&subject, device)?;
            }
            let entry = match ephemeral {
                Some(before) => Ephemeral {
                    epoch,
                    owner: claim.owner,
                    // The node before may report under the number after it was let go of.
                    is_known: before.is_known || before.owner != claim.owner,
                    ..before
                },
                None => Ephemeral {
                    epoch,
                    owner: claim.owner,
                    ordinal,
                    since_push: self.state.app(&client.app).pushes_to_all,
                    is_known: device.is_some(),
                },
            };
            self.set_ephemeral(client, Some(entry))?;
        }

        if let Some(previous) = previous {
            self.remove_connection(previous.generation, &subject)?;
        }
        self.add_connection(claim.owner, client, &subject)?;

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
            inbox_waiting: match device {
                Some(_) => self
                    .inbox(&subject)?
                    .map_or(LaneSet::NONE, |inbox| inbox.lanes()),
                None => LaneSet::NONE,
            },
            previous,
            // A registered device has a record.
            profile: match device {
                Some(_) => read_profile(self, &subject)?,
                None => None,
            },
            memory,
            begins,
            changes: self.last_change(&client.app)?,
        })))
    }

    /// The connection that a claim takes over, which a node alone knows of without asking.
    fn connection_before(
        &self,
        client: &ClientKey,
        subject: &Subject,
    ) -> Result<Option<Previous>, KvError> {
        match self.config.shared {
            true => self.connection(client, subject),
            false => Ok(None),
        }
    }

    /// An epoch above all that were given: to anybody since the store was opened, and to this session ever. A store that nodes share is not
    /// recovered by one of them, so that it keeps the last one.
    fn next_epoch(&mut self, session: Option<&SessionRecord>) -> Result<Epoch, StoreError> {
        let stored = session.map_or(0, |session| session.epoch);
        let mut epoch = self.state.last_epoch.max(stored) + 1;
        if self.config.shared {
            epoch = epoch.max(first_number_at(self.state.clock));
            self.put(META_EPOCH.to_vec(), epoch.to_be_bytes().as_slice().into())?;
        }
        self.state.last_epoch = epoch;
        Ok(Epoch(epoch))
    }

    /// Removes what ends with a session, but neither cursors nor the device's record. Returns its filters.
    fn end_session(
        &mut self,
        client: &ClientKey,
        subject: &Subject,
    ) -> Result<Vec<Arc<str>>, StoreError> {
        let mut filters = Vec::new();
        for (key, value) in self.list(Table::Subscription, subject, usize::MAX)? {
            let record: SubscriptionRecord = decode(&value, "subscription")?;
            self.remove(key)?;
            self.change_subscription(client, &record.filter, Some(&record), None)?;
            filters.push(record.filter.into());
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
        let filters = self.end_session(client, subject)?;
        self.remove_if_there(subject.key(Table::Cursors))?;
        device.may_be_served = false;
        if let Some(session) = device.session.take() {
            self.remove_connection(Generation(session.owner), subject)?;
        }
        self.put_or_forget_device(subject, &device)?;
        self.set_stored(&client.app, device.ordinal, false);
        Ok(filters)
    }

    /// The client's record, if there is one.
    pub fn device(&self, subject: &Subject) -> Result<Option<DeviceRecord>, KvError> {
        self.record(Table::Device, subject, "device")
    }

    /// Keeps the record of a device without a session as long as its inbox holds something, or it is registered.
    pub fn put_or_forget_device(
        &mut self,
        subject: &Subject,
        device: &DeviceRecord,
    ) -> Result<(), StoreError> {
        debug_assert!(device.session.is_none());
        let is_registered = self.is_registered(subject)?;
        if !is_registered {
            // Whoever it is that comes next under this name begins anew.
            self.remove_if_there(subject.key(Table::Memory))?;
        }
        if is_registered || self.inbox(subject)?.is_some() {
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
                )?;
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
                may_be_served: false,
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
                let row = subject.clone().text(filter);
                if let Some(before) = self.record(Table::Subscription, &row, "subscription")? {
                    self.remove(row.key(Table::Subscription))?;
                    self.change_subscription(client, filter, Some(&before), None)?;
                }
            }
            for subscription in &subscribe.add {
                let row = subject.clone().text(&subscription.filter);
                let before = match self.config.shared {
                    true => self.record(Table::Subscription, &row, "subscription")?,
                    false => None,
                };
                let record = SubscriptionRecord::of(subscription);
                self.put_record(Table::Subscription, &row, &record)?;
                let filter = &subscription.filter;
                self.change_subscription(client, filter, before.as_ref(), Some(&record))?;
            }
            if !subscribe.add.is_empty() {
                self.end_hand_over(&subject)?;
                self.start_topic_cursors(client, &subject)?;
                self.wait_for_changes(&client.app)?;
            }
        }
        if !subscribe.inbox.is_empty() {
            let ordinal = self.device_for_inbox(client)?;
            for item in &subscribe.inbox {
                let offset = self.next_offset();
                self.append_to_inbox(client, ordinal, offset, item, false, None)?;
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
