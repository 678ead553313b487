//! Writes that no client waits for and that must not be lost: repeated as long as the store cannot write.
//!
//! Each says something that has happened: a connection ended, a will was published, a device acknowledged a push. Bounded by the sessions of this shard: while the
//! store refuses, nobody can claim one anew, and what was sent is not sent again.

use std::sync::Arc;

use super::{Pending, Shard, conn::Saving, late::Late};
use crate::{
    effects::Ticket,
    ids::{ClientKey, ConnId, MessageId},
    mail::ClusterMail,
    store::{Command, Outcome, Progress, StoreError},
};

/// What is done when the store has refused a request.
pub(super) enum Fact {
    /// It is repeated.
    Command(Box<Event>),
    /// The client's deliveries are saved again; if it has left, its release carries them.
    Saved(ConnId),
}

/// Something that has happened.
pub(super) struct Event {
    command: Command,
    /// Once it is written, this session is over; these are its filters.
    ends: Option<(ClientKey, Vec<Arc<str>>)>,
    /// Once it is written, live subscribers get this.
    route: Option<Box<Late>>,
    /// Once it is written, or void, the hub is told under this ticket.
    hands_over: Option<u64>,
}

impl Event {
    fn of(command: Command) -> Event {
        Event {
            command,
            ends: None,
            route: None,
            hands_over: None,
        }
    }
}

impl Shard {
    /// Has something written that has happened.
    pub(super) fn command_fact(&mut self, command: Command) {
        self.command_event(Event::of(command));
    }

    /// As [`Shard::command_fact`], for a message that live subscribers get once it is written.
    pub(super) fn command_late(&mut self, command: Command, route: Late) {
        let route = Some(Box::new(route));
        self.command_event(Event {
            route,
            ..Event::of(command)
        });
    }

    /// As [`Shard::command_fact`], for the last progress of a session that goes to another node.
    pub(super) fn command_hand_over(&mut self, command: Command, ticket: u64) {
        self.command_event(Event {
            hands_over: Some(ticket),
            ..Event::of(command)
        });
    }

    /// As [`Shard::command_fact`], for the end of a session. Its filters count until it is written: until then a claim may still find the session, and then
    /// tells of its end itself.
    pub(super) fn command_end(
        &mut self,
        command: Command,
        client: ClientKey,
        filters: Vec<Arc<str>>,
    ) {
        let ends = (!filters.is_empty()).then_some((client, filters));
        self.command_event(Event {
            ends,
            ..Event::of(command)
        });
    }

    fn command_event(&mut self, event: Event) {
        let ticket = self.ticket(Pending::Nobody);
        self.effects.commands.push((ticket, event.command.clone()));
        self.facts.insert(ticket, Fact::Command(Box::new(event)));
    }

    /// Remembers how many of a client's unsaved deliveries a save carries. They stay unsaved until it is written: a later save that is written although this one
    /// is refused must carry them too, or an exchange would be over for the store while its message still waits there.
    pub(super) fn note_saving(&mut self, ticket: Ticket, progress: &Progress) {
        let (receipts, inbox_done) = (progress.receipts.len(), progress.inbox_done.len());
        let settled = progress.settled.len();
        if receipts == 0 && inbox_done == 0 && settled == 0 && progress.memory.is_none() {
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
        let memory = live.campaigns.as_ref().map_or(0, |of| of.changes);
        live.rare().saving.push(Saving {
            ticket,
            receipts,
            inbox_done,
            settled,
            memory,
        });
        self.facts.insert(ticket, Fact::Saved(conn));
    }

    /// The store has answered a request.
    pub(super) fn settle_fact(&mut self, ticket: Ticket, outcome: &Result<Outcome, StoreError>) {
        let refused = matches!(
            outcome,
            Err(StoreError::Unavailable(_) | StoreError::Unknown(_))
        );
        match self.facts.remove(&ticket) {
            Some(Fact::Command(event)) if refused => self.unwritten.push(*event),
            Some(Fact::Command(event)) => {
                if let (Some((client, filters)), Ok(_)) = (&event.ends, outcome) {
                    self.on_session_ended(client, filters);
                }
                if let (Some(late), Ok(Outcome::Done)) = (event.route, outcome) {
                    self.route_late(&late);
                }
                if let Command::Release(release) = &event.command {
                    self.beginning_is_known(&release.progress);
                }
                if let Some(ticket) = event.hands_over {
                    self.mail_hub(ClusterMail::Released { ticket });
                }
            }
            Some(Fact::Saved(conn)) => {
                let is_written = outcome.is_ok();
                self.on_deliveries_saved(conn, ticket, is_written);
                if refused && self.answered(conn).is_some() {
                    self.mark_dirty(conn.slot);
                }
            }
            _ => {}
        }
    }

    /// What is not written stays unsaved: it is saved again, or goes with the session to the node that has claimed it.
    fn on_deliveries_saved(&mut self, conn: ConnId, ticket: Ticket, is_written: bool) {
        let Some(live) = self.answered(conn) else {
            return;
        };
        let Some(rare) = &mut live.rare else { return };
        let Some(at) = rare.saving.iter().position(|known| known.ticket == ticket) else {
            return;
        };
        let saved = rare.saving.remove(at);
        if !is_written {
            return;
        }
        if let Some(campaigns) = &mut live.campaigns {
            campaigns.saved = campaigns.saved.max(saved.memory);
        }
        for later in &mut rare.saving {
            later.receipts = later.receipts.saturating_sub(saved.receipts);
            later.inbox_done = later.inbox_done.saturating_sub(saved.inbox_done);
            later.settled = later.settled.saturating_sub(saved.settled);
        }
        let Some(unsaved) = &mut live.unsaved else {
            return;
        };
        unsaved.receipts.drain(..saved.receipts);
        unsaved.inbox_done.drain(..saved.inbox_done);
        unsaved.settled.drain(..saved.settled);
        if unsaved.receipts.is_empty()
            && unsaved.inbox_done.is_empty()
            && unsaved.settled.is_empty()
        {
            live.unsaved = None;
        }
    }

    /// Has everything written that the store refused.
    pub(super) fn repeat_unwritten(&mut self) {
        for event in std::mem::take(&mut self.unwritten) {
            self.command_event(event);
        }
    }

    /// Whether the publication of a will is under way, or waits for the store.
    pub(super) fn is_publishing_will(&self, id: MessageId) -> bool {
        let spends = |event: &Event| match &event.command {
            Command::Publish(publish) => {
                matches!(&publish.spends_will, Some((_, will)) if *will == id)
            }
            _ => false,
        };
        let asked = self.facts.values().any(|fact| match fact {
            Fact::Command(event) => spends(event),
            Fact::Saved(_) => false,
        });
        asked || self.unwritten.iter().any(spends)
    }
}
