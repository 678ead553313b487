//! Wills: kept with a connection, owed when it is lost, gone with their publication.

use campanile_broker::{
    ids::{AppId, ClientKey, MessageId, Millis},
    store::{Claim, Outcome, OwedWill, StoreError, Swept, Will},
};

use super::{
    keys::{ExpiryKind, Subject, Table},
    records::{WillRecord, damaged},
    txn::Txn,
};
use crate::config::{WILL_AGAIN_MS, WILL_GRACE_MS};

impl Txn<'_> {
    /// Stores the claim's will in the place of the one before. Returns that one if it is due; it stays stored until its publication spends it.
    pub fn replace_will(
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
        let Some(mut record) = before else {
            return Ok(None);
        };
        // A client that is back before its will's delay has passed has nothing to be sorry for, if its session goes on. Without a delay it never is before
        // that, whatever the clocks of two nodes say.
        let is_owed = !session_goes_on
            || record.delay_seconds == 0
            || record.due_at.is_some_and(|at| at <= claim.now.0);
        if !is_owed {
            self.hand_out_later(subject, &mut record, None)?;
            return Ok(None);
        }
        record.due_at = Some(claim.now.0);
        self.hand_out_later(subject, &mut record, Some(after_grace(claim.now)))?;
        let row = subject.clone().owed_will(record.message.id());
        self.put_record(Table::OwedWill, &row, &record)?;
        Ok(Some(record.will()?))
    }

    /// Stores a client's will again. `due_at`: when it has to be published, whatever happens but a return of the client.
    pub fn put_will(
        &mut self,
        subject: &Subject,
        mut record: WillRecord,
        due_at: Option<Millis>,
    ) -> Result<(), StoreError> {
        self.hand_out_later(subject, &mut record, due_at.map(after_grace))?;
        self.put_record(Table::Will, subject, &record)
    }

    /// Lets a sweep hand a will out at a time, or never. Only in a store that nodes share: a node alone that ends finds its wills when it starts.
    fn hand_out_later(
        &mut self,
        client: &Subject,
        record: &mut WillRecord,
        at: Option<Millis>,
    ) -> Result<(), StoreError> {
        if !self.config.shared {
            return Ok(());
        }
        let row = client.clone().owed_will(record.message.id());
        if let Some(before) = record.hand_out_at.take() {
            self.remove_if_there(row.expiry_key(before, ExpiryKind::Will))?;
        }
        if let Some(at) = at {
            record.hand_out_at = Some(at.0);
            self.put(
                row.expiry_key(at.0, ExpiryKind::Will),
                row.key(Table::OwedWill).into(),
            )?;
        }
        Ok(())
    }

    /// Drops the will with a message id that a client has or that is owed of it. Whether there was one.
    pub fn spend_will(&mut self, client: &Subject, id: MessageId) -> Result<bool, StoreError> {
        let Some((table, row, mut record)) = self.find_will(client, id)? else {
            return Ok(false);
        };
        self.hand_out_later(client, &mut record, None)?;
        self.remove(row.key(table))?;
        Ok(true)
    }

    /// A will with a message id: the client's own, or one that is owed of it.
    fn find_will(
        &self,
        client: &Subject,
        id: MessageId,
    ) -> Result<Option<(Table, Subject, WillRecord)>, StoreError> {
        let own: Option<WillRecord> = self.record(Table::Will, client, "will")?;
        if let Some(own) = own.filter(|will| will.message.id() == id) {
            return Ok(Some((Table::Will, client.clone(), own)));
        }
        let row = client.clone().owed_will(id);
        let owed: Option<WillRecord> = self.record(Table::OwedWill, &row, "will")?;
        Ok(owed.map(|owed| (Table::OwedWill, row, owed)))
    }

    /// Drops a client's will.
    pub fn drop_will(&mut self, client: &ClientKey) -> Result<Outcome, StoreError> {
        self.release_will(&Subject::client(client), None, None)?;
        Ok(Outcome::Done)
    }

    /// The connection is gone: the will is owed from a time on, or dropped. When the session ends it is due too.
    pub fn release_will(
        &mut self,
        subject: &Subject,
        due_at: Option<Millis>,
        session_ends_at: Option<Millis>,
    ) -> Result<(), StoreError> {
        let Some(mut will) = self.record::<WillRecord>(Table::Will, subject, "will")? else {
            return Ok(());
        };
        let Some(at) = due_at else {
            self.hand_out_later(subject, &mut will, None)?;
            return self.remove(subject.key(Table::Will));
        };
        will.due_at = Some(at.0);
        let due_at = session_ends_at.map_or(at, |end| end.min(at));
        self.put_will(subject, will, Some(due_at))
    }

    /// Hands a will out whose node must have died. `at_ms`: of the entry in the expiry index; `row`: client and message id.
    pub fn hand_out_will(
        &mut self,
        at_ms: u64,
        row: Subject,
        now: Millis,
        swept: &mut Swept,
    ) -> Result<(), StoreError> {
        let (subject, id) = row.split_tail::<16>().ok_or_else(|| damaged("will"))?;
        let id = MessageId(u128::from_be_bytes(id));
        let Some((table, row, mut record)) = self.find_will(&subject, id)? else {
            return Ok(());
        };
        if record.hand_out_at != Some(at_ms) {
            return Ok(());
        }
        let app = subject.app_name().ok_or_else(|| damaged("will"))?;
        let session = self.device(&subject)?.and_then(|device| device.session);
        swept.wills.push(OwedWill {
            client: ClientKey::new(&AppId::new(app), &record.client_id),
            will: record.will()?,
            at: record.due_at.map(Millis),
            session_expires_at: match session {
                Some(session) if table == Table::Will => session.expires_at.map(Millis),
                // Nothing to wait for.
                _ => record.due_at.map(Millis),
            },
            is_final: table == Table::OwedWill,
        });
        let again = Millis(now.0.saturating_add(WILL_AGAIN_MS));
        self.hand_out_later(&subject, &mut record, Some(again))?;
        self.put_record(table, &row, &record)
    }
}

fn after_grace(due_at: Millis) -> Millis {
    Millis(due_at.0.saturating_add(WILL_GRACE_MS))
}
