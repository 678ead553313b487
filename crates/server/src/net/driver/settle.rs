//! The end of a turn: what the machine wants done, then its output, each connection's in one write.

use std::mem::{swap, take};

use campanile_broker::{
    ids::{ConnId, Millis},
    mail::{ClusterMail, Mail},
};

use super::{Driver, enqueue};
use crate::net::{
    connection::{End, Sent},
    mailbox::Letter,
    ports::{Machine, Services},
};

/// Output of a turn above which it is sent before the turn's end.
const FLUSH_BYTES: usize = 1 << 20;
/// Rounds of effects that cause effects in a turn; the rest waits for the next.
const ROUNDS: u32 = 8;

impl<M: Machine, S: Services> Driver<M, S> {
    pub(super) fn flush_if_large(&mut self, now: Millis) {
        if self.machine.outbox().total_bytes() > FLUSH_BYTES {
            self.settle(now);
        }
    }

    /// Carries out what the machine wants done, then sends its output, then goes on with closing.
    pub(super) fn settle(&mut self, now: Millis) {
        for _ in 0..ROUNDS {
            swap(&mut self.effects, self.machine.effects());
            let busy = self.carry_out(now);
            let wrote = self.flush(now);
            self.advance_closes(now);
            if !busy && !wrote && self.closing.is_empty() {
                self.slab.recycle();
                return;
            }
        }
        self.unfinished = true;
    }

    /// Carries out effects in the order that they ask for. `false`: there were none.
    pub(super) fn carry_out(&mut self, now: Millis) -> bool {
        let mut busy = false;
        if !self.effects.commands.is_empty() {
            busy = true;
            self.services.commands(take(&mut self.effects.commands));
        }
        if !self.effects.queries.is_empty() {
            busy = true;
            self.services.queries(take(&mut self.effects.queries));
        }
        let mut cluster = Vec::new();
        for (shard, mut mail) in self.effects.mail.drain(..) {
            // Only the socket knows the client's address; keeping it for each would cost more than asking.
            if let Mail::Cluster(ClusterMail::Here {
                conn: Some(conn),
                connected: Some(connected),
                ..
            }) = &mut mail
            {
                let connection = self.slab.get_mut(*conn);
                connected.peer = connection.and_then(|connection| connection.peer_address());
            }
            match self.outgoing.get_mut(shard.0 as usize) {
                Some(letters) => letters.push(Letter::Mail(mail)),
                None => cluster.push((shard, mail)),
            }
        }
        if !cluster.is_empty() {
            busy = true;
            self.services.cluster_mail(cluster);
        }
        if !self.effects.statements.is_empty() {
            busy = true;
            self.services.statements(take(&mut self.effects.statements));
        }
        if !self.effects.authenticate.is_empty() {
            busy = true;
            let requests = take(&mut self.effects.authenticate);
            self.services.authenticate(requests);
        }
        for (id, shard) in self.effects.handovers.drain(..) {
            let Some(mut connection) = self.slab.remove(id) else {
                continue;
            };
            self.figures.handovers += 1;
            let listener = connection.listener as usize;
            match connection.leave(self.poll.registry()) {
                Ok(()) => {
                    let arrival = Letter::Arrival(Box::new(connection));
                    self.outgoing[shard.0 as usize].push(arrival);
                }
                Err(error) => {
                    self.shared.listeners[listener].leave();
                    tracing::warn!(%error, "cannot move a connection");
                }
            }
        }
        for (mailbox, letters) in self.shared.mailboxes.iter().zip(&mut self.outgoing) {
            if !letters.is_empty() {
                busy = true;
                mailbox.post_all(letters.drain(..));
            }
        }
        let mut resume = take(&mut self.effects.resume);
        for id in resume.drain(..) {
            busy = true;
            self.resume(id, now);
        }
        self.effects.resume = resume;
        busy
    }

    pub(super) fn resume(&mut self, id: ConnId, now: Millis) {
        let Some(connection) = self.slab.get_mut(id) else {
            return;
        };
        connection.paused = false;
        if self.offer_input(id, now) {
            // Flushed in this round, offered again in the next.
            self.machine.effects().resume.push(id);
        }
        if let Some(connection) = self.slab.get_mut(id)
            && connection.readable
            && connection.may_read()
        {
            enqueue(&mut self.ready, id, connection);
        }
    }

    /// Sends each connection its output. `false`: there was none.
    pub(super) fn flush(&mut self, now: Millis) -> bool {
        swap(&mut self.outbox, self.machine.outbox());
        let wrote = !self.outbox.dirty().is_empty();
        for index in 0..self.outbox.dirty().len() {
            let id = self.outbox.dirty()[index];
            let Some(connection) = self.slab.get_mut(id) else {
                continue;
            };
            let slices = self.outbox.slices(id);
            let sent = connection.send(slices, &mut self.space, &mut self.figures);
            self.on_sent(id, sent, now);
        }
        self.outbox.clear();
        wrote
    }

    pub(super) fn on_sent(&mut self, id: ConnId, sent: Sent, now: Millis) {
        match sent {
            Sent::All | Sent::Waiting => {}
            Sent::Blocked(bytes) => {
                let connection = self.slab.get_mut(id).expect("it has just sent");
                if let Err(error) = connection.await_writable(self.poll.registry(), id) {
                    tracing::warn!(%error, "cannot watch a connection");
                    self.drop_connection(id, &End::Closed, now);
                } else if !connection.forgotten {
                    self.machine.on_blocked(id, bytes);
                }
            }
            Sent::Overflow => {
                self.figures.output_overflows += 1;
                let connection = self.slab.get_mut(id).expect("it has just sent");
                let listener = &self.shared.listeners[connection.listener as usize].name;
                tracing::warn!(%listener, "closing a connection that does not read what it is sent");
                self.drop_connection(id, &End::Closed, now);
            }
            Sent::Failed => self.on_write_failed(id, now),
        }
    }
}
