//! Mailboxes: word for a node of what its clients' inboxes got, for the time in which nobody can tell it.

use campanile_broker::{
    ids::{ClientKey, Generation, Offset},
    lane::Lane,
    store::StoreError,
};

use super::records::{ClientRecord, MailboxRecord, NoteRecord};
use crate::{
    config::MAX_NOTES,
    engine::{
        inbox::offset_of_key,
        keys::{Subject, Table},
        txn::Txn,
    },
};

impl Txn<'_> {
    /// Whose connection a client has; a client that is away, or a store of a node alone, is nobody's. Its node gets a note that the inbox has
    /// something new.
    pub fn note_owner(
        &mut self,
        client: &ClientKey,
        subject: &Subject,
        entry: Offset,
        lane: Lane,
    ) -> Result<Generation, StoreError> {
        if !self.config.shared {
            return Ok(Generation::ALONE);
        }
        let connection = self.connection(client, subject)?;
        let owner = connection.map_or(Generation::ALONE, |connection| connection.generation);
        if owner != Generation::ALONE {
            self.append_note(owner, client, entry, lane)?;
        }
        Ok(owner)
    }

    /// Leaves word for a node of a client of its.
    pub fn append_note(
        &mut self,
        node: Generation,
        client: &ClientKey,
        entry: Offset,
        lane: Lane,
    ) -> Result<(), StoreError> {
        let subject = Subject::generation(node);
        let mailbox: Option<MailboxRecord> = self.record(Table::Mailbox, &subject, "mailbox")?;
        let mut mailbox = mailbox.unwrap_or_default();
        let seen = self.state.shared.seen_notes(node);
        mailbox.notes -= self.remove_notes(&subject, seen)?;
        let offset = self.next_offset();
        self.put_record(
            Table::Note,
            &subject.clone().offset(offset),
            &NoteRecord {
                client: ClientRecord::of(client),
                entry: entry.0,
                lane: lane.code().into(),
            },
        )?;
        mailbox.notes += 1;
        while mailbox.notes > MAX_NOTES {
            for (key, _) in self.list(Table::Note, &subject, 1)? {
                mailbox.lost_to = offset_of_key(&key)?.0;
                self.remove(key)?;
            }
            mailbox.notes -= 1;
        }
        self.put_record(Table::Mailbox, &subject, &mailbox)
    }

    /// Removes the notes up to a place. Returns how many there were.
    fn remove_notes(&mut self, mailbox: &Subject, up_to: Offset) -> Result<u64, StoreError> {
        let mut removed = 0;
        while let Some((key, _)) = self.list(Table::Note, mailbox, 1)?.pop() {
            if offset_of_key(&key)? > up_to {
                break;
            }
            self.remove(key)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes what waits for a node that is gone.
    pub fn remove_mailbox(&mut self, node: Generation) -> Result<(), StoreError> {
        let subject = Subject::generation(node);
        if self.remove_if_there(subject.key(Table::Mailbox))? {
            for (key, _) in self.list(Table::Note, &subject, usize::MAX)? {
                self.remove(key)?;
            }
        }
        self.state.shared.forget_node(node);
        Ok(())
    }
}
