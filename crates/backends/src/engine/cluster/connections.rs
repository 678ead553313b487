//! Whose connection each client has, and what becomes of those of a node that is gone.

use std::ops::ControlFlow;

use campanile_broker::{
    ids::{ClientKey, Epoch, Generation, Millis},
    store::{Outcome, OwedWill, Previous, StoreError, Voided},
};

use super::records::{ClientRecord, EphemeralRecord};
use crate::engine::{
    keys::{ExpiryKind, Subject, Table},
    kv::{KvError, View, after_prefix},
    records::{DeviceRecord, WillRecord, decode, encode, session_end},
    recover::for_each,
    sessions::Owner,
    state::{Ephemeral, State},
    txn::Txn,
};
use campanile_push::event::{Disconnection, What};

impl Txn<'_> {
    /// A client's connection, if it has one.
    pub fn connection(
        &self,
        client: &ClientKey,
        subject: &Subject,
    ) -> Result<Option<Previous>, KvError> {
        if let Some(entry) = self.state.ephemeral(client) {
            return Ok(Some(Previous {
                generation: entry.owner,
                epoch: entry.epoch,
            }));
        }
        let session = self.device(subject)?.and_then(|device| device.session);
        Ok(session
            .filter(|session| session.connected)
            .map(|session| Previous {
                generation: Generation(session.owner),
                epoch: Epoch(session.epoch),
            }))
    }

    /// A client is connected through a node.
    pub fn add_connection(
        &mut self,
        node: Generation,
        client: &ClientKey,
        subject: &Subject,
    ) -> Result<(), StoreError> {
        if !self.config.shared {
            return Ok(());
        }
        self.put(
            connection_key(node, subject),
            encode(&ClientRecord::of(client)),
        )
    }

    /// A client is not connected through a node any more.
    pub fn remove_connection(
        &mut self,
        node: Generation,
        subject: &Subject,
    ) -> Result<(), StoreError> {
        if self.config.shared {
            self.remove_if_there(connection_key(node, subject))?;
        }
        Ok(())
    }

    /// Keeps what is known of a connection without a stored session, for a successor of this store.
    pub fn put_ephemeral(
        &mut self,
        client: &ClientKey,
        entry: Option<Ephemeral>,
    ) -> Result<(), StoreError> {
        if !self.config.shared {
            return Ok(());
        }
        let subject = Subject::client(client);
        let Some(entry) = entry else {
            self.remove_if_there(subject.key(Table::Ephemeral))?;
            return Ok(());
        };
        let record = EphemeralRecord {
            client: ClientRecord::of(client),
            epoch: entry.epoch.0,
            owner: entry.owner.0,
            ordinal: entry.ordinal,
        };
        self.put_record(Table::Ephemeral, &subject, &record)
    }

    /// A connection's node has another generation now. One that was given up for lost meanwhile is there again.
    pub fn restamp(
        &mut self,
        client: &ClientKey,
        epoch: Epoch,
        generation: Generation,
    ) -> Result<Outcome, StoreError> {
        let subject = Subject::client(client);
        let owner = self.fence(client, &subject, epoch)?;
        if let Some(before) = self.connection(client, &subject)? {
            self.remove_connection(before.generation, &subject)?;
        }
        match owner {
            Owner::Ephemeral(entry) => {
                let owner = generation;
                self.set_ephemeral(client, Some(Ephemeral { owner, ..entry }))?;
            }
            Owner::Stored(device) => self.reconnect(&subject, device, generation)?,
        }
        self.add_connection(generation, client, &subject)?;
        Ok(Outcome::Done)
    }

    fn reconnect(
        &mut self,
        subject: &Subject,
        mut device: DeviceRecord,
        owner: Generation,
    ) -> Result<(), StoreError> {
        let session = device.session.as_mut().expect("a stored session");
        if let Some(at) = session.expires_at.take() {
            self.remove_if_there(subject.expiry_key(at, ExpiryKind::Session))?;
        }
        (session.connected, session.owner) = (true, owner.0);
        session.left_at = None;
        device.may_be_served = false;
        self.put_record(Table::Device, subject, &device)?;
        if let Some(mut will) = self.record::<WillRecord>(Table::Will, subject, "will")?
            && will.due_at.take().is_some()
        {
            self.put_will(subject, will, None)?;
        }
        Ok(())
    }

    /// A node is gone: its connections are lost at `now`, at most `limit` of them.
    pub fn void(
        &mut self,
        node: Generation,
        now: Millis,
        limit: u32,
    ) -> Result<Outcome, StoreError> {
        self.advance_clock(now);
        let limit = limit as usize;
        let mut rows = self.list(
            Table::Connection,
            &Subject::generation(node),
            limit.saturating_add(1),
        )?;
        let mut voided = Voided {
            more: rows.len() > limit,
            ..Voided::default()
        };
        rows.truncate(limit);
        for (_, value) in rows {
            let record: ClientRecord = decode(&value, "connection")?;
            self.lose_connection(&record.client(), now, &mut voided)?;
            let reason = Some(Disconnection::NodeLost);
            self.tell_of_connection(&record.client(), &What::DeviceDisconnected { reason })?;
        }
        if !voided.more {
            self.remove_mailbox(node)?;
        }
        Ok(Outcome::Voided(voided))
    }

    fn lose_connection(
        &mut self,
        client: &ClientKey,
        now: Millis,
        voided: &mut Voided,
    ) -> Result<(), StoreError> {
        let subject = Subject::client(client);
        let ends_at = match self.state.ephemeral(client) {
            Some(entry) => {
                // A node that is given up may live, and report under the number.
                let entry = Ephemeral {
                    is_known: true,
                    ..entry
                };
                self.release_ephemeral(client, &subject, entry)?;
                self.note_given_up(&subject)?;
                Some(now)
            }
            None => self.lose_stored(client, &subject, now, voided)?,
        };
        let Some(mut record) = self.record::<WillRecord>(Table::Will, &subject, "will")? else {
            return Ok(());
        };
        let after_delay = now.plus_seconds(record.delay_seconds);
        let due_at = ends_at.map_or(after_delay, |end| end.min(after_delay));
        record.due_at = Some(due_at.0);
        voided.wills.push(OwedWill {
            client: client.clone(),
            will: record.will()?,
            at: Some(due_at),
            session_expires_at: ends_at,
            is_final: false,
        });
        self.put_will(&subject, record, Some(due_at))
    }

    /// The node of a device was given up, and may not have heard of that.
    fn note_given_up(&mut self, subject: &Subject) -> Result<(), StoreError> {
        if let Some(mut device) = self.device(subject)? {
            device.may_be_served = true;
            self.put_record(Table::Device, subject, &device)?;
        }
        Ok(())
    }

    /// Lets a stored session begin to expire, or ends it. Returns when it ends.
    fn lose_stored(
        &mut self,
        client: &ClientKey,
        subject: &Subject,
        now: Millis,
        voided: &mut Voided,
    ) -> Result<Option<Millis>, StoreError> {
        let device = self.device(subject)?;
        let Some((mut device, session)) =
            device.and_then(|device| device.session.clone().map(|session| (device, session)))
        else {
            return Ok(Some(now));
        };
        if session.expiry_seconds == 0 {
            let filters = self.end_stored_session(client, subject, device)?;
            voided.ended.push((client.clone(), filters));
            self.note_given_up(subject)?;
            return Ok(Some(now));
        }
        let ends_at = session_end(now, session.expiry_seconds);
        device.may_be_served = true;
        self.disconnect(subject, device, now, ends_at)?;
        Ok(ends_at)
    }
}

fn connection_key(node: Generation, subject: &Subject) -> Vec<u8> {
    Subject::generation(node)
        .and(subject)
        .key(Table::Connection)
}

/// Adds the connections without a stored session that nodes had through the predecessor of this store.
pub fn load_ephemeral(view: &dyn View, state: &mut State) -> Result<(), KvError> {
    for_each(view, Table::Ephemeral, |_, value| {
        let record: EphemeralRecord = decode(value, "connection")?;
        let client = record.client.client();
        let entry = Ephemeral {
            epoch: Epoch(record.epoch),
            owner: Generation(record.owner),
            ordinal: record.ordinal,
            since_push: state.app(&client.app).pushes_to_all,
            // What the predecessor knew of the number is not kept, so that it is not given again.
            is_known: true,
        };
        state.set_ephemeral(&client, Some(entry));
        Ok(())
    })
}

/// The nodes that have connections, or had some and were not voided: what remains of those is their mailbox.
pub fn owners(view: &dyn View) -> Result<Vec<Generation>, KvError> {
    let mut owners = generations(view, Table::Connection)?;
    owners.extend(generations(view, Table::Mailbox)?);
    owners.sort_unstable();
    owners.dedup();
    Ok(owners)
}

/// Generations under which a table has something.
fn generations(view: &dyn View, table: Table) -> Result<Vec<Generation>, KvError> {
    let prefix = Subject::all().key(table);
    let (mut from, to) = (prefix.clone(), after_prefix(&prefix));
    let mut found = Vec::new();
    loop {
        let mut next = None;
        view.scan(&from, &to, &mut |key, _| {
            let generation = key[prefix.len()..].first_chunk::<8>();
            next = generation.copied().map(u64::from_be_bytes);
            ControlFlow::Break(())
        })?;
        let Some(generation) = next else {
            return Ok(found);
        };
        found.push(Generation(generation));
        let Some(next) = generation.checked_add(1) else {
            return Ok(found);
        };
        from = Subject::generation(Generation(next)).key(table);
    }
}
