//! Writes that no client waits for and that must not be lost: repeated as long as the store cannot write.
//!
//! Each says something that has happened: a connection ended, a will was published, a device acknowledged a push. Bounded by the sessions of this shard: while the
//! store refuses, nobody can claim one anew, and what was sent is not sent again.

use super::{Pending, Shard, conn::Saving};
use crate::{
    effects::Ticket,
    ids::{ConnId, MessageId},
    store::{Command, Progress, StoreError},
};

/// What is done when the store has refused a request.
pub(super) enum Fact {
    /// It is repeated.
    Command(Command),
    /// The client's deliveries are saved again; if it has left, its release carries them.
    Saved(ConnId),
}

impl Shard {
    /// Has something written that has happened.
    pub(super) fn command_fact(&mut self, command: Command) {
        self.command_fact_for(command, Pending::Nobody);
    }

    /// As [`Shard::command_fact`]; the first answer has a purpose.
    pub(super) fn command_fact_for(&mut self, command: Command, pending: Pending) {
        let ticket = self.ticket(pending);
        self.facts.insert(ticket, Fact::Command(command.clone()));
        self.effects.commands.push((ticket, command));
    }

    /// Remembers how many of a client's unsaved deliveries a save carries. They stay unsaved until it is written: a later save that is written although this one
    /// is refused must carry them too, or an exchange would be over for the store while its message still waits there.
    pub(super) fn note_saving(&mut self, ticket: Ticket, progress: &Progress) {
        let (receipts, inbox_done) = (progress.receipts.len(), progress.inbox_done.len());
        if receipts == 0 && inbox_done == 0 {
            return;
        }
        let app = self.app(&progress.client.app);
        let clients = &self.apps[usize::from(app)].clients;
        let Some(&slot) = clients.get(&progress.client.client_id) else {
            return;
        };
        let Some(live) = self.live_mut(slot) else {
            return;
        };
        let conn = live.conn;
        live.rare().saving.push(Saving {
            ticket,
            receipts,
            inbox_done,
        });
        self.facts.insert(ticket, Fact::Saved(conn));
    }

    /// The store has answered a request.
    pub(super) fn settle_fact(&mut self, ticket: Ticket, error: Option<&StoreError>) {
        let refused = matches!(error, Some(StoreError::Unavailable(_)));
        match self.facts.remove(&ticket) {
            Some(Fact::Command(command)) if refused => self.unwritten.push(command),
            Some(Fact::Saved(conn)) => self.on_deliveries_saved(conn, ticket, refused),
            _ => {}
        }
    }

    fn on_deliveries_saved(&mut self, conn: ConnId, ticket: Ticket, refused: bool) {
        let Some(live) = self.answered(conn) else {
            return;
        };
        let Some(rare) = &mut live.rare else { return };
        let Some(at) = rare.saving.iter().position(|known| known.ticket == ticket) else {
            return;
        };
        let saved = rare.saving.remove(at);
        if refused {
            return self.mark_dirty(conn.slot);
        }
        for later in &mut rare.saving {
            later.receipts = later.receipts.saturating_sub(saved.receipts);
            later.inbox_done = later.inbox_done.saturating_sub(saved.inbox_done);
        }
        let Some(unsaved) = &mut live.unsaved else {
            return;
        };
        unsaved.receipts.drain(..saved.receipts);
        unsaved.inbox_done.drain(..saved.inbox_done);
        if unsaved.receipts.is_empty() && unsaved.inbox_done.is_empty() {
            live.unsaved = None;
        }
    }

    /// Has everything written that the store refused.
    pub(super) fn repeat_unwritten(&mut self) {
        for command in std::mem::take(&mut self.unwritten) {
            self.command_fact(command);
        }
    }

    /// Whether the publication of a will is under way, or waits for the store.
    pub(super) fn is_publishing_will(&self, id: MessageId) -> bool {
        let spends = |command: &Command| match command {
            Command::Publish(publish) => {
                matches!(&publish.spends_will, Some((_, will)) if *will == id)
            }
            _ => false,
        };
        let asked = self.facts.values().any(|fact| match fact {
            Fact::Command(command) => spends(command),
            Fact::Saved(_) => false,
        });
        asked || self.unwritten.iter().any(spends)
    }
}
