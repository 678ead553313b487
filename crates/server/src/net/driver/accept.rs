//! How connections come to a shard: accepted, or from another shard.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use campanile_broker::{
    effects::Origin,
    ids::{ConnId, Millis},
};

use super::{Driver, enqueue};
use crate::net::{
    connection::{Connection, End},
    listener::Listening,
    ports::{Machine, Services},
};

/// Connections accepted from one listener in a turn.
const ACCEPTS_PER_TURN: u32 = 64;
/// Pause of accepting when the process has no file descriptor left.
const ACCEPT_BACKOFF_MS: u64 = 100;
/// Pause of accepting when the accept budget is used up.
const ACCEPT_DELAY_MS: u64 = 5;
/// At most one line a minute about failing accepts.
const WARN_EVERY: Duration = Duration::from_secs(60);

impl<M: Machine, S: Services> Driver<M, S> {
    pub(super) fn accept(&mut self, now: Millis, moment: Instant) {
        if now < self.accept_after {
            return;
        }
        for index in 0..self.listeners.len() {
            if !self.listeners[index].ready {
                continue;
            }
            let granted = self.shared.accept_budget.take(ACCEPTS_PER_TURN, moment);
            if granted == 0 {
                self.figures.accepts_delayed += 1;
                self.accept_after = Millis(now.0 + ACCEPT_DELAY_MS);
                return;
            }
            let unused = self.accept_some(index, granted, now, moment);
            self.shared.accept_budget.give_back(unused);
        }
    }

    /// Accepts up to `granted` connections; returns how many fewer there were.
    pub(super) fn accept_some(
        &mut self,
        index: usize,
        granted: u32,
        now: Millis,
        moment: Instant,
    ) -> u32 {
        for used in 0..granted {
            match self.listeners[index].socket.accept() {
                Ok((stream, peer)) => self.admit(stream, peer, index, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.listeners[index].ready = false;
                    return granted - used;
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    self.figures.accept_errors += 1;
                    self.accept_after = Millis(now.0 + ACCEPT_BACKOFF_MS);
                    if self
                        .accept_warned
                        .is_none_or(|before| moment - before >= WARN_EVERY)
                    {
                        self.accept_warned = Some(moment);
                        tracing::warn!(listener = %self.shared.listeners[index].name, %error, "cannot accept connections, trying on");
                    }
                    return granted - used;
                }
            }
        }
        // There may be more; the budget is asked again in the next turn.
        self.unfinished = true;
        0
    }

    pub(super) fn admit(
        &mut self,
        stream: mio::net::TcpStream,
        peer: std::net::SocketAddr,
        index: usize,
        now: Millis,
    ) {
        self.figures.accepted[index] += 1;
        let listener = &self.shared.listeners[index];
        let all = self.shared.listeners.iter();
        let sockets: usize = all.map(Listening::connections).sum();
        if sockets >= self.shared.max_sockets || !listener.enter() {
            self.figures.accepts_refused += 1;
            return;
        }
        let connection = match Connection::new(stream, index as u16, listener) {
            Ok(connection) => connection,
            Err(error) => {
                listener.leave();
                self.figures.tls_errors += 1;
                tracing::warn!(listener = %listener.name, %error, "cannot set up TLS for a connection");
                return;
            }
        };
        let origin = origin(listener, peer);
        let id = self.slab.insert(connection);
        self.machine.on_accept(id, &origin, now);
        self.absorb_closes();
        // Not registered yet: often its CONNECT is here already, and it moves to another shard before this one would hear of it.
        if let Some(connection) = self.slab.get_mut(id) {
            enqueue(&mut self.ready, id, connection);
        }
    }

    pub(super) fn on_arrival(&mut self, connection: Connection, now: Millis) {
        let listener = &self.shared.listeners[connection.listener as usize];
        let Ok(peer) = connection.peer() else {
            listener.leave();
            return;
        };
        let origin = origin(listener, peer);
        let id = self.slab.insert(connection);
        self.machine.on_accept(id, &origin, now);
        self.absorb_closes();
        self.offer_rest(id, now);
        self.register(id, now);
    }

    pub(super) fn register(&mut self, id: ConnId, now: Millis) {
        let Some(connection) = self.slab.get_mut(id) else {
            return;
        };
        if let Err(error) = connection.register(self.poll.registry(), id) {
            tracing::warn!(%error, "cannot watch a connection");
            self.drop_connection(id, &End::Closed, now);
        }
    }
}

fn origin(listener: &Listening, peer: SocketAddr) -> Origin {
    Origin {
        listener: listener.name.clone(),
        app: listener.app.clone(),
        peer,
        secure: listener.tls.is_some(),
    }
}

/// Whether a failed accept says nothing about the next one.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied
    )
}
