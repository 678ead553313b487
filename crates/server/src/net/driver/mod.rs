//! The loop of one shard: an epoll that owns its sockets, around a [`Machine`].
//!
//! A turn: mail, time, sockets, new connections; then what the machine wants done; then each connection that has output gets it in one write.
//! Events are edge-triggered: what may be readable is remembered, and a connection that had its share waits for the next turn.

mod accept;
mod closing;
mod settle;

use std::{
    collections::VecDeque,
    io,
    mem::take,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use campanile_broker::{
    effects::{Effects, Progress},
    ids::{ConnId, Millis, ShardId},
    outbox::Outbox,
};
use mio::{Events, Interest, Poll, Token};

use super::{
    clock::Clock,
    connection::{Connection, Place, Received, Workspace, id_of},
    figures::{DriverFigures, Figures},
    listener::{AcceptBudget, Listening},
    mailbox::{Letter, Mailbox},
    ports::{Machine, Services},
    slab::Slab,
    tickets::Tickets,
};

/// Events of one poll.
const EVENTS: usize = 1024;
/// Reads of one connection in a turn, then others get theirs.
const READS_PER_TURN: u32 = 4;
/// Least time between two copies of the figures to where others read them: not every short turn pays for one.
const FIGURES_GAP: Duration = Duration::from_micros(100);
/// When the last change of a burst is copied.
const FIGURES_DELAY: Duration = Duration::from_millis(25);
/// How long a stopping driver waits for the store's answers.
const STOP_MS: u64 = 3000;
/// How long a stopping driver waits for clients to close, once all is saved.
const STOP_LINGER_MS: u64 = 500;

const WAKER: Token = Token(usize::MAX);
/// Tokens from here on are listeners; connections never have that slot.
const LISTENERS: usize = u32::MAX as usize - 1024;

/// What drivers of a node share.
#[derive(Debug)]
pub struct Shared {
    /// The clock.
    pub clock: Clock,
    /// All listeners.
    pub listeners: Vec<Listening>,
    /// TLS tickets of all listeners.
    pub tickets: Arc<Tickets>,
    /// How fast to accept.
    pub accept_budget: AcceptBudget,
    /// Most sockets of clients, all listeners together: what the process may open less what it needs itself.
    pub max_sockets: usize,
    /// Mailboxes of all shards, by number.
    pub mailboxes: Vec<Mailbox>,
    /// Figures of all shards, by number.
    pub figures: Vec<Mutex<Figures>>,
    /// What waits for the hub, if the node is a member of a cluster.
    pub hub_waiting: Arc<AtomicUsize>,
}

/// Letters for the hub above which the node stops reading from clients.
const HUB_CONGESTED: usize = 65_536;

impl Shared {
    /// Whether so much waits inside the node that nothing more should come in.
    fn is_congested(&self) -> bool {
        self.mailboxes.iter().any(Mailbox::is_congested)
            || self.hub_waiting.load(Ordering::Relaxed) > HUB_CONGESTED
    }
}

/// A poll with the mailbox that wakes it: made before the drivers, so that they know each other's mailboxes.
pub fn seat() -> io::Result<(Poll, Mailbox)> {
    let poll = Poll::new()?;
    let waker = mio::Waker::new(poll.registry(), WAKER)?;
    Ok((poll, Mailbox::new(waker)))
}

/// See the module.
pub struct Driver<M, S> {
    id: ShardId,
    poll: Poll,
    shared: Arc<Shared>,
    machine: M,
    services: S,
    listeners: Vec<Accepting>,
    slab: Slab,
    space: Workspace,
    letters: Vec<Letter>,
    /// Connections to read.
    ready: Vec<ConnId>,
    /// Connections that the machine has closed since the last flush.
    closing: Vec<ConnId>,
    /// Closing connections by deadline.
    lingering: VecDeque<(Millis, ConnId)>,
    /// Letters of this turn by shard.
    outgoing: Vec<Vec<Letter>>,
    effects: Effects,
    outbox: Outbox,
    figures: DriverFigures,
    figures_at: Instant,
    figures_stale: bool,
    accept_after: Millis,
    accept_warned: Option<Instant>,
    congested: bool,
    unfinished: bool,
    stopping: Option<Stopping>,
}

#[derive(Debug)]
struct Accepting {
    socket: mio::net::TcpListener,
    ready: bool,
}

#[derive(Clone, Copy, Debug)]
struct Stopping {
    deadline: Millis,
    /// Set once all is saved.
    quiet_deadline: Option<Millis>,
}

impl<M: Machine, S: Services> Driver<M, S> {
    /// A driver of shard `id`, in the seat whose mailbox is in `shared`.
    pub fn new(
        id: ShardId,
        poll: Poll,
        shared: Arc<Shared>,
        machine: M,
        services: S,
    ) -> io::Result<Driver<M, S>> {
        let mut listeners = Vec::with_capacity(shared.listeners.len());
        for (index, listening) in shared.listeners.iter().enumerate() {
            let mut socket = listening.socket()?;
            let token = Token(LISTENERS + index);
            poll.registry()
                .register(&mut socket, token, Interest::READABLE)?;
            // Connections may have come before we asked to be told of them.
            listeners.push(Accepting {
                socket,
                ready: true,
            });
        }
        let figures = DriverFigures {
            accepted: vec![0; listeners.len()],
            ..DriverFigures::default()
        };
        Ok(Driver {
            id,
            poll,
            machine,
            services,
            listeners,
            slab: Slab::default(),
            space: Workspace::default(),
            letters: Vec::new(),
            ready: Vec::new(),
            closing: Vec::new(),
            lingering: VecDeque::new(),
            outgoing: shared.mailboxes.iter().map(|_| Vec::new()).collect(),
            effects: Effects::default(),
            outbox: Outbox::default(),
            figures,
            figures_at: Instant::now(),
            figures_stale: true,
            accept_after: Millis(0),
            accept_warned: None,
            congested: false,
            unfinished: true,
            stopping: None,
            shared,
        })
    }

    /// Drives until [`Letter::Stop`] and what it entails is done.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_finished() {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, timeout) {
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
                continue;
            }
            self.turn(&events);
        }
        self.drop_all();
        self.publish_figures();
        Ok(())
    }

    fn turn(&mut self, events: &Events) {
        let began = Instant::now();
        let now = self.shared.clock.at(began);
        self.congested = self.shared.is_congested();
        self.unfinished = false;

        let mut letters = take(&mut self.letters);
        self.shared.mailboxes[self.id.0 as usize].take(&mut letters);
        let idle = letters.is_empty() && events.is_empty() && self.ready.is_empty();
        for letter in letters.drain(..) {
            self.on_letter(letter, now);
            self.flush_if_large(now);
        }
        self.letters = letters;
        if self.machine.next_deadline().is_some_and(|at| at <= now) {
            self.figures_stale = true;
            self.machine.on_tick(now);
            self.absorb_closes();
        }
        self.end_lingering(now);
        for event in events {
            self.on_event(event, now);
        }
        if self.congested {
            self.figures.congested_turns += 1;
        } else {
            self.accept(now, began);
            self.read_all(now);
        }
        self.settle(now);

        if !idle {
            self.figures_stale = true;
        }
        let ended = Instant::now();
        self.figures.turns.record(ended - began);
        if self.figures_stale && ended - self.figures_at >= FIGURES_GAP {
            self.publish_figures();
        }
    }

    /// How long to sleep; `None`: until something happens.
    fn timeout(&mut self) -> Option<Duration> {
        if self.unfinished || (!self.ready.is_empty() && !self.congested) {
            return Some(Duration::ZERO);
        }
        if !self.shared.mailboxes[self.id.0 as usize].fall_asleep() {
            return Some(Duration::ZERO);
        }
        let accepts_wait = self.listeners.iter().any(|listener| listener.ready);
        let stopping = self.stopping.map(|stopping| {
            let quiet = stopping.quiet_deadline.unwrap_or(stopping.deadline);
            quiet.min(stopping.deadline)
        });
        let now = self.shared.clock.now();
        let congested = self.congested.then_some(Millis(now.0 + 1));
        let deadlines = [
            self.machine.next_deadline(),
            self.lingering.front().map(|(deadline, _)| *deadline),
            (accepts_wait && !self.congested).then_some(self.accept_after.max(now)),
            stopping,
            congested,
        ];
        let next = deadlines.into_iter().flatten().min();
        let timeout = next.map(|at| Duration::from_millis(at.since(now)));
        if !self.figures_stale {
            return timeout;
        }
        let figures = FIGURES_DELAY.saturating_sub(self.figures_at.elapsed());
        Some(timeout.map_or(figures, |timeout| timeout.min(figures)))
    }

    fn on_letter(&mut self, letter: Letter, now: Millis) {
        match letter {
            Letter::Mail(mail) => self.machine.on_mail(mail, now),
            Letter::Outcome(ticket, outcome) => self.machine.on_outcome(ticket, outcome, now),
            Letter::Page(ticket, page) => self.machine.on_page(ticket, page, now),
            Letter::Verdict(conn, verdict) => self.machine.on_verdict(conn, verdict, now),
            Letter::Arrival(connection) => self.on_arrival(*connection, now),
            Letter::Stop => self.on_stop(now),
        }
        self.absorb_closes();
    }

    fn on_event(&mut self, event: &mio::event::Event, now: Millis) {
        if event.token() == WAKER {
            return;
        }
        let id = id_of(event.token());
        if event.token().0 >= LISTENERS && id.use_count == 0 {
            if let Some(listener) = self.listeners.get_mut(event.token().0 - LISTENERS) {
                listener.ready = true;
            }
            return;
        }
        let Some(connection) = self.slab.get_mut(id) else {
            return;
        };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.readable = true;
            connection.hung_up |= event.is_read_closed() || event.is_error();
            enqueue(&mut self.ready, id, connection);
        }
        if event.is_writable() && connection.pending_bytes() > 0 {
            self.on_writable(id, now);
        }
    }

    fn on_writable(&mut self, id: ConnId, now: Millis) {
        let connection = self.slab.get_mut(id).expect("the caller has it");
        match connection.flush(&mut self.figures) {
            Ok(drained) => {
                if connection.readable && connection.may_read() {
                    enqueue(&mut self.ready, id, connection);
                }
                if !drained {
                    return;
                }
                if connection.closing {
                    self.closing.push(id);
                } else if !connection.forgotten {
                    self.machine.on_writable(id, now);
                    self.absorb_closes();
                    self.offer_rest(id, now);
                }
            }
            Err(_) => self.on_write_failed(id, now),
        }
    }

    /// Offers the machine what it did not consume before; flushes when it asks for that.
    fn offer_rest(&mut self, id: ConnId, now: Millis) {
        while self.offer_input(id, now) {
            self.settle(now);
        }
    }

    /// Offers the machine once what it did not consume before. `true` if it wants a flush, then more.
    fn offer_input(&mut self, id: ConnId, now: Millis) -> bool {
        let Some(connection) = self.slab.get_mut(id) else {
            return false;
        };
        if !connection.has_input() || !connection.may_read() {
            return false;
        }
        let input = connection.take_input();
        let progress = self.machine.on_bytes(id, &input, now);
        connection.give_back(input, progress.consumed);
        note(connection, progress);
        self.absorb_closes();
        progress.flush
    }

    fn read_all(&mut self, now: Millis) {
        let mut batch = take(&mut self.ready);
        for id in batch.drain(..) {
            self.read(id, now);
            self.flush_if_large(now);
        }
        // Those that had their share were queued again meanwhile.
        batch.append(&mut self.ready);
        self.ready = batch;
    }

    fn read(&mut self, id: ConnId, now: Millis) {
        if let Some(connection) = self.slab.get_mut(id) {
            connection.queued = false;
        }
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.slab.get_mut(id) else {
                return;
            };
            if connection.closing {
                self.closing.push(id);
                return;
            }
            if !connection.readable || !connection.may_read() {
                break;
            }
            match connection.receive(&mut self.space, &mut self.figures) {
                Received::Nothing => self.send_replies(id, now),
                Received::Bytes(place, end) => {
                    // Before the machine can answer what the same bytes brought.
                    self.send_replies(id, now);
                    self.offer(id, place, now);
                    if let Some(end) = end {
                        self.on_end(id, &end, now);
                        return;
                    }
                }
                Received::End(end) => {
                    self.send_replies(id, now);
                    self.on_end(id, &end, now);
                    return;
                }
            }
        }
        let Some(connection) = self.slab.get_mut(id) else {
            return;
        };
        if connection.readable && connection.may_read() {
            enqueue(&mut self.ready, id, connection);
        }
        // A connection that moves or closes needs no events here.
        if !connection.is_registered() && !connection.forgotten {
            self.register(id, now);
        }
    }

    fn offer(&mut self, id: ConnId, place: Place, now: Millis) {
        let connection = self.slab.get_mut(id).expect("the caller has it");
        let bytes = connection.bytes(&self.space, &place);
        let progress = self.machine.on_bytes(id, bytes, now);
        connection.keep(&self.space, place, progress.consumed);
        note(connection, progress);
        self.absorb_closes();
        if progress.flush {
            self.settle(now);
            self.offer_rest(id, now);
        }
    }

    fn send_replies(&mut self, id: ConnId, now: Millis) {
        let Some(connection) = self.slab.get_mut(id) else {
            return;
        };
        let sent = connection.send_replies(&mut self.space, &mut self.figures);
        self.on_sent(id, sent, now);
    }

    fn on_stop(&mut self, now: Millis) {
        if self.stopping.is_some() {
            return;
        }
        for mut listener in self.listeners.drain(..) {
            // Its end is near, whether the poll lets go of it or not.
            let _ = self.poll.registry().deregister(&mut listener.socket);
        }
        self.machine.stop(now);
        self.stopping = Some(Stopping {
            deadline: Millis(now.0 + STOP_MS),
            quiet_deadline: None,
        });
    }

    fn is_finished(&mut self) -> bool {
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        let now = self.shared.clock.now();
        if stopping.quiet_deadline.is_none() && self.machine.pending_requests() == 0 {
            stopping.quiet_deadline = Some(Millis(now.0 + STOP_LINGER_MS));
        }
        if now >= stopping.deadline {
            let requests = self.machine.pending_requests();
            if requests > 0 {
                tracing::warn!(requests, "stopping without answers of the store");
            }
            return true;
        }
        let quiet = stopping.quiet_deadline;
        quiet.is_some_and(|at| now >= at || (self.slab.is_empty() && !self.unfinished))
    }

    fn publish_figures(&mut self) {
        self.figures_at = Instant::now();
        self.figures_stale = false;
        self.figures.sockets_open = self.slab.len() as u64;
        let own = self.id.0 as usize;
        let mut figures = self.shared.figures[own]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        figures.shard = self.machine.stats();
        figures.driver.clone_from(&self.figures);
    }
}

fn enqueue(ready: &mut Vec<ConnId>, id: ConnId, connection: &mut Connection) {
    if !connection.queued {
        connection.queued = true;
        ready.push(id);
    }
}

fn note(connection: &mut Connection, progress: Progress) {
    connection.paused |= progress.paused;
    connection.forgotten |= progress.gone;
}

#[cfg(test)]
mod tests;
