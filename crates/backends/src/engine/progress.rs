//! Saving what a session did, and letting go of it.

use campanile_broker::{
    ids::{ClientKey, Generation, Millis},
    store::{Cursor, LogKind, Outcome, Progress, Release, StoreError},
};
use campanile_push::{event::What, receipt::Mark};

use super::{
    keys::{ExpiryKind, Subject, Table},
    kv::KvError,
    records::{CursorsRecord, DeviceRecord, PushRecord, UnfinishedRecord, session_end},
    sessions::Owner,
    state::Ephemeral,
    stored::read_cursors,
    txn::Txn,
};

impl Txn<'_> {
    /// Records that a device acknowledged pushes, or will not get them.
    pub fn receive_receipts(&mut self, progress: &Progress) -> Result<(), StoreError> {
        let delivered = progress.receipts.iter().map(|id| (*id, Mark::Delivered));
        // What only a later version knows is nothing to this one.
        let settled =
            (progress.settled.iter()).filter_map(|(id, code)| Some((*id, Mark::from_code(*code)?)));
        for (id, mark) in delivered.chain(settled) {
            let push = Subject::push(progress.client.app.as_str(), id.0);
            let Some(record) = self.record::<PushRecord>(Table::Push, &push, "push")? else {
                continue;
            };
            let ordinal = self.number_in(&push, &record, &progress.client, progress.ordinal)?;
            let is_new = self.mark(&push, mark, ordinal)?;
            if record.to_audience {
                // Whoever counts those that it is for may see the device otherwise than the node that sent it.
                self.mark(&push, Mark::Targeted, ordinal)?;
            }
            if is_new && mark == Mark::Delivered {
                self.count_in_series(&push, &record, mark)?;
            }
            let what = match mark {
                Mark::Delivered => What::PushDelivered,
                Mark::Dropped(reason) => What::PushDropped { reason },
                Mark::Failed(reason) => What::PushFailed { reason },
                _ => continue,
            };
            if is_new && !record.is_control && self.is_marked(&push, Mark::Targeted, ordinal)? {
                let ClientKey { app, client_id } = &progress.client;
                self.tell_of_push(app.as_str(), id.0, Some(client_id), &what)?;
            }
        }
        Ok(())
    }

    /// The number under which a push knows a client that reports under `reported`: that one, unless the client lost it with its node, which goes on
    /// without knowing, and the push came to it under the number that it has now.
    pub fn number_in(
        &self,
        push: &Subject,
        record: &PushRecord,
        client: &ClientKey,
        reported: u32,
    ) -> Result<u32, KvError> {
        if record.to_audience || self.is_marked(push, Mark::Targeted, reported)? {
            return Ok(reported);
        }
        let now = match self.state.ephemeral(client) {
            Some(entry) => Some(entry.ordinal),
            None => (self.device(&Subject::client(client))?).map(|device| device.ordinal),
        };
        match now {
            Some(now) if self.is_marked(push, Mark::Targeted, now)? => Ok(now),
            _ => Ok(reported),
        }
    }

    /// Saves what a session did, without its receipts.
    pub fn progress(&mut self, progress: &Progress) -> Result<Outcome, StoreError> {
        let subject = Subject::client(&progress.client);
        let owner = self.fence(&progress.client, &subject, progress.epoch)?;
        if progress.cursors.is_some() || progress.unfinished.is_some() {
            self.end_hand_over(&subject)?;
        }
        self.save(progress, &subject, &owner)?;
        Ok(Outcome::Done)
    }

    /// Saves what a session did at the node that had it before, without its receipts.
    pub fn hand_over(&mut self, progress: &Progress) -> Result<Outcome, StoreError> {
        let subject = Subject::client(&progress.client);
        let owner = self.fence(&progress.client, &subject, progress.epoch)?;
        if let Owner::Stored(device) = &owner
            && !device
                .session
                .as_ref()
                .is_some_and(|session| session.may_be_handed_over)
        {
            return Err(StoreError::Fenced);
        }
        self.end_hand_over(&subject)?;
        self.save(progress, &subject, &owner)?;
        Ok(Outcome::Done)
    }

    /// From here on the session is what its owner says.
    pub fn end_hand_over(&mut self, subject: &Subject) -> Result<(), StoreError> {
        let Some(mut device) = self.device(subject)? else {
            return Ok(());
        };
        match &mut device.session {
            Some(session) if session.may_be_handed_over => session.may_be_handed_over = false,
            _ => return Ok(()),
        }
        self.put_record(Table::Device, subject, &device)
    }

    fn save(
        &mut self,
        progress: &Progress,
        subject: &Subject,
        owner: &Owner,
    ) -> Result<(), StoreError> {
        let removed = self.remove_from_inbox(subject, &progress.inbox_done)?;
        let is_stored = matches!(owner, Owner::Stored(_));
        if let Some(memory) = &progress.memory
            && (is_stored || self.is_registered(subject)?)
        {
            match memory.is_empty() {
                true => drop(self.remove_if_there(subject.key(Table::Memory))?),
                false => self.put(subject.key(Table::Memory), memory.as_ref().into())?,
            }
        }
        if let Owner::Ephemeral(_) = owner {
            if removed > 0 {
                self.forget_idle_device(subject)?;
            }
            return Ok(());
        }
        if let Some(cursors) = &progress.cursors {
            let mut record = CursorsRecord::of(cursors);
            if cursors.iter().all(|cursor| cursor.log != LogKind::Push) {
                // The place in the push log is the device's; leaving it out does not lose it.
                let kept = self.cursors(subject)?;
                record.cursors.extend(
                    CursorsRecord::of(kept.iter().filter(|cursor| cursor.log == LogKind::Push))
                        .cursors,
                );
            }
            self.put_record(Table::Cursors, subject, &record)?;
        }
        match &progress.unfinished {
            Some(unfinished) if unfinished.is_empty() => {
                self.remove_if_there(subject.key(Table::Unfinished))?;
            }
            Some(unfinished) => {
                self.put_record(
                    Table::Unfinished,
                    subject,
                    &UnfinishedRecord::of(unfinished),
                )?;
            }
            None => {}
        }
        Ok(())
    }

    /// Cursors of a stored session.
    pub fn cursors(&self, subject: &Subject) -> Result<Vec<Cursor>, KvError> {
        read_cursors(self, subject)
    }

    /// Saves what a session did, without its receipts, and lets it begin to expire, or ends it.
    pub fn release(&mut self, release: &Release) -> Result<Outcome, StoreError> {
        let client = &release.progress.client;
        let subject = Subject::client(client);
        self.advance_clock(release.now);
        self.fence(client, &subject, release.progress.epoch)?;
        self.end_hand_over(&subject)?;
        let owner = self.fence(client, &subject, release.progress.epoch)?;
        self.save(&release.progress, &subject, &owner)?;
        self.release_will(&subject, release.will_at, release.expires_at)?;
        match owner {
            Owner::Ephemeral(entry) => self.release_ephemeral(client, &subject, entry)?,
            Owner::Stored(device) if release.expires_at.is_some_and(|at| at <= release.now) => {
                self.end_stored_session(client, &subject, device)?;
            }
            Owner::Stored(mut device) => {
                device.may_be_served = false;
                self.disconnect(&subject, device, release.now, release.expires_at)?;
            }
        }
        Ok(Outcome::Done)
    }

    /// Lets go of a connection without a stored session, and of what came for it.
    pub fn release_ephemeral(
        &mut self,
        client: &ClientKey,
        subject: &Subject,
        entry: Ephemeral,
    ) -> Result<(), StoreError> {
        self.set_ephemeral(client, None)?;
        self.remove_connection(entry.owner, subject)?;
        if self.device(subject)?.is_some() {
            self.purge_publishes(subject)?;
            self.forget_idle_device(subject)?;
        } else if !entry.is_known && self.state.app(&client.app).pushes_to_all == entry.since_push {
            self.free_ordinal(&client.app, entry.ordinal);
        }
        Ok(())
    }

    /// Lets a stored session begin to expire.
    pub fn disconnect(
        &mut self,
        subject: &Subject,
        mut device: DeviceRecord,
        now: Millis,
        expires_at: Option<Millis>,
    ) -> Result<(), StoreError> {
        let session = device.session.as_mut().expect("a stored session");
        if let Some(before) = session.expires_at {
            self.remove_if_there(subject.expiry_key(before, ExpiryKind::Session))?;
        }
        let owner = Generation(session.owner);
        session.connected = false;
        session.left_at = Some(now.0);
        session.expires_at = expires_at.map(|at| at.0);
        if let Some(at) = expires_at {
            self.put(
                subject.expiry_key(at.0, ExpiryKind::Session),
                subject.key(Table::Device).into(),
            )?;
        }
        self.put_record(Table::Device, subject, &device)?;
        self.remove_connection(owner, subject)
    }

    /// After the node ended: a connection that was up is lost at `now`, and what ends with a connection ends.
    pub fn recover_device(
        &mut self,
        client: &ClientKey,
        subject: &Subject,
        device: DeviceRecord,
        now: Millis,
    ) -> Result<(), StoreError> {
        match &device.session {
            None => {
                self.purge_publishes(subject)?;
                self.forget_idle_device(subject)
            }
            Some(session) if !session.connected => Ok(()),
            Some(session) if session.expiry_seconds == 0 => {
                self.end_stored_session(client, subject, device)?;
                Ok(())
            }
            Some(session) => {
                let expires_at = session_end(now, session.expiry_seconds);
                self.disconnect(subject, device, now, expires_at)
            }
        }
    }
}
