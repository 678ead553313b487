//! How connections end.
//!
//! A socket that is closed while it holds bytes that we did not read makes the kernel send a reset, which destroys what the peer has not read yet: the
//! DISCONNECT that tells it why. So our side is ended first, and what still comes is read and forgotten until the peer ends its side.

use std::mem::take;

use campanile_broker::ids::{ConnId, Millis};

use super::{Driver, enqueue};
use crate::net::{
    connection::End,
    ports::{Machine, Services},
};

/// How long a closing connection may take to read what we wrote and to close its side.
const LINGER_MS: u64 = 2000;
/// How much a closing connection may send meanwhile.
const LINGER_BYTES: u32 = 1 << 20;

impl<M: Machine, S: Services> Driver<M, S> {
    /// The peer closed, or a layer did: nothing more will come.
    pub(super) fn on_end(&mut self, id: ConnId, end: &End, now: Millis) {
        let Some(connection) = self.slab.get_mut(id) else {
            return;
        };
        match end {
            End::Closed => self.drop_connection(id, end, now),
            // What the layer had to say must reach the peer first.
            End::Layer(reason) => {
                tracing::debug!(%reason, "connection ended");
                let forgotten = connection.forgotten;
                connection.forgotten = true;
                connection.closing = true;
                self.closing.push(id);
                if !forgotten {
                    self.machine.on_closed(id, now);
                    self.absorb_closes();
                }
            }
        }
    }

    /// The peer takes no more. What it has sent is read first: with a DISCONNECT before the end, its will must not be published.
    pub(super) fn on_write_failed(&mut self, id: ConnId, now: Millis) {
        let Some(connection) = self.slab.get_mut(id) else {
            return;
        };
        if connection.forgotten {
            self.drop_connection(id, &End::Closed, now);
        } else {
            connection.give_up_writing();
            enqueue(&mut self.ready, id, connection);
        }
    }

    /// Lets a connection go at once; tells the machine unless that is done with it.
    pub(super) fn drop_connection(&mut self, id: ConnId, end: &End, now: Millis) {
        let Some(connection) = self.slab.remove(id) else {
            return;
        };
        tracing::trace!(slot = id.slot, reason = %end, "socket closed");
        self.shared.listeners[connection.listener as usize].leave();
        self.figures.sockets_closing -= u64::from(connection.lingers);
        if !connection.forgotten {
            self.machine.on_closed(id, now);
            self.absorb_closes();
        }
    }

    /// Takes note at once of what the machine has closed, so that it is not asked about it again.
    pub(super) fn absorb_closes(&mut self) {
        for id in self.machine.effects().closes.drain(..) {
            if let Some(connection) = self.slab.get_mut(id) {
                connection.forgotten = true;
                connection.closing = true;
                self.closing.push(id);
            }
        }
    }

    pub(super) fn advance_closes(&mut self, now: Millis) {
        let mut closing = take(&mut self.closing);
        for id in closing.drain(..) {
            self.advance_close(id, now);
        }
        closing.append(&mut self.closing);
        self.closing = closing;
    }

    /// Takes a closing connection one step on: write, say goodbye, end our side, wait for the peer to end its.
    pub(super) fn advance_close(&mut self, id: ConnId, now: Millis) {
        let Some(connection) = self.slab.get_mut(id) else {
            return;
        };
        if !connection.lingers {
            connection.lingers = true;
            self.figures.sockets_closing += 1;
            self.lingering.push_back((Millis(now.0 + LINGER_MS), id));
        }
        let sent = connection.say_goodbye(&mut self.space, &mut self.figures);
        self.on_sent(id, sent, now);
        let Some(connection) = self.slab.get_mut(id) else {
            return;
        };
        if connection.pending_bytes() > 0 {
            return;
        }
        let shut = connection.shut_down();
        if shut.is_err() || connection.discard(&mut self.space, LINGER_BYTES) {
            self.drop_connection(id, &End::Closed, now);
        } else {
            self.register(id, now);
        }
    }

    pub(super) fn end_lingering(&mut self, now: Millis) {
        while let Some((deadline, id)) = self.lingering.front().copied()
            && deadline <= now
        {
            self.lingering.pop_front();
            self.drop_connection(id, &End::Closed, now);
        }
    }
    /// Lets all connections go when the driver ends.
    pub(super) fn drop_all(&mut self) {
        for connection in self.slab.drain() {
            self.shared.listeners[connection.listener as usize].leave();
        }
    }
}
